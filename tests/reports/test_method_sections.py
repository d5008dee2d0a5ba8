"""Sections of a page that compare methods, made of runs that are written by hand."""

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brainhive_cli.core.facts import Difference, RetrievalFacts
from brainhive_cli.core.measurements import Measurements, Metric
from brainhive_cli.core.tables import Table, TableCell
from brainhive_cli.reports import method_sections, method_tables
from brainhive_cli.reports.drawings import draw_artifact
from brainhive_cli.reports.method_tables import MethodComparison

EXCLUDED = "selected on test"
make_metric = partial(
    Metric, "top1", n=100, pool=50, chance=0.02, seeds=(0,), protocol="intra, lab",
    split="test", interval="Wilson",
)  # fmt: skip
make_difference = partial(
    Difference, metric="top1", interval="", n=100, subjects=1, p_value=0.5, test="sign",
    least_p=0.001, cohens_dz=None, tests=2, tests_of="pairs",
)  # fmt: skip


def make_row(label: str, value: float) -> Any:
    metric = make_metric(value=value, low=value - 0.05, high=value + 0.05)
    measurements = Measurements(facts=RetrievalFacts(stimuli=100))
    folder = SimpleNamespace(path=Path("runs/eval-retrieval/run"))
    return SimpleNamespace(
        label=label,
        metrics={"top1": metric},
        measurements=measurements,
        folder=folder,
        is_control=False,
    )


def compare(values: dict[str, float], excluded: tuple[str, ...] = ()) -> Any:
    rows = [make_row(label, value) for label, value in values.items()]
    reasons = {row.label: [EXCLUDED] * (row.label in excluded) for row in rows}
    caveats: dict[str, list[str]] = {row.label: [] for row in rows}
    return MethodComparison("lab, intra", rows, reasons, caveats, rows[0], {})


@pytest.mark.parametrize("p", [0.001, 0.4])
def test_a_method_is_ranked_only_by_a_significant_difference(
    p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = compare({"a": 0.5, "b": 0.4, "c": 0.3, "d": 0.6}, excluded=("d",))
    compared = []

    def compare_ranks(pairs: Any) -> Any:
        compared.extend(pairs)
        differences = []
        for (first, second), p_adjusted in zip(pairs, (p, 0.001), strict=True):
            differences.append(
                make_difference(
                    first=first,
                    second=second,
                    difference=0.1,
                    low=0.02,
                    high=0.2,
                    p_adjusted=p_adjusted,
                )
            )
        return differences, []

    monkeypatch.setattr(method_tables, "compare_ranks", compare_ranks)
    sentence = method_sections.state_best_method(comparison)

    # excluded methods are neither ranked nor counted
    assert compared == [("a", "b"), ("a", "c")] and "“d”" not in sentence
    facts = (
        "“a”",
        "3 methods",
        "50 %",
        "45 to 55 %",
        "chance 2 %",
        "100 test pictures",
    )
    for fact in facts + ("50 candidates", "+10.0 points", f"p = {p}", "“c”", "biased"):
        assert fact in sentence, fact
    assert ("not ranked" in sentence) == (p == 0.4)


def test_a_single_result_and_no_result_are_not_compared() -> None:
    sentence = method_sections.state_best_method(compare({"a": 0.5}))
    assert "only result" in sentence and "50 %" in sentence and "next" not in sentence
    nothing = method_sections.state_best_method(compare({"a": 0.5}, excluded=("a",)))
    assert "“a”" not in nothing and "50 %" not in nothing


def test_the_figure_has_a_dot_interval_and_chance_of_each_method() -> None:
    comparison = compare({"a": 0.5, "b": 0.4, "d": 0.6}, excluded=("d",))
    curve = method_sections.draw_methods(comparison)

    assert list(curve.at) == ["a", "b", "d"] and curve.style == "dots"
    results, excluded = curve.lines
    assert results.values == [0.5, 0.4, None] and excluded.values == [None, None, 0.6]
    assert results.low == pytest.approx([0.45, 0.35, None]) or results.low[2] is None
    assert results.chance == 0.02 and "0.02" in curve.title
    with draw_artifact(curve) as figure:
        names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
        assert names == ["a", "b", "d"]
        assert len(figure.axes[0].containers) == 2
        # the first method is at the top
        assert figure.axes[0].yaxis_inverted()


def test_a_folded_table_moves_reasons_and_equal_columns() -> None:
    interval = TableCell("0.500", "0.4–0.6, chosen among 2", 0.5)
    table = Table(
        "lab",
        ["method", method_tables.REASON, "top-1", "selection", "min"],
        [
            [TableCell("a"), "", interval, "last", 1.0],
            [TableCell("b", is_grey=True), EXCLUDED, interval, "last", 2.0],
        ],
        note="Note.",
    )
    folded = method_sections.fold_table(table)

    assert list(folded.columns) == ["method", "top-1", "min"]
    assert folded.rows[0][0].small == "" and folded.rows[0][1].small == "0.4–0.6"
    assert folded.rows[1][0].small == f"excluded: {EXCLUDED}"
    assert folded.rows[1][0].is_grey and folded.keeps_columns
    assert "selection last" in folded.note and folded.note.endswith("Note.")


@pytest.mark.parametrize(
    ("value", "ceiling_low", "has_share"),
    [(0.15, 0.1, True), (0.25, 0.1, False), (0.15, 0.01, False)],
)
def test_a_share_of_the_ceiling_is_below_one_with_interval(
    value: float, ceiling_low: float, has_share: bool
) -> None:
    """Issue 117: a share of 5.2 had no interval."""
    row = make_row("a", value)
    ceiling = {"top1": make_metric(value=0.2, low=ceiling_low, high=0.3)}
    row.measurements.scopes["ceiling · all"] = ceiling

    share = method_tables.describe_row(row, None)[method_tables.CEILING_SHARE]

    assert (share is not None) == has_share
    if share:
        assert share.value == pytest.approx(0.13 / 0.18)
        ends = [float(end) for end in re.findall(r"\d*\.\d+", share.small)]
        assert ends == pytest.approx([0.08 / 0.28, 0.18 / 0.08], abs=0.001)
