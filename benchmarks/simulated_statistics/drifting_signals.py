"""Signals that drift in the course of a run."""

import numpy as np

from benchmarks.simulated_statistics import Random, Values

CHANNELS = 12


def draw_drift(random: Random, position: Values, is_shared: bool) -> Values:
    """Draw drift [N, R, C] of unit spread at positions [N, R] in R runs.

    It mixes a trend, habituation, a U and a wave. If shared, all runs drift alike.
    """
    time = position / position.max()
    courses = [time, np.exp(-5 * time), (2 * time - 1) ** 2, np.sin(6 * time)]
    basis = np.stack(courses, -1)
    basis = (basis - basis.mean((0, 1))) / basis.std((0, 1))
    n_runs = position.shape[1]
    weights = random.normal(size=(1 if is_shared else n_runs, 4, CHANNELS)) / 2
    weights = np.broadcast_to(weights, (n_runs, 4, CHANNELS))
    return np.einsum("nrk,rkc->nrc", basis, weights)


def predict_by_ridge(train: Values, targets: Values, test: Values) -> Values:
    """Predict centred targets [M, D] of test signals [M, C] by a ridge with penalty 3.

    It is fitted to training signals [N, C] and their targets [N, D].
    """
    mean = train.mean(0)
    centred = train - mean
    products = centred.T @ centred + 3 * np.eye(train.shape[1])
    weights = np.linalg.solve(products, centred.T @ (targets - targets.mean(0)))
    return (test - mean) @ weights
