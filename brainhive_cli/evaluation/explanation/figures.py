"""Figures and table of explain."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from brainhive_cli.core.base import Float64, Table, TableCell, format_p
from brainhive_cli.core.results import SIGNIFICANCE_LEVEL, Metric, metric_title
from brainhive_cli.core.runs import BrainMap, Curve, CurveLine, Evoked, Heatmap, Topomap
from brainhive_cli.data.signals import Sensors, Voxels
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
from brainhive_cli.reports.figures import draw_head, place_sensors, write_brain_map
from brainhive_cli.reports.pages.page import DETAILS, FINDING
from brainhive_cli.reports.tables import make_metric_cell
from brainhive_cli.reports.templates import render

Figures = list[Curve | Heatmap | Topomap | Evoked | BrainMap]


def draw_findings(
    findings: Findings,
    space: Sensors | Voxels,
    marks: Mapping[str, Any],
    ceilings: Mapping[str, Mapping[str, Sequence[float]]],
    folder: Path | None = None,
) -> Figures:
    """Draw the first metric of each analysis along its axis, claimed findings first.

    The findings of single encoders share a figure. Sensors with positions are also
    drawn on a head, and regions of voxels on slices.

    Args:
        findings: Findings of all analyses.
        space: Sensors or voxels of the recording.
        marks: Marked times by name.
        ceilings: Noise ceilings, averaged over sensors, by metric and name.
        folder: Folder of the run, for files of brain maps. None to draw no brain maps.
    """
    claimed_ids = set(map(id, choose_claimed_findings(findings)))
    claimed_first = sorted(findings, key=lambda finding: id(finding) not in claimed_ids)
    groups = defaultdict[Any, list[Finding]](list)
    for finding in claimed_first:
        analysis, _, level = finding.name.partition(" · ")
        groups[analysis, finding.axis.name, bool(level)].append(finding)

    figures = Figures()
    positions = place_sensors(space)
    for (analysis, axis_name, _), all_metrics in groups.items():
        first = all_metrics[0]
        group = [finding for finding in all_metrics if finding.metric == first.metric]
        # claimed findings stand next to the conclusion of the report
        section = FINDING if id(first) in claimed_ids else SECTION
        maps = Figures()
        for finding in group:
            figure = _draw_map(finding, space, positions, folder)
            if figure is not None:
                maps.append(replace(figure, section=section))

        # a window may begin before an effect that it contains
        axis_label = axis_name
        if first.axis.spans is not None:
            axis_label = f"centre of the window, {axis_name}"
        style: Literal["lines", "bars"] = "bars"
        curve_marks: dict[str, Any] = {}
        if axis_name == TIME:
            style = "lines"
            curve_marks |= marks
            onset = first.first_above_chance
            # several encoders in a figure have no common onset
            if len(group) == 1 and onset is not None:
                mark = f"{first.onset_description}: {FIRST_ABOVE_CHANCE}"
                curve_marks[mark] = first.axis.at[onset]

        # ceilings are means over sensors, so they do not apply to single sensors
        group_ceilings: Mapping[str, Sequence[float]] = {}
        if axis_name != SENSOR:
            group_ceilings = ceilings.get(first.metric, {})
        note = render(
            "explanation.txt",
            analysis=analysis,
            metric=first.metrics[0],
            ceilings=group_ceilings,
        )
        curve = Curve(
            _make_title(analysis),
            axis=axis_label,
            at=first.axis.at,
            lines=_make_lines(group, group_ceilings),
            value=metric_title(first.metric),
            style=style,
            marks=curve_marks,
            section=DETAILS if maps else section,
            note=note,
        )
        figures += maps
        figures.append(curve)
    return figures


def _make_lines(
    group: Sequence[Finding], ceilings: Mapping[str, Sequence[float]]
) -> list[CurveLine]:
    """Make the lines of findings and ceilings. A single finding adds its controls."""
    lines = []
    for finding in group:
        level = finding.name.partition(" · ")[2]
        name = level or metric_title(finding.metric)
        lines.append(_make_line(name, finding.metrics))
    if len(group) == 1:
        for name, metrics in group[0].controls.items():
            lines.append(_make_line(name, metrics))
    for name, values in ceilings.items():
        lines.append(CurveLine(metric_title(name), values))
    return lines


def _make_line(name: str, metrics: Sequence[Metric]) -> CurveLine:
    """Make a line of metrics, with intervals for these subjects if there are any."""
    limited = [metric.limit_to_people() for metric in metrics]
    return CurveLine.from_metrics(name, limited)


def _draw_map(
    finding: Finding,
    space: Sensors | Voxels,
    positions: Mapping[str, tuple[float, float]],
    folder: Path | None,
) -> Topomap | BrainMap | None:
    """Draw the values of sensors on the head, or of regions on slices.

    Returns None for another axis, or if the positions are unknown.
    """
    if finding.axis.name == SENSOR and positions:
        value_of = dict(
            zip(finding.axis.position_names, finding.values.tolist(), strict=True)
        )
        title = _make_title(finding.name)
        return draw_head(title, positions, value_of, metric_title(finding.metric))
    if finding.axis.name != REGION or space.grid is None or folder is None:
        return None
    return _draw_regions(finding, space, folder)


def _draw_regions(finding: Finding, space: Voxels, folder: Path) -> BrainMap | None:
    """Draw the values of the regions with a significant corrected p on slices.

    All regions are drawn if none is significant, or if there is no test.
    """
    names = finding.axis.position_names
    values_of_regions = finding.values
    note = "All regions are coloured, because there is no test of single regions."
    if finding.p_values is not None:
        is_significant = finding.p_values < SIGNIFICANCE_LEVEL
        test = "corrected over all positions of all analyses"
        note = f"No region has p < {SIGNIFICANCE_LEVEL:g} ({test}): all are coloured."
        if is_significant.any():
            values_of_regions = np.where(is_significant, values_of_regions, np.nan)
            note = (
                f"Only regions with p < {SIGNIFICANCE_LEVEL:g} are coloured ({test})."
            )

    # a voxel gets the value of its smallest region, which is written last
    region_sizes = {}
    for index, name in enumerate(names):
        if name in space.regions:
            region_sizes[index] = int(space.regions[name].sum())
    values = np.full(len(next(iter(space.regions.values()))), np.nan)
    for index in sorted(region_sizes, key=lambda index: -region_sizes[index]):
        values[space.regions[names[index]]] = values_of_regions[index]
    if not np.isfinite(values).any():
        return None
    return write_brain_map(
        folder,
        "regions",
        f"{finding.name} {finding.metric}",
        values,
        space,
        title=_make_title(finding.name),
        value=metric_title(finding.metric),
        note=f"{note} Means over subjects, in the regions of the first subject.",
        is_diverging=not finding.metrics[0].chance,
    )


def draw_voxel_maps(
    maps: Sequence[tuple[str, Mapping[str, Float64], Sensors | Voxels]], folder: Path
) -> Figures:
    """Draw the maps `voxel_map_titles` of the voxels of the first subject.

    Args:
        maps: Label of the subject, values by name, and space, of each subject.
        folder: Folder of the run.
    """
    figures = Figures()
    voxel_map_titles = {
        "encoding": "How well embeddings predict each voxel",
        "margin": "Part of the margin that each voxel adds",
    }
    voxel_map_units = {
        "encoding": "correlation",
        "margin": "margin, expected gradients",
    }
    for stem, values_of, space in maps[:1]:
        if space.grid is None:
            continue
        for name, map_title in voxel_map_titles.items():
            if name not in values_of:
                continue
            figure = write_brain_map(
                folder,
                stem,
                name,
                values_of[name],
                space,
                title=f"{map_title} ({stem})",
                value=voxel_map_units[name],
                note="No threshold: single voxels were not tested.",
                is_diverging=True,
                section=SECTION,
            )
            figures.append(figure)
    return figures


def make_summary_table(
    findings: Findings, protocol: str, excluded: Mapping[str, str]
) -> Table:
    """Make a table of the strongest position of each analysis.

    Args:
        findings: Findings of all analyses.
        protocol: Description of the measurement.
        excluded: What an analysis that does not apply is for, by analysis.
    """
    rows = []
    for finding in findings:
        peak = int(finding.values.argmax())
        p_value = None
        if finding.p_values is not None:
            p_value = float(finding.p_values[peak])
        controls = list(finding.controls.values())
        control_value = controls[0][peak].value if controls else None
        row = (
            finding.name,
            metric_title(finding.metric),
            finding.axis.describe_position(peak),
            TableCell(format_p(p_value), value=p_value),
            finding.onset_description or None,
            make_metric_cell(finding.metrics[peak]),
            control_value,
        )
        rows.append(row)
    columns = (
        "analysis",
        "metric",
        "strongest",
        "p",
        FIRST_ABOVE_CHANCE,
        "value, 95 % CI",
        "control",
    )
    excluded_groups = defaultdict[str, list[str]](list)
    for analysis, purpose in excluded.items():
        excluded_groups[purpose].append(analysis)
    note = render(
        "explanation.txt",
        analysis="table",
        protocol=protocol,
        excluded_groups=excluded_groups,
    )
    return Table(
        "Where each analysis is strongest", columns, rows, section=SECTION, note=note
    )


def _make_title(name: str) -> str:
    """Make the title of a figure from `analysis`, or `analysis · encoder`."""
    analysis, _, level = name.partition(" · ")
    analysis_titles: Mapping[str, str] = {
        **MODEL_ANALYSES,
        **SIGNAL_ANALYSES,
        **TRIAL_ANALYSES,
    }
    return f"{analysis.capitalize()}: {level or analysis_titles[analysis]}"
