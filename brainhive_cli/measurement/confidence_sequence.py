"""Hit rate of a live session, with an interval and a test that hold at every moment.

**Interval.** Divide the mean likelihood over a prior by the likelihood at a rate. At
the true rate, this martingale ever reaches 1 / (1 - level) with a probability of at
most 1 - level (Ville), so the interval holds all rates at which it has not. If the rate
drifts, the interval holds for the mean rate so far, which is proven for a single moment
and simulated for all moments (`benchmarks/simulated_statistics --only live`).

Source: Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon 2021; Waudby-Smith
& Ramdas 2023.

**Test.** The null hypothesis is that answers do not depend on pictures. If pictures or
answers come in random order within a block, odds^hits divided by its mean over all
orders has the mean 1. Products over blocks, averaged over several `odds`, are a
martingale, and 1 divided by its largest value so far is a p value (Ville).

Source: Lehmann & Stein 1949; Turner, Ly & Grünwald 2024; Koning 2024; for the mean,
Riordan 1958 (rook polynomials).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from math import comb, factorial

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln, xlog1py, xlogy

from brainhive_cli.core.base import Float64

PRIOR_A = 0.3
PRIOR_B = 1.0
"""Parameters of the beta prior of the hit rate. They decide at which rates intervals
are narrow. No pair of values from .2 to 5 is best everywhere. For rates of .005 to .8
and 20, 100 and 1000 trials, the mean width is at most 15 % (8 % on average) larger than
with the best pair for each rate. With a = b = 1/2 the width is up to 39 % larger, and
with a = b = 1 up to 62 %.
"""
LOG_ODDS = 2.0 ** np.arange(-3, 3)
"""Natural logarithms [K] of the `odds` in the test, from .125 to 4. With two pictures,
the first corresponds to an accuracy of .53 and the last to .98. With 100 pictures, they
correspond to .01 and .36.
"""


@dataclass
class HitRate:
    """Hits among the trials so far, and the evidence that answers follow the pictures.

    The interval is not intersected with earlier ones, which would make it 4 to 17 %
    narrower from 100 trials on, but empty if the rate drifts.

    Attributes:
        pool: Number of pictures to choose from.
        hits: Number of hits.
        trials: Number of trials.
        excess_repeats: Number of trials that show the picture of the trial before,
            minus the number expected in random order, in complete blocks.
        _shown: Number of trials that showed each picture.
        _block: Shown and decoded picture of each trial of the current block.
        _block_size: Number of trials of the current block when it is complete.
        _log_e: Logarithm [K] of the evidence for each of the `LOG_ODDS`.
        _largest_log_e: Logarithm of the largest average evidence so far, at least 0.
    """

    pool: int
    hits: int = 0
    trials: int = 0
    excess_repeats: float = 0.0
    _shown: Counter[str] = field(default_factory=Counter)
    _block: list[tuple[str, str]] = field(default_factory=list)
    # Number of trials in the first block. Each block is twice as long as
    # the previous one.
    _block_size: int = 4
    _log_e: Float64 = field(default_factory=lambda: np.zeros(len(LOG_ODDS)))
    _largest_log_e: float = 0.0

    def add(self, shown: str, answer: str) -> None:
        """Count a trial.

        Args:
            shown: Name of the picture that was shown.
            answer: Name of the picture that was decoded.
        """
        self.hits += shown == answer
        self.trials += 1
        self._shown[shown] += 1
        self._block.append((shown, answer))
        if len(self._block) == self._block_size:
            self._close_block()

    def _close_block(self) -> None:
        """Add the evidence and repeats of a complete block, and begin a new block."""
        # sum the log evidence [K] over blocks, and average the evidence over K odds
        pictures = [shown for shown, _ in self._block]
        answers = [answer for _, answer in self._block]
        self._log_e = self._log_e + measure_evidence(pictures, answers)
        average = np.logaddexp.reduce(self._log_e) - np.log(len(LOG_ODDS))
        self._largest_log_e = max(self._largest_log_e, average)

        # in random order, c of m trials with a picture have c (c - 1) / m repeats
        repeats = sum(previous == picture for previous, picture in pairwise(pictures))
        counts = np.array(list(Counter(pictures).values()))
        expected_repeats = (counts * (counts - 1)).sum() / len(pictures)
        self.excess_repeats += repeats - expected_repeats
        self._block = []
        # Largest number of trials in a block. Each block loses the evidence of one
        # trial, so many short blocks lose much. In a long block, the frequencies of
        # pictures and answers drift.
        self._block_size = min(2 * self._block_size, 16)

    @property
    def is_interleaved(self) -> bool:
        """Return True if a drifting signal cannot reveal the pictures by their order.

        In random order, the standard deviation of the repeats is at most half the
        square root of the number of trials. The limit is four times this.
        """
        return self.excess_repeats <= 2 * self.trials**0.5

    @property
    def p_value(self) -> float:
        """Return the p value of the session, or 1 if pictures were shown in blocks."""
        return float(np.exp(-self._largest_log_e)) if self.is_interleaved else 1.0

    @property
    def chance(self) -> float:
        """Return the hit rate of the best constant guess, at least 1 / `pool`.

        The best guess is the picture that was shown most often, without
        its first trial.
        """
        most_shown = max(self._shown.values(), default=1)
        return max(1 / self.pool, (most_shown - 1) / max(1, self.trials - 1))

    @property
    def rate(self) -> float:
        """Return the share of hits, or NaN before the first trial."""
        return self.hits / self.trials if self.trials else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Return the lower and upper end of the 95 % interval of the rate."""
        return hit_rate_interval(self.hits, self.trials)


def measure_evidence(shown: Sequence[str], answers: Sequence[str]) -> Float64:
    """Measure the evidence that a block's answers follow the pictures that were shown.

    The evidence is odds^hits divided by the mean of odds^hits over all orders of the
    pictures. A hit is an answer that equals the picture.

    Args:
        shown: Names [m] of the shown pictures of the m trials of the block.
        answers: Names [m] of the decoded pictures.

    Returns:
        Natural logarithm [K] of the evidence for each of the `LOG_ODDS`.
    """
    # Rook polynomial. Its coefficient j is the number of ways to match j pictures with
    # j equal answers.
    shown_counts = Counter(shown)
    answer_counts = Counter(answers)
    rooks = np.ones(1)
    for name, max_hits in (shown_counts & answer_counts).items():
        factor = []
        for j in range(max_hits + 1):
            n_ways = comb(shown_counts[name], j) * comb(answer_counts[name], j)
            factor.append(float(n_ways * factorial(j)))
        rooks = np.convolve(rooks, factor)

    # For h hits, odds^h is the sum over j of binom(h, j) (odds - 1)^j. The mean of
    # binom(h, j) over all orders is coefficient j times (m - j)! / m!.
    trials = len(shown)
    moments = []
    for j, rook in enumerate(rooks):
        moments.append(rook * factorial(trials - j) / factorial(trials))
    mean = np.polynomial.polynomial.polyval(np.expm1(LOG_ODDS), moments)
    hits = sum(
        picture == answer for picture, answer in zip(shown, answers, strict=True)
    )
    return np.asarray(hits * LOG_ODDS - np.log(mean))


@lru_cache(maxsize=2**16)
def hit_rate_interval(
    hits: int, trials: int, level: float = 0.95
) -> tuple[float, float]:
    """Compute the interval of a hit rate at one moment of a session.

    Args:
        hits: Number of hits, from 0 to `trials`.
        trials: Number of trials. Without trials, the interval is [0, 1].
        level: Probability with which the intervals of all moments hold, in (0, 1), if
            every trial is a hit with the same probability, whatever the trials before.

    Returns:
        Lower and upper end of the interval.
    """
    if not trials:
        return 0.0, 1.0

    # log likelihood at the ends of the interval
    misses = trials - hits
    log_mean_likelihood = betaln(hits + PRIOR_A, misses + PRIOR_B) - betaln(
        PRIOR_A, PRIOR_B
    )
    threshold = log_mean_likelihood + np.log1p(-level)

    def excess(rate: float) -> float:
        log_likelihood = xlogy(hits, rate) + xlog1py(misses, -rate)
        return float(threshold - log_likelihood)

    # with misses or hits only, there is a closed form
    if hits == 0:
        return 0.0, float(-np.expm1(threshold / trials))
    if misses == 0:
        return float(np.exp(threshold / trials)), 1.0

    # the excess is negative at the observed rate
    rate = hits / trials
    max_rate = float(np.nextafter(1, 0))
    # Rate where the search for the lower end begins. A single hit rules out this rate.
    low = brentq(excess, 1e-300, rate, xtol=1e-15)
    high = 1.0
    if excess(max_rate) > 0:
        high = brentq(excess, rate, max_rate, xtol=1e-15)
    return low, high
