"""Labels that may be exchanged, by the order of trials in time."""

import numpy as np
import pytest

from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.trial_order import TrialOrder

RUNS, LABELS, EACH = 6, 4, 10


def sequence(random: np.random.Generator, design: str) -> np.ndarray:
    """One run of four labels, ten trials each."""
    labels = random.permutation(LABELS)
    if design == "two at a time":
        return np.concatenate(
            [random.permutation(np.repeat(part, EACH)) for part in np.split(labels, 2)]
        )
    return {
        "random": random.permutation(np.repeat(labels, EACH)),
        "blocks": np.repeat(labels, EACH),
        "blocks in one order": np.repeat(np.arange(LABELS), EACH),
        "a label a run": np.full(LABELS * EACH, labels[0]),
    }[design]


def order_of(design: str) -> tuple[TrialOrder, np.ndarray]:
    """Six runs, and the run of each trial."""
    random = np.random.default_rng(0)
    labels = np.concatenate([sequence(random, design) for _ in range(RUNS)])
    run = np.repeat(np.arange(RUNS), LABELS * EACH)
    onset = np.tile(np.arange(LABELS * EACH) * 2.0, RUNS)
    return TrialOrder.of(np.arange(len(labels)), labels.tolist(), None, run, onset), run


@pytest.mark.parametrize(
    ("design", "parts"),
    [
        ("random", RUNS),
        ("two at a time", 2 * RUNS),  # the halves of runs
        ("blocks", None),
        ("a label a run", None),
    ],
)
def test_labels_of_single_trials_are_exchanged_where_they_were_interleaved(
    design, parts
):
    order, run = order_of(design)

    found = Interleaving.from_trials(order, np.zeros_like(run), "trials")

    assert bool(found.problem) == (parts is None)
    # halves, or quarters by chance
    assert parts is None or len(set(found.parts)) in (parts, 2 * parts)
    assert found.follows_time == (design != "random")


def test_runs_held_out_exchange_whole_blocks_whose_order_differs_between_runs():
    for design, blocks, problem in (
        ("random", RUNS * LABELS * EACH, ""),
        ("blocks", RUNS * LABELS, ""),
        ("blocks in one order", None, "the same order in all runs"),
    ):
        order, run = order_of(design)
        found = Interleaving.from_trials(order, run, "runs")
        assert problem in found.problem and bool(found.problem) == bool(problem)
        assert blocks is None or len(set(found.blocks)) == blocks


@pytest.mark.parametrize(
    ("sessions_of", "parts"), [("concept", None), ("two concepts", 10), ("drawn", 10)]
)
def test_concepts_of_sessions_of_their_own_cannot_be_distinguished_from_time(
    sessions_of, parts
):
    """Twenty concepts of six pictures; of a concept, pictures are exchanged."""
    concept = np.repeat(np.arange(20), 6)
    drawn = np.random.default_rng(0).permutation(np.arange(120) % 10)
    session = {"concept": concept, "two concepts": concept // 2, "drawn": drawn}[
        sessions_of
    ]
    order = TrialOrder.of(np.arange(120), concept.tolist(), session, None, None)

    found = Interleaving.from_pictures(order, np.zeros(120, np.int64))

    assert (found.concept_parts is None) == (parts is None)
    assert bool(found.concept_problem) == (parts is None)
    assert parts is None or len(set(found.concept_parts)) == parts
    assert found.follows_time == (sessions_of != "drawn")
