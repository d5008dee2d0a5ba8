"""The ridge is scikit-learn's, whatever has more rows; components, spread and what is
refused.
"""

import numpy as np
import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError
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
    monkeypatch.setattr(ridge, "MAX_TARGET_NUMBERS", 140)  # seven rows at once
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
        products = Products.from_samples(
            flat - flat.mean(0), [target.flatten(1).double()]
        )
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


def fit_components(
    components: int, voxels: int = 60, count: int = 50
) -> ridge.RidgeMap:
    """Fit a map to signals whose components fall off quickly."""
    signal, _ = drawn(voxels, count)
    mixed = (signal[..., 0] - 2) / torch.linspace(1, 4, voxels)
    decaying = mixed @ torch.diag(0.7 ** torch.arange(voxels)) + 5
    found = ridge.RidgeMap(voxels, components, HEADS)
    found.parts = found.project(decaying[..., None])
    return found


@pytest.mark.parametrize("voxels", [60, 40])
@pytest.mark.parametrize("components", [5, 30, 70])
def test_components_are_those_of_a_whole_decomposition(voxels, components, monkeypatch):
    monkeypatch.setattr(ridge, "BLOCK_NUMBERS", 130)  # two or three rows at once
    signal, _ = drawn(voxels, 50)

    basis, scores, singular = ridge.RidgeMap(voxels, components, HEADS).project(signal)

    flat = signal[..., 0].double()
    left, lengths, right = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    kept = min(components, 49, voxels)
    assert not basis[:, kept:].any() and not singular[kept:].any()
    torch.testing.assert_close(singular[:kept].double(), lengths[:kept])
    for found, expected in ((basis, right.T), (scores, left)):
        cosine = (found[:, :kept].double() * expected[:, :kept]).sum(0).abs()
        torch.testing.assert_close(cosine, torch.ones(kept, dtype=torch.float64))


def test_many_signals_are_approximated_like_the_exact(monkeypatch):
    """Tolerance: the last of the components that are kept differ."""
    exact = fit_components(20).parts
    monkeypatch.setattr(ridge, "MAX_EXACT_SIZE", 30)
    state = torch.random.get_rng_state()

    basis, scores, singular = fit_components(20).parts

    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(singular, exact[2], rtol=1e-3, atol=1e-4)
    for found, expected in ((basis, exact[0]), (scores, exact[1])):
        cosine = (found[:, :15] * expected[:, :15]).sum(0).abs()
        torch.testing.assert_close(cosine, torch.ones(15), rtol=1e-3, atol=0)
    # all components are never approximated
    assert not ridge.is_approximate(50, 60, 50)


def test_a_fit_beyond_the_free_memory_is_refused_at_once(monkeypatch):
    signal, targets = drawn(40)
    needed = ridge.count_fit_bytes(25, 40, 40)
    assert needed >= 8 * 25**2 + 4 * 65 * 25  # Gram matrix, basis and scores
    monkeypatch.setattr(ridge, "count_free_bytes", lambda device: needed - 1)
    monkeypatch.setattr(ridge.RidgeMap, "project", None)

    with pytest.raises(BrainhiveError) as refusal:
        fitted(signal, targets)

    assert "25 signals of 40 numbers" in refusal.value.message


@pytest.mark.parametrize("shape", [(16_540, 4_250), (9_000, 15_000)])
def test_a_fit_takes_at_most_one_and_a_half_times_the_signals(shape):
    """THINGS-EEG2 and NSD, with the components of an evaluation's ridge."""
    needed = ridge.count_fit_bytes(*shape, 1000)
    assert needed <= 1.5 * 4 * shape[0] * shape[1]


def test_an_approximate_fit_grows_with_signals_not_their_cube():
    exact = [ridge.count_fit_operations(n, 15_000, 1000) for n in (2000, 4000)]
    far = [ridge.count_fit_operations(n, 15_000, 1000) for n in (9_000, 18_000)]
    assert exact[1] > 3.9 * exact[0]
    # two products before, between and after four iterations, which count half
    assert far == [10 * 9_000 * 15_000 * 1000, 10 * 18_000 * 15_000 * 1000]
