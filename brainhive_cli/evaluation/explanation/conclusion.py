"""Results of explain over all cells and subjects: metrics, artifacts and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from brainhive_cli.core import artifacts, console
from brainhive_cli.core.artifacts import Curve, Heatmap, Line, Map
from brainhive_cli.core.errors import BrainhiveError, DamagedStore
from brainhive_cli.core.facts import Cell as CellFacts
from brainhive_cli.core.facts import ExplanationFacts
from brainhive_cli.core.measurements import Measurements, Metric, merge_caveats
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Cell as TableCell
from brainhive_cli.core.tables import Table, p_text
from brainhive_cli.data.spaces import Sensors, Voxels
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.explanation.encoding_model import CEILINGS, CORRELATION, Levels
from brainhive_cli.evaluation.explanation.job import Job
from brainhive_cli.evaluation.explanation.profiles import (
    FIRST_ABOVE,
    REGION,
    SECTION,
    SENSOR,
    TIME,
    Finding,
    Findings,
    Scopes,
    SubjectProfiles,
    choose_claims,
    correct_findings,
    describe_profiles,
    looks_ahead,
)
from brainhive_cli.evaluation.explanation.reader import Reader
from brainhive_cli.evaluation.explanation.recipe import OF_MODEL, OF_SIGNALS, OF_TRIALS
from brainhive_cli.evaluation.explanation.sensor_space import draw_head, place_sensors
from brainhive_cli.evaluation.explanation.similarity import RHO, explain_similarity
from brainhive_cli.measurement.metric_names import shown
from brainhive_cli.measurement.units import Items
from brainhive_cli.reports.drawings import draw_slices
from brainhive_cli.reports.page import DETAILS, FINDING
from brainhive_cli.reports.tables import with_interval
from brainhive_cli.reports.templates import render
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.tested_pictures import describe_tested

MEANINGS: Mapping[str, str] = {**OF_MODEL, **OF_SIGNALS, **OF_TRIALS}
SIMILARITY = "similarity"
"""Name of the analysis."""
Drawn = list[Curve | Heatmap | Map]


def conclude(
    job: Job,
    folder: RunFolder,
    readers: Sequence[Reader],
    parts: Mapping[tuple[Cell | None, int], SubjectProfiles],
    levels: Levels,
    caveats: Sequence[str] = (),
) -> Measurements:
    """Describe everything over all subjects; write the artifacts, and draw them.

    Args:
        job: The explanation.
        folder: Its run.
        readers: One a subject.
        parts: What was measured of each cell and subject, and of the signals of each subject.
        levels: Embeddings of the tested pictures, which similarity compares signals with.
        caveats: Of the order in time, as `Job.find_units`.
    """
    # contexts with and without the model, and parts that could not be measured
    spec, reader = job.spec, readers[0]
    # analyses of signals are stamped as such: no model has a part in them
    context: Any = {"protocol": job.describe_protocol(caveats), "split": spec.split}
    without_model: Any = {**context, "protocol": f"{context['protocol']}, no model"}
    items = reader.pictures
    missing = {name: reason for part in parts.values() for name, reason in part.missing.items()}

    # models, the encoding model of signals, and similarity with what a perfect model would reach
    results = list[Finding]()
    if spec.analyses_of(OF_MODEL):
        groups = [[parts[cell, subject] for cell in cells] for subject, cells in job.subjects.items()]
        seeds = sorted({cell.seed for cell in job.align.cells})
        results += describe_profiles(groups, items, seeds=seeds, **context)
    encoded = [part for (cell, _), part in parts.items() if cell is None]
    ceilings: dict[str, dict[str, list[float]]] = {}
    if encoded:
        results += describe_profiles([[part] for part in encoded], items, **without_model)
        # ceilings are drawn over time, which voxels lack
        if len(reader.times_ms) > 1:
            ceilings[CORRELATION] = average_ceilings(encoded)
    if SIMILARITY in spec.analyses:
        try:
            similar, ceilings[RHO] = explain_similarity(readers, levels, spec)
        except DamagedStore:  # a damaged file is no property of the signals
            raise
        except BrainhiveError as error:
            missing[SIMILARITY] = error.in_one_line
        else:
            results += describe_profiles([[part] for part in similar], items, **without_model)

    # the encoding model by sensor and time
    drawn = draw_encoding(encoded, reader.sensors, reader.times_ms.round(3).tolist())
    seen, warnings = describe_tested([job.align.tested_pictures(spec.split)], job.align.signal_warnings)
    facts = {"draws": len(reader.labels.permuted), "seen_in_training": seen, "warnings": warnings}
    facts |= {"protocol": context["protocol"], "caveats": caveats, "ceilings": ceilings}
    signals = [reader.trials for reader in readers]
    return finish(job, folder, correct_findings(results), signals, items, missing, drawn, facts)


def finish(
    job: Job,
    folder: RunFolder,
    results: Findings,
    signals: Sequence[Trials],
    items: Items,
    missing: dict[str, str],
    drawn: Drawn,
    facts: Mapping[str, Any],
    scopes: Scopes | None = None,
) -> Measurements:
    """Draw all, warn of what is missing, write table and figures, and put metrics and facts together.

    Args:
        job: The explanation.
        folder: Its run.
        results: All analyses.
        signals: Of each subject.
        items: Those that were tested.
        missing: What could not be measured.
        drawn: Further figures.
        facts: Further facts; among the caveats only those of the order in time.
        scopes: Further metrics by scope and name.
    """
    # whether filters look ahead, and where sensors lie
    is_ahead = any(looks_ahead(trials.recorded or trials) for trials in signals)
    results = [replace(finding, looks_ahead=is_ahead) for finding in results]
    space = (signals[0].recorded or signals[0]).space
    if any(finding.axis.name == SENSOR for finding in results) and not place_sensors(space):
        missing["head maps"] = "where the sensors lie is not known"
    for name, reason in missing.items():
        console.warn(f"{name} left out: {reason}")

    # figures, and the table of all analyses
    align, split = job.align, job.spec.split
    drawn = draw_findings(results, space, signals[0].stimulus_marks, facts.get("ceilings", {})) + drawn
    artifacts.write(folder, [summary_table(results, facts["protocol"]), *drawn])

    # metrics by scope; those of one scope are put together
    measured = Scopes()
    for finding in results:
        for name, metrics in finding.scopes.items():
            measured[name] = measured.get(name, {}) | metrics

    # when and where something was found, or why nothing was tested
    about = {
        "claims": [finding.claim for finding in choose_claims(results)],
        "untested": "; ".join(missing.values()),
        "profiles": [finding.profile for finding in results],
        "cells": {f"sub-{subject:02d}": CellFacts(subject=subject) for subject in job.subjects},
        **{"scope": items.scope, "units": items.kind, "unit_count": items.count},
        **align.describe(split),
        **facts,
        "caveats": merge_caveats(align.caveats(split), facts["caveats"]),
    }
    return Measurements(measured | (scopes or {}), missing, ExplanationFacts(**about))


def draw_findings(
    results: Findings,
    space: Sensors | Voxels,
    marks: Mapping[str, Any],
    ceilings: Mapping[str, Mapping[str, Sequence[float]]] = MappingProxyType({}),
) -> Drawn:
    """Draw one metric of each analysis over its axis, the claimed one or the first; the claims come first.

    All levels are in one figure. Sensors with positions are drawn on a head, and regions of voxels with
    positions on slices; their bars are details.

    Args:
        results: All analyses.
        space: Sensors or voxels of the recording.
        marks: Times that figures mark.
        ceilings: By the metric, averaged over sensors, and by name.
    """
    # analyses by axis, and by whether they are of a level
    claims, positions = {id(finding) for finding in choose_claims(results)}, place_sensors(space)
    drawn = Drawn()
    groups: dict[Any, list[Finding]] = {}
    for finding in sorted(results, key=lambda finding: id(finding) not in claims):
        analysis, _, level = finding.name.partition(" · ")
        groups.setdefault((analysis, finding.axis.kind, bool(level)), []).append(finding)

    for (analysis, kind, _), (first, *others) in groups.items():
        # the first metric of each on the head, or on slices
        group = [first, *(finding for finding in others if finding.metric == first.metric)]
        # claims stand next to the first sentence of the page
        section, axis, value = FINDING if id(first) in claims else SECTION, first.axis, shown(first.metric)
        maps = Drawn()
        for finding in group:
            picture = _draw_map(finding, space, positions)
            if picture is not None:
                maps.append(replace(picture, section=section))

        # lines or bars, with the control of a single one
        lines = [_line(finding.name.partition(" · ")[2] or value, finding.measured) for finding in group]
        lines += [_line(*control) for control in first.controls.items()] if len(group) == 1 else []
        # ceilings are means over sensors
        bounds = {} if kind == SENSOR else ceilings.get(first.metric, {})
        lines += [Line(shown(name), values) for name, values in bounds.items()]
        note = render("explanation.txt", of=analysis, metric=first.measured[0], ceilings=bounds)
        options: Any = {"section": DETAILS if maps else section, "note": note, "style": "bars"}
        if kind == "time":
            options |= {"style": "lines", "marks": dict(marks)}
            onset = first.first_above_chance
            if len(group) == 1 and onset is not None:
                # several levels in one figure have no common onset
                options["marks"][f"{first.onset}: {FIRST_ABOVE}"] = axis.at[onset]

        # a window may begin before an effect that it shows
        words = axis.name if axis.spans is None else f"centre of the window, {axis.name}"
        drawn += [*maps, Curve(_title(analysis), words, axis.at, lines, value, **options)]
    return drawn


def _draw_map(
    finding: Finding, space: Sensors | Voxels, positions: Mapping[str, tuple[float, float]]
) -> Map | Heatmap | None:
    """Draw the values of sensors on the head, or those of regions on slices; None where neither is known."""
    # sensors without positions, and regions without a grid, have bars alone
    values = dict(zip(finding.axis.labels, finding.values.tolist(), strict=True))
    title, value = _title(finding.name), shown(finding.metric)
    if finding.axis.name == SENSOR and positions:
        return draw_head(title, positions, values, value)
    if finding.axis.name != REGION or not isinstance(space, Voxels) or space.grid is None:
        return None

    # the value of its region in each voxel, of the smallest that it lies in
    voxels = np.full(len(space.grid.indices), np.nan)
    regions = {name: space.regions[name] for name in values if name in space.regions}
    for name, mask in sorted(regions.items(), key=lambda region: -int(region[1].sum())):
        voxels[mask] = values[name]
    return draw_slices(title, voxels, space.grid, value)


def _line(name: str, metrics: Sequence[Metric]) -> Line:
    """Draw metrics with their intervals for these subjects, which hold at any number of them."""
    ends = [metric.these_subjects or (metric.low, metric.high) for metric in metrics]
    low, high = zip(*ends, strict=True)
    return Line(name, [metric.value for metric in metrics], low, high, metrics[0].chance)


def summary_table(results: Findings, protocol: str) -> Table:
    """Lay out where each analysis is strongest."""
    rows = []
    for finding in results:
        # p of the strongest position, the first time above chance, the value there and its control
        peak, control = finding.peak, next(iter(finding.controls.values()), None)
        p = None if finding.corrected is None else float(finding.corrected[peak])
        where = finding.axis.where(peak), TableCell(p_text(p), value=p), finding.onset or None
        value = with_interval(finding.measured[peak]), None if control is None else control[peak].value
        rows.append((finding.name, shown(finding.metric), *where, *value))
    columns = ("analysis", "metric", "strongest", "p", FIRST_ABOVE, "value, 95 % CI", "control")
    note = render("explanation.txt", of="table", protocol=protocol)
    return Table("Where each analysis is strongest", columns, rows, section=SECTION, note=note)


def average_ceilings(groups: Sequence[SubjectProfiles]) -> dict[str, list[float]]:
    """Average the encoding model's ceilings [E, T] over sensors and subjects, if all have them."""
    # a mean over other subjects than those of the curve would be no ceiling of it
    if not groups or any(name not in part.arrays for name in CEILINGS for part in groups):
        return {}
    return {name: np.mean([part.arrays[name].mean(0) for part in groups], 0).tolist() for name in CEILINGS}


def draw_encoding(
    groups: Sequence[SubjectProfiles], names: Sequence[str], times_ms: Sequence[float]
) -> Drawn:
    """Draw the encoding model's correlation by sensor and time, averaged over subjects with the same sensors.

    Args:
        groups: What the encoding model measured of each subject.
        names: Sensors that it predicts; () of voxels and of mixtures of channels.
        times_ms: [T].
    """
    # subjects with other sensors cannot be averaged sensor by sensor
    maps = [part.arrays.get("encoding map", np.empty(0)) for part in groups]  # [E, T]
    if {values.shape for values in maps} != {(len(names), len(times_ms))} or len(times_ms) < 2:
        return []
    times = [f"{time:g}" for time in times_ms]
    return [
        Heatmap(
            "Encoding by sensor and time",
            np.mean(maps, 0).tolist(),
            names,
            times,
            SENSOR,
            TIME,
            value="correlation",
            is_diverging=True,
            section=SECTION,
        )
    ]


def _title(name: str) -> str:
    # a level is named by its encoder, an analysis by its description
    analysis, _, level = name.partition(" · ")
    return f"{analysis.capitalize()}: {level or MEANINGS[analysis]}"
