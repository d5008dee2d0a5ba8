"""Tests of the strength of signals that follows from a pilot."""

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
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
SINGLE = np.arange(60)
"""Each picture is a group of its own."""
SHAPE = SHAPES[2]


@pytest.fixture(scope="module")
def world():
    return LightWorld(PictureSpace.from_embeddings(None))


@pytest.fixture(scope="module")
def table(world):
    pictures = world.pictures.embeddings[:60]
    return tabulate_margins(world, pictures, REPETITIONS, SINGLE, n_pilots=4)


def mean_gain(belief):
    """Return the geometric mean of the gain."""
    return float(np.exp(belief.weights.sum((1, 2)) @ LOG_GAINS))


def make_person(world, gain, seed=0):
    """Simulate a person who sees 60 pictures twice."""
    rng = np.random.default_rng(seed)
    noise = world.make_noise(SHAPE)
    pictures = world.pictures.draw(rng, 60)
    features = add_features(rng, pictures, 0.2)
    signals = gain * features @ world.draw_maps(rng, SHAPE)
    picture = np.tile(np.arange(60), 2)
    trials = signals[picture] + noise * rng.standard_normal((120, len(noise)))
    return PilotPerson(trials.astype("f4"), picture, pictures.astype("f4"), SINGLE)


def simulate(world, gain, seed):
    """Simulate the margins of a pilot of 60 pictures."""
    pictures = world.pictures.embeddings[:60]
    return simulate_margins(world, gain, SHAPE, seed, pictures, REPETITIONS, SINGLE)


def test_trials_of_a_picture_are_averaged():
    signals = np.array([[1, 2], [3, 4], [5, 6]], "f4")
    targets = np.array([[9], [7], [8]], "f4")
    person = PilotPerson(signals, np.array([2, 0, 2]), targets, np.arange(3))
    first_trials, mean, rows, counts = average_trials(person)
    assert first_trials.tolist() == [[3, 4], [1, 2]]
    assert mean.tolist() == [[3, 4], [3, 4]]
    assert rows.tolist() == [0, 2]
    assert counts.tolist() == [1, 2]


def test_margins_of_perfect_signals_are_large_and_of_noise_zero():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(80, 10))
    noise = rng.normal(size=(80, 10))
    perfect = measure_margins(targets, targets, targets, np.arange(80))
    assert len(perfect) == 3  # there are no repetitions
    assert perfect[0] > 2
    margins = measure_margins(noise, noise + 0.1, targets, np.arange(80))
    assert len(margins) == 5
    assert np.abs(margins).max() < 0.4


def test_signals_of_concepts_tell_nothing_of_new_concepts():
    rng = np.random.default_rng(0)
    concept = np.repeat(np.arange(40), 4)
    targets = rng.normal(size=(40, 10))[concept] + 0.3 * rng.normal(size=(160, 10))
    signals = rng.normal(size=(40, 30))[concept]
    pictures = measure_margins(signals, signals, targets, np.arange(160))
    concepts = measure_margins(signals, signals, targets, concept)
    assert pictures[0] > 1
    assert np.abs(concepts).max() < 0.4


def test_embeddings_tell_new_concepts():
    rng = np.random.default_rng(0)
    concept = np.repeat(np.arange(40), 4)
    targets = rng.normal(size=(40, 10))[concept] + 0.3 * rng.normal(size=(160, 10))
    assert measure_margins(targets, targets, targets, concept)[0] > 1.5


def test_the_noise_slope_is_measured(world):
    steep = LightWorld(world.pictures, noise_slope=1.5)
    people = [make_person(steep, 0.05, seed) for seed in range(3)]
    assert measure_noise_slope(people) == pytest.approx(1.5, abs=0.25)
    rows = np.arange(9)
    person_without_repetitions = PilotPerson(
        np.zeros((9, 4), "f4"), rows, np.zeros((9, 2), "f4"), rows
    )
    assert measure_noise_slope([person_without_repetitions]) == NOISE_SLOPE


def test_stronger_signals_have_larger_likely_gains(world, table):
    gains = []
    for gain in (0.004, 0.2, 0.5):
        likelihoods = []
        for seed in range(100, 106):
            margins = simulate(world, gain, seed)
            likelihoods.append(compute_likelihoods(table, margins))
        gains.append(mean_gain(Belief.from_likelihoods(world, likelihoods, 120)))
    assert gains[0] < gains[1] / 2
    assert gains[1] < gains[2] / 1.5


def test_a_longer_pilot_narrows_the_gain(world, table):
    margins = simulate(world, 0.2, 100)
    likelihood = compute_likelihoods(table, margins)
    belief = Belief.from_likelihoods(world, [likelihood], 120)
    spreads = []
    for known_belief in (belief, belief.lengthen(16)):
        likely_shape = known_belief.weights.sum((0, 1)).argmax()
        log_gain, _, shape = known_belief.draw(np.random.default_rng(0), 3000)
        spreads.append(log_gain[shape == likely_shape].std())
    assert spreads[1] < spreads[0] / 2


def test_a_pilot_of_few_pictures_is_refused():
    rows = np.arange(9)
    person = PilotPerson(np.eye(9, 4, dtype="f4"), rows, np.eye(9, 2, dtype="f4"), rows)
    with pytest.raises(BrainhiveError, match="9 pictures"):
        Belief.from_pilot([person])


def test_a_pilot_of_many_pictures_of_few_concepts_is_refused():
    rows = np.arange(60)
    signals = np.random.default_rng(0).normal(size=(60, 4)).astype("f4")
    person = PilotPerson(signals, rows, signals, group=rows % 15)
    with pytest.raises(BrainhiveError, match="15 concepts"):
        Belief.from_pilot([person])


@pytest.mark.parametrize(("people", "is_sure"), [(1, False), (40, True)])
def test_a_lucky_score_of_few_tests_may_be_chance(people, is_sure):
    # 13 % of 20 pictures, of which 5 % are right by chance
    result = PublishedResult(0.13, 0.08, 0.2, 60, 2, 20, 4, people=people)
    belief = Belief.from_published(result, seed=0)
    weak = belief.weights.sum((1, 2))[np.exp(LOG_GAINS) < 0.04].sum()
    assert (weak < 0.02) == is_sure


def test_few_people_leave_the_strength_of_others_open():
    spreads = []
    for people, n_tested in ((1, 400), (10, 40)):
        result = PublishedResult(0.2, 0.05, 0.6, 60, 2, n_tested, 4, people)
        belief = Belief.from_published(result, seed=0)
        log_gain, _, shape = belief.draw(np.random.default_rng(0), 3000)
        spreads.append(log_gain[shape == 0].std())
    assert spreads[0] > 1.2 * spreads[1]


def test_published_results_are_reproduced():
    result = PublishedResult(0.2, 0.1, 0.35, 300, 2, 50, 4, people=10)
    belief = Belief.from_published(result, seed=0)
    assert belief.n_trials == 800
    assert belief.weights.sum() == pytest.approx(1)
    world = belief.world
    for number, shape in enumerate(SHAPES):
        weights = belief.weights[:, :, number].sum(1)
        gain = float(np.exp(weights @ LOG_GAINS / weights.sum()))
        top1 = simulate_top1(world, gain, shape, result, seed=5)
        assert top1 == pytest.approx(0.2, abs=0.1)
