"""Conclusion of explain: metrics, facts, figures and maps over all subjects."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.base import BrainhiveError, DamagedStore, Float64, console
from brainhive_cli.core.results import CellFacts, Measurements, Scopes, scope
from brainhive_cli.core.runs import Heatmap, RunFolder, Summary
from brainhive_cli.data.signals import (
    Sensors,
    Trials,
    Voxels,
    average_trials,
    write_maps,
)
from brainhive_cli.evaluation.explanation.claims import bound_onsets, state_claims
from brainhive_cli.evaluation.explanation.encoding_model import (
    CEILINGS,
    CORRELATION,
)
from brainhive_cli.evaluation.explanation.facts import ExplanationFacts
from brainhive_cli.evaluation.explanation.figures import (
    Figures,
    draw_findings,
    draw_voxel_maps,
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
from brainhive_cli.measurement import Items
from brainhive_cli.reports.figures import draw_evoked, place_sensors
from brainhive_cli.training.alignment import Cell

SIMILARITY = "similarity"
"""Name of the analysis."""
MAX_LISTED_TIMES = 64
"""Largest number of times of a course whose metrics are listed, besides its peak. The
figure shows all times.
"""
MAPS = "maps"
"""Folder of a run for the maps of voxels or sensors."""


def conclude(
    job: Job,
    folder: RunFolder,
    readers: Sequence[Reader],
    parts: Mapping[tuple[Cell | None, int], SubjectProfiles],
) -> Summary:
    """Summarise an explanation over all subjects.

    1. Average the profiles of the models, and of the encoding model.
    2. Compare the signals of all subjects with embeddings (similarity).
    3. Write maps of the voxels or sensors into the folder.
    4. Correct all p values together, and draw the figures.

    Args:
        job: Explanation.
        folder: Folder of the run.
        readers: Signals of each subject.
        parts: Profiles by cell and subject. Profiles of signals have None as the cell.
    """
    recipe = job.recipe
    reader = readers[0]
    items = reader.items
    protocol = job.describe_protocol()
    context: Any = {"split": recipe.split, "caveats": job.tests.caveats}
    signal_context = context | {"protocol": f"{protocol}, no model"}
    missing = {}
    excluded: dict[str, str] = {}
    if items.problem:
        missing["test against permuted labels"] = items.problem
    for profiles in parts.values():
        missing |= profiles.missing
        excluded |= profiles.excluded

    # models
    findings = list[Finding]()
    if MODEL_ANALYSES.keys() & recipe.analyses:
        groups = []
        for subject, cells in job.subjects.items():
            groups.append([parts[cell, subject] for cell in cells])
        seeds = sorted({cell.seed for cell in job.align.cells})
        findings += describe_profiles(
            groups, items, seeds=seeds, protocol=protocol, **context
        )

    # encoding model of the signals
    encoding = [profiles for (cell, _), profiles in parts.items() if cell is None]
    ceilings: dict[str, dict[str, list[float]]] = {}
    if encoding:
        groups = [[profiles] for profiles in encoding]
        findings += describe_profiles(groups, items, **signal_context)
        # ceilings are drawn over time, which voxels lack
        if len(reader.times_ms) > 1:
            ceilings[CORRELATION] = _average_ceilings(encoding)

    # similarity of signals and embeddings
    if SIMILARITY in recipe.analyses:
        levels = job.levels[recipe.split]
        try:
            similarity, ceilings[RHO] = explain_similarity(readers, levels, recipe)
        except DamagedStore:
            # this error does not describe the signals
            raise
        except BrainhiveError as error:
            missing[SIMILARITY] = error.in_one_line
        else:
            groups = [[profiles] for profiles in similarity]
            findings += describe_profiles(groups, items, **signal_context)

    maps = collect_maps(readers, parts)
    if maps:

        def write_all_maps(path: Path) -> None:
            for stem, values, space in maps:
                write_maps(path, stem, values, space)

        folder.replace(MAPS, write_all_maps)

    seen_pictures, warnings = job.tests.summarise_seen()
    facts = {
        "draws": len(reader.labels.permuted_indices),
        "seen_in_training": seen_pictures,
        "warnings": warnings,
        "protocol": protocol,
        "ceilings": ceilings,
        "excluded": excluded,
    }
    return summarise_findings(
        job,
        correct_findings(findings),
        [reader.trials for reader in readers],
        items,
        missing,
        (
            _draw_encoding_maps(encoding, reader)
            + draw_voxel_maps(maps, folder.path)
            + _draw_evoked_response(reader, recipe.split)
        ),
        facts,
        folder=folder.path,
    )


def summarise_findings(
    job: Job,
    findings: Findings,
    signals: Sequence[Trials],
    items: Items,
    missing: dict[str, str],
    figures: Figures,
    facts: Mapping[str, Any],
    scopes: Scopes | None = None,
    folder: Path | None = None,
) -> Summary:
    """Collect the metrics, facts, figures and the table of all findings.

    Each analysis in `missing` causes a warning. Further reasons are added to it.
    `figures`, `facts` and `scopes` are results besides the findings. Brain maps need
    the `folder` of the run.
    """
    # reach of the filters, and positions of the sensors
    findings, reason = bound_onsets(findings, signals)
    if reason:
        missing[FIRST_ABOVE_CHANCE] = reason
    space = (signals[0].recorded or signals[0]).space
    has_sensors = any(finding.axis.name == SENSOR for finding in findings)
    if has_sensors and not place_sensors(space):
        missing["head maps"] = "the positions of the sensors are unknown"
    for name, reason in missing.items():
        console.warn(f"{name} left out: {reason}")

    ceilings = facts.get("ceilings", {})
    marks = signals[0].stimulus_marks
    all_figures = draw_findings(findings, space, marks, ceilings, folder) + figures
    excluded = facts.get("excluded", {})
    table = make_summary_table(findings, facts["protocol"], excluded)

    cells = {
        f"sub-{subject:02d}": CellFacts(subject=subject) for subject in job.subjects
    }
    all_facts = ExplanationFacts(
        **job.tests.describe(),
        **facts,
        claims=state_claims(findings),
        untested="; ".join(missing.values()),
        profiles=list(map(describe_finding, findings)),
        cells=cells,
        scope=items.scope,
        units=items.kind,
        unit_count=items.n_units,
        stimuli=len(items.names),
        caveats=job.tests.caveats,
    )
    all_scopes = list_scopes(findings) | (scopes or {})
    return Summary(Measurements(all_scopes, missing, all_facts), [table, *all_figures])


def list_scopes(findings: Findings) -> Scopes:
    """List the metrics of findings and controls, by scope and name of the metric.

    A scope consists of analysis, position and control.

    Of a course over time, at most `MAX_LISTED_TIMES` times and the peak are listed.
    """
    scopes = Scopes()
    for finding in findings:
        peak = finding.values.argmax()
        count = len(finding.metrics)
        step = 1
        if finding.axis.name == TIME:
            step = math.ceil(count / MAX_LISTED_TIMES)
        metrics_of_control = {"": finding.metrics, **finding.controls}
        for index, position in enumerate(finding.axis.position_names):
            if index % step != 0 and index != peak:
                continue
            for control, metrics in metrics_of_control.items():
                name = scope(finding.name, position, control)
                scopes.setdefault(name, {})[finding.metric] = metrics[index]
    return scopes


def describe_finding(finding: Finding) -> dict[str, Any]:
    """Describe the positions and p values of a finding as values for JSON."""
    axis = finding.axis
    p_values = finding.p_values
    return {
        "name": finding.name,
        "metric": finding.metric,
        "axis": axis.name,
        "at": list(axis.at),
        "windows_ms": None if axis.spans is None else axis.spans.tolist(),
        "peak": axis.position_names[finding.values.argmax()],
        "first_above_chance": finding.onset_description or None,
        "p_corrected": None if p_values is None else p_values.tolist(),
    }


def _average_ceilings(encoding: Sequence[SubjectProfiles]) -> dict[str, list[float]]:
    """Average the ceilings of the encoding model over sensors and subjects.

    Returns the ceilings [T] by name. Empty if a subject lacks ceilings, because the
    curve is a mean over all subjects.
    """
    ceilings = {}
    for name in CEILINGS:
        courses = []
        for profiles in encoding:
            if name not in profiles.arrays:
                return {}
            courses.append(profiles.arrays[name].mean(0))
        ceilings[name] = np.mean(courses, 0).tolist()
    return ceilings


def _draw_encoding_maps(encoding: Sequence[SubjectProfiles], reader: Reader) -> Figures:
    """Draw the encoding model by sensor and time, averaged over subjects.

    There is no figure for voxels, or if subjects have different sensors.
    """
    times = [f"{time_ms:g}" for time_ms in reader.times_ms.round(3)]
    shape = (len(reader.sensors), len(times))
    maps = []  # [E, T] of each subject
    for profiles in encoding:
        values = profiles.arrays.get("encoding map", np.empty(0))
        if values.shape != shape:
            return []
        maps.append(values)
    if not maps or len(times) == 1:
        return []
    figure = Heatmap(
        "Encoding by sensor and time",
        np.mean(maps, 0).tolist(),
        rows=reader.sensors,
        columns=times,
        row_axis=SENSOR,
        column_axis=TIME,
        value="correlation",
        is_diverging=True,
        section=SECTION,
    )
    return [figure]


def _draw_evoked_response(reader: Reader, split: str) -> Figures:
    """Draw the response of a subject's sensors to all explained pictures.

    There is no figure for voxels, and for unknown mixtures of sensors.
    """
    if not reader.sensors or len(reader.times_ms) == 1:
        return []
    trials = reader.trials
    figure = draw_evoked(
        average_trials(trials),
        _select_sensors(reader),
        trials,
        f"Evoked response (sub-{trials.subject:02d}, {split})",
    )
    return [replace(figure, section=SECTION)]


def _select_sensors(reader: Reader) -> Sensors | Voxels:
    """Return the sensors of a reader, with their positions if these are known."""
    trials = reader.trials
    space = (trials.recorded or trials).space
    if trials.mapping is not None or not space.has_names:
        return Sensors(reader.sensors)
    return space.select(space.find_rows(reader.sensors))


def collect_maps(
    readers: Sequence[Reader], parts: Mapping[tuple[Cell | None, int], SubjectProfiles]
) -> list[tuple[str, dict[str, Float64], Sensors | Voxels]]:
    """Collect a value of each voxel or sensor, averaged over cells, pictures and times.

    Args:
        readers: Signals of each subject, with a model.
        parts: Profiles by cell and subject. The cell is None for signals alone.

    Returns:
        For each subject with maps: its label, such as `sub-01`, the values by name, and
        the space of the values.
    """
    collected_maps = []
    for reader in readers:
        trials = reader.trials
        space = (trials.recorded or trials).space
        maps = defaultdict[str, list[Float64]](list)
        for (_, subject), profiles in parts.items():
            if subject != trials.subject:
                continue
            for name, profile in profiles.profiles.items():
                if profile.axis.name == SENSOR:
                    analysis = name.partition(":")[0]
                    maps[f"{analysis} {profile.metric}"].append(profile.values.mean(1))
            if not space.has_names:
                for name, values in profiles.arrays.items():
                    flat_values = values.reshape(len(values), -1)
                    maps[name.removesuffix(" map")].append(flat_values.mean(1))
        if not maps:
            continue

        means = {name: np.mean(values, 0) for name, values in maps.items()}
        if space.has_names:
            # sensors that the model does not read have no row
            space = _select_sensors(reader)
        elif trials.recorded is not None:
            # voxels that the model does not read have no value
            n_voxels = trials.recorded.signal.shape[1]
            for name, values in means.items():
                means[name] = np.full(n_voxels, np.nan)
                means[name][trials.rows] = values
        collected_maps.append((f"sub-{trials.subject:02d}", means, space))
    return collected_maps
