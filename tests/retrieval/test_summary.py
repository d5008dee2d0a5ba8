"""From items' values to metrics: what subsets, concepts and the verdict count."""

import numpy as np

from brainhive_cli.alignment.cells import Cell
from brainhive_cli.retrieval.cell_scores import SubjectScores
from brainhive_cli.retrieval.rankings import Ranking
from brainhive_cli.retrieval.recipe import Subsets
from brainhive_cli.retrieval.summary import MetricContext, above_chance, by_concept, scopes_of_all

CONTEXT = MetricContext("intra", "test", 20)


def ranking(names: list[str], ranks: list[int]) -> Ranking:
    """Make a ranking of pictures, each its own concept, among 20."""
    found = np.array(ranks)
    return Ranking(names, names, found, found, 20, 1 / found, np.ones_like(found), names, found, 1)


def scores(names: list[str], ranks: list[int], hits: list[float]) -> SubjectScores:
    return SubjectScores(ranking(names, ranks), (hits, hits), {}, None)


def test_a_perfect_decoder_of_subsets_gets_one_to_one_whatever_was_never_drawn():
    names = [f"{n}" for n in range(20)]
    hits = [1.0] * 18 + [float("nan")] * 2
    cell = Cell("sub-01_seed-1", (1,), (1,), 1)

    scopes = scopes_of_all([cell], [[scores(names, [1] * 20, hits)]], CONTEXT, Subsets(ways=5, draws=3))

    found = scopes["all · subsets"]["top1"]
    assert (found.value, found.low, found.high, found.n) == (1, 1, 1, 18)


def test_subjects_are_matched_by_the_pictures_that_they_saw():
    names, ranks = [f"{n}" for n in range(20)], list(range(1, 21))
    cells = [Cell(f"sub-0{n}_seed-1", (n,), (n,), 1) for n in (1, 2)]
    groups = [[scores(names, ranks, [])], [scores(names[::-1], ranks[::-1], [])]]

    overall, test = scopes_of_all(cells, groups, CONTEXT, None)["all"], above_chance(groups)

    alone = scopes_of_all(cells[:1], groups[:1], CONTEXT, None)["all"]["mean_rank"]
    assert overall["mean_rank"].these_subjects == (alone.low, alone.high)
    assert (test.n, test.pool, test.verdict) == (20, 20, "at chance")


def test_concepts_are_listed_from_the_best_found_to_the_worst():
    groups = [[scores(["cat", "dog", "cow"], ranks, [])] for ranks in ([1, 2, 1], [8, 3, 1])]

    table = by_concept(groups)

    assert list(table) == ["cow", "cat", "dog"]
    assert table["cat"] == {"top1": 0.5, "top5": 0.5, "mean_rank": 4.5, "n": 2}
