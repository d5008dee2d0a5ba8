"""Tests of the light model of decoding."""

import numpy as np
import pytest

from brainhive_cli.evaluation.planning import light_world
from brainhive_cli.evaluation.planning.belief import compute_cosines
from brainhive_cli.evaluation.planning.light_world import (
    LightWorld,
    PictureSpace,
    fit_ridge,
)

SHAPE = light_world.SHAPES[2]


def measure_top5(world, gain, n_pictures):
    """Measure the mean top-5 among 50 candidates over 40 people."""
    shares = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        decoder = world.draw_decoder(rng, gain, SHAPE, n_pictures, repetitions=2)
        pictures = world.pictures.draw(rng, 50)
        tokens = decoder.predict(rng, pictures, gain, repetitions=4)
        similarities = compute_cosines(tokens, pictures - decoder.mean)
        target_similarities = similarities.diagonal()[:, None]
        shares.append(((similarities >= target_similarities).sum(1) <= 5).mean())
    return float(np.mean(shares))


@pytest.fixture(scope="module")
def world():
    return LightWorld(PictureSpace.from_embeddings(None))


def test_embeddings_are_centred_with_unit_mean_square(world):
    embeddings = np.random.default_rng(0).normal(3, 2, (200, 300))
    for pictures in (world.pictures, PictureSpace.from_embeddings(embeddings)):
        assert pictures.embeddings.shape[1] <= light_world.MAX_COMPONENTS
        np.testing.assert_allclose(pictures.embeddings.mean(0), 0, atol=1e-9)
        squares = (pictures.embeddings**2).sum(1)
        assert squares.mean() == pytest.approx(1)


def test_pictures_beyond_the_folder_have_its_covariance():
    scales = np.arange(1, 9)
    embeddings = np.random.default_rng(0).normal(size=(60, 8)) * scales
    pictures = PictureSpace.from_embeddings(embeddings)
    drawn_pictures = pictures.draw(np.random.default_rng(1), 20_000)
    np.testing.assert_allclose(
        np.cov(drawn_pictures.T), np.cov(pictures.embeddings.T), rtol=0.1, atol=0.02
    )


def test_different_pictures_are_drawn_from_the_folder(world):
    drawn_pictures = world.pictures.draw(np.random.default_rng(0), 500)
    assert len(np.unique(drawn_pictures, axis=0)) == 500


@pytest.mark.parametrize("n_samples", [30, 300])
def test_weights_are_those_of_a_ridge_regression(n_samples):
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    signals = rng.normal(size=(n_samples, 50))
    targets = signals @ rng.normal(size=(50, 4)) + rng.normal(size=(n_samples, 4))
    weights, mean, target_mean = fit_ridge(signals, targets)
    np.testing.assert_allclose(mean, signals.mean(0))
    np.testing.assert_allclose(target_mean, targets.mean(0))

    # the weights of some penalty, which all outputs share
    ridge = Ridge(alpha=1.0).fit(signals, targets)
    shrinkage = np.linalg.norm(weights, axis=0) / np.linalg.norm(ridge.coef_.T, axis=0)
    assert np.all((shrinkage > 0.5) & (shrinkage < 1.5))


def test_drawn_products_act_like_simulated_signals(world, monkeypatch):
    from_products = measure_top5(world, 0.15, 700)
    monkeypatch.setattr(light_world, "MAX_SIMULATED_SIGNALS", 10_000)
    from_signals = measure_top5(world, 0.15, 700)
    # the standard error of the difference is about .02
    assert from_products == pytest.approx(from_signals, abs=0.06)
    assert from_products > 0.18


@pytest.mark.parametrize("n_pictures", [20, 2000])
def test_wide_embeddings_of_any_number_have_decoders(n_pictures):
    # with few pictures, embeddings have fewer dimensions than numbers
    embeddings = np.random.default_rng(0).normal(size=(n_pictures, 512))
    world = LightWorld(PictureSpace.from_embeddings(embeddings))
    n_train = light_world.MAX_SIMULATED_SIGNALS + 1
    decoder = world.draw_decoder(np.random.default_rng(0), 0.1, SHAPE, n_train, 1)
    assert np.isfinite(decoder.maps).all()


def test_decoding_grows_with_gain_and_data(world):
    assert measure_top5(world, 0.0001, 100) == pytest.approx(0.1, abs=0.03)
    assert measure_top5(world, 0.2, 400) > measure_top5(world, 0.2, 50) + 0.05
    assert measure_top5(world, 0.4, 100) > measure_top5(world, 0.1, 100) + 0.1
