"""Shared ridges compared with scikit-learn and with the reference of calibration."""

import json
import runpy

import numpy as np
import pytest
import torch
from torch import Tensor

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.models import Head, SignalSpec, backbones
from brainhive_cli.models.backbones import shared_ridge
from brainhive_cli.models.backbones.shared_ridge import Config, SharedRidge
from tests.worlds.ridges import choose_penalty_by_hat_matrix

HEADS = {"latent": Head((2, 2)), "text": Head((3,))}
CHANNELS = 4
SAMPLES = 5
ALPHA = 7.0
FEW_SIGNALS = (8, 6)
"""Numbers of signals of two subjects, together fewer than the 20 features."""
MANY_SIGNALS = (30, 25)
SubjectData = tuple[Tensor, dict[str, Tensor]]
"""Signals [N, C, T], and targets by head."""


def draw_subjects(counts):
    """Draw signals and targets of each subject, whose means are not 0."""
    random = torch.Generator().manual_seed(sum(counts))
    mixing = torch.randn(CHANNELS * SAMPLES, 7, generator=random)
    subjects = []
    for count in counts:
        signal = torch.randn(count, CHANNELS, SAMPLES, generator=random) + 2
        noise = 3 * torch.randn(count, 7, generator=random)
        values = signal.flatten(1) @ mixing + noise + 5
        targets = {"latent": values[:, :4].unflatten(1, (2, 2)), "text": values[:, 4:]}
        subjects.append((signal, targets))
    return subjects


def join_heads(tensors):
    """Join heads to vectors [N, 7]."""
    return torch.cat([value.flatten(1) for value in tensors.values()], 1).numpy()


def build(**settings):
    """Make a ridge for two subjects of four sensors."""
    spec = SignalSpec(tuple("ABCD"), SAMPLES, (1, 4), (CHANNELS, CHANNELS))
    return backbones.build(Config(**{"alpha": ALPHA, **settings}), spec, HEADS)


def fit(model, subjects):
    """Fit a ridge to all subjects."""
    for number, (signal, targets) in enumerate(subjects):

        def read_targets(rows, targets=targets):
            return {name: target[rows] for name, target in targets.items()}

        model.fit(number, signal, read_targets, signal[:0])
    model.solve()
    return model.eval()


@pytest.mark.parametrize(
    ("counts", "intercept", "block_numbers"),
    [
        (FEW_SIGNALS, True, 27 * 3),  # blocks of three rows
        (MANY_SIGNALS, False, 1 << 26),
        (MANY_SIGNALS, True, 27 * 3),
    ],
)
def test_the_map_is_scikit_learns_on_the_signals_of_all_subjects(
    counts,
    intercept,
    block_numbers,
    monkeypatch,
):
    linear_model = pytest.importorskip("sklearn.linear_model")
    monkeypatch.setattr(shared_ridge, "MAX_TARGET_NUMBERS", block_numbers)
    subjects = draw_subjects(counts)
    test_signal, _ = draw_subjects((9,))[0]

    model = fit(build(intercept=intercept), subjects)
    predicted = model(test_signal)

    features = torch.cat([signal.flatten(1) for signal, _ in subjects])
    targets = np.concatenate([join_heads(targets) for _, targets in subjects])
    reference = linear_model.Ridge(alpha=ALPHA, fit_intercept=intercept)
    reference.fit(features.double().numpy(), targets.astype(np.float64))
    expected = reference.predict(test_signal.flatten(1).double().numpy())
    # sums of 20 products in float32
    assert np.abs(join_heads(predicted) - expected).max() < 1e-4
    shapes = {name: value.shape for name, value in predicted.items()}
    assert shapes == {"latent": (9, 2, 2), "text": (9, 3)}
    np.testing.assert_allclose(model.weight.T, reference.coef_, atol=1e-6)


@pytest.mark.parametrize("counts", [FEW_SIGNALS, MANY_SIGNALS])
@pytest.mark.parametrize("intercept", [True, False])
def test_alpha_auto_is_generalised_cross_validation_by_head(counts, intercept):
    subjects = draw_subjects(counts)
    features = torch.cat([signal.flatten(1) for signal, _ in subjects])
    alphas = {}
    for name in HEADS:
        head_targets = torch.cat([targets[name].flatten(1) for _, targets in subjects])
        alphas[name] = choose_penalty_by_hat_matrix(features, head_targets, intercept)

    model = fit(build(alpha="auto", intercept=intercept), subjects)

    signal, _ = subjects[0]
    predicted = model(signal)
    for name, alpha in alphas.items():
        expected = fit(build(alpha=alpha, intercept=intercept), subjects)(signal)
        torch.testing.assert_close(predicted[name], expected[name])


def test_subjects_with_other_sensors_are_refused():
    spec = SignalSpec((), 1, (1, 4), (40, 15))

    with pytest.raises(BrainhiveError, match="40, 15") as caught:
        backbones.build(Config(), spec, HEADS)
    assert caught.value.hint


def test_it_is_the_reference_ridge_of_calibration(golden):
    """Golden values: cohort.py, with its penalty and simulated subjects."""
    cohort = runpy.run_path(str(golden / "calibrate" / "cohort.py"))
    settings = json.loads((golden / "calibrate" / "cohort.json").read_text())
    data = cohort["cohort"](settings["seed"], 1)
    n_pictures = settings["sizes"][1]

    # signals and features of the source subjects, and of a new subject
    sources = [cohort["whitener"](signal) @ signal for signal in data["sources"]]
    features = data["pictures"]["train"]
    pool = data["pool"][0]
    new_signal = (cohort["whitener"](pool) @ pool)[:n_pictures]
    new_features = data["pictures"]["pool"][:n_pictures]
    all_features = np.tile(features, (len(sources), 1))
    shared_map = cohort["ridge"](np.concatenate(sources), all_features)

    def build_ridge():
        config = Config(alpha=cohort["PENALTY"], intercept=False)
        head = Head((new_features.shape[1],))
        return SharedRidge(config, new_signal[0].size, {"token": head})

    def as_subject(signal, values):
        return torch.from_numpy(signal), {"token": torch.from_numpy(values)}

    new_subject = as_subject(new_signal, new_features)
    model = fit(build_ridge(), [as_subject(signal, features) for signal in sources])
    np.testing.assert_allclose(model.weight, shared_map, rtol=0, atol=1e-6)

    # from the shared map, and from zero
    fit(model, [new_subject])
    expected = cohort["ridge"](new_signal, new_features, shared_map)
    np.testing.assert_allclose(model.weight, expected, rtol=0, atol=1e-6)
    from_zero = fit(build_ridge(), [new_subject])
    expected = cohort["ridge"](new_signal, new_features)
    np.testing.assert_allclose(from_zero.weight, expected, rtol=0, atol=1e-6)
