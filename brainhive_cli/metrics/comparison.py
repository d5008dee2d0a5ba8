"""Whether two runs differ on the same items and subjects, and by how much."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.errors import BrainhiveError
from brainhive_cli.metrics.statistics import interval

Ranks = NDArray[np.integer[Any]]
ROUNDING = 1e-12
"""Differences of shares below this are none."""


@dataclass(frozen=True)
class Comparison:
    """The top-1 accuracy of one run against another's.

    Args:
        difference: First minus second, mean over subjects.
        low: Lower end of its 95 % bootstrap interval, over items and subjects.
        high: Upper end.
        n: Items that were compared, over all subjects.
        subjects: Subjects that were compared.
        only_first: Items that only the first run found.
        only_second: Items that only the second run found.
        mcnemar_p: Exact McNemar test on these two counts, two-sided.
        wilcoxon_p: Wilcoxon signed-rank test of the subjects' accuracies; None for one subject.
        t_p: Paired t test of the subjects' accuracies; None for one subject, or if all differ by the same.
        cohens_dz: Effect size over subjects: mean difference over the standard deviation of differences.
    """

    difference: float
    low: float | None
    high: float | None
    n: int
    subjects: int
    only_first: int
    only_second: int
    mcnemar_p: float
    wilcoxon_p: float | None
    t_p: float | None
    cohens_dz: float | None

    def as_dict(self) -> dict[str, Any]:
        """Give the fields as plain values, for JSON."""
        return asdict(self)


def compare(first: Sequence[Ranks], second: Sequence[Ranks]) -> Comparison:
    """Compare two runs by the ranks of the seen images.

    An item counts as found by a run, for McNemar's test, when more than half of its seeds rank it first.

    Args:
        first: Ranks [S, N] of S seeds and N items, one array a subject.
        second: Ranks of the same items and subjects; the number of seeds may be another.

    Raises:
        BrainhiveError: if subjects or items are not the same in number.

    Source: McNemar 1947; Wilcoxon 1945; Cohen 1988 (d_z), through scipy.stats.
    """
    sizes = [[group.shape[-1] for group in groups] for groups in (first, second)]
    if sizes[0] != sizes[1] or not sizes[0]:
        raise BrainhiveError(f"items by subject {sizes[0]} and {sizes[1]} cannot be paired", "compare alike")
    hits = [[(np.atleast_2d(group) == 1).mean(0) for group in groups] for groups in (first, second)]
    differences = [one - other for one, other in zip(*hits, strict=True)]  # [N] a subject
    low, high = interval(differences, limits=(-1, 1), wilson=False)
    one, other = (np.concatenate(group) > 0.5 for group in hits)
    only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
    by_subject = np.array([each.mean() for each in differences])
    return Comparison(
        float(by_subject.mean()),
        low,
        high,
        len(one),
        len(by_subject),
        only_first,
        only_second,
        mcnemar(only_first, only_second),
        *over_subjects(by_subject),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Test whether two counts of discordant pairs differ: exact, two-sided."""
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def over_subjects(differences: NDArray[np.floating[Any]]) -> tuple[float | None, float | None, float | None]:
    """Test the subjects' differences [subjects]: p of Wilcoxon and of t, and Cohen's d_z."""
    from scipy.stats import ttest_1samp, wilcoxon

    differences = np.where(np.abs(differences) < ROUNDING, 0.0, differences)
    if len(differences) < 2:
        return None, None, None
    if not differences.any():
        return 1.0, 1.0, 0.0
    signed_rank = float(wilcoxon(differences.round(12)).pvalue)  # equal sizes tie, whatever their last digit
    spread = differences.std(ddof=1)
    if spread < ROUNDING:
        return signed_rank, None, None
    return signed_rank, float(ttest_1samp(differences, 0).pvalue), float(differences.mean() / spread)


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p values of several comparisons for their false discovery rate; None stays None.

    Source: Benjamini and Hochberg 1995, through scipy.stats.
    """
    from scipy.stats import false_discovery_control

    there = [p for p in p_values if p is not None]
    adjusted = iter(false_discovery_control(there).tolist() if there else [])
    return [None if p is None else next(adjusted) for p in p_values]
