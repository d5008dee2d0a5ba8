"""Tests of designs and their predictions."""

from dataclasses import replace

import pytest

from brainhive_cli.evaluation.planning.designs import Design, Prediction, Range

DESIGN = Design(
    people=2,
    sessions=2,
    session_minutes=60,
    onset_interval_s=1.5,
    train_pictures=400,
    train_repetitions=8,
    test_pictures=100,
    test_repetitions=20,
)


def test_a_design_counts_its_trials_and_hours():
    assert DESIGN.trials == 5200
    assert DESIGN.minutes == 130
    assert DESIGN.hours == 4
    assert not DESIGN.fits
    assert DESIGN.least_sessions == 3


def test_breaks_and_catch_trials_take_time_of_a_session():
    study = replace(DESIGN, session_minutes=75, pause_minutes=7, catch_share=0.05)
    assert study.minutes == pytest.approx(130 / 0.95)
    assert study.least_sessions == 3
    assert not study.fits
    assert replace(study, pause_minutes=6).fits


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (0.8, 1.0, "yes"),
        (0.5, 0.9, "perhaps"),
        (0.2, 0.9, "cannot say"),
        (0.1, 0.7, "no"),
    ],
)
def test_the_range_of_the_power_decides_the_answer(low, high, answer):
    power = Range(0.7, low, high)
    prediction = Prediction(
        DESIGN, power, power, power, 0.01, None, n_studies=100, is_extrapolated=False
    )
    assert prediction.answer == answer
