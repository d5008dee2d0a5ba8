"""Bootstrap intervals and the metric that carries them."""

import json

import numpy as np
import pytest

from brainhive_cli.errors import BrainhiveError
from brainhive_cli.metrics import statistics
from brainhive_cli.metrics.statistics import interval, measure


def test_an_interval_over_items_agrees_with_the_normal_theory():
    """The mean of 400 values of deviation 1 has a standard error of 0.05."""
    values = np.random.default_rng(0).normal(size=400)

    low, high = interval([values])

    spread = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - spread, abs=0.01)
    assert high == pytest.approx(values.mean() + spread, abs=0.01)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(1)

    intervals = [interval([random.normal(size=50)], draws=300, seed=s, level=0.8) for s in range(200)]

    assert np.mean([low < 0 < high for low, high in intervals]) == pytest.approx(0.8, abs=0.08)


def test_subjects_that_differ_widen_the_interval():
    items = np.random.default_rng(0).normal(size=(4, 100))
    differ = items + np.array([[-2.0], [-1.0], [1.0], [2.0]])

    alike, apart, pooled = interval(list(items)), interval(list(differ)), interval([differ.ravel()])

    assert apart[1] - apart[0] > 2 * (alike[1] - alike[0])
    assert apart[1] - apart[0] > 2 * (pooled[1] - pooled[0])  # pooling the items would hide it


def test_an_interval_repeats_with_its_seed_and_does_not_depend_on_the_order_of_draws(monkeypatch):
    values = [np.arange(30.0), np.arange(10.0)]
    once = interval(values, seed=3)
    monkeypatch.setattr(statistics, "BLOCK", 100)

    assert interval(values, seed=3) == once
    assert interval(values, seed=4) != once


def test_an_interval_takes_the_median_of_subjects_of_unequal_size():
    low, high = interval([np.array([1.0] * 9 + [1000.0]), np.full(3, 1.0)], statistic=np.median)

    assert (low, high) == (1.0, 1.0)
    assert interval([np.array([1.0] * 9 + [1000.0])])[1] > 100  # the mean would move


def test_a_metric_carries_its_circumstances_as_plain_values():
    metric = measure(
        "top1", [np.ones(3), np.zeros(2)], protocol="cosine", split="test", pool=5, chance=0.2, seeds=[1]
    )

    told = json.loads(json.dumps(metric.as_dict()))
    assert told == {
        "name": "top1",
        "value": 0.5,  # the mean over subjects, not over items
        "n": 5,
        "pool": 5,
        "chance": 0.2,
        "low": 0.0,
        "high": 1.0,
        "seeds": [1],
        "protocol": "cosine",
        "split": "test",
    }


@pytest.mark.parametrize("groups", [[], [np.array([])], [np.ones((2, 2))]])
def test_nothing_to_measure_is_an_error(groups):
    with pytest.raises(BrainhiveError, match="nothing to measure"):
        measure("top1", groups, protocol="cosine", split="test")


def test_a_value_that_is_not_a_number_is_an_error():
    with pytest.raises(BrainhiveError, match="not a finite number"):
        interval([np.array([1.0, np.nan])])
