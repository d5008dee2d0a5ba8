"""What a run of explain shows of all cells and subjects: metrics, artifacts and figures."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from brainhive_cli.core import artifacts, console, home
from brainhive_cli.core.artifacts import Curve, Heatmap, Line, Map, Point
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Measurements, Metric, scope
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.set_up import SET_UP
from brainhive_cli.data.stores.recordings import Sensors
from brainhive_cli.evaluation.explanation.encoding_model import names_of
from brainhive_cli.evaluation.explanation.findings import (
    FIRST_ABOVE,
    RHO,
    SECTION,
    SIMILARITY,
    Finding,
    findings,
    overall,
    similarity_findings,
    summary_table,
)
from brainhive_cli.evaluation.explanation.job import Job
from brainhive_cli.evaluation.explanation.occlusion import SENSOR, TIME
from brainhive_cli.evaluation.explanation.profiles import SubjectProfiles
from brainhive_cli.evaluation.explanation.reader import Reader
from brainhive_cli.evaluation.explanation.recipe import OF_MODEL, OF_SIGNALS
from brainhive_cli.evaluation.explanation.similarity import Course, explain_similarity
from brainhive_cli.measurement.metric_names import shown
from brainhive_cli.measurement.units import Items
from brainhive_cli.reports.paper_figures import artifact_figure, flattened, known_places
from brainhive_cli.training.alignment.learned import describe_tested
from brainhive_cli.training.alignment.recipe import Cell

FIGURES = "figures"
"""The folder of the run that they lie in."""
WITHOUT_MODEL = "no model"


def conclude(job: Job, folder: RunFolder, device: torch.device) -> Measurements:
    """Describe everything over all subjects; write the artifacts, and draw them.

    Args:
        job: The explanation.
        folder: Its run, with all parts.
        device: Where models are loaded.
    """
    readers = [job.reader(cells[0], subject, device) for subject, cells in job.subjects.items()]

    def load(cell: Cell | None, subject: int) -> SubjectProfiles:
        return SubjectProfiles.load(folder.path / job.part(cell, subject))

    # what was measured of each subject: by every cell's model, and without a model
    subjects = job.subjects if job.analyses_of(OF_MODEL) else {}
    by_model = [[load(cell, subject) for cell in cells] for subject, cells in subjects.items()]
    encoded = [load(None, subject) for subject in job.subjects] if "encoding" in job.spec.analyses else []
    parts = [part for cells in [*by_model, encoded] for part in cells]
    missing = {name: reason for part in parts for name, reason in part.missing.items()}
    without_model, split = f"{job.protocol}, {WITHOUT_MODEL}", job.spec.split
    pictures, results = readers[0].shared, []
    if by_model:
        seeds = sorted({cell.seed for cell in job.align.cells})
        results += findings(by_model, pictures, job.protocol, split, seeds)
    if encoded:
        results += findings([[part] for part in encoded], pictures, without_model, split, ())
    course = _similarity(job, readers, missing)
    if course is not None:
        results += similarity_findings(course, without_model, split)
    recording = readers[0].selection.recording
    sensors = recording.space if isinstance(recording.space, Sensors) else None
    times_ms = readers[0].times_ms.round(3).tolist()
    shown = dict(all_artifacts(results, sensors, encoded, names_of(readers[0])[0], times_ms, course))
    has_map = any(isinstance(each, artifacts.Map) for each in shown.values())
    if sensors is not None and not has_map and any(each.axis == "sensor" for each in results):
        missing["head maps"] = "where the sensors lie is not known; pip install 'brainhive[raw]' for EEG"
    for name, reason in missing.items():
        console.warn(f"{name} left out: {reason}")
    table = summary_table(results, f"Explanation: {job.protocol}, {job.spec.split}")
    for name, artifact in shown.items() if job.spec.figures else ():
        figure = artifact_figure(artifact)
        for suffix in job.spec.figures:
            folder.replace(f"{FIGURES}/{name}.{suffix}", figure.savefig)
    artifacts.write(folder, [table, *shown.values()])
    scopes = overall(results) | _scopes(results, course, without_model, split)
    return Measurements(scopes, missing, _notes(job, results, course, pictures))


def _similarity(job: Job, readers: Sequence[Reader], missing: dict[str, str]) -> Course | None:
    if SIMILARITY not in job.spec.analyses:
        return None
    try:
        return explain_similarity(readers, job.levels(job.spec.split), job.spec)
    except BrainhiveError as error:
        missing[SIMILARITY] = error.in_one_line
        return None


def _scopes(
    results: Sequence[Finding], course: Course | None, protocol: str, split: str
) -> dict[str, dict[str, Metric]]:
    """Give all metrics by scope; several of one scope are put together."""
    scopes: dict[str, dict[str, Metric]] = {}
    for each in results:
        for name, metrics in each.scopes.items():
            scopes.setdefault(name, {}).update(metrics)
    if course is None:
        return scopes
    for place, lower, upper in zip(course.at, course.found.lower, course.found.upper, strict=True):
        ends = {"ceiling_lower": lower, "ceiling_upper": upper}
        how = (course.pictures.size, None, None, None, None, (), protocol, split, "none")
        metrics = {
            name: Metric(name, float(value), *how) for name, value in ends.items() if np.isfinite(value)
        }
        if metrics:
            label = f"{place:g} ms" if isinstance(place, float) else place
            scopes[scope(SIMILARITY, label)] = metrics
    return scopes


def _notes(job: Job, results: Sequence[Finding], course: Course | None, pictures: Items) -> dict[str, Any]:
    notes: dict[str, Any] = {
        "run": home.portable(str(job.align.folder.path)),
        "runs": [job.align.name],
        "dataset": job.align.dataset.name,
        "mode": job.align.mode,
        "protocol": job.protocol,
        "caveats": job.align.caveats(job.spec.split),
        **describe_tested([job.align.tested_pictures(job.spec.split)]),
        "draws": job.spec.draws,
        SET_UP: job.align.set_up(job.spec.split),
        "units": pictures.kind,
        "unit_count": pictures.count,
        "profiles": [each.note for each in results],
    }
    if course is not None and course.halves is not None:
        notes["similarity of halves"] = course.halves.tolist()
    return notes


OF_WINDOWS = f"centre of the window, {TIME}"
"""The axis of windows."""
MEANINGS = {**OF_MODEL, **OF_SIGNALS}
Shown = Curve | Heatmap | Map


Named = tuple[str, Shown]
"""An artifact, and what its file is called."""


def all_artifacts(
    results: Sequence[Finding],
    sensors: Sensors | None,
    encoded: Sequence[SubjectProfiles],
    names: Sequence[str],
    times_ms: Sequence[float],
    course: Course | None,
) -> Iterator[Named]:
    """Draw everything, the first what most readers look for.

    Args:
        results: All analyses.
        sensors: Those of the recordings; None of voxels.
        encoded: What the encoding model found of each subject; none if it was not fitted.
        names: Sensors that it predicts; () of voxels and of mixtures of channels.
        times_ms: [T].
        course: Similarity, if it was measured.
    """
    if course is not None:
        yield "similarity", similarity_curve(course, results)
    yield from curves(results)
    yield from head_maps(results, sensors)
    if encoded:
        yield from encoding_artifacts(encoded, names, times_ms)


def curves(results: Sequence[Finding]) -> Iterator[Named]:
    """Draw each analysis over its places, with its controls; several metrics of one together."""
    together: dict[tuple[str, str], list[Finding]] = {}
    for each in results:
        together.setdefault((each.name, each.axis), []).append(each)
    for (name, axis), several in together.items():
        lines = [_line(each.metric, each.measured) for each in several]
        for each in several:
            of = f" ({each.metric})" if len(several) > 1 else ""
            lines += [_line(f"{control}{of}", metrics) for control, metrics in each.controls.items()]
        first, is_time = several[0], axis == TIME
        yield (
            _file_name(name, axis),
            Curve(
                title=_title(first),
                axis=axis if first.spans is None else OF_WINDOWS,
                at=[float(place) for place in first.at] if is_time else first.labels,
                lines=lines,
                value=", ".join(each.metric for each in several),
                style="lines" if is_time else "bars",
                marks=_marks(several),
                section=SECTION,
                note=_note(several),
            ),
        )


def head_maps(results: Sequence[Finding], sensors: Sensors | None) -> Iterator[Named]:
    """Draw analyses by sensor on a head, where places of sensors are known."""
    by_sensor = [each for each in results if each.axis == SENSOR]
    if sensors is None or not by_sensor or (known := known_places(sensors)) is None:
        return
    rows, places = known
    flat = dict(zip([sensors.names[row] for row in rows], flattened(places), strict=True))
    for each in by_sensor:
        values = {str(name): metric.value for name, metric in zip(each.at, each.measured, strict=True)}
        points = [
            Point(float(flat[name][0]), float(flat[name][1]), name, value=value)
            for name, value in values.items()
            if name in flat
        ]
        yield f"{_file_name(each.name, each.axis)}-map", Map(
            f"{_title(each)}: {each.metric}", points, "head", each.metric, True, section=SECTION,
            note=_note([each]),
        )  # fmt: skip


def encoding_artifacts(
    groups: Sequence[SubjectProfiles], names: Sequence[str], times_ms: Sequence[float]
) -> Iterator[Named]:
    """Draw the encoding model's correlation by sensor and time, and over time with its ceilings."""
    if not all("encoding map" in each.arrays for each in groups) or len(times_ms) < 2:
        return
    shapes = {each.arrays["encoding map"].shape for each in groups}
    mean = {name: np.mean([each.arrays[name] for each in groups], axis=0) for name in groups[0].arrays}
    if len(shapes) == 1 and len(names) == len(mean["encoding map"]):
        yield (
            "encoding-matrix",
            Heatmap(
                f"encoding: {MEANINGS['encoding']}",
                mean["encoding map"].tolist(),
                list(names),
                [f"{time:g}" for time in times_ms],
                "sensor",
                TIME,
                "r",
                is_diverging=True,
                section=SECTION,
            ),
        )
    ceilings = ("encoding of a half", "encoding lower ceiling", "encoding upper ceiling")
    if all(name in each.arrays for name in ceilings for each in groups):
        lines = [Line(name, mean[name].mean(0).tolist()) for name in ceilings]
        yield (
            "encoding-ceilings",
            Curve(
                "encoding: prediction of half of the repetitions, with ceilings",
                TIME,
                list(times_ms),
                lines,
                "r, mean over sensors",
                section=SECTION,
                note="The lower ceiling is the correlation of halves; the upper one is above 0 on noise.",
            ),
        )


def similarity_curve(course: Course, results: Sequence[Finding]) -> Curve:
    """Draw the correlation with each level together, with the ceilings."""
    own = [each for each in results if each.metric == RHO]
    lines = [_line(each.name.rpartition(" · ")[2], each.measured) for each in own]
    if course.halves is not None:
        lines.append(Line("halves of repetitions", course.halves.tolist()))
    elif np.isfinite(course.found.lower).all():
        lines.append(Line("lower ceiling", course.found.lower.tolist()))
        lines.append(Line("upper ceiling", course.found.upper.tolist()))
    at = list(course.at)
    return Curve(
        f"similarity: {MEANINGS['similarity']}",
        course.axis,
        at if course.axis == TIME else list(map(str, at)),
        lines,
        "Spearman correlation of distances",
        "lines" if course.axis == TIME else "bars",
        section=SECTION,
        note="Claims are made by the lower ceiling: the upper one is far above 0 on noise.",
    )


def _file_name(analysis: str, axis: str) -> str:
    """Name the files of an analysis."""
    place = "" if axis == TIME else f"-{axis}"
    return re.sub(r"[^\w-]+", "-", f"{analysis}{place}")


def _line(name: str, metrics: Sequence[Metric]) -> Line:
    """Draw metrics with the intervals of these subjects: those of people in general are wide for a few."""
    ends = [each.these_subjects or (each.low, each.high) for each in metrics]
    low, high = ([pair[side] for pair in ends] for side in (0, 1))
    return Line(name, [each.value for each in metrics], low, high, metrics[0].chance)


def _title(finding: Finding) -> str:
    analysis, _, level = finding.name.partition(" · ")
    meanings: Mapping[str, str] = MEANINGS
    return f"{finding.name} ({meanings[analysis]})" if not level else finding.name


def _marks(several: Sequence[Finding]) -> dict[str, float]:
    """Mark the first place that is above chance by any of the metrics."""
    firsts = [(each.first_above_chance, each) for each in several]
    above = [(place, each) for place, each in firsts if place is not None]
    if not above:
        return {}
    place, earliest = min(above, key=lambda pair: pair[0])
    by = f" ({shown(earliest.metric)})" if len(several) > 1 else ""
    return {f"{earliest.where(place)}: {FIRST_ABOVE}{by}": float(earliest.at[place])}


def _note(several: Sequence[Finding]) -> str:
    """Say how the metrics of one analysis were measured, and p of each, as the table does."""
    words = [several[0].measured[0].protocol]
    if several[0].measured[0].these_subjects:
        words.append("intervals over items, for these subjects")
    p_values = [
        f"{shown(each.metric)} {each.p_at_peak} ({each.where(each.peak)})"
        for each in several
        if each.corrected is not None
    ]
    if p_values:
        words.append(f"p of the strongest place, corrected for all: {', '.join(p_values)}")
    return "; ".join(words)
