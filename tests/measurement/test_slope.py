"""Score against the nearest training picture: no slope without a leak, one with it."""

from typing import Any

import numpy as np

from brainhive_cli.measurement.slope import average_by_unit, fit_slope

HOW = {"protocol": "", "split": "test", "seeds": ()}


def simulate(random: np.random.Generator, effect: float) -> tuple[Any, Any]:
    """50 concepts of two pictures, whose cosines and scores vary by concept."""
    units = np.repeat(np.arange(50), 2)
    cosines = 0.6 + 0.1 * (random.normal(size=50)[units] + random.normal(size=100) / 2)
    latent = random.normal(size=50)[units] + random.normal(size=100)
    latent += effect * (cosines - 0.6)
    ranks = 1 + 199 / (1 + np.exp(1.5 + latent))
    cell = {"units": units.tolist(), "ranks": ranks, "nearest": cosines}
    return average_by_unit([cell], 200)


def test_the_interval_covers_0_without_a_leak_and_a_leak_is_found() -> None:
    random, covered, found = np.random.default_rng(0), 0, 0
    for _ in range(200):
        without = fit_slope(*simulate(random, 0), **HOW)
        with_leak = fit_slope(*simulate(random, 8), **HOW)
        assert without.low is not None and with_leak.low is not None
        covered += without.low <= 0 <= (without.high or 0)
        found += with_leak.low > 0

    # three standard errors of a share of .95 of 200
    assert 0.904 <= covered / 200 <= 0.996 and found / 200 > 0.9


def test_items_are_averaged_by_unit_and_the_slope_is_that_of_least_squares() -> None:
    cells = [
        {
            "units": list("abcdefg"),
            "ranks": [*range(1, 8)],
            "nearest": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3],
        }
    ] * 2

    slope = fit_slope(
        *average_by_unit([*cells, {**cells[0], "nearest": []}], 11), **HOW
    )

    # equal scores have no interval
    cells[0]["ranks"] = [1] * 7
    assert fit_slope(*average_by_unit(cells[:1], 11), **HOW).low is None
    # the score is the cosine and a constant, so a slope of 1 for its own deviation
    assert slope.n == 7 and np.isclose(slope.value, np.std(np.arange(7)) / 10)
