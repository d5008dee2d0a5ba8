"""Euclidean and Riemannian alignment, compared with published values and pyriemann."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.signals import normalisations
from brainhive_cli.data.signals.normalisations import Euclidean, Riemannian, Whiten

PUBLISHED = 5e-5
PARTS = {
    "euclidean": Euclidean(),
    "riemannian": Riemannian(),
    "log_euclidean": Riemannian(mean="log-euclidean"),
}


@pytest.fixture
def signal():
    """Trials [N, C, T] of correlated channels whose variances differ a hundredfold."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(5, 5))
    channels = random.normal(size=(60, 5, 30)) * np.exp(random.normal(size=(60, 5, 1)))
    return (mixing @ channels).astype(np.float32)


def products(signal):
    wide_signal = signal.astype(np.float64)
    return wide_signal @ wide_signal.transpose(0, 2, 1)


def reference(normalisation, signal):
    return normalisation.measure(np.array_split(signal, 4))["reference"]


@pytest.mark.parametrize("name", list(PARTS) + ["shrunk"])
def test_references_and_aligned_signals_are_the_published_ones(name, golden):
    tensors = load_file(golden / "calibrate" / "alignment.safetensors")
    normalisation = PARTS.get(name) or Euclidean(shrinkage=float(tensors["share"]))

    statistics = normalisation.measure(np.array_split(tensors["signal"], 3))
    normaliser = normalisation.build(statistics)

    if name != "shrunk":  # which is the reference as it is built, not as it is measured
        np.testing.assert_allclose(
            statistics["reference"],
            tensors[f"expected.{name}.reference"],
            rtol=PUBLISHED,
            atol=PUBLISHED,
        )
    np.testing.assert_allclose(
        normaliser.matrix, tensors[f"expected.{name}.inverse_root"], atol=PUBLISHED
    )
    np.testing.assert_allclose(
        normaliser(tensors["signal"]),
        tensors[f"expected.{name}.aligned"],
        atol=PUBLISHED,
    )
    assert normaliser.mean.shape == (tensors["signal"].shape[1], 1)
    assert not normaliser.mean.any()


def test_an_aligned_subject_has_the_published_reference_shrunk(golden):
    """Golden value: the reference after shrinkage. Alignment makes it the identity."""
    tensors = load_file(golden / "calibrate" / "alignment.safetensors")
    euclidean = Euclidean(shrinkage=float(tensors["share"]))

    matrix = euclidean.build(euclidean.measure([tensors["signal"]])).matrix

    aligned = matrix @ tensors["expected.shrunk.reference"] @ matrix
    np.testing.assert_allclose(aligned, np.eye(len(matrix)), atol=PUBLISHED)


def test_a_reference_may_be_measured_trial_by_trial(golden):
    """Golden value: the running reference after as many trials as its name says."""
    tensors = load_file(golden / "calibrate" / "alignment.safetensors")
    (name,) = [name for name in tensors if name.startswith("expected.running_")]
    count = int(name.removeprefix("expected.running_").removesuffix(".reference"))

    statistics = Euclidean().measure(trial[None] for trial in tensors["signal"][:count])

    np.testing.assert_allclose(
        statistics["reference"], tensors[name], rtol=PUBLISHED, atol=PUBLISHED
    )


def test_whitening_has_the_published_inverse_root(golden):
    """Golden value: inverse root of the covariance of all centred samples."""
    tensors = load_file(golden / "calibrate" / "alignment.safetensors")

    normaliser = Whiten().build(Whiten().measure(np.array_split(tensors["signal"], 3)))

    expected = tensors["expected.whiten.inverse_root"]
    np.testing.assert_allclose(normaliser.matrix, expected, atol=PUBLISHED)


def test_means_are_those_of_pyriemann(signal):
    oracle = pytest.importorskip("pyriemann.geometry.mean")
    for name, expected in (
        ("riemannian", oracle.mean_riemann(products(signal), tol=1e-10, maxiter=200)),
        ("log_euclidean", oracle.mean_logeuclid(products(signal))),
    ):
        np.testing.assert_allclose(
            reference(PARTS[name], signal), expected, atol=1e-6 * expected.max()
        )


def test_an_artefact_barely_moves_the_riemannian_reference(
    signal,
):
    with_artefact = signal.copy()
    with_artefact[7, 0] *= 1e5

    changes = {
        name: np.linalg.eigvalsh(reference(PARTS[name], with_artefact))
        / np.linalg.eigvalsh(reference(PARTS[name], signal))
        for name in ("riemannian", "euclidean")
    }

    assert changes["riemannian"].min() > 0.5
    assert changes["riemannian"].max() < 2
    assert changes["euclidean"].max() > 1e6


def test_too_many_channels_for_a_riemannian_mean_are_refused():
    with pytest.raises(BrainhiveError, match=r"363 channels.* 362") as caught:
        normalisations.TINY["riemannian"].measure([np.ones((1, 363, 2), np.float32)])
    assert "euclidean" in caught.value.hint
