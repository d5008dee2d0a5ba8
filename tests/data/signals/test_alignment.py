"""Euclidean and Riemannian alignment of a subject's trials, against published values and pyriemann."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals import normalisations
from brainhive_cli.data.signals.normalisations import Euclidean, Riemannian

PUBLISHED = 5e-5
PARTS = {
    "euclidean": Euclidean(),
    "riemannian": Riemannian(),
    "log_euclidean": Riemannian(mean="log-euclidean"),
}


@pytest.fixture
def signal() -> np.ndarray:
    """[N, C, T] of correlated channels, with trials whose covariances differ a hundredfold."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(5, 5))
    channels = random.normal(size=(60, 5, 30)) * np.exp(random.normal(size=(60, 5, 1)))
    return (mixing @ channels).astype(np.float32)


def products(signal: np.ndarray) -> np.ndarray:
    wide = signal.astype(np.float64)
    return wide @ wide.transpose(0, 2, 1)


def reference(part: parts.Config, signal: np.ndarray) -> np.ndarray:
    return part.measure(np.array_split(signal, 4))["reference"]


@pytest.mark.parametrize("name", [*PARTS, "shrunk"])
def test_references_and_aligned_signals_are_the_published_ones(name: str, golden: Path) -> None:
    known = load_file(golden / "calibrate" / "alignment.safetensors")
    part = PARTS.get(name) or Euclidean(shrinkage=float(known["share"]))

    statistics = part.measure(np.array_split(known["signal"], 3))
    normaliser = part.build(statistics)

    if name != "shrunk":  # which is the reference as it is built, not as it is measured
        np.testing.assert_allclose(
            statistics["reference"], known[f"expected.{name}.reference"], rtol=PUBLISHED, atol=PUBLISHED
        )
    np.testing.assert_allclose(normaliser.matrix, known[f"expected.{name}.inverse_root"], atol=PUBLISHED)
    np.testing.assert_allclose(normaliser(known["signal"]), known[f"expected.{name}.aligned"], atol=PUBLISHED)
    assert normaliser.mean.shape == (known["signal"].shape[1], 1) and not normaliser.mean.any()


def test_means_are_those_of_pyriemann(signal: np.ndarray) -> None:
    oracle = pytest.importorskip("pyriemann.geometry.mean")
    for name, expected in (
        ("riemannian", oracle.mean_riemann(products(signal), tol=1e-10, maxiter=200)),
        ("log_euclidean", oracle.mean_logeuclid(products(signal))),
    ):
        np.testing.assert_allclose(reference(PARTS[name], signal), expected, atol=1e-6 * expected.max())


def test_a_riemannian_mean_of_mixed_channels_is_the_mixed_mean(signal: np.ndarray) -> None:
    mixing = np.random.default_rng(1).normal(size=(5, 5)).astype(np.float32)

    for name, is_invariant in (("riemannian", True), ("log_euclidean", False)):
        mixed = reference(PARTS[name], mixing @ signal)
        expected = mixing @ reference(PARTS[name], signal) @ mixing.T
        assert np.allclose(mixed, expected, atol=1e-4 * expected.max()) == is_invariant


def test_an_artefact_in_one_trial_moves_the_riemannian_reference_little(signal: np.ndarray) -> None:
    with_artefact = signal.copy()
    with_artefact[7, 0] *= 1e5

    changes = {
        name: np.linalg.eigvalsh(reference(PARTS[name], with_artefact))
        / np.linalg.eigvalsh(reference(PARTS[name], signal))
        for name in ("riemannian", "euclidean")
    }

    assert changes["riemannian"].min() > 0.5 and changes["riemannian"].max() < 2
    assert changes["euclidean"].max() > 1e6


@pytest.mark.parametrize("name", PARTS)
def test_an_average_reference_breaks_nothing_and_its_rounding_is_not_amplified(
    name: str, signal: np.ndarray
) -> None:
    referenced = signal - signal.mean(1, keepdims=True)

    aligned = PARTS[name].build(PARTS[name].measure([referenced]))(referenced)

    spread = np.linalg.eigvalsh(reference(PARTS[name], aligned))
    tolerance = 2 if name == "log_euclidean" else 1e-4  # whose mean of mixed channels is not the mixed mean
    assert np.abs(np.log(spread[1:])).max() < tolerance and spread[0] < 1e-6


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("samples", [1, 3])
def test_trials_of_fewer_samples_than_channels_and_dead_trials_have_a_reference(
    name: str, samples: int, signal: np.ndarray
) -> None:
    short = signal[:, :, :samples].copy()
    short[5] = 0

    found = reference(PARTS[name], short)

    assert np.isfinite(found).all() and np.linalg.eigvalsh(found)[0] > 0


@pytest.mark.parametrize("name", PARTS)
def test_complete_shrinkage_leaves_correlations_and_removes_the_scale(name: str, signal: np.ndarray) -> None:
    part = PARTS[name].model_copy(update={"shrinkage": 1.0})
    statistics = part.measure([signal])

    matrix = part.build(statistics).matrix

    scale = (np.trace(statistics["reference"]) / 5) ** -0.5
    np.testing.assert_allclose(matrix, scale * np.eye(5), rtol=1e-5, atol=1e-7)


def test_a_mean_of_many_trials_takes_evenly_spaced_ones(
    signal: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = reference(PARTS["riemannian"], signal[::4])
    monkeypatch.setattr(normalisations, "MAX_BYTES", 20 * 5 * 5 * 8)  # 60 trials: every fourth, 15, are kept

    np.testing.assert_allclose(reference(PARTS["riemannian"], signal), expected)


def test_too_many_channels_for_a_riemannian_mean_are_refused() -> None:
    with pytest.raises(BrainhiveError, match="of 363 channels: at most 362") as caught:
        normalisations.TINY["riemannian"].measure([np.ones((1, 363, 2), np.float32)])
    assert "euclidean" in caught.value.hint


def test_a_mean_that_does_not_converge_is_an_error(
    signal: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(normalisations, "MAX_STEPS", 2)
    with pytest.raises(BrainhiveError, match="not converged in 2 steps"):
        reference(PARTS["riemannian"], signal)
