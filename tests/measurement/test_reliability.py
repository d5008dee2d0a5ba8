"""Halves of repetitions, and the share of variance that is not noise: of simulations,
and of a reference.
"""

import numpy as np
import pytest
import torch

from brainhive_cli.measurement.ranks import summarise
from brainhive_cli.measurement.reliability import (
    correlation_shares,
    noise_ceiling,
    rank_halves,
    spearman_brown,
    unit_vectors,
)
from brainhive_cli.measurement.statistics import measure


def test_the_interval_of_retrieval_holds_although_items_share_one_pool():
    """The truth is the mean of 400 simulations; two standard errors of a coverage of
    .95 are .02.
    """
    random = np.random.default_rng(0)
    patterns = 0.8 * random.normal(size=(400, 1, 60, 5, 4))
    halves = (
        torch.from_numpy(patterns + random.normal(size=(400, 2, 60, 5, 4)))
        .float()
        .flatten(3)
    )
    found = [
        summarise([rank_halves(*pair)], 60, split="test", only=("top1",))[0]
        for pair in halves
    ]
    truth = np.mean([each.value for each in found])
    assert np.mean([each.low <= truth <= each.high for each in found]) > 0.93 - 0.02


def test_spearman_brown_doubles_the_repetitions():
    """Spearman 1910: two halves that share half of their variance."""
    assert spearman_brown(np.array(0.5)) == pytest.approx(2 / 3)
    # 0.25 of variance 1.25, then 0.75
    assert spearman_brown(np.array(0.2), times=3) == pytest.approx(3 / 7)


def test_the_noise_ceiling_is_that_of_the_reference(golden):
    """24 pictures, 5 channels, 8 samples; by the formula of THINGS-MEG."""
    with np.load(golden / "prepare/explain.npz") as file:
        trials, expected = (
            file["enc_signal_test"].astype(float),
            file["nc_percent_things"],
        )
    found = noise_ceiling(lambda: trials, np.full(len(trials), trials.shape[1]))
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize(("drift", "counts"), ((0.5, 8), (0.5, None)))
def test_the_noise_ceiling_holds_where_sessions_drift_and_counts_differ(drift, counts):
    """Mean of 200 channels, whose standard error is .3; a variance over 200 stimuli is
    biased by about .5.
    """
    random = np.random.default_rng(0)
    shown = random.integers(2, 9, 200) if counts is None else np.full(200, counts)
    signal, offsets = (
        0.7 * random.normal(size=(200, 1, 200)),
        drift * random.normal(size=(8, 200)),
    )
    trials = signal + random.normal(size=(200, 8, 200)) + offsets
    stimuli = [stimulus[:count] for stimulus, count in zip(trials, shown, strict=True)]

    found = noise_ceiling(lambda: stimuli, shown)

    assert found.mean() == pytest.approx(
        100 * 0.49 / (0.49 + (1 / shown).mean()), abs=1.5
    )


@pytest.mark.parametrize("noise", (0.3, 3.0))
def test_the_interval_of_a_correlation_by_shares_holds_and_is_narrow_where_both_agree(
    noise,
):
    """Of 200 simulations, two standard errors of a coverage of .95 are .03."""
    random, held, widths = np.random.default_rng(0), [], []
    truth = 1 / (1 + noise**2)
    for _ in range(200):
        pattern = random.normal(size=(60, 20))
        one, other = (
            unit_vectors(pattern + noise * random.normal(size=(60, 20)))
            for _ in range(2)
        )
        shares = correlation_shares(one, other)
        assert shares.mean(0) == pytest.approx((one * other).sum(0))
        found = measure(
            "r",
            [shares.mean(1)],
            limits=(-1, 1),
            is_share=False,
            protocol="",
            split="test",
        )
        held.append(found.low <= truth <= found.high)
        widths.append(found.high - found.low)
    assert np.mean(held) > 0.88 and np.mean(widths) < (0.03 if noise < 1 else 0.25)
