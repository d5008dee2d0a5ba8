"""What explain shows, as typed artifacts: curves, head maps, matrices."""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from brainhive_cli.core.artifacts import Curve, Heatmap, Line, Map, Point
from brainhive_cli.core.measurements import Metric
from brainhive_cli.data.stores.recordings import Sensors
from brainhive_cli.evaluation.explanation.findings import FIRST_ABOVE, RHO, Finding
from brainhive_cli.evaluation.explanation.found import Found
from brainhive_cli.evaluation.explanation.occlusion import SENSOR, TIME
from brainhive_cli.evaluation.explanation.recipe import OF_MODEL, OF_SIGNALS
from brainhive_cli.evaluation.explanation.signal_profiles import Course
from brainhive_cli.measurement.metric_names import shown
from brainhive_cli.reports.head_map import flattened, known_places

SECTION = "Explanation"
OF_WINDOWS = f"centre of the window, {TIME}"
"""The axis of windows."""
MEANINGS = {**OF_MODEL, **OF_SIGNALS}
Shown = Curve | Heatmap | Map


Named = tuple[str, Shown]
"""An artifact, and what its file is called."""


def all_artifacts(
    found: Sequence[Finding],
    sensors: Sensors | None,
    encoded: Sequence[Found],
    names: Sequence[str],
    times_ms: Sequence[float],
    course: Course | None,
) -> Iterator[Named]:
    """Draw everything, the first what most readers look for.

    Args:
        found: All analyses.
        sensors: Those of the recordings; None of voxels.
        encoded: What the encoding model found of each subject; none if it was not fitted.
        names: Sensors that it predicts; () of voxels and of mixtures of channels.
        times_ms: [T].
        course: Similarity, if it was measured.
    """
    if course is not None:
        yield "similarity", similarity_curve(course, found)
    yield from curves(found)
    yield from head_maps(found, sensors)
    if encoded:
        yield from encoding_artifacts(encoded, names, times_ms)


def curves(found: Sequence[Finding]) -> Iterator[Named]:
    """Draw each analysis over its places, with its controls; several metrics of one together."""
    together: dict[tuple[str, str], list[Finding]] = {}
    for each in found:
        together.setdefault((each.name, each.axis), []).append(each)
    for (name, axis), several in together.items():
        lines = [_line(each.metric, each.measured) for each in several]
        for each in several:
            of = f" ({each.metric})" if len(several) > 1 else ""
            lines += [_line(f"{control}{of}", metrics) for control, metrics in each.controls.items()]
        first, is_time = several[0], axis == TIME
        yield (
            _name(name, axis),
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


def head_maps(found: Sequence[Finding], sensors: Sensors | None) -> Iterator[Named]:
    """Draw analyses by sensor on a head, where places of sensors are known."""
    by_sensor = [each for each in found if each.axis == SENSOR]
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
        yield f"{_name(each.name, each.axis)}-map", Map(
            f"{_title(each)}: {each.metric}", points, "head", each.metric, True, section=SECTION,
            note=_note([each]),
        )  # fmt: skip


def encoding_artifacts(
    groups: Sequence[Found], names: Sequence[str], times_ms: Sequence[float]
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


def similarity_curve(course: Course, found: Sequence[Finding]) -> Curve:
    """Draw the correlation with each level together, with the ceilings."""
    own = [each for each in found if each.metric == RHO]
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


def _name(analysis: str, axis: str) -> str:
    """Name the files of an analysis."""
    place = "" if axis == TIME else f"-{axis}"
    return re.sub(r"[^\w-]+", "-", f"{analysis}{place}")


def _line(name: str, metrics: Sequence[Metric]) -> Line:
    """Draw metrics with the intervals of these subjects: those of people in general are wide for a few."""
    ends = [each.these_subjects or (each.low, each.high) for each in metrics]
    low, high = ([pair[side] for pair in ends] for side in (0, 1))
    return Line(name, [each.value for each in metrics], low, high, metrics[0].chance)


def _title(found: Finding) -> str:
    analysis, _, level = found.name.partition(" · ")
    meanings: Mapping[str, str] = MEANINGS
    return f"{found.name} ({meanings[analysis]})" if not level else found.name


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
