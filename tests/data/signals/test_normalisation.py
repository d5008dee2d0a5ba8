"""Normalisation of a subject's signals."""

import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.normalisation import Moments

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
    normalised = Moments.of(np.split(signal, 4)).normaliser("channel")(signal)

    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised.mean((0, 2)), 0, atol=ROUNDING)
    spread = np.sqrt(np.diag(covariance(signal)))
    np.testing.assert_allclose(
        covariance(normalised), covariance(signal) / np.outer(spread, spread), atol=ROUNDING
    )


def test_variances_alone_normalise_channels_as_the_whole_covariance_does(signal):
    alone, whole = (Moments.of(np.split(signal, 4), how) for how in ("channel", "whiten"))

    assert alone.covariance.shape == (3, 1) and whole.covariance.shape == (3, 3)
    np.testing.assert_array_equal(alone.normaliser("channel")(signal), whole.normaliser("channel")(signal))


def test_subjects_of_different_widths_have_no_mean_normalisation(signal):
    with pytest.raises(BrainhiveError, match="different widths") as caught:
        Moments.pooled([Moments.of([signal]), Moments.of([signal[:, :2]])])
    assert caught.value.hint == "signal.normalise_by=subject"


def test_whitening_takes_correlations_away_and_turns_nothing(signal):
    normaliser = Moments.of([signal]).normaliser("whiten")

    np.testing.assert_allclose(covariance(normaliser(signal)), np.eye(3), atol=ROUNDING)
    np.testing.assert_allclose(normaliser.matrix, normaliser.matrix.T, atol=ROUNDING)


def test_a_dead_channel_stays_quiet(signal):
    signal[:, 1] = 3.0
    for how in ("channel", "whiten"):
        assert np.abs(Moments.of([signal]).normaliser(how)(signal)[:, 1]).max() < 0.1


def test_several_subjects_count_alike_however_many_signals_they_gave(signal):
    quiet, loud = Moments.of([signal]), Moments.of([3 * signal[:5]])

    pooled = Moments.pooled([quiet, loud])

    np.testing.assert_allclose(pooled.mean, (quiet.mean + loud.mean) / 2)
    np.testing.assert_allclose(pooled.covariance, (quiet.covariance + loud.covariance) / 2)
