"""From items' values to metrics: what subsets, controls and the verdict count."""

import numpy as np

from brainhive_cli.alignment.cells import Cell
from brainhive_cli.retrieval.cell_scores import Scores, Subsets
from brainhive_cli.retrieval.controls import DRAWS, Broken, described_control
from brainhive_cli.retrieval.rankings import Ranking
from brainhive_cli.retrieval.summary import MetricContext, above_chance, totals

COMMON = MetricContext("intra", "test", 20, Subsets(ways=5, draws=3))


def ranking(names: list[str], ranks: list[int]) -> Ranking:
    """Make a ranking of pictures, each its own concept, among 20."""
    count = len(names)
    precision = (1 / np.array(ranks)).tolist()
    return Ranking(
        names, names, ranks, ranks, 20, precision, [1] * count, names, ranks, 1, names, [0.0] * count
    )


def scores(names: list[str], ranks: list[int], hits: list[float], subject: int) -> Scores:
    return Scores(20, names, {subject: ranking(names, ranks)}, {subject: (hits, hits)})


def test_a_perfect_decoder_of_subsets_gets_one_to_one_whatever_was_never_drawn():
    names = [f"{n}" for n in range(20)]
    hits = [1.0] * 18 + [float("nan")] * 2
    cell = Cell("sub-01_seed-1", (1,), (1,), 1)

    found = totals([cell], {cell.name: scores(names, [1] * 20, hits, 1)}, COMMON)["subsets"]["forward"]

    assert (found["value"], found["low"], found["high"], found["n"]) == (1, 1, 1, 18)


def test_subjects_are_matched_by_the_pictures_that_they_saw():
    names, ranks = [f"{n}" for n in range(20)], list(range(1, 21))
    cells = [Cell(f"sub-0{n}_seed-1", (n,), (n,), 1) for n in (1, 2)]
    there = {
        cells[0].name: scores(names, ranks, [0.0] * 20, 1),
        cells[1].name: scores(names[::-1], ranks[::-1], [0.0] * 20, 2),
    }

    overall, test = totals(cells, there, COMMON)["overall"], above_chance(there)

    alone = totals(cells[:1], {cells[0].name: there[cells[0].name]}, COMMON)["overall"]
    rank = overall["mean_rank"]
    assert rank["these_subjects"] == [alone["mean_rank"]["low"], alone["mean_rank"]["high"]]
    assert (test.n, test.pool, test.verdict) == (20, 20, "at chance")


def test_the_p_of_a_control_counts_draws_that_are_as_good_over_subjects():
    """Of two subjects whose means are measured: .4; nine draws of 1000 are at least as good."""
    drawn = np.zeros(DRAWS)
    drawn[:9] = 0.4
    broken = [
        [Broken(dict.fromkeys(names, value), {name: drawn.tolist() for name in names}, 10)]
        for value in (0.3, 0.5)
        for names in [("top1", "top5", "mean_rank", "mrr")]
    ]

    found = described_control("permuted", broken, 20)

    assert found["metrics"]["top1"]["p"] == 10 / 1001
    assert found["metrics"]["mean_rank"]["p"] == 1  # of which less is better
    assert (found["metrics"]["top1"]["measured"], found["n"], found["pool"]) == (0.4, 20, 20)
