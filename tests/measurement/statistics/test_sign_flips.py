"""Sign flips over units and their interval: against enumeration, worked examples and
simulation.
"""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from brainhive_cli.measurement.statistics import flip_signs
from brainhive_cli.measurement.units import Items

DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Darwin's plants: heights of crossed minus self-fertilised, in eighths of an inch
(Fisher 1935, § 17).
"""


def flipped(values, units=None):
    values = np.asarray(values, float)
    ids = [list(range(len(values)))]
    return flip_signs([values], Items(ids, ids if units is None else [units]))


def test_fishers_own_example_is_found():
    """Fisher counts 1,726 of 2¹⁵ sums as large as the observed 314 (1935, § 21)."""
    assert flipped(DARWIN).p == pytest.approx(1726 / 2**15)


def test_few_units_have_all_signs_counted():
    values = np.random.default_rng(0).normal(0.4, 1, 8)
    sums = np.array([np.dot(signs, values) for signs in product((-1, 1), repeat=8)])

    flips = flipped(values)

    assert flips.p_above == pytest.approx((sums >= values.sum() - 1e-9).mean())
    assert flips.p_below == pytest.approx((sums <= values.sum() + 1e-9).mean())
    assert flips.least_p == 2 / 2**8


@pytest.mark.parametrize(("only_first", "only_second"), [(10, 2), (5, 5)])
def test_hits_of_few_items_are_compared_by_mcnemars_exact_test(only_first, only_second):
    flips = flipped([1.0] * only_first + [-1.0] * only_second)

    exact = binomtest(only_first, only_first + only_second).pvalue
    assert flips.p == pytest.approx(exact)


def test_the_interval_contains_exactly_the_accepted_effects():
    """An effect inside of it, taken off all values, is not rejected; one outside is."""
    random = np.random.default_rng(1)
    for count in (6, 9, 12, 40):
        values = random.normal(0.3, 1, count)
        flips = flipped(values)
        step = 1e-6 * (flips.high - flips.low)
        for inside, outside_effect in (
            (flips.low + step, flips.low - step),
            (flips.high - step, flips.high + step),
        ):
            assert (
                flipped(values - inside).p > 0.05 >= flipped(values - outside_effect).p
            )


def test_units_weigh_what_they_hold_and_flip_together():
    """Twenty equal items of a unit say as little as one: the p of six units, not of
    25 items.
    """
    values = np.repeat([1.0, 1, 1, 1, 1, 1], [20, 1, 1, 1, 1, 1])
    units = np.repeat(range(6), [20, 1, 1, 1, 1, 1]).tolist()

    assert flipped(values, units).p == 2 / 2**6
    assert flipped(values).p < 0.001


def test_five_units_have_no_interval_and_cannot_be_found():
    flips = flipped([1.0, 2, 3, 4, 5])

    assert (flips.low, flips.high, flips.least_p) == (
        None,
        None,
        2 / 2**5,
    )
    assert flips.p > 0.05


@pytest.mark.parametrize("sizes", [[5] * 40, [100] + [5] * 20])
def test_the_error_rate_holds_for_units_of_any_weight(sizes):
    """Bound .05 and two Monte Carlo errors of 400 simulations; a t test over units
    rejects up to .3.
    """
    random, rejected = np.random.default_rng(0), 0
    unit = np.repeat(np.arange(len(sizes)), sizes)
    for _ in range(400):
        values = random.normal(size=len(sizes))[unit] + 0.5 * random.normal(
            size=len(unit)
        )
        rejected += flipped(values, unit.tolist()).p <= 0.05

    assert rejected / 400 <= 0.072
