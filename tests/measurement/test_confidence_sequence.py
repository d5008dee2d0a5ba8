"""The interval of a hit rate that holds at every moment: exact values, its martingale,
and simulations.
"""

from itertools import permutations

import numpy as np
import pytest
from scipy.special import betaln

from benchmarks.simulated_statistics.claims.live import live
from brainhive_cli.measurement.confidence_sequence import (
    PRIOR_A,
    PRIOR_B,
    HitRate,
    hit_rate_interval,
    measure_evidence,
)


def martingale(rate, hits, trials):
    """Likelihood ratio as defined, in logarithms, of a rate inside (0, 1)."""
    mixture = betaln(hits + PRIOR_A, trials - hits + PRIOR_B) - betaln(PRIOR_A, PRIOR_B)
    return mixture - hits * np.log(rate) - (trials - hits) * np.log1p(-rate)


@pytest.mark.parametrize("hits, trials", [(1, 2), (999, 1000), (300, 100_000)])
def test_at_its_ends_the_martingale_is_one_over_the_error_rate(hits, trials):
    level = 0.9
    low, high = hit_rate_interval(hits, trials, level)
    assert 0 < low < hits / trials < high < 1
    assert martingale(np.array([low, high]), hits, trials) == pytest.approx(
        [-np.log(1 - level)] * 2, abs=1e-6
    )


def answer(pool, shown_stimuli, answers):
    rate = HitRate(pool)
    for shown_name, answer_name in zip(
        map(str, shown_stimuli), map(str, answers), strict=True
    ):
        rate.add(shown_name, answer_name)
    return rate


def test_evidence_is_one_on_average_over_all_orders_of_stimuli():
    shown_letters, answers = "aabbabc", "aababba"
    orders = [
        np.exp(measure_evidence(order, answers))
        for order in permutations(shown_letters)
    ]
    np.testing.assert_allclose(np.mean(orders, 0), 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("answers", "shares"),
    [("most frequent", (0.8, 0.2)), ("as frequent", (0.6, 0.2, 0.2))],
)
def test_guesses_at_frequencies_rarely_become_significant(shares, answers):
    """Issue 60, row 14: tested against one of the gallery, noise of 80/20 pictures had
    p ≤ .05 in .33.
    """
    random, passed = np.random.default_rng(0), 0
    for _ in range(100):
        shown_pictures, guess = random.choice(len(shares), (2, 300), p=shares)
        passed += (
            answer(
                len(shares), shown_pictures, guess * (answers == "as frequent")
            ).p_value
            <= 0.05
        )
    assert passed / 100 <= 0.05 + 2 * (0.05 * 0.95 / 100) ** 0.5  # two standard errors


def test_of_pictures_in_blocks_nothing_is_claimed():
    shown_pictures = np.random.default_rng(0).integers(0, 4, 30).repeat(10)
    rate = answer(4, shown_pictures, shown_pictures)
    assert not rate.is_interleaved
    assert rate.p_value == 1
    assert answer(
        4, *2 * [np.random.default_rng(0).permutation(shown_pictures)]
    ).is_interleaved


@pytest.mark.parametrize(
    ("design", "rate"), [("equal pictures", 0.005), ("50 pictures, in rounds", 0.2)]
)
def test_the_interval_rarely_ever_misses_the_rate(design, rate):
    random = np.random.default_rng(0)
    results = np.mean(
        [live(random, design, rate, 300)[1:3] for _ in range(200)], axis=0
    )
    ours, wilson = results
    assert ours <= 0.05 + 2 * (0.05 * 0.95 / 200) ** 0.5  # two standard errors
    assert wilson > 0.08  # an interval for a single moment does not
