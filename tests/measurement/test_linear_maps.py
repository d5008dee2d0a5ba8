"""Ridge regression to many outputs: golden values, chunks and smaller models."""

import numpy as np
import pytest
import torch

from brainhive_cli.evaluation.explanation.encoding_model import (
    correlate_over_pictures,
    estimate_ceilings,
)
from brainhive_cli.measurement import (
    Components,
    FeatureScaler,
    OutputSums,
    Products,
    count_fit_bytes,
    count_fit_operations,
    linear_maps,
    rank_targets,
)
from brainhive_cli.measurement.linear_maps import is_approximate
from tests.worlds.ridges import choose_penalty_by_hat_matrix


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
    products, test_features = fitted
    expected = values[f"enc_{name}_prediction"]
    predicted = products.predict(test_features, alpha).reshape(expected.shape).numpy()
    np.testing.assert_allclose(predicted, expected, atol=error)  # 1e-9 is no penalty


def test_correlation_and_explained_variance_equal_the_reference(values):
    predicted, signals = (
        values["enc_ridge10_prediction"],
        values["enc_signal_test"].astype(float).mean(1),
    )
    np.testing.assert_allclose(
        correlate_over_pictures(predicted, signals),
        values["enc_ridge10_r"],
        atol=1e-12,
    )
    residual = ((signals - predicted) ** 2).sum(0) / (
        (signals - signals.mean(0)) ** 2
    ).sum(0)
    np.testing.assert_allclose(1 - residual, values["enc_ridge10_r2"], atol=1e-12)


def test_ceilings_by_given_halves_are_those_of_the_reference(values):
    trials = values["enc_signal_test"].astype(float)
    is_second = np.zeros((len(values["enc_halves"]), trials.shape[1]), bool)
    np.put_along_axis(is_second, values["enc_halves"], True, 1)
    parts = [
        weights / weights.sum(1, keepdims=True) for weights in (~is_second, is_second)
    ]
    prediction = values["enc_ols_prediction"]
    ceilings = estimate_ceilings(
        trials, prediction, lambda flat: (parts[0] @ flat, parts[1] @ flat)
    )
    for ceiling, name in zip(
        ceilings, ("ols_r_half", "ceiling_lower", "ceiling_upper"), strict=True
    ):
        np.testing.assert_allclose(ceiling, values[f"enc_{name}"], atol=1e-12)


def test_ridges_on_windows_retrieve_as_many_as_the_reference(values):
    signals = [
        torch.from_numpy(values[f"enc_signal_{split}"]).double().mean(1)
        for split in ("train", "test")
    ]
    learned, shown_features = (
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
        ranks = rank_targets(
            predicted, shown_features, torch.arange(len(shown_features))
        ).numpy()
        assert (ranks == 1).mean() == pytest.approx(values["window_top1"][number])
        assert (ranks <= 5).mean() == pytest.approx(values["window_top5"][number])


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
    assert error(None) < 1.05 * min(errors)
    assert error(None) < 0.9 * max(errors)


SHAPES = [(80, 30), (20, 90), (250, 1500)]
"""Numbers of training samples and of features."""


def draw_study(n_samples, n_features, n_outputs, n_test=0, seed=0):
    """Draw features and outputs in float64 that share 40 latent variables and noise."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    latent = draw(n_samples + n_test, 40)
    features = latent @ draw(40, n_features) + 12 * draw(len(latent), n_features)
    outputs = latent @ draw(40, n_outputs) + 8 * draw(len(latent), n_outputs)
    return features, outputs


@pytest.mark.parametrize("shape", [(2, 5), (12, 13)] + list(SHAPES))
@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("is_centred", [True, False])
@pytest.mark.parametrize("alpha", [0.5, 5000.0])
def test_predictions_equal_scikit_learn(shape, repeats, is_centred, alpha):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, outputs = draw_study(*shape, n_outputs=6, n_test=10)
    features = features.repeat(1, repeats)
    train, test = features[: shape[0]] + 3, features[shape[0] :] + 3
    learned = outputs[: shape[0]] + 7

    products = Products.from_samples(train, learned.split(9), is_centred)

    reference = linear_model.Ridge(alpha=alpha, fit_intercept=is_centred)
    expected = reference.fit(train.numpy(), learned.numpy()).predict(test.numpy())
    np.testing.assert_allclose(products.predict(test, alpha), expected, rtol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_of_some_features_is_solved_from_their_products(shape):
    features, outputs = draw_study(*shape, n_outputs=6)
    features -= features.mean(0)
    selected = features[:, ::2]
    sums = OutputSums.from_chunks(features, outputs.split(9))

    products = Products.from_gram(
        selected.T @ selected,
        sums.rotated[::2],
        sums.squares,
        sums.mean,
        len(features) - 1,
    )

    expected = Products.from_samples(selected, [outputs])
    assert products.choose_alpha() == pytest.approx(expected.choose_alpha(), rel=1e-9)
    torch.testing.assert_close(
        products.predict(selected, 0.5), expected.predict(selected, 0.5)
    )


@pytest.mark.parametrize("shape", [(12, 13)] + list(SHAPES))
@pytest.mark.parametrize(("features_offset", "offset"), [(0, 0), (0, 1e4), (1e4, 0)])
@pytest.mark.parametrize("unit", [1.0, 1e-13])
@pytest.mark.parametrize("seed", range(4))
def test_penalties_of_float32_equal_hat_matrices(
    shape, features_offset, offset, unit, seed
):
    """Offsets are multiples of the spread."""
    features, outputs = draw_study(*shape, n_outputs=16, seed=seed)
    features = (features / features.std() + features_offset) * unit
    outputs = (outputs / outputs.std() + offset) * unit
    features, outputs = features.float(), outputs.float()

    alpha = Products.from_samples(features, outputs.split(9)).choose_alpha()

    expected = choose_penalty_by_hat_matrix(features, outputs)
    assert alpha == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("offset", [0, 10_000])
def test_a_planted_study_is_predicted_as_in_float64(seed, offset):
    """Sums in float32 once chose a penalty that was 100,000 times too small.

    The offset of outputs is a multiple of their spread.
    """
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, outputs = draw_study(250, 1500, 128, n_test=100, seed=seed)
    outputs = (outputs / outputs.std() + offset).float()
    train, test = features[:250], features[250:]
    learned, measured_outputs = outputs[:250], outputs[250:].double()

    products = Products.from_samples(train.float(), learned.split(100))
    predicted = products.predict(test.float())

    penalty = choose_penalty_by_hat_matrix(train, learned)
    reference = linear_model.Ridge(alpha=penalty).fit(train, learned.double())
    expected = reference.predict(test)
    expected_r = correlate_over_pictures(expected, measured_outputs.numpy()).mean()
    r = correlate_over_pictures(
        predicted.double().numpy(), measured_outputs.numpy()
    ).mean()
    assert r > 0.4
    assert r == pytest.approx(expected_r, abs=1e-3)


@pytest.mark.parametrize("n_features", [60, 40])
@pytest.mark.parametrize("count", [5, 30, 70])
def test_components_are_those_of_a_full_decomposition(n_features, count, monkeypatch):
    monkeypatch.setattr(linear_maps, "BLOCK_NUMBERS", 130)  # blocks of 2 or 3 rows
    features, _ = draw_study(50, n_features, 1)
    features = (features + 20).float()

    components = Components.fit(features, count)

    exact = features.double()
    u, s, vh = torch.linalg.svd(exact - exact.mean(0), full_matrices=False)
    rank = min(count, 49, n_features)
    torch.testing.assert_close(components.singular, s[:rank], rtol=1e-6, atol=0)
    for vectors, expected in ((components.basis, vh.T), (components.scores, u)):
        cosines = (vectors.double() * expected[:, :rank]).sum(0).abs()
        torch.testing.assert_close(cosines, torch.ones(rank, dtype=torch.float64))


def test_an_approximation_has_the_first_components():
    """The last of 20 components differ, so that 15 are compared."""
    random = torch.Generator().manual_seed(60)
    spread = 0.7 ** torch.arange(60.0)
    decaying = torch.randn(50, 60, generator=random) * spread + 5
    exact = Components.fit(decaying, 20)
    rng_state = torch.random.get_rng_state()

    approximate = Components.fit(decaying, 20, max_exact=30)

    assert torch.equal(torch.random.get_rng_state(), rng_state)
    assert not torch.equal(approximate.basis, exact.basis)
    torch.testing.assert_close(
        approximate.singular, exact.singular, rtol=1e-3, atol=1e-4
    )
    for vectors, expected in (
        (approximate.basis, exact.basis),
        (approximate.scores, exact.scores),
    ):
        cosines = (vectors[:, :15] * expected[:, :15]).sum(0).abs()
        torch.testing.assert_close(cosines, torch.ones(15), rtol=1e-3, atol=0)
    # all components are never approximated
    assert not is_approximate(50, 60, 50, max_exact=30)


def test_directions_below_rounding_errors_are_no_components():
    """The second of two uncorrelated features is as small as a rounding error."""
    small = torch.finfo(torch.float64).eps ** 0.5
    features = torch.tensor([[1.0, 0], [-1, 0], [0, small], [0, -small]])

    components = Components.fit(features)
    features[2:] *= 2
    larger = Components.fit(features)

    assert components.singular.tolist() == [pytest.approx(2**0.5)]
    assert components.basis.abs().tolist() == [[1], [0]]
    assert len(larger.singular) == 2


def test_constant_features_and_outputs_are_predicted_by_the_mean():
    features = torch.full((9, 4), 5.0)
    outputs = torch.arange(9.0)[:, None]
    predicted = Products.from_samples(features, [outputs]).predict(features)
    assert predicted.flatten().tolist() == [4] * 9
    products = Products.from_samples(torch.randn(9, 4), [outputs * 0 + 3])
    assert products.predict(features).flatten().tolist() == [3] * 9


@pytest.mark.parametrize("shape", [(16_540, 4_250), (9_000, 15_000)])
def test_a_fit_takes_at_most_one_and_a_half_times_the_signals(shape):
    """The shapes are those of THINGS-EEG2 and NSD."""
    n_bytes = count_fit_bytes(*shape, 1000)
    assert n_bytes <= 1.5 * 4 * shape[0] * shape[1]


def test_an_approximate_fit_grows_with_signals_not_their_cube():
    exact = [count_fit_operations(n, 15_000, 1000) for n in (2000, 4000)]
    approximate = [count_fit_operations(n, 15_000, 1000) for n in (9000, 18_000)]
    assert exact[1] > 3.9 * exact[0]
    # four iterations of two products and two more, each counted half
    product = 2 * 15_000 * 1000
    assert approximate == [5 * 9000 * product, 5 * 18_000 * product]


def test_a_constant_feature_is_left_as_it_is():
    features = torch.randn(500, 3)
    features[:, 1] = 100_000.3
    scaled = FeatureScaler.fit(features)(features)
    assert scaled[:, 1].abs().max() < 0.1
    tiny = FeatureScaler.fit(features * 1e-13)(features * 1e-13)
    torch.testing.assert_close(tiny[:, [0, 2]], scaled[:, [0, 2]])
