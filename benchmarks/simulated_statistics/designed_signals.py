"""Studies whose design tells something about the labels: signals and verdicts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.signal import lfilter

from benchmarks.simulated_statistics import Random, Values
from brainhive_cli.measurement.design import Exchange
from brainhive_cli.measurement.units import Items
from brainhive_cli.measurement.verdict import judge

CHANNELS = 32
DRIFT_TRIALS = 20
"""Number of trials after which drift has decayed to 1 / e."""

SIGNALS = ("confounds only", "response only")
"""Signals that hold confounds but no response to their trial, or the response alone."""
COLUMNS = "above | not testable | design tells | above, order ignored"


def record(
    random: Random,
    responses: Values,
    run: Values,
    effect: float,
    confound: float,
    lags: tuple[int, ...] = (1, -1),
) -> Values:
    """Record signals [n, CHANNELS] of noise, drift and responses.

    Args:
        random: Random numbers.
        responses: Features [n, E] of the stimulus of each trial.
        run: Run [n] of each trial.
        effect: Strength of the response to the own stimulus.
        confound: Strength of drift, of offsets of runs, and of the responses to the
            stimuli before (positive lags) and after.
        lags: Trials whose responses are in the window, besides the own.
    """
    count, width = responses.shape
    decay = np.exp(-1 / DRIFT_TRIALS)
    steps = random.normal(size=(count + 100, 3))
    drift = lfilter([(1 - decay**2) ** 0.5], [1, -decay], steps, axis=0)[100:]
    signals = random.normal(size=(count, CHANNELS))
    signals += confound * drift @ random.normal(size=(3, CHANNELS))
    signals += 0.7 * confound * random.normal(size=(1 + run.max(), CHANNELS))[run]
    scale = responses.std() * width**0.5
    signals += effect * responses @ random.normal(size=(width, CHANNELS)) / scale
    for lag in lags:
        is_there = np.roll(run, lag) == run
        shifted = np.roll(responses, lag, 0) * is_there[:, None]
        patterns = random.normal(size=(width, CHANNELS))
        signals += 0.8 * confound * shifted @ patterns / scale
    return signals


def predict_by_ridge(train: Values, targets: Values, test: Values) -> Values:
    """Predict targets [m, E] of test signals by a ridge on training signals."""
    mean = train.mean(0)
    centred = train - mean
    gram = centred.T @ centred
    gram += 0.1 * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights = np.linalg.solve(gram, centred.T @ (targets - targets.mean(0)))
    return (test - mean) @ weights


def compare_verdicts(
    ranks: Values,
    items: Items,
    candidates: Sequence[int],
    exchange: Exchange,
    **options: Any,
) -> list[float]:
    """Judge ranks [N, P] with the odds of the design, and with free labels.

    Further options are those of `judge`.

    Returns:
        Values of `COLUMNS`.
    """
    options["max_permutations"] = 999
    side = judge([ranks], items, candidates, exchange=exchange, **options)[0].side
    free_side = judge([ranks], items, candidates, **options)[0].side
    return [
        side == "above chance",
        side == "not testable",
        exchange.design.tells,
        free_side == "above chance",
    ]


def draw_chain(random: Random, count: int, stay: float, labels: int) -> Values:
    """Draw labels [count] that repeat with a probability, or change at random."""
    chain = [int(random.integers(labels))]
    while len(chain) < count:
        other = (chain[-1] + int(random.integers(1, labels))) % labels
        chain.append(chain[-1] if random.random() < stay else other)
    return np.array(chain)
