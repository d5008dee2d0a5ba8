"""Tests of the strength of signals that follows from a pilot."""

import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.evaluation.planning.assumptions import PilotPerson, PublishedResult
from brainhive_cli.evaluation.planning.belief import (
    LOG_GAINS,
    Belief,
    average_trials,
    compute_likelihoods,
    measure_margins,
    measure_noise_slope,
    simulate_margins,
    simulate_top1,
    tabulate_margins,
)
from brainhive_cli.evaluation.planning.light_world import (
    NOISE_SLOPE,
    SHAPES,
    LightWorld,
    PictureSpace,
    add_features,
)

REPETITIONS = np.full(60, 2)
SHAPE = SHAPES[2]


@pytest.fixture(scope="module")
def world() -> LightWorld:
    return LightWorld(PictureSpace.from_embeddings(None))


@pytest.fixture(scope="module")
def table(world: LightWorld) -> np.ndarray:
    return tabulate_margins(world, REPETITIONS, n_pilots=4)


def mean_gain(belief: Belief) -> float:
    """Return the geometric mean of the gain."""
    return float(np.exp(belief.weights.sum((1, 2)) @ LOG_GAINS))


def make_person(world: LightWorld, gain: float, seed: int = 0) -> PilotPerson:
    """Simulate a person who sees 60 pictures twice."""
    rng = np.random.default_rng(seed)
    noise = world.make_noise(SHAPE)
    pictures = world.pictures.draw(rng, 60)
    features = add_features(rng, pictures, 0.2)
    signals = gain * features @ world.draw_maps(rng, SHAPE)
    picture = np.tile(np.arange(60), 2)
    trials = signals[picture] + noise * rng.standard_normal((120, len(noise)))
    return PilotPerson(trials.astype("f4"), picture, pictures.astype("f4"))


def test_trials_of_a_picture_are_averaged() -> None:
    signals = np.array([[1, 2], [3, 4], [5, 6]], "f4")
    targets = np.array([[9], [7], [8]], "f4")
    person = PilotPerson(signals, np.array([2, 0, 2]), targets)
    first, mean, embeddings, counts = average_trials(person)
    assert first.tolist() == [[3, 4], [1, 2]]
    assert mean.tolist() == [[3, 4], [3, 4]]
    assert embeddings.tolist() == [[9], [8]]
    assert counts.tolist() == [1, 2]


def test_margins_of_perfect_signals_are_large_and_of_noise_zero() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(80, 10))
    noise = rng.normal(size=(80, 10))
    perfect = measure_margins(targets, targets, targets)
    assert len(perfect) == 3  # there are no repetitions
    assert perfect[0] > 2
    margins = measure_margins(noise, noise + 0.1, targets)
    assert len(margins) == 5
    assert np.abs(margins).max() < 0.4


def test_the_noise_slope_is_measured(world: LightWorld) -> None:
    steep = LightWorld(world.pictures, noise_slope=1.5)
    people = [make_person(steep, 0.05, seed) for seed in range(3)]
    assert measure_noise_slope(people) == pytest.approx(1.5, abs=0.25)
    once = PilotPerson(np.zeros((9, 4), "f4"), np.arange(9), np.zeros((9, 2), "f4"))
    assert measure_noise_slope([once]) == NOISE_SLOPE


def test_stronger_signals_have_larger_likely_gains(
    world: LightWorld, table: np.ndarray
) -> None:
    gains = []
    for gain in (0.004, 0.2, 0.5):
        likelihoods = []
        for seed in range(100, 106):
            margins = simulate_margins(world, gain, SHAPE, seed, REPETITIONS)
            likelihoods.append(compute_likelihoods(table, margins))
        gains.append(mean_gain(Belief.from_likelihoods(world, likelihoods, 120)))
    assert gains[0] < gains[1] / 2
    assert gains[1] < gains[2] / 1.5


def test_a_longer_pilot_narrows_the_gain(world: LightWorld, table: np.ndarray) -> None:
    margins = simulate_margins(world, 0.2, SHAPE, 100, REPETITIONS)
    likelihood = compute_likelihoods(table, margins)
    belief = Belief.from_likelihoods(world, [likelihood], 120)
    spreads = []
    for known in (belief, belief.lengthen(16)):
        likely_shape = known.weights.sum((0, 1)).argmax()
        log_gain, _, shape = known.draw(np.random.default_rng(0), 3000)
        spreads.append(log_gain[shape == likely_shape].std())
    assert spreads[1] < spreads[0] / 2


def test_a_pilot_of_few_pictures_is_refused() -> None:
    person = PilotPerson(
        np.eye(9, 4, dtype="f4"), np.arange(9), np.eye(9, 2, dtype="f4")
    )
    with pytest.raises(BrainhiveError, match="9 pictures"):
        Belief.from_pilot([person])


def test_published_results_are_reproduced() -> None:
    result = PublishedResult(0.2, 0.1, 0.35, 300, 2, 50, 4)
    belief = Belief.from_published(result, seed=0)
    assert belief.n_trials == 800
    assert belief.weights.sum() == pytest.approx(1)
    world = belief.world
    for number, shape in enumerate(SHAPES):
        weights = belief.weights[:, :, number].sum(1)
        gain = float(np.exp(weights @ LOG_GAINS / weights.sum()))
        top1 = simulate_top1(world, gain, shape, result, seed=5)
        assert top1 == pytest.approx(0.2, abs=0.1)
