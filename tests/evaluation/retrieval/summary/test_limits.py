"""Tests of the limits of a retrieval test on the page."""

from brainhive_cli.core.results import (
    ALL,
    NOT_INTERLEAVED,
    Answer,
    Difference,
    Measurements,
    Metric,
)
from brainhive_cli.evaluation.retrieval.facts import RetrievalFacts
from brainhive_cli.reports.sentences.sentences import list_limits


def measured(low, high, caveats=(), **facts):
    """Make measurements of ranks at chance, with an interval of top-1."""
    top1 = Metric(
        "top1",
        (low + high) / 2,
        96,
        8,
        0.125,
        low,
        high,
        (0,),
        "intra",
        "test",
        "Wilson",
        caveats=caveats,
    )
    answer = Answer("which category", 0.4, 0.6, 0.0002, 96, 8, "permutations")
    return Measurements(
        {ALL: {"top1": top1}}, facts=RetrievalFacts(answers=[answer], **facts)
    )


def test_ranks_and_interval_on_different_sides_are_explained():
    for ends, caveats, side, reason in (
        ((0.15, 0.3), (), "“above chance”", "seen category"),
        ((0.01, 0.1), (), "“below chance”", "seen category"),
        ((0.15, 0.3), (NOT_INTERLEAVED,), "“above chance”", "The design alone"),
        ((0.1, 0.3), (), "", ""),
    ):
        limits = " ".join(list_limits(measured(*ends, caveats, stimulus="category")))
        assert side in limits
        assert reason in limits
        assert bool(side) == bool(limits)


def test_better_baselines_are_named_before_the_runs_own_warnings():
    worse = Difference(
        second="lda", difference=-0.2, low=-0.3, high=-0.1, interval="", n=96,
        subjects=1, p_value=0.01, test="sign flips", least_p=0.001, cohens_dz=None,
    )  # fmt: skip
    equal = worse.model_copy(update={"second": "ridge", "high": 0.1})

    first, own = list_limits(
        measured(0.1, 0.3, plain=[worse, equal], warnings=["changed since"])
    )

    assert own == "changed since"
    assert "shrinkage LDA" in first
    assert "0.2" in first
    assert "ridge" not in first
