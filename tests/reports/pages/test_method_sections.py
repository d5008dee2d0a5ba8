"""Sections of a page that compare methods, made of small evaluations."""

import re
from functools import partial

import pytest

from brainhive_cli.core.results import CellFacts, Measurements, Metric
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.evaluation.retrieval.facts import GalleryFacts, RetrievalFacts
from brainhive_cli.reports.figures.drawings import draw_artifact
from brainhive_cli.reports.pages.method_sections import (
    draw_methods,
    lay_out_methods,
    state_best_method,
)
from brainhive_cli.reports.tables.method_tables import (
    CEILING_SHARE,
    compare_methods,
    tabulate_methods,
)
from brainhive_cli.reports.tables.runs_shown import ShownRun

N_ITEMS = 100
GALLERY = GalleryFacts(dataset="lab", splits="test", pictures=50, digest="0123456789")
make_metric = partial(
    Metric, "top1", n=N_ITEMS, pool=50, chance=0.02, seeds=(0,), protocol="intra, lab",
    split="test", interval="Wilson",
)  # fmt: skip


def write_method(
    folder,
    label,
    hits,
    caveats=(),
    ceiling=None,
):
    """Write an evaluation in which the first items are hits."""
    run_folder = RunFolder(folder / "runs/eval-retrieval" / label)
    metric = make_metric(value=hits, low=hits - 0.05, high=hits + 0.05, caveats=caveats)
    ids = [f"item {number:03d}" for number in range(N_ITEMS)]
    ranks = [1 if number < hits * N_ITEMS else 7 for number in range(N_ITEMS)]
    scopes = {"all": {"top1": metric}, "sub-01": {"top1": metric}}
    if ceiling:
        scopes["ceiling · all"] = {"top1": ceiling}
    facts = RetrievalFacts(
        dataset="lab",
        mode="intra",
        units="pictures",
        stimuli=N_ITEMS,
        gallery=GALLERY,
        cells={"sub-01": CellFacts(subject="sub-01", seed=0)},
    )
    items = {"sub-01": {"image_ids": ids, "units": ids, "ranks": ranks}}
    run_folder.write_text("recipe.yaml", "align_run: a\n")
    run_folder.finish(Measurements(scopes, facts=facts, items=items))
    return ShownRun(label, run_folder)


def compare(folder, hits, selected=()):
    """Compare methods, of which some are selected on test."""
    runs = []
    for label, share in hits.items():
        caveats = ("selected on test",) if label in selected else ()
        runs.append(write_method(folder, label, share, caveats))
    (comparison,) = compare_methods(runs, "")
    return comparison


@pytest.mark.parametrize(("second", "is_ranked"), [(0.3, True), (0.48, False)])
def test_a_method_is_ranked_only_by_a_significant_difference(
    tmp_path, second, is_ranked
):
    hits = {"a": 0.5, "b": second, "c": 0.1, "d": 0.6}
    sentence = state_best_method(compare(tmp_path, hits, selected=("d",)))

    # excluded methods are neither ranked nor counted
    assert "“d”" not in sentence
    facts = (
        "“a”",
        "3 methods",
        "50 %",
        "45 to 55 %",
        "chance 2 %",
        "100 test pictures",
        "50 candidates",
        f"{100 * (0.5 - second):+.1f} points",
        "adjusted over 2 tests",
        "“c”",
        "biased",
    )
    for fact in facts:
        assert fact in sentence, fact
    assert ("not ranked" in sentence) != is_ranked


def test_a_single_result_and_no_result_are_not_compared(tmp_path):
    sentence = state_best_method(compare(tmp_path, {"a": 0.5}))
    assert "only result" in sentence
    assert "50 %" in sentence
    assert "next" not in sentence
    sentence_without_methods = state_best_method(
        compare(tmp_path, {"b": 0.5}, selected=("b",))
    )
    assert "“b”" not in sentence_without_methods
    assert "50 %" not in sentence_without_methods


def test_the_figure_has_a_dot_interval_and_chance_of_each_method(
    tmp_path,
):
    hits = {"a": 0.5, "b": 0.4, "d": 0.6}
    curve = draw_methods(compare(tmp_path, hits, selected=("d",)))

    assert list(curve.at) == ["a", "b", "d"]
    assert curve.style == "dots"
    results, excluded = curve.lines
    assert results.values == [0.5, 0.4, None]
    assert excluded.values == [None, None, 0.6]
    assert results.low == [0.45, pytest.approx(0.35), None]
    assert results.chance == 0.02
    assert "0.02" in curve.title
    with draw_artifact(curve) as figure:
        names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
        assert names == ["a", "b", "d"]
        assert len(figure.axes[0].containers) == 2
        # the first method is at the top
        assert figure.axes[0].yaxis_inverted()


def test_the_table_on_a_page_has_reasons_below_the_names(tmp_path):
    comparison = compare(tmp_path, {"a": 0.5, "b": 0.4}, selected=("b",))
    (section,) = lay_out_methods([comparison])
    ((_, (_, table)),) = section.groups

    assert table.keeps_columns
    assert not table.title
    assert "lab, intra" in section.title
    result, excluded = table.rows[:2]
    assert result[0] == "a"
    assert excluded[0].small == "excluded: selected on test"
    assert excluded[0].is_grey


@pytest.mark.parametrize(
    ("value", "ceiling_low", "has_share"),
    [(0.15, 0.1, True), (0.25, 0.1, False), (0.15, 0.01, False)],
)
def test_a_share_of_the_ceiling_is_below_one_with_interval(
    tmp_path, value, ceiling_low, has_share
):
    """Issue 117: a share of 5.2 had no interval."""
    ceiling = make_metric(value=0.2, low=ceiling_low, high=0.3)
    shown_run = write_method(tmp_path, "a", value, ceiling=ceiling)
    (comparison,) = compare_methods([shown_run], "")
    table = tabulate_methods(comparison)

    assert (CEILING_SHARE in table.columns) == has_share
    if has_share:
        share = table.rows[0][table.columns.index(CEILING_SHARE)]
        assert share.value == pytest.approx(0.13 / 0.18)
        ends = [float(end) for end in re.findall(r"\d*\.\d+", share.small)]
        assert ends == pytest.approx([0.08 / 0.28, 0.18 / 0.08], abs=0.001)
