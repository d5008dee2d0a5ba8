"""Tests of the verdict and of controls."""

from dataclasses import replace

import numpy as np

from brainhive_cli.core.measurements import BACKWARD
from brainhive_cli.evaluation.retrieval.summary import (
    CellScores,
    describe_control,
    judge_cells,
)
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.retrieval import MAX_DRAWS, Scores
from brainhive_cli.measurement.units import StimulusGrouping


def together(
    groups: list[list[Scores]], alike: StimulusGrouping | None = None
) -> CellScores:
    return CellScores(groups, alike or StimulusGrouping(), "intra", "test", (1,))


def scores(
    names: list[str], ranks: list[int], hits: list[float], ways: int = 20
) -> Scores:
    """Make scores of pictures with a concept each, and of subsets if hits are given."""
    found = np.array(ranks)
    subsets = Scores(values={"top1_expected": np.array(hits)}, pool=ways)
    return Scores(
        *(names, names, names),
        ranks=found,
        pool=20,
        values={"map": 1 / found},
        relevant=np.ones(len(names), np.int64),
        nearest_concepts=names,
        scopes={
            BACKWARD: Scores(names, ranks=found, pool=len(names)),
            **({"subsets": subsets} if hits else {}),
        },
    )


def group_of(
    order: list[int], ranks: np.ndarray, sessions: list[int] | None = None
) -> list[Scores]:
    """Make the scores of a subject whose signals show pictures 0 to 19 in an order."""
    names = [f"{n}" for n in range(20)]
    recorded = None if sessions is None else [sessions[n] for n in order]
    interleaving = Interleaving([0] * 20, [*range(20)], recorded)
    made = scores([names[n] for n in order], [int(ranks[n, n]) for n in order], [])
    return [
        replace(
            made,
            verdict_ids=names,
            verdict_ranks=ranks[order],
            interleaving=interleaving,
        )
    ]


def test_the_verdict_covers_all_subjects_and_averages_seeds():
    """Each picture is first for one seed and last for the other: chance on average."""
    right, wrong = (
        1 + (np.arange(20) - np.arange(20)[:, None]) % 20,
        np.full((20, 20), 10),
    )
    np.fill_diagonal(wrong, 20)
    order = [*range(20)]
    good, bad = group_of(order, right), group_of(order, wrong)

    (found,), (lost,) = (judge_cells(together([group])) for group in (good, bad))
    (averaged,) = judge_cells(together([[*good, *bad]]))
    (subjects,) = judge_cells(together([good, bad]))

    assert (found.side, lost.side) == ("above chance", "below chance")
    assert found.better == lost.worse == 1 / 5000
    assert (
        averaged.better == subjects.better
        and averaged.side == subjects.side == "at chance"
    )


def test_concepts_that_were_shown_in_blocks_are_no_headline():
    """Issue 60, row 2: signals that know the session ranked concepts above chance."""
    # pictures of the shown concept come first, in an order that says no more
    concept, pictures = np.arange(20) // 2, np.arange(20)
    distance = 2 * np.abs(concept[:, None] - concept) + (pictures % 2 > 0)
    ranks = 1 + distance.argsort(1, kind="stable").argsort(1)
    alike = StimulusGrouping(
        "concept", {f"{number}": f"{number // 2}" for number in pictures}
    )
    (cell,) = group_of([*pictures], ranks)
    blocks = replace(cell.interleaving, concept_problem="concepts came in blocks")

    free = judge_cells(together([[cell]], alike))
    blocked = judge_cells(together([[replace(cell, interleaving=blocks)]], alike))

    assert free[0].question == "over concepts" and free[0].side == "above chance"
    assert blocked[0].question == "which picture" and blocked[0].side == "at chance"
    assert blocked[-1].side == "not testable"


def test_the_p_of_a_control_counts_draws_that_are_as_good():
    """Two subjects have a mean of .4. Nine of 1000 draws are at least as good."""
    drawn = np.zeros(MAX_DRAWS)
    drawn[:9] = 0.4
    names = ("top1", "top5", "mean_rank", "mrr")
    groups = [
        [
            replace(
                scores(["a"], [1], []),
                control=dict.fromkeys(names, np.array([value, *drawn])),
            )
        ]
        for value in (0.3, 0.5)
    ]

    described = describe_control("permuted", together(groups))

    assert described.metrics["top1"]["p"] == 10 / 1001
    assert described.metrics["mean_rank"]["p"] == 1  # of which less is better
    assert (described.metrics["top1"]["measured"], described.n, described.pool) == (
        0.4,
        2,
        20,
    )
