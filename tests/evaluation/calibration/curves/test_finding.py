"""Tests of the finding of calibrate."""

from dataclasses import replace

import numpy as np

from brainhive_cli.core.results import CellFacts, Measurements, Metric
from brainhive_cli.evaluation.calibration.curves import find_better_amounts
from brainhive_cli.evaluation.calibration.facts import Amount, CalibrationFacts
from brainhive_cli.measurement.units import Items
from brainhive_cli.reports.sentences.sentences import state_finding

TOP1 = Metric(
    "top1",
    0.3,
    1200,
    200,
    0.005,
    0.22,
    0.38,
    (1,),
    "calibration",
    "test",
    "t",
    people=(0.22, 0.38),
)
AMOUNTS = [
    Amount(name="20 pictures", pictures=20, trials=80, minutes=1.0),
    Amount(name="50 pictures", pictures=50, trials=200, minutes=2.5),
    Amount(name="everything", pictures=400, trials=1600, minutes=20.1),
]
ABOUT = ("signals and labels", "none", "an arm")


def measure(arm="transfer", people=6, **facts):
    """Make measurements of an arm with .1, .22 and .3. Zero-shot has .04."""
    top1 = {"20 pictures": 0.1, "50 pictures": 0.22, "everything": 0.3}
    scopes = {
        f"{arm} · {name}": {"top1": replace(TOP1, value=value)}
        for name, value in top1.items()
    }
    scopes |= {"zero-shot": {"top1": replace(TOP1, value=0.04)}, "all": {"top1": TOP1}}
    stated = {
        "is_above_chance": True,
        "lead": "50 pictures",
        "cells": {
            f"sub-{single_index:02d}": CellFacts(subject=single_index)
            for single_index in range(people)
        },
        "people": {
            f"sub-{single_index:02d}": [0.1, 0.2, 0.3] for single_index in range(people)
        },
        "arms": {name: ABOUT for name in (arm, "zero-shot")},
        **facts,
    }
    return Measurements(
        scopes, {}, CalibrationFacts(modality="EEG", arm=arm, amounts=AMOUNTS, **stated)
    )


def test_the_finding_states_amount_accuracy_and_people():
    finding = state_finding(measure(suffices=(1, 2)))

    for fact in (
        "With 50 pictures of a new person, transfer",
        "first of 200 in 22 % of cases (95 % CI 22 to 38 %; chance 0.5 %)",
        "from EEG",
        "all recordings (400 pictures, 20.1 minutes)",
        "in 30 %",
        "in 4 %",
        "6 new people",
        "more than 20 pictures (95 % CI, people in general)",
    ):
        assert fact in finding


def test_the_finding_states_the_amount_that_suffices():
    between = "more than 20 pictures and at most 50 pictures"
    assert between in state_finding(measure(suffices=(1, 1)))
    unsettled = state_finding(measure(people=4, suffices=(0, 2)))
    assert "4 people are too few" in unsettled
    assert "more than" not in unsettled
    up_to = "up to 50 pictures (p < .05, corrected over the amounts, people in general)"
    assert up_to in state_finding(measure(better=(2, 3)))


def test_equal_arms_rarely_differ_and_two_people_say_nothing():
    """Issue 84, row 6: one of eight amounts was better in .19 to .44 of studies.

    Of 60 studies at .025 1.5 are expected. 6 or more have a probability of .004.
    """
    random, items, found = np.random.default_rng(0), Items.from_sizes([60] * 5), 0
    for _ in range(60):
        hits = random.random((2, 8, 5, 60)) < 0.2 + random.normal(0, 0.04, (2, 8, 5, 1))
        gains = [list(gain) for gain in hits[0] - hits[1].astype(float)]
        up_to, _ = find_better_amounts(gains, items) or (0, 0)
        found += up_to > 0
        assert find_better_amounts([gain[:2] for gain in gains], items) is None

    assert found <= 5


def test_gains_reach_up_to_an_amount_and_none_begin_at_another():
    random, items = np.random.default_rng(1), Items.from_sizes([100] * 6)
    gains = [
        [random.normal(mean, 0.3, 100) for _ in range(6)]
        for mean in (0.0, 0.3, 0.3, 0.0, -0.3, -0.3)
    ]

    assert find_better_amounts(gains, items) == (3, 4)
