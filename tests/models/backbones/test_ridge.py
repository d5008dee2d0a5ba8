"""Ridges compared with scikit-learn, their penalties, spread and memory."""

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.measurement import Products, linear_maps
from brainhive_cli.models import Head, SignalSpec, backbones
from brainhive_cli.models.backbones import ridge
from tests.worlds.ridges import choose_penalty_by_hat_matrix

HEADS = {"latent": Head((2, 2, 2)), "text": Head((3, 4))}
ALPHA = {"latent": 5.0, "text": 30.0}
SPEC = SignalSpec((), 1, (1, 4), (40, 15))


def draw_data(voxels, count=25):
    """Draw signals [N, V, 1] and targets that depend on them."""
    random = torch.Generator().manual_seed(voxels)
    noise = torch.randn(count, voxels, 1, generator=random)
    signal = noise * torch.linspace(1, 4, voxels)[:, None] + 2
    targets = {}
    for name, head in HEADS.items():
        mixed = signal[..., 0] @ torch.randn(voxels, head.width, generator=random)
        noisy = mixed + 3 * torch.randn(mixed.shape, generator=random) + 7
        targets[name] = noisy.unflatten(1, head.shape)
    return signal, targets


def fit(signal, targets, subject=1, held_out=0, **settings):
    """Fit the ridge of a subject, and predict all signals.

    Args:
        signal: Signals [N, V, 1].
        targets: Targets by head.
        subject: Number of the subject.
        held_out: Number of signals at the end that are not fitted.
        settings: Settings of the ridge. Default: the penalties ALPHA.

    Returns:
        Model and predictions.
    """
    config = ridge.Config(**{"alpha": ALPHA, **settings})
    model = backbones.build(config, SPEC, HEADS)
    n_train = len(signal) - held_out

    def read_targets(rows):
        return {name: target[:n_train][rows] for name, target in targets.items()}

    model.fit(subject, signal[:n_train], read_targets, signal[n_train:])
    index = torch.full((len(signal),), SPEC.subjects.index(subject))
    return model, model.eval()(signal, index)


@pytest.mark.parametrize(
    ("subject", "voxels", "components"), [(1, 40, None), (4, 15, None), (1, 40, 40)]
)
def test_predictions_are_scikit_learns(subject, voxels, components, monkeypatch):
    linear_model = pytest.importorskip("sklearn.linear_model")
    monkeypatch.setattr(ridge, "MAX_TARGET_NUMBERS", 140)  # blocks of seven rows
    signal, targets = draw_data(voxels)

    model, predicted = fit(
        signal, targets, subject, components=components, standardise=False
    )

    for name, target in targets.items():
        reference = linear_model.Ridge(alpha=ALPHA[name])
        reference.fit(signal[..., 0], target.flatten(1))
        expected = torch.from_numpy(reference.predict(signal[..., 0])).float()
        torch.testing.assert_close(
            predicted[name].flatten(1), expected, atol=2e-4, rtol=1e-4
        )
        assert predicted[name].shape == target.shape
    assert ("maps.1.basis" in model.state_dict()) == (components is not None)


def test_fewer_components_are_a_ridge_on_the_first_components():
    signal, targets = draw_data(40)
    flat = signal[..., 0].numpy().astype(np.float64)
    u, s, _ = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    u = u[:, :6]
    s = s[:6]

    _, predicted = fit(signal, targets, components=6, standardise=False)

    y = targets["text"].flatten(1).numpy().astype(np.float64)
    shrinkage = (s**2 / (s**2 + ALPHA["text"]))[:, None]
    expected = u @ (shrinkage * (u.T @ y)) + y.mean(0)
    assert np.abs(predicted["text"].flatten(1).numpy() - expected).max() < 2e-4


@pytest.mark.parametrize(("held_out", "rows"), [(0, slice(25)), (8, slice(17, 25))])
def test_predictions_have_the_spread_of_targets(held_out, rows):
    signal, targets = draw_data(40)

    _, predicted = fit(signal, targets, held_out=held_out)
    _, shrunk = fit(signal, targets, held_out=held_out, standardise=False)

    for name, target in targets.items():
        expected = target[: 25 - held_out].std(0, correction=0)
        spread = predicted[name][rows].std(0, correction=0)
        shrunk_spread = shrunk[name][rows].std(0, correction=0)
        torch.testing.assert_close(spread, expected, atol=1e-3, rtol=1e-3)
        assert not torch.allclose(shrunk_spread, expected, rtol=0.01)


def test_alpha_auto_is_generalised_cross_validation_by_head():
    """With more voxels than signals some eigenvalues are zero."""
    signal, targets = draw_data(40)

    _, predicted = fit(signal, targets, alpha="auto", standardise=False)

    flat = signal[..., 0].double()
    for name, target in targets.items():
        outputs = target.flatten(1).double()
        penalty = choose_penalty_by_hat_matrix(flat, outputs)
        expected = Products.from_samples(flat, [outputs]).predict(flat, penalty)
        torch.testing.assert_close(
            predicted[name].flatten(1), expected.float(), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("components", [30, None])
def test_the_penalty_does_not_depend_on_further_components(components):
    signal, targets = draw_data(40)

    _, expected = fit(
        signal, targets, alpha="auto", standardise=False, components=len(signal)
    )
    _, predicted = fit(
        signal, targets, alpha="auto", standardise=False, components=components
    )

    # sums in float32
    torch.testing.assert_close(predicted, expected, atol=1e-3, rtol=1e-3)


def test_a_penalty_takes_memory_for_components_not_for_voxels(monkeypatch):
    """24,800 numbers of EEG and 425,984 of tokens would take 84 GB."""
    shapes = []

    def choose_penalty(singular, rotated, *arguments, **options):
        shapes.append((len(singular), len(rotated)))
        return linear_maps.choose_penalty(singular, rotated, *arguments, **options)

    monkeypatch.setattr(ridge, "choose_penalty", choose_penalty)
    signal, targets = draw_data(40)
    fit(signal, targets, alpha="auto", components=10)

    assert shapes == [(10, 10)] * len(HEADS)


def test_a_fit_beyond_the_free_memory_is_refused_at_once(monkeypatch):
    signal, targets = draw_data(40)
    needed_bytes = ridge.count_fit_bytes(25, 40, 40)
    assert needed_bytes >= 8 * 25**2 + 4 * 65 * 25  # Gram matrix, basis and scores
    monkeypatch.setattr(ridge, "count_free_bytes", lambda device: needed_bytes - 1)
    monkeypatch.setattr(ridge.Components, "fit", None)

    with pytest.raises(BrainhiveError, match=r"\b25\b.*\b40\b"):
        fit(signal, targets)


@pytest.mark.parametrize("alpha", ["auto", 50.0])
def test_targets_far_from_0_keep_penalty_and_spread(alpha):
    signal, targets = draw_data(15)
    _, predictions = fit(signal, targets, 4, alpha=alpha)
    far_targets = {name: values + 10_000 for name, values in targets.items()}
    _, far_predictions = fit(signal, far_targets, 4, alpha=alpha)
    for name, values in predictions.items():
        spread = float(values.std())
        shifted = far_predictions[name].double() - 10_000
        assert (shifted - values).abs().max() < 0.02 * spread
