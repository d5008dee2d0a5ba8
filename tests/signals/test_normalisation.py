"""Normalisation of a subject's signals."""

import numpy as np
import pytest

from brainhive_cli.signals.normalisation import fit

ROUNDING = 1e-4


@pytest.fixture
def signal() -> np.ndarray:
    """[N, C, T] with means, sizes and correlations."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(3, 3))
    return (5 + mixing @ random.normal(size=(40, 3, 50)) * [[1], [10], [0.1]]).astype(np.float32)


def covariance(signal: np.ndarray) -> np.ndarray:
    return np.cov(signal.transpose(1, 0, 2).reshape(3, -1), bias=True)


def test_channels_get_mean_0_and_variance_1_and_keep_their_correlations(signal):
    normalised = fit("channel", np.split(signal, 4))(signal)

    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised.mean((0, 2)), 0, atol=ROUNDING)
    spread = np.sqrt(np.diag(covariance(signal)))
    np.testing.assert_allclose(
        covariance(normalised), covariance(signal) / np.outer(spread, spread), atol=ROUNDING
    )


def test_whitening_takes_correlations_away_and_turns_nothing(signal):
    normaliser = fit("whiten", [signal])

    np.testing.assert_allclose(covariance(normaliser(signal)), np.eye(3), atol=ROUNDING)
    np.testing.assert_allclose(normaliser.matrix, normaliser.matrix.T, atol=ROUNDING)


def test_a_dead_channel_stays_quiet(signal):
    signal[:, 1] = 3.0
    for how in ("channel", "whiten"):
        assert np.abs(fit(how, [signal])(signal)[:, 1]).max() < 0.1
