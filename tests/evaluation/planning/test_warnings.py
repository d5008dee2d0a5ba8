"""Tests of the warnings about designs."""

from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.evaluation.planning.designs import Design, Question
from brainhive_cli.evaluation.planning.pilot import Pilot
from brainhive_cli.evaluation.planning.warnings import list_warnings
from brainhive_cli.measurement.trial_order import TrialOrder

DESIGN = Design(
    people=5,
    sessions=2,
    session_minutes=60,
    onset_interval_s=1.5,
    train_pictures=40,
    train_repetitions=2,
    test_pictures=20,
    test_repetitions=4,
)
CONCEPT_OF = {
    f"{concept}/{number}": concept
    for concept in "abcdefghijklmnop"
    for number in range(4)
}
TRAIN = [name for name in CONCEPT_OF if name[0] < "f"]
TEST = [name for name in CONCEPT_OF if name[0] >= "f"]


def warn(design=DESIGN, new_people=False, **facts):
    """List the warnings of a design, and of a clean split unless another is given."""
    facts = {
        "split": (TRAIN, TEST),
        "concept_of": CONCEPT_OF,
        "copies": [],
        "pilot": None,
        **facts,
    }
    question = Question("above-chance", new_people=new_people)
    return list_warnings(design, question, **facts)


def make_pilot(order):
    """Make a pilot whose runs show 24 pictures of 6 concepts in an order [runs, n]."""
    runs = np.repeat(np.arange(len(order)), order.shape[1])
    trial_order = TrialOrder(
        order.ravel(), np.arange(24) // 4, np.zeros_like(runs), runs
    )
    return Pilot("PILOT", [], DESIGN, [], [], [trial_order], (-100, 800))


def shuffle(seed=0):
    """Draw a random order of 24 pictures for each of 8 runs."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(24) for _ in range(8)])


def test_a_clean_design_gives_no_warning():
    assert warn(new_people=True, pilot=make_pilot(shuffle())) == []
    assert warn(concept_of={}) == []
    assert warn(window_ms=(0, 1500)) == []


def test_categories_in_blocks_are_warned_of():
    # a new order of the 6 concepts in each run, with the 4 pictures of each together
    rng = np.random.default_rng(1)
    runs = [rng.permutation(6)[:, None] * 4 + np.arange(4) for _ in range(8)]
    blocks = np.stack(runs).reshape(8, 24)
    (warning,) = warn(pilot=make_pilot(blocks))
    assert "PILOT" in warning
    assert "blocks" in warning


def test_repetitions_in_a_row_are_warned_of():
    order = np.repeat(shuffle()[:4], 4, axis=1)
    (warning,) = warn(pilot=make_pilot(order))
    assert "blocks" in warning


def test_the_same_order_in_all_runs_is_warned_of():
    order = np.tile(shuffle()[0], (8, 1))
    (warning,) = warn(pilot=make_pilot(order))
    assert "runs" in warning
    assert "order" in warning


def test_test_concepts_in_training_are_warned_of():
    (warning,) = warn(split=(TRAIN + ["f/0"], TEST[1:]))
    assert f"3 of {len(TEST) - 1}" in warning
    assert "f/1" in warning


def test_near_copies_are_warned_of():
    (warning,) = warn(copies=["k/2"])
    assert f"1 of {len(TEST)}" in warning
    assert "k/2" in warning


def test_windows_that_reach_the_next_picture_are_warned_of():
    short_interval = replace(DESIGN, onset_interval_s=0.5)
    for facts in ({"pilot": make_pilot(shuffle())}, {"window_ms": (0, 800)}):
        (warning,) = warn(short_interval, **facts)
        assert "800 ms" in warning
        assert "500 ms" in warning
    assert warn(short_interval, window_ms=(0, 500)) == []


@pytest.mark.parametrize("concept_of", [CONCEPT_OF, {}])
def test_few_concepts_are_warned_of(concept_of):
    (warning,) = warn(split=(TRAIN, ["f/0", "g/0"]), concept_of=concept_of)
    assert "2 concepts" in warning


def test_few_people_are_warned_of():
    four = replace(DESIGN, people=4)
    assert warn(four) == []
    (warning,) = warn(four, new_people=True)
    assert "5 people" in warning
    assert "4" in warning
    (warning,) = warn(replace(DESIGN, people=1))
    assert "one person" in warning


def test_test_pictures_without_repetition_are_warned_of():
    (warning,) = warn(replace(DESIGN, test_repetitions=1))
    assert "ceiling" in warning


def test_the_most_decisive_warning_is_first():
    design = replace(DESIGN, people=1, test_repetitions=1)
    order = np.tile(shuffle()[0], (8, 1))
    warnings = warn(design, pilot=make_pilot(order), split=(TRAIN + ["f/0"], TEST))
    assert ["order" in warnings[0], "concepts" in warnings[1]] == [True, True]
    assert len(warnings) == 4


def test_warnings_of_the_pilot_itself_are_last():
    pilot = replace(make_pilot(shuffle()), warnings=["The order is unknown."])
    design = replace(DESIGN, people=1)
    assert warn(design, pilot=pilot)[1:] == ["The order is unknown."]
