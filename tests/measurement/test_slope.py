"""Slope of scores over the similarity to the nearest training picture."""

import numpy as np
import pytest
import torch
from scipy.stats import linregress, t
from sklearn.linear_model import Ridge

from brainhive_cli.measurement import (
    Scores,
    average_by_unit,
    fit_slope,
    rank_first_pictures,
)
from brainhive_cli.measurement.units import MIN_UNITS_FOR_INTERVAL

HOW = {"protocol": "", "split": "test", "seeds": ()}


def simulate(random, effect):
    """Draw 50 concepts of two pictures, whose cosines and scores vary by concept."""
    units = np.repeat(np.arange(50), 2)
    cosines = 0.6 + 0.1 * (random.normal(size=50)[units] + random.normal(size=100) / 2)
    latent = random.normal(size=50)[units] + random.normal(size=100)
    latent += effect * (cosines - 0.6)
    share = 1 - 1 / (1 + np.exp(1.5 + latent))
    cell = {"units": units.tolist(), "surplus": share - 0.5, "nearest": cosines}
    return average_by_unit([cell])


def test_only_a_leak_moves_the_interval_away_from_zero():
    random, covered, n_leaks_found = np.random.default_rng(0), 0, 0
    for _ in range(200):
        slope_without_leak = fit_slope(*simulate(random, 0), **HOW)
        with_leak = fit_slope(*simulate(random, 8), **HOW)
        assert slope_without_leak.low is not None
        assert with_leak.low is not None
        covered += slope_without_leak.low <= 0 <= (slope_without_leak.high or 0)
        n_leaks_found += with_leak.low > 0

    # three standard errors of a share of .95 of 200
    assert 0.904 <= covered / 200 <= 0.996
    assert n_leaks_found / 200 > 0.9


def test_the_slope_is_a_least_squares_fit_to_means_of_units():
    cells = [
        {
            "units": list("abcdefg"),
            "surplus": [0.9 - row / 10 for row in range(7)],
            "nearest": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3],
        }
    ] * 2

    slope = fit_slope(
        *average_by_unit(list(cells) + [{**cells[0], "nearest": []}]), **HOW
    )

    # equal scores have no interval
    cells[0]["surplus"] = [0.5] * 7
    assert fit_slope(*average_by_unit(cells[:1]), **HOW).low is None
    # the score is the cosine and a constant, so a slope of 1 for its own deviation
    assert slope.n == 7
    assert np.isclose(slope.value, np.std(np.arange(7)) / 10)


def test_slope_and_interval_are_those_of_scipy():
    random = np.random.default_rng(0)
    for count in (2, 3, 5, 7, 40, 1000):
        nearest, score = random.normal(size=(2, count))
        # scores that rise, fall, lie on a line, or are equal
        for scores in (score, nearest + score, 3 - 2 * nearest, np.full(count, 0.25)):
            slope = fit_slope(nearest, scores, **HOW)

            fit = linregress(nearest / nearest.std(), scores)
            # sums of newer scipy differ in the last digit
            assert slope.value == pytest.approx(fit.slope, rel=1e-12)
            # rounding decides whether scipy's error is 0 for scores on a line
            is_line = 1 - fit.rvalue**2 < 1e-12 or not np.ptp(scores)
            if count < MIN_UNITS_FOR_INTERVAL or is_line:
                assert slope.low is None
                assert slope.high is None
            else:
                width = t.ppf(0.975, count - 2) * fit.stderr
                ends = (fit.slope - width, fit.slope + width)
                assert (slope.low, slope.high) == pytest.approx(ends, rel=1e-12)


def test_noise_has_no_slope_if_embeddings_share_a_direction():
    """A ridge that is fitted to noise ranks pictures near the training pictures well
    for every signal. Plain scores then had a slope above 0 in all of 200 studies.
    """
    random, count = np.random.default_rng(0), 0
    names = [str(row) for row in range(60)]
    for _ in range(40):
        common = random.normal(size=32)
        pictures = common + random.normal(size=(210, 32)) * np.exp(-np.arange(32) / 20)
        pictures /= np.linalg.norm(pictures, axis=1, keepdims=True)
        train, test_pictures = pictures[:150], pictures[150:]
        ridge = Ridge(150.0).fit(random.normal(size=(150, 80)), train)
        predicted = ridge.predict(random.normal(size=(60, 80)))
        tokens = (
            torch.from_numpy(vectors).float() for vectors in (predicted, test_pictures)
        )
        table = rank_first_pictures(*tokens, 60)
        scores = Scores(labels=names, verdict_ids=names, verdict_ranks=table)
        cell = {
            "units": names,
            "surplus": scores.compute_rank_advantages(),
            "nearest": (test_pictures @ train.T).max(1),
        }
        low = fit_slope(*average_by_unit([cell]), **HOW).low
        count += low is not None and low > 0

    # 2.5 % are expected: 5 or more of 40 have a probability of .003
    assert count <= 4


def test_pictures_are_compared_with_other_signals_of_their_fold():
    # two signals of a, two of b; c is alone in its fold, d is no candidate
    table = np.array([[1, 2, 0], [3, 1, 0], [2, 1, 0], [4, 3, 0], [0, 0, 1]])
    labels = ["a", "a", "b", "b", "d", "c"]

    surplus = Scores(
        labels=labels, verdict_ids=list("abc"), verdict_ranks=table
    ).compute_rank_advantages()

    # a ranks third for signals of b, b 1.5th for those of a; two are compared
    assert surplus == [3 - 1, 3 - 3, 1.5 - 1, 1.5 - 3, None, None]
