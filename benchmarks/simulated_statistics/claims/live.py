"""The interval of a live hit rate holds however often it is looked at."""

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

DESIGNS = [
    "equal pictures",
    *(
        f"{count} pictures, {how}"
        for count in (50, 200)
        for how in ("with replacement", "in rounds")
    ),
]
DESIGNS += [f"rate drifts {course}" for course in ("up", "down", "wave")]
AXES: Mapping[str, Sequence[Any]] = {
    "design": DESIGNS,
    "rate": (0.005, 0.05, 0.2, 0.5, 0.8),
}
COLUMNS = (
    "mean hit | ever missed | by Wilson's | missed at last | by Wilson's | "
    "width at 20 | 100 | 1000"
)


def live(random: Random, design: str, rate: float, trials: int = 2000) -> list[float]:
    """A hit rate that is looked at after each trial: whether an interval ever misses
    it, and mean widths.

    Wilson's interval, which is for one moment, is looked at from the 20th trial on. Of
    a rate that drifts, intervals are to hold the average up to each trial. The share
    that misses at the last trial is given, too.
    """
    hits, truth = draw_live_hits(random, design, rate, trials)
    n = np.arange(1, trials + 1)
    k = np.cumsum(hits)

    # ours misses where the martingale is too large for the truth, which needs no ends
    ratio = (
        betaln(k + PRIOR_A, n - k + PRIOR_B)
        - betaln(PRIOR_A, PRIOR_B)
        - xlogy(k, truth)
        - xlog1py(n - k, -truth)
    )
    misses = ratio >= -np.log(LEVEL)

    # Wilson's, by its score; and the widths of ours
    score = np.abs(k / n - truth) / np.sqrt(truth * (1 - truth) / n)
    wilson = (score > norm.ppf(1 - LEVEL / 2))[19:]
    ends = [
        hit_rate_interval(int(k[size - 1]), size) if size <= trials else (0, np.nan)
        for size in (20, 100, 1000)
    ]
    widths = [high - low for low, high in ends]
    return [
        float(truth[-1]),
        misses.any(),
        wilson.any(),
        misses[-1],
        wilson[-1],
        *widths,
    ]


def draw_live_hits(
    random: Random, design: str, rate: float, trials: int
) -> tuple[Values, Values]:
    """Draw hits of trials, and what their mean stands for after each: the rate of all,
    or of those so far.

    Pictures have hit probabilities from a Beta distribution with that mean, a + b = 2,
    and are drawn anew in each simulation; the rate of all is theirs. A drifting rate
    goes up, down, or as a wave by 1.5 in logits.
    """
    if design.endswith(("replacement", "rounds")):
        probabilities = random.beta(2 * rate, 2 * (1 - rate), int(design.split()[0]))
        if design.endswith("replacement"):
            order = random.integers(len(probabilities), size=trials)
        else:  # each picture once in random order, then again
            rounds = -(-trials // len(probabilities))
            order = random.permuted(
                np.tile(np.arange(len(probabilities)), (rounds, 1)), axis=1
            ).ravel()[:trials]
        hits = random.random(trials) < probabilities[order]
        return hits.astype(np.float64), np.full(trials, probabilities.mean())
    course = np.zeros(trials)
    if design != "equal pictures":
        at = np.linspace(-1, 1, trials)
        course = (
            1.5
            * {"up": at, "down": -at, "wave": np.sin(4 * np.pi * at)}[
                design.split()[-1]
            ]
        )
    by_trial = expit(logit(rate) + course)
    average = np.cumsum(by_trial) / np.arange(1, trials + 1)
    return (random.random(trials) < by_trial).astype(np.float64), average
