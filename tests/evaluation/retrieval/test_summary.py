"""From items' values to metrics: what subsets, controls and the verdict count."""

import numpy as np

from brainhive_cli.evaluation.retrieval.cell_scores import DRAWS, SubjectScores
from brainhive_cli.evaluation.retrieval.rankings import Ranking
from brainhive_cli.evaluation.retrieval.recipe import Subsets
from brainhive_cli.evaluation.retrieval.summary import (
    MetricContext,
    above_chance,
    describe_control,
    scopes_of_all,
)
from brainhive_cli.measurement.units import Alike
from brainhive_cli.training.alignment.recipe import Cell

CONTEXT = MetricContext("intra", "test", 20, Alike())


def ranking(names: list[str], ranks: list[int]) -> Ranking:
    """Make a ranking of pictures, each its own concept, among 20."""
    found, one = np.array(ranks), np.ones(len(names), np.int64)
    return Ranking(names, names, found, found, 20, 1 / found, one, names, found, 1, names, [0.0] * len(names))


def scores(names: list[str], ranks: list[int], hits: list[float]) -> SubjectScores:
    shares = np.array(hits)
    return SubjectScores(ranking(names, ranks), {"top1": (shares, shares)})


def test_a_perfect_decoder_of_subsets_gets_one_to_one_whatever_was_never_drawn():
    names = [f"{n}" for n in range(20)]
    hits = [1.0] * 18 + [float("nan")] * 2
    cell = Cell("sub-01_seed-1", (1,), (1,), 1)

    scopes = scopes_of_all([cell], [[scores(names, [1] * 20, hits)]], CONTEXT, Subsets(ways=5, draws=3))

    found = scopes["all · subsets"]["top1"]
    assert (found.value, found.low, found.high, found.n) == (1, 1, 1, 18)


def test_subjects_with_pools_of_several_sizes_below_a_subsets_have_no_common_share_of_hits():
    names = [f"{n}" for n in range(20)]
    cells = [Cell(f"sub-0{n}_seed-1", (n,), (n,), 1) for n in (1, 2)]
    groups = [[scores(names[:count], [1] * count, [1.0] * count)] for count in (20, 15)]

    of_all, of_some = (scopes_of_all(cells, groups, CONTEXT, Subsets(ways=ways)) for ways in (15, 20))

    assert of_all["all · subsets"]["top1"].pool == 15 and "all · subsets" not in of_some


def test_subjects_are_matched_by_the_pictures_that_they_saw():
    names, ranks = [f"{n}" for n in range(20)], list(range(1, 21))
    cells = [Cell(f"sub-0{n}_seed-1", (n,), (n,), 1) for n in (1, 2)]
    groups = [[scores(names, ranks, [])], [scores(names[::-1], ranks[::-1], [])]]

    overall, test = scopes_of_all(cells, groups, CONTEXT, None)["all"], above_chance(groups, Alike())

    alone = scopes_of_all(cells[:1], groups[:1], CONTEXT, None)["all"]["mean_rank"]
    assert overall["mean_rank"].these_subjects == (alone.low, alone.high)
    assert (test.n, test.pool, test.verdict) == (20, 20, "at chance")


def test_the_p_of_a_control_counts_draws_that_are_as_good_over_subjects():
    """Of two subjects whose means are measured: .4; nine draws of 1000 are at least as good."""
    drawn = np.zeros(DRAWS)
    drawn[:9] = 0.4
    names = ("top1", "top5", "mean_rank", "mrr")
    groups = [
        [SubjectScores(ranking(["a"], [1]), control=dict.fromkeys(names, np.array([value, *drawn])))]
        for value in (0.3, 0.5)
    ]

    described = describe_control("permuted", groups, 20)

    assert described["metrics"]["top1"]["p"] == 10 / 1001
    assert described["metrics"]["mean_rank"]["p"] == 1  # of which less is better
    assert (described["metrics"]["top1"]["measured"], described["n"], described["pool"]) == (0.4, 2, 20)
