"""Tests of the power of designs."""

from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.evaluation.planning import studies
from brainhive_cli.evaluation.planning.assumptions import PilotPerson, PublishedResult
from brainhive_cli.evaluation.planning.designs import Design, Question
from brainhive_cli.evaluation.planning.power import LogisticCurve, predict_designs

RESULT = PublishedResult(0.2, 0.12, 0.3, 200, 4, 50, 4, people=10)
SMALL = Design(1, 1, 60, 1, 60, 1, 20, 1)
LARGE = Design(5, 1, 60, 1, 400, 4, 50, 8)


@pytest.fixture(autouse=True)
def simulate_few_studies(monkeypatch):
    """Simulate a third of the studies, to save time."""
    monkeypatch.setattr(studies, "N_LIKELY_STUDIES", 50)
    monkeypatch.setattr(studies, "N_OTHER_STUDIES", 30)
    monkeypatch.setattr(studies, "N_DECODERS", 80)


def test_a_curve_recovers_probabilities():
    rng = np.random.default_rng(0)
    log_gain = rng.normal(-2, 0.5, 4000)
    shape = rng.integers(0, 4, 4000)
    probabilities = 1 / (1 + np.exp(-(3 * (log_gain + 2) + 0.5 * shape - 1)))
    curve = LogisticCurve.fit(log_gain, shape, rng.random(4000) < probabilities)
    assert np.abs(curve(log_gain, shape) - probabilities).mean() < 0.02


def test_more_data_have_more_power():
    counts = []
    small, large = predict_designs(
        [SMALL, LARGE], Question(), RESULT, report_progress=counts.append
    )
    assert counts == [1, 2]
    assert small.power.value < 0.6
    assert large.power.value > 0.95
    assert large.answer == "yes"
    assert small.chance == 1 / 20
    for prediction in (small, large):
        assert prediction.power.low <= prediction.power.value <= prediction.power.high
        assert prediction.half_power.value < prediction.power.value + 0.001
        assert prediction.top1.low <= prediction.top1.value <= prediction.top1.high
        assert prediction.halving_factor is None
        assert not prediction.is_extrapolated
    assert large.smallest is not None
    assert 1 / 50 <= large.smallest < large.top1.value


def test_equal_seeds_give_equal_predictions():
    first_prediction, second = (
        predict_designs([SMALL], Question("top1", 0.1), RESULT, seed=3)
        for _ in range(2)
    )
    assert first_prediction == second


def test_a_difference_has_a_smallest_size():
    (large,) = predict_designs([LARGE], Question("difference", 0.1), RESULT)
    (tiny,) = predict_designs([LARGE], Question("difference", 0.01), RESULT)
    assert tiny.power.value < large.power.value / 2
    assert large.smallest is not None
    assert 0.01 < large.smallest < 0.3


def test_few_concepts_are_tested_as_the_evaluation_does():
    """Intervals are over concepts, but the verdict on these pictures is not."""
    short_question = Question("interval", 0.3)
    (independent,) = predict_designs([SMALL], short_question, RESULT)
    (grouped,) = predict_designs([SMALL], short_question, RESULT, test_concepts=[12])
    assert grouped.power.value < independent.power.value

    (independent,) = predict_designs([SMALL], Question(), RESULT)
    (grouped,) = predict_designs([SMALL], Question(), RESULT, test_concepts=[12])
    assert grouped == independent


def test_no_power_is_certain():
    (prediction,) = predict_designs([LARGE], Question(), RESULT)
    lowest_power = 1 / (prediction.n_studies + 2)
    assert (
        lowest_power
        <= prediction.power.low
        <= prediction.power.high
        <= 1 - lowest_power
    )


def test_few_people_say_nothing_about_people_in_general():
    design = replace(LARGE, people=4)
    (prediction,) = predict_designs([design], Question(new_people=True), RESULT)
    assert prediction.power.value < 0.05
    assert prediction.answer == "no"


def test_noise_as_a_pilot_promises_nothing():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(60, 12)).astype("f4")
    picture = np.tile(np.arange(60), 2)
    signals = rng.normal(size=(120, 40)).astype("f4")
    person = PilotPerson(signals, picture, targets, group=np.arange(60))
    long_design = replace(LARGE, train_pictures=20_000)
    prediction, extrapolated = predict_designs(
        [LARGE, long_design], Question(), [person]
    )
    assert extrapolated.is_extrapolated
    assert prediction.power.low < 0.2
    assert prediction.answer != "yes"
    assert prediction.deciding_factor is None or prediction.deciding_factor > 1
    assert not prediction.is_extrapolated
