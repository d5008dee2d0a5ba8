"""The covariance of noise, against scikit-learn's shrinkage block by block."""

import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.cutting import covariance, whitener

NAMES = tuple("abcdefg")


def reference(epochs, stimuli, across):
    discriminant = pytest.importorskip("sklearn.discriminant_analysis")
    by_stimulus = []
    for stimulus in np.unique(stimuli):
        own = epochs[stimuli == stimulus].astype(np.float64)  # [R, C, T]
        blocks = (
            own.transpose(0, 2, 1) if across == "epochs" else own.transpose(2, 0, 1)
        )
        if blocks.shape[1] > 1:
            by_stimulus.append(
                np.mean([discriminant._cov(block, "auto") for block in blocks], axis=0)
            )
    return np.mean(by_stimulus, axis=0)


def test_covariance_equals_scikit_learn_s_with_ragged_counts():
    random = np.random.default_rng(0)
    stimuli = np.repeat(np.arange(6), (1, 2, 2, 3, 5, 12))
    random.shuffle(stimuli)
    mixing = random.normal(size=(7, 7))
    for samples in (5, 40):
        epochs = (mixing @ random.normal(size=(len(stimuli), 7, samples))).astype(
            np.float32
        )
        for across in ("epochs", "time"):
            expected = reference(epochs, stimuli, across)
            np.testing.assert_allclose(
                covariance(epochs, stimuli, across), expected, rtol=1e-4, atol=1e-5
            )


def test_whitened_noise_has_no_correlations():
    random = np.random.default_rng(1)
    mixing = np.eye(7) + 0.1 * random.normal(size=(7, 7))
    # so many that little is shrunk
    epochs = (mixing @ random.normal(size=(60, 7, 2000))).astype(np.float32)
    matrix = whitener(covariance(epochs, np.arange(60), "epochs"), NAMES)
    left = np.cov((matrix @ epochs).transpose(1, 0, 2).reshape(7, -1))
    np.testing.assert_allclose(left, np.eye(7), atol=0.05)


def test_noise_across_time_needs_a_second_trial():
    with pytest.raises(BrainhiveError, match="no stimulus was shown twice"):
        covariance(np.ones((3, 2, 4), np.float32), np.arange(3), "time")


def test_channels_that_depend_on_one_another_are_refused():
    with pytest.raises(BrainhiveError, match="singular"):
        whitener(np.ones((7, 7)), NAMES)
