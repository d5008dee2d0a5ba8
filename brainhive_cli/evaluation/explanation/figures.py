"""Figures of explain, and its table of the strongest position of each analysis."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from brainhive_cli.core.artifacts import Curve, CurveLine, Heatmap, Topomap
from brainhive_cli.core.measurements import Metric, metric_title
from brainhive_cli.core.tables import Table, TableCell, format_p
from brainhive_cli.data.signals.spaces import Sensors, Voxels
from brainhive_cli.evaluation.explanation.claims import choose_claimed_findings
from brainhive_cli.evaluation.explanation.findings import (
    FIRST_ABOVE_CHANCE,
    Finding,
    Findings,
)
from brainhive_cli.evaluation.explanation.profiles import (
    REGION,
    SECTION,
    SENSOR,
    TIME,
)
from brainhive_cli.evaluation.explanation.recipe import (
    MODEL_ANALYSES,
    SIGNAL_ANALYSES,
    TRIAL_ANALYSES,
)
from brainhive_cli.reports.drawings import draw_slices
from brainhive_cli.reports.head_maps import draw_head, place_sensors
from brainhive_cli.reports.page import DETAILS, FINDING
from brainhive_cli.reports.tables import make_metric_cell, render

MEANINGS: Mapping[str, str] = {**MODEL_ANALYSES, **SIGNAL_ANALYSES, **TRIAL_ANALYSES}
Figures = list[Curve | Heatmap | Topomap]


def draw_findings(
    results: Findings,
    space: Sensors | Voxels,
    marks: Mapping[str, Any],
    ceilings: Mapping[str, Mapping[str, Sequence[float]]],
) -> Figures:
    """Draw one metric of each analysis over its axis, the claimed one or the first; the
    claims come first.

    All levels are in one figure. Sensors with positions are drawn on a head, and
    regions of voxels with positions on slices; their bars are details.

    Args:
        results: All analyses.
        space: Sensors or voxels of the recording.
        marks: Times that figures mark.
        ceilings: Noise ceilings, averaged over sensors, by metric and name.
    """
    # analyses by axis, and by whether they are of a level
    claims = {id(finding) for finding in choose_claimed_findings(results)}
    positions = place_sensors(space)
    drawn = Figures()
    groups = defaultdict[Any, list[Finding]](list)
    for finding in sorted(results, key=lambda finding: id(finding) not in claims):
        analysis, _, level = finding.name.partition(" · ")
        groups[analysis, finding.axis.name, bool(level)].append(finding)

    for (analysis, kind, _), (first, *rest) in groups.items():
        # the first metric of each on the head, or on slices
        group = [
            first,
            *(finding for finding in rest if finding.metric == first.metric),
        ]
        # claims stand next to the first sentence of the page
        section = FINDING if id(first) in claims else SECTION
        axis = first.axis
        value = metric_title(first.metric)
        maps = Figures()
        for finding in group:
            picture = _draw_map(finding, space, positions)
            if picture is not None:
                maps.append(replace(picture, section=section))

        # lines or bars, with the control of a single one
        lines = [
            _line(finding.name.partition(" · ")[2] or value, finding.metrics)
            for finding in group
        ]
        lines += (
            [_line(*control) for control in first.controls.items()]
            if len(group) == 1
            else []
        )
        # ceilings are means over sensors
        bounds = {} if kind == SENSOR else ceilings.get(first.metric, {})
        lines += [
            CurveLine(metric_title(name), values) for name, values in bounds.items()
        ]
        note = render(
            "explanation.txt",
            analysis=analysis,
            metric=first.metrics[0],
            ceilings=bounds,
        )
        options: Any = {
            "section": DETAILS if maps else section,
            "note": note,
            "style": "bars",
        }
        if kind == TIME:
            options |= {"style": "lines", "marks": dict(marks)}
            onset = first.first_above_chance
            if len(group) == 1 and onset is not None:
                # several levels in one figure have no common onset
                options["marks"][f"{first.onset_description}: {FIRST_ABOVE_CHANCE}"] = (
                    axis.at[onset]
                )

        # a window may begin before an effect that it shows
        words = (
            axis.name if axis.spans is None else f"centre of the window, {axis.name}"
        )
        drawn += [
            *maps,
            Curve(_title(analysis), words, axis.at, lines, value, **options),
        ]
    return drawn


def _draw_map(
    finding: Finding,
    space: Sensors | Voxels,
    positions: Mapping[str, tuple[float, float]],
) -> Topomap | Heatmap | None:
    """Draw the values of sensors on the head, or those of regions on slices; None if
    their positions are not known.
    """
    # sensors without positions, and regions without a grid, have bars alone
    values = dict(zip(finding.axis.labels, finding.values.tolist(), strict=True))
    title = _title(finding.name)
    value = metric_title(finding.metric)
    if finding.axis.name == SENSOR and positions:
        return draw_head(title, positions, values, value)
    if (
        finding.axis.name != REGION
        or not isinstance(space, Voxels)
        or space.grid is None
    ):
        return None

    # the value of its region in each voxel, of the smallest that it lies in
    voxels = np.full(len(space.grid.indices), np.nan)
    regions = {name: space.regions[name] for name in values if name in space.regions}
    for name, mask in sorted(regions.items(), key=lambda region: -int(region[1].sum())):
        voxels[mask] = values[name]
    return draw_slices(title, voxels, space.grid, value)


def _line(name: str, metrics: Sequence[Metric]) -> CurveLine:
    """Make a line of metrics, with intervals for these subjects, which hold at any
    number of subjects.
    """
    ends = [metric.these_subjects or (metric.low, metric.high) for metric in metrics]
    low, high = zip(*ends, strict=True)
    return CurveLine(
        name, [metric.value for metric in metrics], low, high, metrics[0].chance
    )


def make_summary_table(results: Findings, protocol: str) -> Table:
    """Lay out where each analysis is strongest."""
    rows = []
    for finding in results:
        # p of the strongest position, the value there and its control
        peak = int(finding.values.argmax())
        control = next(iter(finding.controls.values()), None)
        p = None if finding.p_values is None else float(finding.p_values[peak])
        rows.append(
            (
                finding.name,
                metric_title(finding.metric),
                finding.axis.describe_position(peak),
                TableCell(format_p(p), value=p),
                finding.onset_description or None,
                make_metric_cell(finding.metrics[peak]),
                None if control is None else control[peak].value,
            )
        )
    columns = (
        "analysis",
        "metric",
        "strongest",
        "p",
        FIRST_ABOVE_CHANCE,
        "value, 95 % CI",
        "control",
    )
    note = render("explanation.txt", analysis="table", protocol=protocol)
    return Table(
        "Where each analysis is strongest", columns, rows, section=SECTION, note=note
    )


def _title(name: str) -> str:
    # a level is named by its encoder, an analysis by its description
    analysis, _, level = name.partition(" · ")
    return f"{analysis.capitalize()}: {level or MEANINGS[analysis]}"
