"""Hit rate of a live session, with an interval and a test that hold at every moment.

A session may be watched while it runs and stopped at any time, so interval and test
must hold at all moments together.

**Interval.** Let L(p) be the likelihood of the hits so far at the hit rate p, and M the
mean of L(p) over a prior of p. If p is the true rate, M / L(p) is a martingale.
According to Ville's inequality, the ratio M / L(p) ever reaches 1 / (1 - level) with a
probability of at most 1 - level. The interval holds all rates p whose ratio stays below
1 / (1 - level). If the rate drifts, the interval holds for the mean rate so far. For a
drifting rate, this is proven for a single moment and simulated for all moments
(`benchmarks/simulated_statistics --only live`).

Source: Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon 2021; Waudby-Smith & Ramdas
2023.

**Test.** The null hypothesis is that the answers do not depend on the pictures. The
frequencies of pictures and of answers may be anything, and may change from block to
block. Trials are tested in blocks. If pictures come in random order, all orders of the
pictures of a block are equally probable, given the answers of the block and all earlier
trials. If instead answers come in random order, the same holds for the answers. For any
number `odds`, divide odds^hits by the mean of odds^hits over all orders. Under the null
hypothesis this ratio has the mean 1. The ratio is the exact conditional likelihood
ratio if an answer is the shown picture with `odds` times the odds of any other picture.
Products of these ratios over blocks are martingales, and so is the average of the
products over several `odds`. At every moment, 1 divided by the largest average so far
is a p value (Ville). A constant guess has the same hits in every order, so its ratio
is 1.

Source: Lehmann & Stein 1949 (tests by permutation within blocks); Turner, Ly & Grünwald
2024 (blocks of contingency tables); Koning 2024 (betting on groups of permutations);
for the mean, Riordan 1958 (rook polynomials).
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

from brainhive_cli.core.arrays import Float64

PRIOR_A = 0.3
PRIOR_B = 1.0
"""Parameters of the beta prior of the hit rate. They decide at which rates intervals
are narrow. No pair of values from .2 to 5 is best everywhere. For rates of .005 to .8
and 20, 100 and 1000 trials, the mean width is at most 15 % (8 % on average) larger than
with the best pair for each rate. With a = b = 1/2 the width is up to 39 % larger, and
with a = b = 1 up to 62 %.
"""
MIN_RATE = 1e-300
"""Rate where the search for the lower end begins. A single hit rules out this rate."""
LOG_ODDS = 2.0 ** np.arange(-3, 3)
"""Natural logarithms [K] of the `odds` in the test, from .125 to 4. With two pictures,
the first corresponds to an accuracy of .53 and the last to .98. With 100 pictures, they
correspond to .01 and .36.
"""
MIN_BLOCK_TRIALS = 4
"""Number of trials in the first block. Each block is twice as long as the previous one.
"""
MAX_BLOCK_TRIALS = 16
"""Largest number of trials in a block. Each block loses the evidence of one trial, so
many short blocks lose much. In a long block, the frequencies of pictures and answers
drift.
"""


@dataclass
class HitRate:
    """Hits among the trials so far, and the evidence that answers follow the pictures.

    The interval of a moment is not intersected with earlier intervals. From 100 trials
    on, the intersection would be 4 to 17 % narrower, but it holds only if the rate is
    constant. If the rate drifts, the intersection becomes empty.

    Attributes:
        pool: Number of pictures to choose from.
        hits: Number of hits.
        trials: Number of trials.
        excess_repeats: Number of trials that show the same picture as the trial before,
            minus the number expected in random order.
        _shown: Number of trials that showed each picture.
        _block: Shown and decoded picture of each trial of the current block.
        _block_size: Number of trials of the current block when it is complete.
        _log_e: Logarithm [K] of the evidence for each of the `LOG_ODDS`.
        _largest_log_e: Logarithm of the largest average evidence so far.
    """

    pool: int
    hits: int = 0
    trials: int = 0
    excess_repeats: float = 0.0
    _shown: Counter[str] = field(default_factory=Counter)
    _block: list[tuple[str, str]] = field(default_factory=list)
    _block_size: int = MIN_BLOCK_TRIALS
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
        """Add the evidence and the repeats of a complete block, and begin a new block.

        The evidence shows if answers follow the pictures that were shown. A repeat is a
        trial that shows the picture of the trial before. The counter of repeats grows
        by the number that exceeds the mean of random orders.
        """
        # `measure_evidence` returns the log evidence [K] of the block for K odds. Sum
        # it over blocks, and average the evidence over the odds.
        pictures = [shown for shown, _ in self._block]
        answers = [answer for _, answer in self._block]
        self._log_e = self._log_e + measure_evidence(pictures, answers)
        average = np.logaddexp.reduce(self._log_e) - np.log(len(LOG_ODDS))
        self._largest_log_e = max(self._largest_log_e, average)

        # In random order, a picture that is shown c times among m trials has
        # c (c - 1) / m repeats on average.
        repeats = sum(previous == picture for previous, picture in pairwise(pictures))
        counts = np.array(list(Counter(pictures).values()))
        expected_repeats = (counts * (counts - 1)).sum() / len(pictures)
        self.excess_repeats += repeats - expected_repeats
        self._block = []
        self._block_size = min(2 * self._block_size, MAX_BLOCK_TRIALS)

    @property
    def is_interleaved(self) -> bool:
        """Return True if a drifting signal cannot reveal the pictures by their order.

        In random order, the standard deviation of the repeats is at most half the
        square root of the number of trials. The limit is four times this.
        """
        return self.excess_repeats <= 2 * self.trials**0.5

    @property
    def p_value(self) -> float:
        """Return the p value of the session so far.

        It is 1 divided by the largest evidence, or 1 if pictures were shown in blocks.
        """
        return float(np.exp(-self._largest_log_e)) if self.is_interleaved else 1.0

    @property
    def chance(self) -> float:
        """Return the hit rate of the best constant guess, at least 1 / `pool`.

        The best guess is the picture that was shown most often. Its first trial is not
        counted, because that trial made it the best guess.
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

    A hit is a trial in which the answer is the picture that was shown. The evidence is
    odds^hits divided by the mean of odds^hits over all orders of the shown pictures.
    The odds weigh a hit. Evidence above 1 speaks for answers that follow the pictures.

    Args:
        shown: Names [m] of the pictures that were shown in the m trials of the block.
        answers: Names [m] of the pictures that were decoded in these trials.

    Returns:
        Natural logarithm [K] of the evidence, for each of the K odds whose logarithms
        are `LOG_ODDS`.
    """
    # Rook polynomial. Coefficient j is the number of ways to match j trials with j
    # answers that have the same picture.
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

    With a probability of at least `level`, the intervals of all moments contain the
    rate. This holds if each trial is a hit with the same probability given the trials
    before, as for pictures that are drawn with replacement.

    Args:
        hits: Number of hits, from 0 to `trials`.
        trials: Number of trials. Without trials, the interval is [0, 1].
        level: Probability with which all intervals hold, in (0, 1).

    Returns:
        Lower and upper end. At these rates, the mean likelihood over the prior is
        1 / (1 - level) times the likelihood of the rate.
    """
    if not trials:
        return 0.0, 1.0

    # logarithm of the likelihood at the ends of the interval
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

    # the excess is negative at the observed rate, and has a root on either side
    rate = hits / trials
    max_rate = float(np.nextafter(1, 0))
    low = brentq(excess, MIN_RATE, rate, xtol=1e-15)
    high = 1.0
    if excess(max_rate) > 0:
        high = brentq(excess, rate, max_rate, xtol=1e-15)
    return low, high
