"""The interval of a live hit rate holds at all trials together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import betaln, expit, logit, xlog1py, xlogy
from scipy.stats import norm

from benchmarks.simulated_statistics import Random, Values
from benchmarks.simulated_statistics.judging import LEVEL
from brainhive_cli.measurement.confidence_sequence import (
    PRIOR_A,
    PRIOR_B,
    hit_rate_interval,
)

DESIGNS = (
    "equal pictures",
    "50 pictures, with replacement",
    "50 pictures, in rounds",
    "200 pictures, with replacement",
    "200 pictures, in rounds",
    "rate drifts up",
    "rate drifts down",
    "rate drifts wave",
)
AXES: Mapping[str, Sequence[Any]] = {
    "design": DESIGNS,
    "rate": (0.005, 0.05, 0.2, 0.5, 0.8),
}
COLUMNS = (
    "mean hit | ever missed | by Wilson's | missed at last | by Wilson's | "
    "width at 20 | 100 | 1000"
)


def live(random: Random, design: str, rate: float, trials: int = 2000) -> list[float]:
    """Test whether the interval after each trial ever misses the hit rate.

    Wilson's interval, which is made for a single moment, is tested from the 20th trial.
    If the rate drifts, intervals must hold the average up to each trial. Misses at the
    last trial are counted, too.
    """
    hits, truth = draw_live_hits(random, design, rate, trials)
    n = np.arange(1, trials + 1)
    k = np.cumsum(hits)

    # our interval misses the truth where the martingale is too large for it
    ratio = (
        betaln(k + PRIOR_A, n - k + PRIOR_B)
        - betaln(PRIOR_A, PRIOR_B)
        - xlogy(k, truth)
        - xlog1py(n - k, -truth)
    )
    misses = ratio >= -np.log(LEVEL)

    # Wilson's interval misses it where the score is too large
    score = np.abs(k / n - truth) / np.sqrt(truth * (1 - truth) / n)
    wilson_misses = (score > norm.ppf(1 - LEVEL / 2))[19:]

    widths = []
    for size in (20, 100, 1000):
        low, high = (0.0, np.nan)
        if size <= trials:
            low, high = hit_rate_interval(int(k[size - 1]), size)
        widths.append(high - low)
    is_missed = [misses.any(), wilson_misses.any(), misses[-1], wilson_misses[-1]]
    return [float(truth[-1])] + is_missed + widths


def draw_live_hits(
    random: Random, design: str, rate: float, trials: int
) -> tuple[Values, Values]:
    """Draw the hits [trials], and the true rate [trials] after each trial.

    Hit probabilities of pictures are drawn from a Beta distribution (a + b = 2) around
    the rate. Their mean is the true rate. A drifting rate goes up, down, or as a wave
    by 1.5 in logits. Its average so far is the true rate.
    """
    if design.endswith(("replacement", "rounds")):
        n_pictures = int(design.split()[0])
        probabilities = random.beta(2 * rate, 2 * (1 - rate), n_pictures)
        if design.endswith("replacement"):
            order = random.integers(n_pictures, size=trials)
        else:  # each round shows every picture once, in random order
            n_rounds = -(-trials // n_pictures)
            rounds = np.tile(np.arange(n_pictures), (n_rounds, 1))
            order = random.permuted(rounds, axis=1).ravel()[:trials]
        hits = random.random(trials) < probabilities[order]
        return hits.astype(np.float64), np.full(trials, probabilities.mean())

    time = np.linspace(-1, 1, trials)
    courses = {
        "pictures": np.zeros(trials),
        "up": time,
        "down": -time,
        "wave": np.sin(4 * np.pi * time),
    }
    course = 1.5 * courses[design.split()[-1]]
    probabilities = expit(logit(rate) + course)
    average = np.cumsum(probabilities) / np.arange(1, trials + 1)
    return (random.random(trials) < probabilities).astype(np.float64), average
