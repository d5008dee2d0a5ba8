"""Sections of a page that compare methods: a sentence, a figure and a table."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from brainhive_cli.core.base import format_tick
from brainhive_cli.core.results import metric_title
from brainhive_cli.core.runs import Curve, CurveLine
from brainhive_cli.measurement import compare_runs
from brainhive_cli.reports.pages.page import PageSection
from brainhive_cli.reports.tables import MethodComparison, tabulate_methods
from brainhive_cli.reports.templates import render


def lay_out_methods(comparisons: Sequence[MethodComparison]) -> list[PageSection]:
    """Lay out a section of the page for each comparison of methods."""
    sections = []
    for comparison in comparisons:
        figure = ("", draw_methods(comparison), Path())
        table = replace(tabulate_methods(comparison), title="", keeps_columns=True)
        sections.append(
            PageSection(
                f"Methods side by side: {comparison.title}",
                groups=[("", [[figure], table])],
                lead=[state_best_method(comparison)],
            )
        )
    return sections


def state_best_method(comparison: MethodComparison) -> str:
    """State the method with most hits, and whether it is better than others.

    Results are ranked only by significant differences, whose p values are adjusted for
    their number.
    """
    results = comparison.results
    pairs = {}
    for other in results[1:]:
        labels = (results[0].label, other.label)
        pairs[labels] = (results[0].run.measurements, other.run.measurements)
    differences, _ = compare_runs(pairs)
    return render(
        "methods_finding.txt",
        results=results,
        metric=results[0].hits if results else None,
        differences={difference.second: difference for difference in differences},
    )


def draw_methods(comparison: MethodComparison) -> Curve:
    """Draw the hits of each method as a dot, with its interval and with chance."""
    methods = comparison.methods
    chance = methods[0].hits.chance
    lines = []
    for name, is_result in (("result", True), ("excluded: not a result", False)):
        drawn = [
            method.hits if bool(method.reasons) != is_result else None
            for method in methods
        ]
        if any(drawn):
            values, low, high = (
                [getattr(hits, key, None) for hits in drawn]
                for key in ("value", "low", "high")
            )
            lines.append(CurveLine(name, values, low, high, chance=chance))

    title = f"{metric_title(methods[0].hits.name)} of each method"
    if any(method.hits.low is not None for method in methods):
        title += ", with 95 % intervals"
    if chance is not None:
        title += f"; broken line: chance, {format_tick(chance)}"
    labels = [method.label for method in methods]
    return Curve(title, axis="", at=labels, lines=lines, style="dots")


def draw_methods_for_paper(comparison: MethodComparison) -> Curve:
    """Draw the methods with a title that also names the protocol and its caveats."""
    figure = draw_methods(comparison)
    return replace(figure, title=f"{comparison.title}: {figure.title}")
