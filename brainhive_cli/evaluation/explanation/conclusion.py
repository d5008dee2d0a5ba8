"""Results of explain over all cells and subjects: metrics, artifacts and figures."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np

from brainhive_cli.core import artifacts, console
from brainhive_cli.core.artifacts import Curve, Heatmap, Line, Map
from brainhive_cli.core.errors import BrainhiveError, DamagedStore
from brainhive_cli.core.facts import ExplanationFacts
from brainhive_cli.core.measurements import Measurements, Metric, merge_caveats
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.spaces import Sensors, Voxels
from brainhive_cli.evaluation.explanation.encoding_model import CEILINGS, Levels
from brainhive_cli.evaluation.explanation.findings import (
    FIRST_ABOVE,
    RHO,
    SECTION,
    SIMILARITY,
    UNKNOWN,
    Finding,
    Findings,
    bound_onsets,
    ceiling_scopes,
    claims,
    correct_findings,
    describe_profiles,
    describe_similarity,
    overall,
    state_claims,
    summary_table,
)
from brainhive_cli.evaluation.explanation.job import Job
from brainhive_cli.evaluation.explanation.profiles import REGION, SENSOR, TIME, SubjectProfiles
from brainhive_cli.evaluation.explanation.reader import Reader
from brainhive_cli.evaluation.explanation.recipe import OF_MODEL, OF_SIGNALS, OF_TRIALS, Explanation
from brainhive_cli.evaluation.explanation.sensor_places import draw_head, place_sensors
from brainhive_cli.evaluation.explanation.similarity import explain_similarity
from brainhive_cli.measurement.metric_names import shown
from brainhive_cli.measurement.units import Items
from brainhive_cli.reports.drawings import draw_slices, save_figure
from brainhive_cli.reports.page import DETAILS, FINDING
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.tested_pictures import describe_tested

FIGURES = "figures"
"""Folder of a run with its figures."""
WITHOUT_MODEL = "no model"
"""Part of the protocol of what is measured of signals alone."""


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
    # protocols with and without the model, and parts that could not be measured
    spec, align, protocol, pictures = job.spec, job.align, job.describe_protocol(caveats), readers[0].shared
    without_model = f"{protocol}, {WITHOUT_MODEL}"
    missing = {name: reason for part in parts.values() for name, reason in part.missing.items()}

    # metrics of models, of the encoding model of signals, and of similarity
    results = []
    if spec.analyses_of(OF_MODEL):
        by_model = [[parts[cell, subject] for cell in cells] for subject, cells in job.subjects.items()]
        seeds = sorted({cell.seed for cell in align.cells})
        results += describe_profiles(by_model, pictures, protocol, spec.split, seeds)
    encoded = [part for (cell, _), part in parts.items() if cell is None]
    if encoded:
        groups = [[part] for part in encoded]
        results += describe_profiles(groups, pictures, without_model, spec.split, ())
    similarity = None
    if SIMILARITY in spec.analyses:
        try:
            similarity = explain_similarity(readers, levels, spec)
        except DamagedStore:
            raise
        except BrainhiveError as error:
            missing[SIMILARITY] = error.in_one_line
        else:
            results += describe_similarity(similarity, pictures, without_model, spec.split)

    # p over all that the page claims, and the reach of filters
    results, reason = bound_onsets(correct_findings(results), [reader.trials for reader in readers])
    missing |= {FIRST_ABOVE: reason} if reason else {}

    # what pages show, and figures of the same
    reader, drawn = readers[0], dict[str, Drawn]()
    if similarity is not None:
        # the correlation with each level together, with the ceilings
        lines = [
            _line(finding.name.rpartition(" · ")[2], finding.measured)
            for finding in results
            if finding.metric == RHO
        ]
        comment = "Claims are made by the lower ceiling: the upper one is far above 0 on noise."
        if similarity.halves is not None:
            lines.append(Line("ceiling by halves of repetitions", similarity.halves.tolist()))
            comment = "The ceiling is the root of what two recordings of the subject would correlate by."
        elif np.isfinite(similarity.lower).all():
            lines.append(Line("lower ceiling", similarity.lower.tolist()))
            lines.append(Line("upper ceiling", similarity.upper.tolist()))
        drawn["similarity"] = Curve(
            f"similarity: {MEANINGS['similarity']}",
            similarity.axis.name,
            list(similarity.axis.at),
            lines,
            "Spearman correlation of distances",
            "lines" if similarity.axis.name == TIME else "bars",
            section=SECTION,
            note=comment,
        )

    # positions of sensors on the head, from left to right and from back to front
    space, positions = reader.recorded.space, place_sensors(reader.recorded.space)

    # curves, maps and the encoding model; the stimulus is marked on curves over time
    drawn |= dict(curves(results, positions))
    drawn |= dict(draw_maps(results, positions, space))
    if encoded:
        drawn |= dict(encoding_artifacts(encoded, reader.sensors, reader.times_ms.round(3).tolist()))
    stimulus = reader.trials.stimulus_marks
    for name, artifact in drawn.items():
        if isinstance(artifact, Curve) and artifact.style == "lines":
            drawn[name] = replace(artifact, marks=stimulus | artifact.marks)
    has_sensors = any(finding.axis.name == SENSOR for finding in results)
    if has_sensors and not any(isinstance(artifact, Map) for artifact in drawn.values()):
        missing["head maps"] = "where the sensors lie is not known"
    write_artifacts(folder, spec, results, drawn, missing, f"Explanation: {protocol}, {spec.split}", pictures)

    # metrics by scope; those of one scope are put together
    scopes = overall(results)
    for finding in results:
        for name, metrics in finding.scopes.items():
            scopes[name] = scopes.get(name, {}) | metrics
    if similarity is not None:
        scopes |= ceiling_scopes(similarity, pictures, without_model, spec.split)
    tested = f"{pictures.size} {spec.split} items"
    said = state_claims(results, "what was seen", len(readers), tested, pictures.scope)
    facts = describe_job(job, protocol, caveats, pictures, results, said, len(readers[0].labels.permuted))
    seen, warnings = describe_tested([align.tested_pictures(spec.split)], align.signal_warnings)
    changes: dict[str, Any] = {"seen_in_training": seen, "warnings": warnings}
    if similarity is not None and similarity.halves is not None:
        changes["similarity_ceiling"] = similarity.halves.tolist()
    return Measurements(scopes, missing, facts.model_copy(update=changes))


def write_artifacts(
    folder: RunFolder,
    spec: Explanation,
    results: Findings,
    drawn: Mapping[str, "Drawn"],
    missing: Mapping[str, str],
    title: str,
    items: Items,
) -> None:
    """Warn of what is missing, save figures, and write what pages show: the table, then the claims."""
    for name, reason in missing.items():
        console.warn(f"{name} left out: {reason}")
    for name, artifact in drawn.items():
        for suffix in spec.figures:
            folder.replace(f"{FIGURES}/{name}.{suffix}", partial(save_figure, artifact))
    table = summary_table(results, title + (f"; for {items.scope}" if items.scope else ""))
    artifacts.write(folder, [table, *put_claims_first(drawn, results).values()])


def describe_job(
    job: Job,
    protocol: str,
    caveats: Sequence[str],
    items: Items,
    results: Findings,
    finding: str,
    draws: int,
) -> ExplanationFacts:
    """Give the facts: which run was explained, by which protocol, on which items, and what was found."""
    return ExplanationFacts(
        **job.align.describe(job.spec.split),
        protocol=protocol,
        caveats=merge_caveats(job.align.caveats(job.spec.split), caveats),
        scope=items.scope,
        units=items.kind,
        unit_count=items.count,
        draws=draws,
        finding=finding,
        profiles=[result.note for result in results],
    )


OF_WINDOWS = f"centre of the window, {TIME}"
"""The axis of windows."""
MEANINGS: Mapping[str, str] = {**OF_MODEL, **OF_SIGNALS, **OF_TRIALS}
Drawn = Curve | Heatmap | Map
Drawings = Iterator[tuple[str, Drawn]]
"""Artifacts by the names of their files."""
Places = Mapping[str, tuple[float, float]]
"""Places on a plane by the sensor's name."""


def put_claims_first(drawn: Mapping[str, Drawn], results: Findings) -> dict[str, Drawn]:
    """Put the figures of the claims first, under the heading of the first screen: maps in place of bars."""
    first = {}
    for name in map(_file_name, claims(results)):
        drawn_as = next((full for full in (f"{name}-map", f"{name}-slices", name) if full in drawn), None)
        if drawn_as is not None:
            first[drawn_as] = replace(drawn[drawn_as], section=FINDING)
    return first | dict(drawn) | first


def choose_metrics(results: Findings) -> Findings:
    """Choose the one metric that is drawn of each analysis and axis: the claimed one, or the first."""
    # in the order of the results, and the last that has a name is chosen
    ascending = [*results, *reversed(results), *claims(results)]
    return [*{(finding.name, finding.axis.name): finding for finding in ascending}.values()]


def curves(results: Findings, positions: Places) -> Drawings:
    """Draw one metric of each analysis over its axis, with its controls: the claimed one, or the first.

    Args:
        results: All analyses.
        positions: Of sensors on the head, as far as they are known; such sensors are listed front to back, as
            details of the map.

    Yields:
        The name of the file of each, and the artifact.
    """
    # sensors with positions are listed from front to back
    for finding in choose_metrics(results):
        axis, axis_name = finding.axis, finding.axis.name
        at = [float(time_ms) for time_ms in axis.at] if axis_name == TIME else axis.labels
        is_mapped = axis_name == SENSOR and all(label in positions for label in axis.labels)
        order = list(range(len(at)))
        if is_mapped:
            order.sort(key=lambda row: -positions[axis.labels[row]][1])

        # lines of the metric and its controls
        measured = {shown(finding.metric): finding.measured, **finding.controls}
        lines = [_line(label, [metrics[row] for row in order]) for label, metrics in measured.items()]

        # the curve, with the first time above chance
        title, words = _title(finding), axis_name if axis.spans is None else OF_WINDOWS
        options: Any = {"section": DETAILS if is_mapped else SECTION, "note": _note(finding)}
        first = finding.first_above_chance
        if first is not None and finding.onset != UNKNOWN:
            options["marks"] = {f"{finding.onset}: {FIRST_ABOVE}": float(axis.at[first])}
        ordered: Any = [at[row] for row in order]
        style: Literal["lines", "bars"] = "lines" if axis_name == TIME else "bars"
        yield (
            _file_name(finding),
            Curve(title, words, ordered, lines, shown(finding.metric), style, **options),
        )


def draw_maps(results: Findings, positions: Places, space: Sensors | Voxels | None = None) -> Drawings:
    """Draw analyses by sensor on a head, and by region on slices, where positions are known."""
    for finding in choose_metrics(results):
        axis, title, value = finding.axis, _title(finding), shown(finding.metric)
        values = {name: metric.value for name, metric in zip(axis.labels, finding.measured, strict=True)}
        if axis.name == SENSOR and positions:
            drawn = draw_head(title, positions, values, value)
            yield f"{_file_name(finding)}-map", replace(drawn, section=SECTION, note=_note(finding))
        elif axis.name == REGION and isinstance(space, Voxels) and space.grid is not None:
            # the value of its region in each voxel, of the smallest that it lies in
            voxels = np.full(len(space.grid.places), np.nan)
            regions = {name: space.regions[name] for name in values if name in space.regions}
            for name, mask in sorted(regions.items(), key=lambda region: -int(region[1].sum())):
                voxels[mask] = values[name]
            slices = draw_slices(f"{title}, on slices of the first subject", voxels, space.grid, value)
            yield f"{_file_name(finding)}-slices", replace(slices, section=SECTION)


def encoding_artifacts(
    groups: Sequence[SubjectProfiles], names: Sequence[str], times_ms: Sequence[float]
) -> Drawings:
    """Draw the encoding model's correlation by sensor and time, and over time with its ceilings.

    Args:
        groups: What the encoding model measured of each subject.
        names: Sensors that it predicts; () of voxels and of mixtures of channels.
        times_ms: [T].
    """
    if not all("encoding map" in part.arrays for part in groups) or len(times_ms) < 2:
        return

    # correlation by sensor and time, averaged over subjects
    maps = [part.arrays["encoding map"] for part in groups]  # [E, T] each
    if len({correlations.shape for correlations in maps}) == 1 and len(names) == len(maps[0]):
        title, values = f"encoding: {MEANINGS['encoding']}", np.mean(maps, 0).tolist()
        labels = (list(names), [f"{time:g}" for time in times_ms], "sensor", TIME, "correlation")
        yield "encoding-matrix", Heatmap(title, values, *labels, is_diverging=True, section=SECTION)

    # correlation over time with its ceilings, averaged over sensors and subjects
    if all(name in part.arrays for name in CEILINGS for part in groups):
        title = "encoding: prediction of half of the repetitions, with ceilings"
        note = "The lower ceiling is the correlation of halves, and a perfect model reaches its root; "
        note += "the upper one is above 0 on noise."
        mean = {name: np.mean([part.arrays[name].mean(0) for part in groups], 0) for name in CEILINGS}
        lines = [Line(name, mean[name].tolist()) for name in CEILINGS]
        drawn = Curve(
            title, TIME, list(times_ms), lines, "correlation, mean over sensors", section=SECTION, note=note
        )
        yield "encoding-ceilings", drawn


def _file_name(finding: Finding) -> str:
    """Name the files of an analysis."""
    suffix = "" if finding.axis.name == TIME else f"-{finding.axis.name}"
    return re.sub(r"[^\w-]+", "-", finding.name + suffix)


def _line(name: str, metrics: Sequence[Metric]) -> Line:
    """Draw metrics with the intervals of these subjects, which hold at any number of them."""
    ends = [metric.these_subjects or (metric.low, metric.high) for metric in metrics]
    low, high = ([pair[side] for pair in ends] for side in (0, 1))
    return Line(name, [metric.value for metric in metrics], low, high, metrics[0].chance)


def _title(finding: Finding) -> str:
    analysis, _, level = finding.name.partition(" · ")
    return finding.name if level else f"{finding.name} ({MEANINGS[analysis]})"


def _note(finding: Finding) -> str:
    """Say how the metrics of an analysis were measured; p stands in the table."""
    metric = finding.measured[0]
    intervals = "; intervals over items, for these subjects" if metric.these_subjects else ""
    return f"{metric.protocol}{intervals}"
