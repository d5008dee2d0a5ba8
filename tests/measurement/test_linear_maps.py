"""Ridge regression to many outputs: golden values, chunks and smaller models."""

import numpy as np
import pytest
import torch

from brainhive_cli.evaluation.explanation.encoding_model import (
    correlate_over_pictures,
    estimate_ceilings,
)
from brainhive_cli.measurement.linear_maps import (
    FeatureScaler,
    Products,
    choose_penalty,
)
from brainhive_cli.measurement.ranks import rank_targets


@pytest.fixture(scope="module")
def values(golden):
    """Load golden values of scikit-learn 1.9.1, for 80 training and 24 test pictures.

    Signals have 5 channels and 8 samples.
    """
    return np.load(golden / "prepare/explain.npz")


@pytest.fixture(scope="module")
def fitted(values):
    features = [
        torch.from_numpy(values[f"enc_features_{split}"]).double()
        for split in ("train", "test")
    ]
    scale = FeatureScaler.fit(features[0])
    signals = torch.from_numpy(values["enc_signal_train"]).double().mean(1).flatten(1)
    return Products.from_samples(scale(features[0]), signals.split(17)), scale(
        features[1]
    )


@pytest.mark.parametrize(
    ("alpha", "name", "error"), ((10.0, "ridge10", 1e-12), (1e-9, "ols", 1e-8))
)
def test_predictions_are_those_of_the_reference(values, fitted, alpha, name, error):
    products, tested = fitted
    expected = values[f"enc_{name}_prediction"]
    found = products.predict(tested, alpha).reshape(expected.shape).numpy()
    np.testing.assert_allclose(found, expected, atol=error)  # 1e-9 is no penalty


def test_correlation_and_explained_variance_equal_the_reference(values):
    predicted, measured = (
        values["enc_ridge10_prediction"],
        values["enc_signal_test"].astype(float).mean(1),
    )
    np.testing.assert_allclose(
        correlate_over_pictures(predicted, measured),
        values["enc_ridge10_r"],
        atol=1e-12,
    )
    residual = ((measured - predicted) ** 2).sum(0) / (
        (measured - measured.mean(0)) ** 2
    ).sum(0)
    np.testing.assert_allclose(1 - residual, values["enc_ridge10_r2"], atol=1e-12)


def test_ceilings_by_given_halves_are_those_of_the_reference(values):
    trials = values["enc_signal_test"].astype(float)
    is_second = np.zeros((len(values["enc_halves"]), trials.shape[1]), bool)
    np.put_along_axis(is_second, values["enc_halves"], True, 1)
    parts = [part / part.sum(1, keepdims=True) for part in (~is_second, is_second)]
    prediction = values["enc_ols_prediction"]
    found = estimate_ceilings(
        trials, prediction, lambda flat: (parts[0] @ flat, parts[1] @ flat)
    )
    for each, name in zip(
        found, ("ols_r_half", "ceiling_lower", "ceiling_upper"), strict=True
    ):
        np.testing.assert_allclose(each, values[f"enc_{name}"], atol=1e-12)


def test_ridges_on_windows_retrieve_as_many_as_the_reference(values):
    signals = [
        torch.from_numpy(values[f"enc_signal_{split}"]).double().mean(1)
        for split in ("train", "test")
    ]
    learned, shown = (
        torch.from_numpy(values[f"enc_features_{split}"]).double()
        for split in ("train", "test")
    )
    for number, centre in enumerate(range(1, 1 + len(values["window_top1"]))):
        window = slice(centre - 1, centre + 2)
        train, test = (signal[..., window].flatten(1) for signal in signals)
        scale = FeatureScaler.fit(train)
        predicted = Products.from_samples(scale(train), [learned]).predict(
            scale(test), 10.0
        )
        found = rank_targets(predicted, shown, torch.arange(len(shown))).numpy()
        assert (found == 1).mean() == pytest.approx(values["window_top1"][number])
        assert (found <= 5).mean() == pytest.approx(values["window_top5"][number])


def test_cross_validation_finds_a_nearly_optimal_penalty():
    random, noise = torch.Generator().manual_seed(1), 30.0
    features, weights = (
        torch.randn(300, 40, generator=random),
        torch.randn(40, 6, generator=random),
    )
    outputs = features @ weights + noise * torch.randn(300, 6, generator=random)
    mean = features[:100].mean(0)
    products = Products.from_samples(features[:100] - mean, [outputs[:100]])

    def error(alpha):
        return float(
            (products.predict(features[100:] - mean, alpha) - outputs[100:])
            .square()
            .mean()
        )

    errors = [error(10.0**power) for power in range(-3, 7)]
    assert error(None) < 1.05 * min(errors) and error(None) < 0.9 * max(errors)


@pytest.mark.parametrize(("samples", "width"), [(2, 5), (12, 13), (20, 90)])
@pytest.mark.parametrize("repeats", [1, 2])
def test_fewer_samples_than_features_give_the_same_ridge(samples, width, repeats):
    """The expected ridge is the primal form. The tolerance is that of eigenvectors."""
    random = torch.Generator().manual_seed(samples)
    features = torch.randn(samples + 4, width, generator=random).double()
    features = features.repeat(1, repeats)
    outputs = 3 + torch.randn(samples, 6, generator=random).double()
    centred = features - features[:samples].mean(0)
    train, test = centred[:samples], centred[samples:]
    mean = outputs.mean(0)
    cross = train.T @ outputs
    values, vectors = torch.linalg.eigh(train.T @ train)
    squares = (outputs - mean).square().sum(0)
    rotated = (vectors.T @ cross).square()

    products = Products.from_samples(train, outputs.split(5))

    alpha = choose_penalty(values.clamp(min=0), rotated, squares, samples - 1)
    if samples > 2:  # one degree of freedom leaves all penalties equal
        assert products.choose_alpha() == pytest.approx(alpha, rel=1e-9)
    assert products.gram.shape == (samples, samples)
    chosen = np.arange(0, width * repeats, 2)
    for made, columns in ((products, slice(None)), (products.select(chosen), chosen)):
        x, tested = train[:, columns], test[:, columns]
        penalised = x.T @ x + 0.5 * torch.eye(x.shape[1])
        expected = tested @ torch.linalg.solve(penalised, x.T @ outputs) + mean
        torch.testing.assert_close(
            made.predict(tested, 0.5), expected, rtol=1e-9, atol=0
        )


def test_float32_signals_have_the_penalty_of_float64():
    """In float32, rounding of 760 zero eigenvalues once chose the smallest penalty."""
    random = torch.Generator().manual_seed(0)
    features = torch.randn(240, 1000, generator=random).double()
    weights = torch.randn(1000, 30, generator=random).double() / 1000**0.5
    outputs = features @ weights + 3 * torch.randn(240, 30, generator=random)
    centred = features - features.mean(0)

    exact = Products.from_samples(centred, [outputs]).choose_alpha()
    found = Products.from_samples(centred.float(), [outputs.float()]).choose_alpha()

    assert found == pytest.approx(exact, rel=1e-4) and exact > 1


def test_a_constant_feature_is_left_as_it_is():
    features = torch.randn(500, 3)
    features[:, 1] = 100_000.3
    scaled = FeatureScaler.fit(features)(features)
    assert scaled[:, 1].abs().max() < 0.1
    tiny = FeatureScaler.fit(features * 1e-13)(features * 1e-13)
    torch.testing.assert_close(tiny[:, [0, 2]], scaled[:, [0, 2]])
