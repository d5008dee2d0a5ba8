"""Tests of the verdict and of controls."""

from dataclasses import replace

import numpy as np

from brainhive_cli.core.results.measurements import BACKWARD
from brainhive_cli.data.signals.study import StudyDesign
from brainhive_cli.evaluation.retrieval.summary import (
    CellScores,
    describe_control,
    judge_cells,
    rank_by_design,
)
from brainhive_cli.measurement import LabelDesign, Scores, StimulusGrouping
from brainhive_cli.measurement.retrieval import MAX_DRAWS


def together(groups, alike=None):
    return CellScores(groups, alike or StimulusGrouping(), "intra", "test", (1,))


def scores(names, ranks, hits, number=20):
    """Make scores of pictures with a concept each, and of subsets if hits are given."""
    array = np.array(ranks)
    subsets = Scores(values={"top1_expected": np.array(hits)}, pool=number)
    return Scores(
        names,
        names,
        names,
        ranks=array,
        pool=20,
        values={"map": 1 / array},
        relevant=np.ones(len(names), np.int64),
        nearest_concepts=names,
        scopes={
            BACKWARD: Scores(names, ranks=array, pool=len(names)),
            **({"subsets": subsets} if hits else {}),
        },
    )


def group_of(order, ranks):
    """Make the scores of a subject whose signals show pictures 0 to 19 in an order."""
    names = [f"{n}" for n in range(20)]
    created_scores = scores(
        [names[n] for n in order], [int(ranks[n, n]) for n in order], []
    )
    return [
        replace(
            created_scores,
            verdict_ids=names,
            verdict_ranks=ranks[order],
            units=np.array(order),
        )
    ]


def study_of(design, concepts=None):
    """Make a study of 20 pictures, each of which is a unit."""
    of_concepts = None if concepts is None else (concepts, np.arange(20))
    return StudyDesign(design, {}, (), of_concepts)


FREE = LabelDesign.free(np.arange(20), np.zeros(20, np.int64))


def test_the_verdict_covers_all_subjects_and_averages_seeds():
    """Each picture is first for a seed and last for the other: chance on average."""
    right, wrong_full = (
        1 + (np.arange(20) - np.arange(20)[:, None]) % 20,
        np.full((20, 20), 10),
    )
    np.fill_diagonal(wrong_full, 20)
    order = list(range(20))
    good, bad = group_of(order, right), group_of(order[::-1], wrong_full)
    study = study_of(FREE)

    (found,), (lost,) = (judge_cells(together([group]), study) for group in (good, bad))
    (averaged,) = judge_cells(
        together([list(good) + list(group_of(order, wrong_full))]), study
    )
    (subjects,) = judge_cells(together([good, bad]), study)

    assert (found.side, lost.side) == ("above chance", "below chance")
    assert found.better == lost.worse == 1 / 5000
    assert averaged.better == subjects.better
    assert averaged.side == subjects.side == "at chance"


def test_concepts_that_were_shown_in_blocks_are_no_headline():
    """Issue 60, row 2: signals that know the session ranked concepts above chance."""
    # pictures of the shown concept come first, in an order that says no more
    concept, pictures = np.arange(20) // 4, np.arange(20)
    distance = 4 * np.abs(concept[:, None] - concept) + pictures % 4
    ranks = 1 + distance.argsort(1, kind="stable").argsort(1)
    alike = StimulusGrouping(
        "concept", {f"{number}": f"{number // 4}" for number in pictures}
    )
    cells = together([group_of(list(pictures), ranks)], alike)
    concept_labels = LabelDesign.free(concept, np.zeros(20, np.int64))
    # time gives away the concept, but not which picture of it was shown
    known = {
        "predictions": 40 * np.eye(5)[concept],
        "telling": ("time in the run",),
        "p": 0.005,
    }
    blocks = replace(FREE, values=np.eye(5)[concept], **known)
    concept_blocks = replace(concept_labels, values=np.eye(5), **known)

    free = judge_cells(cells, study_of(FREE, concept_labels))
    blocked = judge_cells(cells, study_of(blocks, concept_blocks))

    questions = ["which picture", "which picture of its concept", "which concept"]
    assert [answer.question for answer in free] == questions
    sides = [answer.side for answer in free]
    assert sides == ["above chance", "at chance", "above chance"]
    assert [answer.question for answer in blocked] == questions
    sides = [answer.side for answer in blocked]
    assert sides == ["at chance", "at chance", "not testable"]
    assert blocked[0].design == "time in the run"
    assert free[0].design == ""


def test_the_design_alone_ranks_the_labels_of_each_subject():
    """A blind guess among the pictures of the concept that time gives away."""
    concept = np.arange(20) // 2
    blocks = replace(
        FREE, predictions=40 * np.eye(10)[concept], values=np.eye(10)[concept]
    )
    guess = np.full((20, 20), 10)
    order = list(range(20))
    groups = [group_of(order, guess), group_of(order[::-1], guess)]

    by_blocks = rank_by_design(together(groups), study_of(blocks))
    by_nothing = rank_by_design(together(groups), study_of(FREE))

    assert by_blocks is not None
    assert by_nothing is not None
    assert set(by_blocks[0]) == {1, 2}
    np.testing.assert_array_equal(by_blocks[1], by_blocks[0][::-1])
    assert by_nothing[0].max() > 10
    assert 7 < by_nothing[0].mean() < 14
    # labels of units are not the candidates of a smaller gallery
    smaller = [[replace(group[0], pool=10)] for group in groups]
    assert rank_by_design(together(smaller), study_of(blocks)) is None


def test_an_unknown_order_of_trials_limits_each_answer():
    trials = StimulusGrouping(group_of={f"{n}": "run 1" for n in range(20)})
    cells = together(
        [group_of(list(range(20)), 1 + np.arange(400).reshape(20, 20) % 20)], trials
    )

    (known,) = judge_cells(cells, study_of(FREE))
    (unknown,) = judge_cells(cells, study_of(replace(FREE, is_known=False)))

    assert known.condition == ""
    assert "order of trials" in unknown.condition
    assert (known.better, known.worse) == (unknown.better, unknown.worse)


def test_the_p_of_a_control_counts_draws_that_are_as_good():
    """Two subjects have a mean of .4. Nine of 1000 draws are at least as good."""
    zeros = np.zeros(MAX_DRAWS)
    zeros[:9] = 0.4
    names = ("top1", "top5", "mean_rank", "mrr")
    groups = [
        [
            replace(
                scores(["a"], [1], []),
                control=dict.fromkeys(names, np.array([value] + list(zeros))),
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
