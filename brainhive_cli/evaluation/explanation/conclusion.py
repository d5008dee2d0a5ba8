"""Conclusion of explain: metrics, facts, figures and maps over all subjects."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.artifacts import Heatmap
from brainhive_cli.core.errors import BrainhiveError, DamagedStore
from brainhive_cli.core.facts import CellFacts, ExplanationFacts
from brainhive_cli.core.jobs import Summary
from brainhive_cli.core.measurements import Measurements, Metric, scope
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.signals.space_files import write_maps
from brainhive_cli.data.signals.spaces import Sensors, Voxels, find_channel_rows
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.learned import summarise_tested_pictures
from brainhive_cli.evaluation.explanation.claims import bound_onsets, state_claims
from brainhive_cli.evaluation.explanation.encoding_model import (
    CEILINGS,
    CORRELATION,
    TargetLevels,
)
from brainhive_cli.evaluation.explanation.figures import (
    Figures,
    draw_findings,
    make_summary_table,
)
from brainhive_cli.evaluation.explanation.findings import (
    FIRST_ABOVE_CHANCE,
    Finding,
    Findings,
    correct_findings,
    describe_profiles,
)
from brainhive_cli.evaluation.explanation.job import Job, Reader
from brainhive_cli.evaluation.explanation.profiles import (
    SECTION,
    SENSOR,
    TIME,
    SubjectProfiles,
)
from brainhive_cli.evaluation.explanation.recipe import MODEL_ANALYSES
from brainhive_cli.evaluation.explanation.similarity import RHO, explain_similarity
from brainhive_cli.measurement.units import Items
from brainhive_cli.reports.head_maps import place_sensors
from brainhive_cli.training.alignment.cells import Cell

SIMILARITY = "similarity"
"""Name of the analysis."""
MAX_LISTED_TIMES = 64
"""Times of a course whose metrics are listed; its artifact has all."""
MAPS = "maps"
"""Folder of a run for what was measured of each voxel or sensor."""
Scopes = dict[str, dict[str, Metric]]
"""Metrics by scope and name."""


def list_scopes(results: Findings) -> Scopes:
    """List metrics by scope and name; of a course, at most so many times as `TIMES`,
    and the strongest.
    """
    scopes = Scopes()
    for finding in results:
        # a course of many times would fill the metrics file
        peak = finding.values.argmax()
        count = len(finding.metrics)
        step = -(-count // MAX_LISTED_TIMES) if finding.axis.name == TIME else 1
        controls = {"": finding.metrics, **finding.controls}
        for index, (label, control) in product(range(count), controls.items()):
            if index % step == 0 or index == peak:
                name = scope(finding.name, finding.axis.labels[index], label)
                scopes.setdefault(name, {})[finding.metric] = control[index]
    return scopes


def describe_finding(finding: Finding) -> dict[str, Any]:
    """List positions, windows, p of each, and the first time above chance, as plain
    values.
    """
    # plain values, which JSON holds
    axis = finding.axis
    return {
        "name": finding.name,
        "metric": finding.metric,
        "axis": axis.name,
        "at": list(axis.at),
        "windows_ms": None if axis.spans is None else axis.spans.tolist(),
        "peak": axis.labels[finding.values.argmax()],
        "first_above_chance": finding.onset_description or None,
        "p_corrected": None if finding.p_values is None else finding.p_values.tolist(),
    }


def conclude(
    job: Job,
    folder: RunFolder,
    readers: Sequence[Reader],
    parts: Mapping[tuple[Cell | None, int], SubjectProfiles],
    levels: TargetLevels,
) -> Summary:
    """Describe and draw everything over all subjects, and write maps.

    Args:
        job: The explanation.
        folder: Its run.
        readers: One a subject.
        parts: What was measured of each cell and subject, and of the signals of each
            subject.
        levels: Embeddings of the tested pictures, which similarity compares signals
            with.
    """
    # contexts with and without the model, and parts that could not be measured
    spec = job.recipe
    reader = readers[0]
    align = job.align
    # analyses of signals are stamped as such: no model has a part in them
    context: Any = {"protocol": job.describe_protocol(), "split": spec.split}
    without_model: Any = {**context, "protocol": f"{context['protocol']}, no model"}
    items = reader.items
    missing = {"test against permuted labels": items.problem} if items.problem else {}
    for part in parts.values():
        missing |= part.missing

    # models, the encoding model of signals, and similarity with what a perfect model
    # would reach
    results = list[Finding]()
    if MODEL_ANALYSES.keys() & spec.analyses:
        groups = [
            [parts[cell, subject] for cell in cells]
            for subject, cells in job.subjects.items()
        ]
        seeds = sorted({cell.seed for cell in align.cells})
        results += describe_profiles(groups, items, seeds=seeds, **context)
    encoded = [part for (cell, _), part in parts.items() if cell is None]
    ceilings: dict[str, dict[str, list[float]]] = {}
    if encoded:
        results += describe_profiles(
            [[part] for part in encoded], items, **without_model
        )
        # ceilings are drawn over time, which voxels lack; a mean over other subjects
        # than those of the curve would be none of it
        if len(reader.times_ms) > 1:
            has_all = all(name in part.arrays for name in CEILINGS for part in encoded)
            ceilings[CORRELATION] = {
                name: np.mean(
                    [part.arrays[name].mean(0) for part in encoded], 0
                ).tolist()
                for name in CEILINGS
                if has_all
            }
    if SIMILARITY in spec.analyses:
        try:
            similar, ceilings[RHO] = explain_similarity(readers, levels, spec)
        except DamagedStore:  # a damaged file is no property of the signals
            raise
        except BrainhiveError as error:
            missing[SIMILARITY] = error.in_one_line
        else:
            results += describe_profiles(
                [[part] for part in similar], items, **without_model
            )

    # the encoding model by sensor and time; subjects with other sensors cannot be
    # averaged
    drawn = Figures()
    times = [f"{time:g}" for time in reader.times_ms.round(3)]
    maps = [part.arrays.get("encoding map", np.empty(0)) for part in encoded]  # [E, T]
    if {values.shape for values in maps} == {(len(reader.sensors), len(times))} and len(
        times
    ) > 1:
        drawn.append(
            Heatmap(
                "Encoding by sensor and time",
                np.mean(maps, 0).tolist(),
                reader.sensors,
                times,
                SENSOR,
                TIME,
                "correlation",
                is_diverging=True,
                section=SECTION,
            )
        )
    seen, warnings = summarise_tested_pictures(
        [align.tested_pictures(spec.split)], align.signal_warnings
    )
    facts = {
        "draws": len(reader.labels.permuted_indices),
        "seen_in_training": seen,
        "warnings": warnings,
        "protocol": context["protocol"],
        "ceilings": ceilings,
    }
    signals = [reader.trials for reader in readers]
    if subjects := collect_maps(readers, parts):
        folder.replace(MAPS, lambda path: [write_maps(path, *one) for one in subjects])
    return summarise_findings(
        job, correct_findings(results), signals, items, missing, drawn, facts
    )


def collect_maps(
    readers: Sequence[Reader], parts: Mapping[tuple[Cell | None, int], SubjectProfiles]
) -> list[tuple[str, dict[str, Float64], Sensors | Voxels]]:
    """Collect what was measured of each voxel or sensor, averaged over cells, pictures
    and times.

    Args:
        readers: One a subject.
        parts: As `conclude`.

    Returns:
        The subject's label, maps by name, and their space, of each subject with any.
    """
    collected = []
    for reader in readers:
        trials = reader.trials
        maps = defaultdict[str, list[Float64]](list)
        space = (trials.recorded or trials).space
        for part in (part for (_, one), part in parts.items() if one == trials.subject):
            # of sensors the analyses by sensor, of voxels the arrays
            for name, profile in part.profiles.items():
                if profile.axis.name == SENSOR:
                    key = f"{name.partition(':')[0]} {profile.metric}"
                    maps[key].append(profile.values.mean(1))
            for name, values in part.arrays.items():
                if isinstance(space, Voxels):
                    flat = values.reshape(len(values), -1)
                    maps[name.removesuffix(" map")].append(flat.mean(1))
        if not maps:
            continue

        # sensors that the model does not read have no row, voxels no value
        means = {name: np.mean(values, 0) for name, values in maps.items()}
        if isinstance(space, Sensors) and trials.mapping is None:
            space = space.select(find_channel_rows(space.names, reader.sensors))
        elif isinstance(space, Sensors):
            space = Sensors(reader.sensors)
        elif trials.recorded is not None:
            width = trials.recorded.signal.shape[2]
            for name, values in means.items():
                means[name] = np.full(width, np.nan)
                means[name][trials.rows] = values
        collected.append((f"sub-{trials.subject:02d}", means, space))
    return collected


def summarise_findings(
    job: Job,
    results: Findings,
    signals: Sequence[Trials],
    items: Items,
    missing: dict[str, str],
    drawn: Figures,
    facts: Mapping[str, Any],
    scopes: Scopes | None = None,
) -> Summary:
    """Draw all, warn of what is missing, and put metrics and facts together.

    Args:
        job: The explanation.
        results: All analyses.
        signals: Of each subject.
        items: Those that were tested.
        missing: What could not be measured.
        drawn: Further figures.
        facts: Further facts.
        scopes: Further metrics by scope and name.
    """
    # the reach of filters, and where sensors lie
    results, reason = bound_onsets(results, signals)
    missing |= {FIRST_ABOVE_CHANCE: reason} if reason else {}
    space = (signals[0].recorded or signals[0]).space
    if any(finding.axis.name == SENSOR for finding in results) and not place_sensors(
        space
    ):
        missing["head maps"] = "where the sensors lie is not known"
    for name, reason in missing.items():
        console.warn(f"{name} left out: {reason}")

    # figures, and the table of all analyses
    align, split = job.align, job.recipe.split
    drawn = (
        draw_findings(
            results, space, signals[0].stimulus_marks, facts.get("ceilings", {})
        )
        + drawn
    )
    # when and where signals carry the stimulus, or why nothing was tested
    about = {
        "claims": state_claims(results),
        "untested": "; ".join(missing.values()),
        "profiles": [*map(describe_finding, results)],
        "cells": {
            f"sub-{subject:02d}": CellFacts(subject=subject) for subject in job.subjects
        },
        **{"scope": items.scope, "units": items.kind, "unit_count": items.n_units},
        "stimuli": len(items.names),
        **align.describe(split),
        **facts,
        "caveats": align.caveats(split),
    }
    measurements = Measurements(
        list_scopes(results) | (scopes or {}), missing, ExplanationFacts(**about)
    )
    return Summary(
        measurements, [make_summary_table(results, facts["protocol"]), *drawn]
    )
