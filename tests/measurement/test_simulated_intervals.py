"""How often intervals of calibration hold the truth, by the simulation of the benchmarks."""

from pathlib import Path

import numpy as np
import pytest

SIMULATIONS = 300
"""Of an interval that holds 95 times in 100, the share that holds has a standard deviation of .013."""


@pytest.fixture(scope="module")
def calibration():
    """The simulation of a calibration: subjects, pictures and draws vary."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
        from simulated_statistics import calibration

        yield calibration


def coverage(simulate, **how) -> np.ndarray:
    """How often each interval holds: for people in general, for these people, and of the share."""
    random = np.random.default_rng(0)
    results = [simulate(random, **how) for _ in range(SIMULATIONS)]
    return np.mean([[result[column] for column in (1, 3, 4)] for result in results], axis=0)


@pytest.mark.parametrize("people", [5, 8])
def test_intervals_over_draws_hold_for_people_in_general(calibration, people):
    in_general, these, _ = coverage(calibration, people=people, draws=3, centre=-1.5, gain=1.0)
    assert 0.9 <= in_general <= 0.99 and 0.9 <= these <= 0.99


@pytest.mark.parametrize("people", [4, 8])
def test_the_interval_of_the_share_of_everything_holds(calibration, people):
    *_, share = coverage(calibration, people=people, draws=3, centre=-1.5, gain=1.0)
    assert 0.9 <= share <= 0.99
