"""Tests of the amounts that suffice."""

from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.core.results.measurements import Metric
from brainhive_cli.evaluation.calibration.curves import (
    find_crossing,
    find_sufficient_amounts,
)
from brainhive_cli.measurement.units import Items

PLAIN = Metric(
    "top1", 0.0, 100, 100, 0.01, None, None, (1,), "calibration", "test", "none"
)


@pytest.mark.parametrize(("low", "is_above"), [(0.02, True), (0.005, False)])
def test_an_amount_suffices_only_above_chance(low, is_above):
    random = np.random.default_rng(0)
    rates = {"10 pictures": 0.2, "40 pictures": 0.8, "everything": 0.8}
    hits = {
        name: [1.0 * (random.random(100) < rate) for _ in range(3)]
        for name, rate in rates.items()
    }
    whole = replace(PLAIN, value=0.8, low=low, high=0.9)

    facts = find_sufficient_amounts(hits, whole, Items.from_sizes([100] * 3))

    assert facts.get("is_above_chance", False) is is_above
    if is_above:
        assert facts["suffices"][0] == 1
        assert facts["lead"] == "40 pictures"


@pytest.mark.parametrize("people", [1, 2])
def test_one_or_two_people_have_no_amount_that_suffices(people):
    """Issue 60, row 20: "90 % from N pictures on" was wrong for one or two people.

    The share of wrong studies was .38 to .82.
    """
    rates = {"10 pictures": 0.2, "40 pictures": 0.9, "everything": 0.9}
    random = np.random.default_rng(0)
    hits = {
        name: [1.0 * (random.random(100) < rate) for _ in range(people)]
        for name, rate in rates.items()
    }

    facts = find_sufficient_amounts(
        hits,
        replace(PLAIN, value=0.9, low=0.8, high=1.0),
        Items.from_sizes([100] * people),
    )

    assert facts["suffices"] is None
    assert facts["lead"] == "40 pictures"


def test_three_people_who_differ_settle_no_amount():
    """Issue 60, row 20: their mean was said to be reached "from N pictures on"."""
    rates = {
        "10 pictures": (0.85, 0.4, 0.75),
        "40 pictures": (0.9, 0.7, 0.9),
        "everything": (0.9, 0.9, 0.9),
    }
    hits = {
        name: [1.0 * (np.arange(100) < 100 * rate) for rate in of_people]
        for name, of_people in rates.items()
    }
    shuffled = np.random.default_rng(0).permutation(100)
    hits["everything"] = [each[shuffled] for each in hits["everything"]]
    whole = replace(PLAIN, value=0.9, low=0.8, high=1.0)

    facts = find_sufficient_amounts(hits, whole, Items.from_sizes([100] * 3))

    # by their means, .67 and .83 of .81, it is 40 pictures
    assert facts["suffices"] == (0, 2)


def test_an_unlimited_end_is_never_sure():
    """Issue 60, row 20: the value stood in for a missing end of its interval."""
    below, unlimited, above = (-0.3, -0.1), (None, None), (0.1, 0.3)

    assert find_crossing([below, above, above]) == (1, 1)
    assert find_crossing([below, unlimited, above]) == (1, 2)
    assert find_crossing([unlimited, below, unlimited]) == (2, 3)
    assert find_crossing([(-0.3, None), (None, 0.3)]) == (0, 2)


def metrics(*values, reach=None):
    ends = [
        (None, None) if reach is None else (value - reach, value + reach)
        for value in values
    ]
    return [
        replace(PLAIN, value=value, low=low, high=high)
        for value, (low, high) in zip(values, ends, strict=True)
    ]
