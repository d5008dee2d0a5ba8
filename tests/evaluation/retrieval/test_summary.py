"""From items' values to metrics: what subsets, controls and the verdict count."""

from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.core.measurements import ALL, Metric
from brainhive_cli.evaluation.retrieval.summary import (
    Cells,
    above_chance,
    count_confusions,
    describe_control,
    measure_scopes,
)
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.retrieval import BACKWARD, DRAWS, Scores
from brainhive_cli.measurement.units import Alike


def together(groups: list[list[Scores]], alike: Alike | None = None) -> Cells:
    return Cells(groups, alike or Alike(), "intra", "test", (1,))


def scores(names: list[str], ranks: list[int], hits: list[float], ways: int = 20) -> Scores:
    """Make scores of pictures, each its own concept, among 20; and of subsets, if there are hits."""
    found = np.array(ranks)
    subsets = Scores(values={"top1_expected": np.array(hits)}, pool=ways)
    return Scores(
        *(names, names, names),
        ranks=found,
        pool=20,
        values={"map": 1 / found},
        relevant=np.ones(len(names), np.int64),
        named=names,
        scopes={
            BACKWARD: Scores(names, ranks=found, pool=len(names)),
            **({"subsets": subsets} if hits else {}),
        },
    )


def test_a_perfect_decoder_of_subsets_gets_one_to_one():
    names = [f"{n}" for n in range(18)]

    scopes = measure_scopes(ALL, together([[scores(names, [1] * 18, [1.0] * 18, 5)]]))

    found, wilson = scopes["all · subsets"]["top1_expected"], 18 / (18 + 1.959964**2)  # of 18 hits in 18
    assert (found.value, found.low, found.high, found.n) == (1, pytest.approx(wilson), 1, 18)


def test_subjects_with_pools_of_several_sizes_below_a_subsets_have_no_common_share_of_hits():
    names = [f"{n}" for n in range(20)]

    def measure(ways: int) -> dict[str, dict[str, Metric]]:
        sizes = [(count, min(ways, count)) for count in (20, 15)]
        groups = [[scores(names[:count], [1] * count, [1.0] * count, pool)] for count, pool in sizes]
        return measure_scopes(ALL, together(groups))

    assert measure(15)["all · subsets"]["top1_expected"].pool == 15 and "all · subsets" not in measure(20)


def test_subjects_are_matched_by_the_pictures_that_they_saw():
    names, ranks = [f"{n}" for n in range(20)], list(range(1, 21))
    groups = [[scores(names, ranks, [])], [scores(names[::-1], ranks[::-1], [])]]

    both, alone = (measure_scopes(ALL, together(groups[:count]))[ALL]["mean_rank"] for count in (2, 1))

    assert both.these_subjects == (both.low, both.high) == (alone.low, alone.high)


def group_of(order: list[int], ranks: np.ndarray, sessions: list[int] | None = None) -> list[Scores]:
    """One subject whose signals show pictures 0 to 19 in an order; `ranks` [20, 20] of candidates."""
    names = [f"{n}" for n in range(20)]
    recorded = None if sessions is None else [sessions[n] for n in order]
    interleaving = Interleaving([0] * 20, [*range(20)], recorded)
    made = scores([names[n] for n in order], [int(ranks[n, n]) for n in order], [])
    return [replace(made, candidates=names, table=ranks[order], interleaving=interleaving)]


def test_the_verdict_matches_subjects_by_the_pictures_that_they_saw():
    ranks = np.array([np.random.default_rng(row).permutation(20) + 1 for row in range(20)])
    orders = [*range(20)], [*range(19, -1, -1)]

    (alone,) = above_chance(together([group_of(orders[0], ranks)]))
    (both,) = above_chance(together([group_of(order, ranks) for order in orders]))

    assert both == alone and (both.n, both.pool, both.side) == (20, 20, "at chance")
    assert 0.05 < both.better < 0.95  # nothing that any labels would give


def test_the_verdict_is_of_all_subjects_and_the_mean_of_their_seeds():
    """Picture n is ranked first by one seed and last by the other: on average as by guesses."""
    right, wrong = 1 + (np.arange(20) - np.arange(20)[:, None]) % 20, np.full((20, 20), 10)
    np.fill_diagonal(wrong, 20)
    order = [*range(20)]
    good, bad = group_of(order, right), group_of(order, wrong)

    (found,), (lost,) = (above_chance(together([group])) for group in (good, bad))
    (averaged,) = above_chance(together([[*good, *bad]]))
    (subjects,) = above_chance(together([good, bad]))

    assert (found.side, lost.side) == ("above chance", "below chance")
    assert found.better == lost.worse == 1 / 5000
    assert averaged.better == subjects.better and averaged.side == subjects.side == "at chance"


@pytest.mark.parametrize(
    ("sessions", "answer"),
    [
        ([0] * 20, "above chance for these 2 concepts"),
        ([0] * 10 + [1] * 10, "which concept: cannot be tested: concepts and sessions coincide"),
        (None, "which concept: cannot be tested: their sessions are not known"),
    ],
    ids=["one session", "a session a concept", "unknown"],
)
def test_which_concept_was_seen_is_asked_within_the_sessions_of_the_pictures(sessions, answer):
    """Two concepts of ten pictures: all of the own one are ranked before those of the other."""
    concept = np.arange(20) // 10
    ranks = np.where(concept[:, None] == concept, 5, 15) + (np.arange(20) % 10 - 4)
    alike = Alike("concept", {f"{n}": f"{concept[n]}" for n in range(20)})

    of_picture, of_concept = above_chance(together([group_of([*range(20)], ranks, sessions)], alike))

    assert answer in of_concept.sentence
    assert (of_picture.words, of_picture.p) == ("at chance for these 2 concepts", 1)
    assert of_picture.wider == "concepts in general: not possible with 2 concepts"


def test_the_p_of_a_control_counts_draws_that_are_as_good_over_subjects():
    """Of two subjects whose means are measured: .4; nine draws of 1000 are at least as good."""
    drawn = np.zeros(DRAWS)
    drawn[:9] = 0.4
    names = ("top1", "top5", "mean_rank", "mrr")
    groups = [
        [replace(scores(["a"], [1], []), control=dict.fromkeys(names, np.array([value, *drawn])))]
        for value in (0.3, 0.5)
    ]

    described = describe_control("permuted", together(groups))

    assert described.metrics["top1"].p == 10 / 1001
    assert described.metrics["mean_rank"].p == 1  # of which less is better
    assert (described.metrics["top1"].measured, described.n, described.pool) == (0.4, 2, 20)


def test_confusions_are_counted_by_concept():
    names = ["cat", "cat", "dog", "dog", "cow", "cow"]
    tested = [
        replace(scores(names, [1, 8, 2, 3, 1, 1], []), named=["cat", "dog", "cow", "cow", "cow", "cow"])
    ]

    matrix = count_confusions(tested)

    assert (matrix.names, matrix.counts) == (["cat", "cow", "dog"], [[1, 0, 1], [0, 2, 0], [0, 2, 0]])
