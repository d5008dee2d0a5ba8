"""Ridges of many outputs by one factorisation: golden values, chunks, smaller
models.
"""

import numpy as np
import pytest
import torch

from brainhive_cli.evaluation.explanation.encoding_model import (
    correlations,
    half_ceilings,
)
from brainhive_cli.measurement.linear_maps import Products, Scale
from brainhive_cli.measurement.ranks import ranks


@pytest.fixture(scope="module")
def values(golden):
    """80 training and 24 test pictures, 5 channels, 8 samples; by scikit-learn
    1.9.1.
    """
    return np.load(golden / "prepare/explain.npz")


@pytest.fixture(scope="module")
def fitted(values):
    features = [
        torch.from_numpy(values[f"enc_features_{split}"]).double()
        for split in ("train", "test")
    ]
    scale = Scale.of(features[0])
    signals = torch.from_numpy(values["enc_signal_train"]).double().mean(1).flatten(1)
    return Products.of(scale(features[0]), signals.split(17)), scale(features[1])


@pytest.mark.parametrize(
    ("alpha", "name", "error"), ((10.0, "ridge10", 1e-12), (1e-9, "ols", 1e-8))
)
def test_predictions_are_those_of_the_reference(values, fitted, alpha, name, error):
    products, tested = fitted
    expected = values[f"enc_{name}_prediction"]
    found = products.predict(tested, alpha).reshape(expected.shape).numpy()
    np.testing.assert_allclose(found, expected, atol=error)  # 1e-9 is no penalty


def test_correlation_and_explained_variance_are_those_of_the_reference(values):
    predicted, measured = (
        values["enc_ridge10_prediction"],
        values["enc_signal_test"].astype(float).mean(1),
    )
    np.testing.assert_allclose(
        correlations(predicted, measured), values["enc_ridge10_r"], atol=1e-12
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
    found = half_ceilings(
        trials, prediction, lambda flat: (parts[0] @ flat, parts[1] @ flat)
    )
    for each, name in zip(
        found, ("ols_r_half", "ceiling_lower", "ceiling_upper"), strict=True
    ):
        np.testing.assert_allclose(each, values[f"enc_{name}"], atol=1e-12)


def test_windows_trained_anew_find_as_many_pictures_as_the_references(values):
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
        scale = Scale.of(train)
        predicted = Products.of(scale(train), [learned]).predict(scale(test), 10.0)
        found = ranks(predicted, shown, torch.arange(len(shown))).numpy()
        assert (found == 1).mean() == pytest.approx(values["window_top1"][number])
        assert (found <= 5).mean() == pytest.approx(values["window_top5"][number])


def test_cross_validation_chooses_a_penalty_that_predicts_others_nearly_best():
    random, noise = torch.Generator().manual_seed(1), 30.0
    features, weights = (
        torch.randn(300, 40, generator=random),
        torch.randn(40, 6, generator=random),
    )
    outputs = features @ weights + noise * torch.randn(300, 6, generator=random)
    mean = features[:100].mean(0)
    products = Products.of(features[:100] - mean, [outputs[:100]])

    def error(alpha):
        return float(
            (products.predict(features[100:] - mean, alpha) - outputs[100:])
            .square()
            .mean()
        )

    errors = [error(10.0**power) for power in range(-3, 7)]
    assert error(None) < 1.05 * min(errors) and error(None) < 0.9 * max(errors)
