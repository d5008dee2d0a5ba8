"""Hit rate of a session: an interval and a test against chance that hold however often
they are looked at.

The interval. The likelihood of the hits, averaged over a prior, divided by their
likelihood at a rate p, is a martingale if p is the rate. By Ville's inequality it ever
reaches 1 / (1 - level) with probability 1 - level at most. The interval holds all p
whose ratio is below that. Where rates drift, it is one of the average rate so far: for
a single moment by proof, for all of them by simulation
(`benchmarks/simulated_statistics
--only live`). Source: Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon 2021;
Waudby-Smith & Ramdas 2023.

The test. Its null hypothesis is that answers say nothing of the pictures, whatever is
shown how often and whatever is answered. Trials are taken in blocks. Given all before a
block, its answers, and its pictures but not their order, every order of the pictures is
equally probable if they come in random order; so is every order of the answers, given
the pictures, if answers do. Then odds^hits, divided by its mean over all orders, has
mean 1. It is the exact conditional likelihood ratio of answers for which the odds of
the shown picture are so many times those of another. Products over blocks are
martingales, as is their average over odds; the largest so far, inverted, is a p-value
at any moment (Ville). Frequencies of pictures and of answers may change from block to
block. A constant guess has the same hits in every order, and is no evidence.
Source: Lehmann & Stein 1949 (tests by permutation within blocks); Turner, Ly & Grünwald
2024 (blocks of contingency tables); Koning 2024 (betting on groups of permutations);
for the mean, Riordan 1958 (rook polynomials).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from itertools import pairwise
from math import comb, factorial

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln, xlog1py, xlogy

from brainhive_cli.core.arrays import Float64

A, B = 0.3, 1.0
"""Beta prior of the mixture, which decides where intervals are narrow. Of a and b from
.2 to 5 no pair is best everywhere: at rates of .005 to .8, after 20, 100 and 1000
trials, the mean width is at most 15 % (8 % on average) above that of the best pair for
each; of a = b = 1/2 it is up to 39 %, of a = b = 1 up to 62 %.
"""
TINY = 1e-300
"""Where the search for the lower end begins: a single hit rules out any rate so
small.
"""
LOG_ODDS = 2.0 ** np.arange(-3, 3)
"""[K] of the test. Of two pictures .125 is an accuracy of .53 and 4 one of .98; of 100,
.01 and .36.
"""
FIRST_BLOCK, LARGEST_BLOCK = 4, 16
"""Trials of the first block, which doubles, and of the last. A block costs the evidence
of one trial, as its mean is not known; in a large one what is shown, and answered,
drifts.
"""


@dataclass
class HitRate:
    """Hits among trials so far, with evidence that answers follow what is shown.

    Intervals are not intersected with earlier ones, which would make them 4 to 17 %
    narrower from 100 trials
    on: the intersection holds only while the rate stays the same, and becomes empty
    where it drifts.

    Attributes:
        pool: Number of pictures to choose from.
        hits: Number of hits.
        trials: Number of trials.
        excess_repeats: How many more trials show the picture of the trial before than
            in random order.
    """

    pool: int
    hits: int = 0
    trials: int = 0
    excess_repeats: float = 0.0
    _shown: Counter[str] = field(default_factory=Counter)
    _block: list[tuple[str, str]] = field(default_factory=list)
    _block_size: int = FIRST_BLOCK
    _log_e: Float64 = field(default_factory=lambda: np.zeros(len(LOG_ODDS)))
    _largest_log_e: float = 0.0

    def add(self, shown: str, answer: str) -> None:
        """Count a trial: what was shown, and what was answered."""
        # trials wait for their block, whose evidence depends on all of them
        self.hits = self.hits + (shown == answer)
        self.trials += 1
        self._shown[shown] += 1
        self._block.append((shown, answer))
        if len(self._block) < self._block_size:
            return

        # evidence of a complete block
        pictures, answers = zip(*self._block, strict=True)
        self._log_e = self._log_e + measure_evidence(pictures, answers)
        # the average over odds is a martingale too, and its largest value so far counts
        self._largest_log_e = max(
            self._largest_log_e,
            np.logaddexp.reduce(self._log_e) - np.log(len(LOG_ODDS)),
        )
        # repeats beyond those of a random order of the block's pictures
        repeats = sum(first == second for first, second in pairwise(pictures))
        counts = np.array([*Counter(pictures).values()])
        self.excess_repeats += repeats - (counts * (counts - 1)).sum() / len(pictures)
        self._block, self._block_size = [], min(2 * self._block_size, LARGEST_BLOCK)

    @property
    def is_interleaved(self) -> bool:
        """Whether pictures came in an order that a signal which drifts cannot follow.

        Repeats in random order have a standard deviation of half the square root of the
        trials, or less.
        """
        return self.excess_repeats <= 2 * self.trials**0.5

    @property
    def p_value(self) -> float:
        """The smallest 1 / e so far, at whatever moment; 1 where pictures came in
        blocks.
        """
        return float(np.exp(-self._largest_log_e)) if self.is_interleaved else 1.0

    @property
    def chance(self) -> float:
        """Hit rate of the best constant guess: that of the picture that was shown most.

        The trial that made it the best guess is not counted.
        """
        most = max(self._shown.values(), default=1)
        return max(1 / self.pool, (most - 1) / max(1, self.trials - 1))

    @property
    def rate(self) -> float:
        """Share of hits; NaN before the first trial."""
        return self.hits / self.trials if self.trials else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Interval at 95 %."""
        return hit_rate_interval(self.hits, self.trials)


def measure_evidence(shown: Sequence[str], answers: Sequence[str]) -> Float64:
    """Measure how much more hits there are than in other orders of what was shown.

    Args:
        shown: [m] what was shown in the trials of a block.
        answers: [m] what was answered.

    Returns:
        [K] logarithm of odds^hits, divided by its mean over all orders.
    """
    # hits of j chosen trials in some order: the rook polynomial, a factor for each
    # picture
    pictures = Counter(shown)
    answered = Counter(answers)
    factors = [
        [
            float(comb(pictures[name], j) * comb(answered[name], j) * factorial(j))
            for j in range(count + 1)
        ]
        for name, count in (pictures & answered).items()
    ]
    rooks = reduce(np.convolve, factors, np.ones(1))

    # the mean by factorial moments: odds^h is the sum over j of (h over j) (odds - 1)^j
    moments = [
        rook * factorial(len(shown) - j) / factorial(len(shown))
        for j, rook in enumerate(rooks)
    ]
    mean = np.polynomial.polynomial.polyval(np.expm1(LOG_ODDS), moments)
    hits = sum(first == second for first, second in zip(shown, answers, strict=True))
    return np.asarray(hits * LOG_ODDS - np.log(mean))


@lru_cache(maxsize=2**16)
def hit_rate_interval(
    hits: int, trials: int, level: float = 0.95
) -> tuple[float, float]:
    """Find the interval of a hit rate after some trials, as one moment of a sequence.

    Intervals of all moments hold together with probability `level` at least, if each
    trial is a hit with the same probability given those before, as with pictures that
    are drawn with replacement.

    Args:
        hits: Number of hits, 0 to `trials`.
        trials: Number of trials; without any, the interval is [0, 1].
        level: Probability with which the interval ever holds, in (0, 1).

    Returns:
        The rates where the martingale is 1 / (1 - level).
    """
    if not trials:
        return 0.0, 1.0
    # the likelihood, averaged over the prior, less that of a rate
    threshold = betaln(hits + A, trials - hits + B) - betaln(A, B) + np.log1p(-level)

    def excess(rate: float) -> float:
        return float(threshold - (xlogy(hits, rate) + xlog1py(trials - hits, -rate)))

    # all misses or all hits: a closed form
    if hits == 0:
        return 0.0, float(-np.expm1(threshold / trials))
    if hits == trials:
        return float(np.exp(threshold / trials)), 1.0
    # the excess is negative around the observed rate, with a root on either side
    rate = hits / trials
    below_one = float(np.nextafter(1, 0))
    low = brentq(excess, TINY, rate, xtol=1e-15)
    return low, brentq(excess, rate, below_one, xtol=1e-15) if excess(
        below_one
    ) > 0 else 1.0
