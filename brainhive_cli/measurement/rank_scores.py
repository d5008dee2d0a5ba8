"""From ranks to metrics: top-k and the like with their chance, and whether ranks are better than guesses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainhive_cli.measurement.statistics import Limits, Metric, Statistic, Values, measure, scatter_of_means
from brainhive_cli.measurement.units import Items

TOP = (1, 3, 5)
"""Numbers of candidates within which the seen image counts as found; the field's."""


def summarise(
    ranks_of_subjects: Sequence[ArrayLike],
    pool: int,
    *,
    split: str,
    items: Items | None = None,
    protocol: str = "cosine",
    seeds: Sequence[int] = (),
    targets: int = 1,
    only: Sequence[str] = (),
) -> list[Metric]:
    """Summarise ranks: top-1, -3, -5, mean and median rank, mean reciprocal rank, each with its chance.

    Args:
        ranks_of_subjects: Ranks [N], one array a subject; or [S, N] of S seeds, averaged for each item, so
            that an item counts once however many models were tried on it.
        pool: M, size of the gallery.
        split: Part of the data set that the signals are of.
        items: Which are the same for several subjects, and which are alike (see `statistics.describe`).
        protocol: Name of the way the ranks were made.
        seeds: Seeds of the trainings that were measured.
        targets: K, gallery items that show the seen image.
        only: Names of the metrics to compute; all when empty.
    """
    groups = [np.atleast_2d(np.asarray(ranks, np.float64)) for ranks in ranks_of_subjects]  # [S, N]
    common: dict[str, Any] = {"protocol": protocol, "split": split, "pool": pool, "seeds": seeds}
    common["items"] = items
    guess = chance_of_ranks(pool, targets)
    possible = np.arange(1, len(guess) + 1)
    transforms: dict[str, tuple[Callable[[Any], Any], Statistic, Limits]] = {
        **{f"top{k}": (partial(np.greater_equal, k), np.mean, (0.0, 1.0)) for k in TOP},
        "mean_rank": (np.asarray, np.mean, (1.0, float(pool))),
        "median_rank": (np.asarray, np.median, (1.0, float(pool))),
        "mrr": (np.reciprocal, np.mean, (0.0, 1.0)),
    }
    metrics = []
    for name in only or transforms:
        transform, statistic, limits = transforms[name]
        chance = float(f"{guess @ transform(possible.astype(np.float64)):.12g}")  # no rounding error is shown
        if statistic is np.median:
            chance = float(possible[np.searchsorted(guess.cumsum(), 0.5)])
        values = [transform(group) for group in groups]
        metrics.append(measure(name, values, statistic=statistic, chance=chance, limits=limits, **common))
    return metrics


def chance_of_ranks(pool: int, targets: int = 1) -> NDArray[np.float64]:
    """Probability of each rank, from 1, for guesses among `pool` candidates of which `targets` are right."""
    wrong = pool - targets
    missed = (wrong - np.arange(wrong + 1)) / (pool - np.arange(wrong + 1))  # given that all before missed
    later = np.cumprod(missed)  # the rank is beyond 1, 2, ...
    return np.concatenate([[1.0], later[:-1]]) - later


def chance_of_precision(pool: int, relevant: int) -> float:
    """Average precision expected of a random order of `pool` candidates of which `relevant` are right.

    Source: Bestgen 2015, Exact Expected Average Precision of the Random Baseline for System Evaluation.
    """
    harmonic = float((1 / np.arange(1, pool + 1)).sum())
    return (harmonic + (relevant - 1) / max(1, pool - 1) * (pool - harmonic)) / pool


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
