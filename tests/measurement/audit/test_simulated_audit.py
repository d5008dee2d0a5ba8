"""Rates at which audit accuses simulated honest folders and finds simulated cheats."""

from pathlib import Path

import numpy as np
import pytest

from brainhive_cli.measurement.audit import CHECKS, FINDING

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def simulated():
    """Import the simulation of the benchmarks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).resolve().parents[3] / "benchmarks")
        import audit_folders

        yield audit_folders


def test_honest_folders_of_usual_conventions_are_not_accused(simulated):
    """Earlier checks accused 59 of 97 folders."""
    accused = 0
    for seed in range(1000, 1040):
        random = np.random.default_rng(seed)
        convention = simulated.draw_convention(random)
        states = simulated.find_states(simulated.make_honest_folder(random, convention))
        accused += FINDING in states.values()
    # at a rate of 1 %, 3 or more have a probability of .007
    assert accused < 3


def test_cheats_of_twenty_kinds_are_found_each_by_its_own_check(simulated):
    """Earlier checks missed six kinds, or another check found them."""
    assert len(simulated.CHEATS) >= 20
    assert set(simulated.CHEATS.values()) == set(CHECKS)
    n_found = 0
    for plant, check in simulated.CHEATS.items():
        for seed in (1000, 1001):
            states = simulated.find_states(plant(np.random.default_rng(seed)))
            n_found += states[check] == FINDING
    assert n_found >= 0.9 * 2 * len(simulated.CHEATS)
