"""Normalisation of a subject's signals."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes import parts
from brainhive_cli.data.signals import normalisations
from brainhive_cli.data.signals.normalisations import (
    Channel,
    Riemannian,
    Template,
    Whiten,
    average_products,
    pool_statistics,
)

ROUNDING = 1e-4
KINDS = parts.list_kinds("normalisations")


@pytest.fixture
def signal():
    """Signals [N, C, T] with means, sizes and correlations."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(3, 3))
    return (5 + mixing @ random.normal(size=(40, 3, 50)) * [[1], [10], [0.1]]).astype(
        np.float32
    )


def covariance(signal):
    return np.cov(signal.transpose(1, 0, 2).reshape(3, -1), bias=True)


def learn(rows, signal):
    return rows.build(rows.measure(np.split(signal, 4)))


def test_chunks_do_not_matter_and_subjects_have_equal_weight(signal):
    for kind in KINDS:
        TINY = parts.load("normalisations", kind).TINY
        normalised = learn(TINY, signal)(signal)
        assert normalised.dtype == np.float32
        assert normalised.shape == signal.shape
        normaliser = TINY.build(TINY.measure([signal]))
        np.testing.assert_allclose(normaliser(signal), normalised, atol=ROUNDING)

        quiet, loud = TINY.measure([signal]), TINY.measure([3 * signal[:5]])
        for name, values in pool_statistics([quiet, loud]).items():
            np.testing.assert_allclose(values, (quiet[name] + loud[name]) / 2)


def test_channels_are_standardised_and_keep_their_correlations(signal):
    normalised = learn(Channel(), signal)(signal)

    np.testing.assert_allclose(normalised.mean((0, 2)), 0, atol=ROUNDING)
    spread = np.sqrt(np.diag(covariance(signal)))
    np.testing.assert_allclose(
        covariance(normalised),
        covariance(signal) / np.outer(spread, spread),
        atol=ROUNDING,
    )


def test_whitening_takes_correlations_away_and_turns_nothing(signal):
    normaliser = learn(Whiten(), signal)

    np.testing.assert_allclose(covariance(normaliser(signal)), np.eye(3), atol=ROUNDING)
    np.testing.assert_allclose(normaliser.matrix, normaliser.matrix.T, atol=ROUNDING)


def test_the_training_template_is_subtracted_from_all_signals(
    golden,
):
    """Golden values: BRIDGE's mean over repetitions, then over training pictures."""
    tensors = load_file(golden / "methods" / "bridge_template.safetensors")
    averages = {split: tensors[split].mean(1) for split in ("train", "test")}

    normaliser = Template().build(
        Template().measure([averages["train"][:3], averages["train"][3:]])
    )

    np.testing.assert_allclose(normaliser.mean, tensors["expected.template"], atol=1e-6)
    for split, signals in averages.items():
        np.testing.assert_allclose(
            normaliser(signals), tensors[f"expected.{split}"], atol=1e-6
        )
        single = normaliser(tensors[split])  # each repetition, too
        np.testing.assert_allclose(
            single.mean(1), tensors[f"expected.{split}"], atol=1e-6
        )


def test_a_dead_channel_stays_quiet(signal):
    signal[:, 1] = 3.0
    for normalisation in (Channel(), Whiten()):
        assert np.abs(learn(normalisation, signal)(signal)[:, 1]).max() < 0.1


@pytest.mark.parametrize("size", [1e-6, 1e-2, 1e5, 1e7])
def test_a_channel_of_any_size_leaves_the_others_a_variance_of_1(signal, size):
    signal[:, 2] *= size
    for normalisation in (Channel(), Whiten()):
        spread = learn(normalisation, signal)(signal).std((0, 2))
        quiet = size < 1 and isinstance(normalisation, Whiten)
        np.testing.assert_allclose(spread[: 2 if quiet else 3], 1, atol=1e-3)


def test_a_flat_channel_with_an_offset_stays_0(signal):
    signal[:, 1] = 100_000.3
    normaliser = learn(Channel(), signal)
    assert normaliser.matrix[1] == 0
    assert (normaliser.matrix[[0, 2]] > 0).all()
    assert not normaliser(signal)[:, 1].any()


def test_a_riemannian_mean_uses_evenly_spaced_trials(signal, monkeypatch):
    products = np.array([trial.astype(float) @ trial.T for trial in signal[:23]])
    size, chunks = products[0].nbytes, np.split(signal[:23], [5, 6, 20])
    for room, stride in ((23, 1), (22, 2), (12, 2), (11, 4), (6, 4), (5, 8)):
        monkeypatch.setattr(normalisations, "MAX_BYTES", room * size)
        for kind in ("affine-invariant", "log-euclidean"):
            reference = Riemannian(mean=kind).measure(chunks)["reference"]
            expected = average_products(products[::stride], kind == "affine-invariant")
            np.testing.assert_allclose(reference, expected)


def test_dead_trials_do_not_count_in_a_riemannian_mean(signal):
    products = np.array([trial.astype(float) @ trial.T for trial in signal[:9]])
    dead = np.insert(products, [0, 4, 9], 0, axis=0)
    for is_affine_invariant in (True, False):
        np.testing.assert_allclose(
            average_products(dead, is_affine_invariant),
            average_products(products, is_affine_invariant),
        )


def test_subjects_of_different_widths_have_no_mean_normalisation(signal):
    with pytest.raises(BrainhiveError, match="2, 3") as caught:
        pool_statistics(
            [Channel().measure([signal]), Channel().measure([signal[:, :2]])]
        )
    assert caught.value.hint == "signal.normalise_by=subject"
