"""Sections of a page that compare methods: a sentence, a figure and a table."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from brainhive_cli.core.artifacts import Curve, CurveLine
from brainhive_cli.core.measurements import Metric, metric_title
from brainhive_cli.core.tables import Table, TableCell, format_tick
from brainhive_cli.reports.method_tables import (
    REASON,
    MethodComparison,
    find_hits,
    tabulate_methods,
)
from brainhive_cli.reports.page import PageSection
from brainhive_cli.reports.tables import render


def lay_out_methods(comparisons: Sequence[MethodComparison]) -> list[PageSection]:
    """Lay out a section of the page for each comparison of methods."""
    sections = []
    for comparison in comparisons:
        figure = ("", draw_methods(comparison), Path())
        table = fold_table(tabulate_methods(comparison))
        sections.append(
            PageSection(
                f"Methods side by side: {comparison.full_title}",
                groups=[("", [[figure], table])],
                lead=[state_best_method(comparison)],
            )
        )
    return sections


def state_best_method(comparison: MethodComparison) -> str:
    """State the method with most hits, and whether it is better than others.

    Results are ranked only by significant differences.
    """
    results = comparison.results
    return render(
        "methods_finding.txt",
        results=results,
        metric=find_hits(results[0]) if results else None,
        differences=comparison.compare_best() if results else {},
    )


def draw_methods(comparison: MethodComparison) -> Curve:
    """Draw the hits of each method as a dot, with its interval and with chance."""
    metrics = [find_hits(row) for row in comparison.rows]
    is_result = [not comparison.reasons[row.label] for row in comparison.rows]
    lines = []
    for name, is_drawn in (("result", True), ("excluded: not a result", False)):
        if is_drawn in is_result:
            drawn = [state == is_drawn for state in is_result]
            lines.append(_make_line(name, metrics, drawn))

    title = f"{metric_title(metrics[0].name)} of each method"
    if any(metric.low is not None for metric in metrics):
        title += ", with 95 % intervals"
    chance = metrics[0].chance
    if chance is not None:
        title += f"; broken line: chance, {format_tick(chance)}"
    return Curve(
        title,
        axis="",
        at=[row.label for row in comparison.rows],
        lines=lines,
        style="dots",
    )


def draw_methods_for_paper(comparison: MethodComparison) -> Curve:
    """Draw the methods with a title that also names the protocol and its caveats."""
    figure = draw_methods(comparison)
    return replace(figure, title=f"{comparison.full_title}: {figure.title}")


def _make_line(
    name: str, metrics: Sequence[Metric], drawn: Sequence[bool]
) -> CurveLine:
    """Make the dots of some methods. The other methods have no value.

    Args:
        name: Name in the legend.
        metrics: Metric [N] of each method.
        drawn: True [N] for the methods that have a dot.
    """
    values: list[Any] = []
    low: list[Any] = []
    high: list[Any] = []
    for metric, is_drawn in zip(metrics, drawn, strict=True):
        values.append(metric.value if is_drawn else None)
        low.append(metric.low if is_drawn else None)
        high.append(metric.high if is_drawn else None)
    return CurveLine(name, values, low, high, chance=metrics[0].chance)


def fold_table(table: Table) -> Table:
    """Make a table of methods narrow enough for a page.

    - The reason of an excluded method stands below its name.
    - Columns that are equal in all rows move into the note.
    - Remarks after an interval are left out, because the sentence above has them.
    """
    rows = [list(map(TableCell.from_value, row)) for row in table.rows]
    columns = list(table.columns)
    if REASON in columns:
        index = columns.index(REASON)
        del columns[index]
        for row in rows:
            reason = row.pop(index).text
            if reason:
                row[0] = replace(row[0], small=f"excluded: {reason}")

    # remove equal columns from the right, so that indices stay valid
    shared: list[str] = []
    for index in reversed(range(1, len(columns))):
        cells = [str(row[index]) for row in rows]
        has_interval = any(row[index].small for row in rows)
        if len(rows) > 1 and len(set(cells)) == 1 and not has_interval:
            shared.insert(0, f"{columns.pop(index)} {cells[0]}")
            for row in rows:
                row.pop(index)

    for row in rows:
        for index, cell in enumerate(row[1:], 1):
            row[index] = replace(cell, small=cell.small.partition(",")[0])
    note = table.note
    if shared:
        note = f"Equal for all methods: {', '.join(shared)}. {note}"
    return replace(
        table, title="", columns=columns, rows=rows, note=note, keeps_columns=True
    )
