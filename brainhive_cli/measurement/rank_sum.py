"""Whether ranks are better than those of guesses: the exact test of their sum."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.measurement.statistics import Values, scatter_of_means
from brainhive_cli.measurement.units import Items

SIGNIFICANT = 0.025
"""On each side, as a 95 % interval has it."""
LONGEST = 2**22
"""Values that a sum of ranks may take for its distribution to be convolved: a quarter of a second."""
LEAST = 1e-12
"""A smaller probability is the convolution's rounding, and is given as this one."""
FRACTION = 1e-6
"""A sum of averaged ranks that is closer than this to a whole number is one."""


@dataclass(frozen=True)
class RankSum:
    """A sum of ranks, compared with those of guesses.

    Attributes:
        better: Probability that guesses have a sum as small.
        worse: Probability that guesses have a sum as large.
        n: Items whose ranks were added.
        pool: Candidates of each.
        test: How the probabilities were found.
    """

    better: float
    worse: float
    n: int
    pool: int
    test: str

    @property
    def verdict(self) -> str:
        """On which side of chance the ranks are, two-sided at .05."""
        if self.better < SIGNIFICANT:
            return "above chance"
        return "below chance" if self.worse < SIGNIFICANT else "at chance"


def rank_sum(groups: Sequence[Values], pool: int, items: Items | None = None) -> RankSum:
    """Compare the sum of ranks with that of guesses, whose every rank from 1 to `pool` is as probable.

    An item is one guess, however many subjects and models ranked it: its ranks are averaged first. They vary
    together where all subjects saw a picture that was given a wrong label; to count each rank would call such
    labels better or worse than chance in half of simulations (ten subjects) instead of 5 %. Where they are
    independent, the test is conservative. Items that are alike are not guesses of their own either: then the
    mean rank is compared with that of guesses by a t test over units.

    Args:
        groups: Ranks of the items [N], or [S, N] of S models, one array a subject.
        pool: Candidates.
        items: See `statistics.describe`.
    """
    averages = [np.atleast_2d(group).mean(0) for group in groups]
    items = items or Items.unnamed([len(group) for group in averages])
    (scatter,) = scatter_of_means([group[None] for group in averages], items)
    if not items.are_independent and scatter.together > 0:
        from scipy.stats import t

        distance = (scatter.estimates.mean() - (pool + 1) / 2) / np.sqrt(scatter.together)
        better, worse = np.clip(t.cdf([distance, -distance], items.count - 1), LEAST, 1).tolist()
        test = f"t test of the mean rank over {items.count} {items.kind}"
        return RankSum(better, worse, items.size, pool, test)
    ranks = items.means(averages)  # [units]
    total, count = float(ranks.sum()), len(ranks)
    least, most = int(np.floor(total + FRACTION)), int(np.ceil(total - FRACTION))
    if count * pool <= LONGEST:
        chances = _sum_of_guesses(count, pool)  # from `count`, all ranks 1
        better, worse = chances[: least - count + 1].sum(), chances[most - count :].sum()
        test = "exact test of the rank sum"
    else:
        from scipy.stats import norm

        mean, sd = count * (pool + 1) / 2, np.sqrt(count * (pool**2 - 1) / 12)
        better, worse = norm.cdf(least + 0.5, mean, sd), norm.sf(most - 0.5, mean, sd)
        test = "normal approximation of the rank sum"
    better, worse = np.clip([better, worse], LEAST, 1).tolist()
    return RankSum(better, worse, count, pool, test)


@lru_cache(maxsize=4)  # cells of a run share them; 32 MiB each at most
def _sum_of_guesses(count: int, pool: int) -> NDArray[np.float64]:
    """Convolve a uniform distribution over `pool` values `count` times with itself."""
    size = count * (pool - 1) + 1
    one = np.fft.rfft(np.full(pool, 1 / pool), size)
    return np.fft.irfft(one**count, size)
