"""The ridge is scikit-learn's, whatever has more rows; components, spread and what is
refused.
"""

import numpy as np
import pytest
import torch

from brainhive_cli.measurement.linear_maps import Products
from brainhive_cli.models import backbones
from brainhive_cli.models.backbones import ridge
from brainhive_cli.models.heads import Head
from brainhive_cli.models.signal_spec import SignalSpec

HEADS = {"latent": Head((2, 2, 2)), "text": Head((3, 4))}
ALPHA = {"latent": 5.0, "text": 30.0}
SPEC = SignalSpec((), 1, (1, 4), (40, 15))


def drawn(voxels: int, count: int = 25) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Signals [N, V, 1] and targets that depend on them."""
    random = torch.Generator().manual_seed(voxels)
    signal = (
        torch.randn(count, voxels, 1, generator=random)
        * torch.linspace(1, 4, voxels)[:, None]
        + 2
    )
    targets = {}
    for name, head in HEADS.items():
        mixed = signal[..., 0] @ torch.randn(voxels, head.width, generator=random)
        targets[name] = (
            mixed + 3 * torch.randn(mixed.shape, generator=random) + 7
        ).unflatten(1, head.shape)
    return signal, targets


def fitted(
    signal, targets, subject: int = 1, held_out: int = 0, **knobs
) -> torch.nn.Module:
    model = backbones.build(ridge.Config(alpha=ALPHA, **knobs), SPEC, HEADS)
    learned = signal[: len(signal) - held_out]
    model.fit(
        subject,
        learned,
        lambda rows: {
            name: each[: len(learned)][rows] for name, each in targets.items()
        },
        signal[len(learned) :],
    )
    return model.eval()


def test_it_is_scikit_learns_whether_there_are_more_voxels_or_more_signals(monkeypatch):
    linear_model = pytest.importorskip("sklearn.linear_model")
    monkeypatch.setattr(ridge, "NUMBERS", 140)  # seven rows at once
    for subject, voxels, components in ((1, 40, None), (4, 15, None), (1, 40, 40)):
        (signal, targets), index = (
            drawn(voxels),
            torch.full((25,), SPEC.subjects.index(subject)),
        )

        model = fitted(
            signal, targets, subject, components=components, standardise=False
        )
        found = model(signal, index)

        for name, head in HEADS.items():
            reference = linear_model.Ridge(alpha=ALPHA[name]).fit(
                signal[..., 0], targets[name].flatten(1)
            )
            expected = (
                torch.from_numpy(reference.predict(signal[..., 0]))
                .float()
                .unflatten(1, head.shape)
            )
            torch.testing.assert_close(found[name], expected, atol=2e-4, rtol=1e-4)
        assert ("maps.1.basis" in model.state_dict()) == (components is not None)


def test_fewer_components_are_a_ridge_on_the_first_of_them():
    signal, targets = drawn(40)
    flat = signal[..., 0].numpy().astype(np.float64)
    u, s, _ = np.linalg.svd(flat - flat.mean(0), full_matrices=False)

    found = fitted(signal, targets, components=6, standardise=False)(
        signal, torch.zeros(25, dtype=torch.long)
    )

    y = targets["text"].flatten(1).numpy().astype(np.float64)
    expected = u[:, :6] @ (
        (s[:6] ** 2 / (s[:6] ** 2 + 30))[:, None] * (u[:, :6].T @ y)
    ) + y.mean(0)
    assert np.abs(found["text"].flatten(1).numpy() - expected).max() < 2e-4


def test_predictions_have_the_spread_of_held_out_or_of_training_targets():
    (signal, targets), index = drawn(40), torch.zeros(25, dtype=torch.long)
    for held_out, where in ((0, slice(None)), (8, slice(17, 25))):
        found = fitted(signal, targets, held_out=held_out)(signal, index)
        plain = fitted(signal, targets, held_out=held_out, standardise=False)(
            signal, index
        )

        for name, each in found.items():
            spread = targets[name][: 25 - held_out].std(0, correction=0)
            torch.testing.assert_close(
                each[where].std(0, correction=0), spread, atol=1e-3, rtol=1e-3
            )
            assert not torch.allclose(
                plain[name][where].std(0, correction=0), spread, rtol=0.01
            )


def test_alpha_auto_is_that_of_generalised_cross_validation_for_each_head():
    """More voxels than signals have eigenvalues of zero, in both; tolerance: sums in
    float32.
    """
    subject, (signal, targets) = 1, drawn(40)
    model = backbones.build(ridge.Config(alpha="auto", standardise=False), SPEC, HEADS)

    model.fit(
        subject,
        signal,
        lambda rows: {n: part[rows] for n, part in targets.items()},
        signal[:0],
    )
    predicted = model.eval()(signal, torch.full((25,), SPEC.subjects.index(subject)))

    flat = signal[..., 0].double()
    for name, target in targets.items():
        products = Products.of(flat - flat.mean(0), [target.flatten(1).double()])
        expected = products.predict(flat - flat.mean(0)).float()
        torch.testing.assert_close(
            predicted[name].flatten(1), expected, atol=1e-3, rtol=1e-3
        )


def test_a_chosen_penalty_does_not_depend_on_how_many_components_are_kept():
    """From the number of training signals on they are exact; tolerance: sums in
    float32.
    """
    signal, targets = drawn(40)
    predicted = []
    for components in (25, 30, None):
        config = ridge.Config(alpha="auto", standardise=False, components=components)
        model = backbones.build(config, SPEC, HEADS)
        model.fit(
            1,
            signal,
            lambda rows: {n: part[rows] for n, part in targets.items()},
            signal[:0],
        )
        whose = torch.full((25,), SPEC.subjects.index(1))
        predicted.append(model.eval()(signal, whose))
    for other in predicted[1:]:
        torch.testing.assert_close(other, predicted[0], atol=1e-3, rtol=1e-3)
