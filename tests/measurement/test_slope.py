"""Score against the nearest training picture: no slope without a leak, one with it."""

import numpy as np

from brainhive_cli.measurement.slope import Pictures, average_by_picture, fit_slope


def simulate(random: np.random.Generator, effect: float) -> Pictures:
    """50 concepts of two pictures, whose cosines and scores vary by concept."""
    units = np.repeat(np.arange(50), 2)
    cosines = 0.6 + 0.1 * (random.normal(size=50)[units] + random.normal(size=100) / 2)
    latent = random.normal(size=50)[units] + random.normal(size=100)
    latent += effect * (cosines - 0.6)
    return cosines, 1 / (1 + np.exp(-1.5 - latent)), units


def test_the_interval_covers_0_without_a_leak_and_a_leak_is_found() -> None:
    random, covered, found = np.random.default_rng(0), 0, 0
    for _ in range(200):
        without = fit_slope(simulate(random, 0), protocol="", split="test")
        with_leak = fit_slope(simulate(random, 8), protocol="", split="test")
        assert without.low is not None and with_leak.low is not None
        covered += without.low <= 0 <= (without.high or 0)
        found += with_leak.low > 0

    # three standard errors of a share of .95 of 200
    assert 0.904 <= covered / 200 <= 0.996 and found / 200 > 0.9


def test_items_are_averaged_by_picture_and_the_slope_is_that_of_least_squares() -> None:
    cells = [
        {
            "image_ids": list("abcdefg"),
            "units": list("abcdefg"),
            "ranks": [*range(1, 8)],
            "nearest": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3],
        }
    ] * 2

    slope = fit_slope(average_by_picture(cells, 11), protocol="", split="test")

    # the score is the cosine and a constant, so a slope of 1 for its own deviation
    assert slope.n == 7 and np.isclose(slope.value, np.std(np.arange(7)) / 10)
