"""Signals that drift in the course of a run."""

import numpy as np

from benchmarks.simulated_statistics import Random, Values

CHANNELS = 12


def draw_drift(random: Random, position: Values, is_shared: bool) -> Values:
    """Draw drift [N, R, C] at positions [N, R]: a trend, habituation, a U and a wave,
    of unit spread.
    """
    time = position / position.max()
    courses = [time, np.exp(-5 * time), (2 * time - 1) ** 2, np.sin(6 * time)]
    basis = np.stack(courses, -1)
    basis = (basis - basis.mean((0, 1))) / basis.std((0, 1))
    runs = 1 if is_shared else position.shape[1]
    load = np.broadcast_to(
        random.normal(size=(runs, 4, CHANNELS)) / 2, (position.shape[1], 4, CHANNELS)
    )
    return np.einsum("nrk,rkc->nrc", basis, load)
