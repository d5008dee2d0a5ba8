"""Whether two runs differ on the same items and subjects, and by how much."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.measurement.statistics import Values, describe, scatter_of_means
from brainhive_cli.measurement.units import Items

Ranks = NDArray[np.integer[Any]]
ROUNDING = 1e-12
"""Differences below this are none."""
ALL_SIGNS = 16
"""Subjects up to which all signs are tried; of more, as many random ones."""

LEVEL = 0.05
"""p below which a difference is called one."""
FOLDS = "folds of inter share training subjects: they vary together, and p may be too small"
"""The limit where each subject is tested on a model of the others."""
TWO = "of two subjects minF′ may be too small; the interval accounts for how little they say about others"
"""It rejects a true null in 10 % of simulations where subject × method has a sd of .4 logits."""


@dataclass(frozen=True)
class Comparison:
    """One run against another on the same items and subjects.

    Attributes:
        difference: First minus second, mean over subjects.
        low: Lower end of its 95 % interval, as those of `core.measurements.Metric`; None of one item.
        high: Upper end.
        interval: How the interval was made, and for whom it holds.
        these_subjects: Of several subjects, the interval over units alone, which holds for them only.
        n: Items that were compared, over all subjects.
        subjects: Number of subjects.
        p_value: The headline, two-sided: minF′ over subjects and items; of one subject McNemar's test, or a
            t test over items where values are no hits, which one item cannot have: None.
        test: What the headline is.
        sign_flip_p: Over subjects, for these items: exact test by all signs of the subjects' differences.
        wilcoxon_p: Over subjects, for these items: signed-rank test. None for one subject, as all three.
        t_p: Over subjects, for these items: paired t test; None if all differ by the same, too.
        least_p: The smallest p that the sign-flip and signed-rank tests of so few subjects can give.
        cohens_dz: Effect size over subjects: mean difference over the standard deviation of differences.
        only_first: Items that only the first run found; None where values are no hits, or of several seeds.
        only_second: Items that only the second run found.
    """

    difference: float
    low: float | None
    high: float | None
    interval: str
    these_subjects: tuple[float, float] | None
    n: int
    subjects: int
    p_value: float | None
    test: str
    sign_flip_p: float | None
    wilcoxon_p: float | None
    t_p: float | None
    least_p: float | None
    cohens_dz: float | None
    only_first: int | None = None
    only_second: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Give the fields as plain values, for JSON."""
        these = None if self.these_subjects is None else list(self.these_subjects)
        return {**asdict(self), "these_subjects": these}


def compare(first: Sequence[Ranks], second: Sequence[Ranks], *, items: Items | None = None) -> Comparison:
    """Compare two runs by how often they rank the seen image first.

    Subjects and units of items are crossed: a method may suit some subjects and some concepts by chance, and
    both chances count. minF′ takes both in; a test over subjects alone does not, and holds for these items
    only. An item's value is its share of hits over seeds. McNemar's test needs single hits of independent
    items; it is that of one subject with one seed a side, and a t test over units that of one subject else.

    Args:
        first: Ranks [S, N] of S seeds and N items, one array a subject; or [N].
        second: Ranks of the same items and subjects; the number of seeds may be another.
        items: See `statistics.describe`.

    Raises:
        BrainhiveError: if subjects or items are not the same in number.

    Source: Clark 1973, The language-as-fixed-effect fallacy (minF′); McNemar 1947; Wilcoxon 1945; Cohen 1988
    (d_z), through scipy.stats.
    """
    hits, others = ([(np.atleast_2d(group) == 1) * 1.0 for group in groups] for groups in (first, second))
    return _compared(hits, others, items, are_hits=True)


def compare_values(
    first: Sequence[Values], second: Sequence[Values], *, items: Items | None = None
) -> Comparison:
    """Compare two runs by values of any kind, [S, N] or [N], as `compare` does by ranks."""
    values, others = ([np.atleast_2d(group) for group in groups] for groups in (first, second))
    return _compared(values, others, items, are_hits=False)


def _compared(
    first: Sequence[Values], second: Sequence[Values], items: Items | None, are_hits: bool
) -> Comparison:
    sizes = [[group.shape[-1] for group in groups] for groups in (first, second)]
    if sizes[0] != sizes[1] or not sizes[0]:
        raise BrainhiveError(
            f"items by subject {sizes[0]} and {sizes[1]} cannot be paired", "compare runs of the same items"
        )
    items = items or Items.unnamed(sizes[0])
    differences = [one.mean(0) - other.mean(0) for one, other in zip(first, second, strict=True)]
    interval = describe(differences, items, limits=(-1, 1) if are_hits else (None, None), is_share=False)
    by_subject = np.array([difference.mean() for difference in differences])
    discordant = None
    if are_hits and all(len(group) == 1 for group in (*first, *second)):  # of one seed a side
        joined = np.concatenate(differences)
        discordant = int((joined > 0).sum()), int((joined < 0).sum())
    p: float | None
    if len(differences) > 1:
        p, test = min_f(differences, items), f"minF′ over subjects and {items.kind}"
    elif discordant and items.are_independent:
        p, test = mcnemar(*discordant), f"McNemar's over {items.kind}"
    else:
        p, test = _over_units(differences[0], items), f"t over {items.kind}"
    return Comparison(
        float(by_subject.mean()),
        interval.low,
        interval.high,
        interval.method,
        interval.these_subjects,
        sum(map(len, differences)),
        len(differences),
        p,
        test,
        *over_subjects(by_subject),
        *(discordant or ()),
    )


def min_f(differences: Sequence[Values], items: Items | None = None) -> float | None:
    """Test over subjects and units of items that the mean difference is 0: the p of minF′.

    With F₁ over subjects and F₂ over units, minF′ = F₁F₂ / (F₁ + F₂): the squared mean over the sum of both
    errors' squares. Where nothing varies it has no value, and p is the least that a sign flip could give.

    Args:
        differences: Of the items [N], one array a subject; two subjects at least.
        items: See `statistics.describe`.

    Returns:
        p, or None if all items are of one unit.
    """
    from scipy.stats import f

    items = items or Items.unnamed([len(group) for group in differences])
    if items.count == 1:
        return None
    (scatter,) = scatter_of_means([group[None] for group in differences], items)
    subjects, mean = len(differences), float(scatter.estimates.mean())
    errors = np.array([scatter.estimates.var(ddof=1) / subjects, scatter.together])
    freedom = np.array([subjects - 1, items.count - 1])
    if abs(mean) < ROUNDING:
        return 1.0
    if errors.sum() < ROUNDING**2:
        return least_p(subjects)
    denominator = errors.sum() ** 2 / (errors**2 / freedom).sum()
    return float(f.sf(mean**2 / errors.sum(), 1, denominator))


def mcnemar(only_first: int, only_second: int) -> float:
    """Test whether two counts of discordant pairs of one subject differ: exact, two-sided."""
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def is_difference(p: float | None, low: float | None, high: float | None, level: float = LEVEL) -> bool:
    """Whether a difference may be called one: p is below a level, and 0 is not in its interval.

    A test and an interval that take in other things can disagree; then nothing is claimed.
    """
    holds_zero = low is not None and high is not None and low <= 0 <= high
    return p is not None and p < level and not holds_zero


def least_p(subjects: int) -> float:
    """Give the smallest two-sided p of tests by the signs of so many subjects."""
    return 2.0 ** (1 - subjects)


def over_subjects(
    differences: Values,
) -> tuple[float | None, float | None, float | None, float | None, float | None]:
    """Test the subjects' differences [subjects]: p of sign flips, Wilcoxon and t, the least p, and d_z."""
    from scipy.stats import wilcoxon

    differences = differences.round(12)  # equal sizes tie, whatever their last digit
    if len(differences) < 2:
        return None, None, None, None, None
    least = least_p(len(differences))
    if not differences.any():
        return 1.0, 1.0, 1.0, least, 0.0
    t_p, effect = _t_test(differences)
    return sign_flip(differences), float(wilcoxon(differences).pvalue), t_p, least, effect


def sign_flip(differences: Values) -> float:
    """Test differences [subjects]: the share of signs that give a mean as far from 0, two-sided."""
    count = len(differences)
    if count <= ALL_SIGNS:
        signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    else:
        signs = np.random.default_rng(0).choice((-1, 1), (2**ALL_SIGNS, count))
        signs[0] = 1  # the observed ones are among them
    return float((np.abs(signs @ differences) >= abs(differences.sum()) - ROUNDING).mean())


def _over_units(differences: Values, items: Items) -> float | None:
    """Test the differences [N] of one subject by t over units; where all are the same, by their signs."""
    from scipy.stats import t

    units, mean = items.count, float(differences.mean())
    if units == 1:
        return None
    (scatter,) = scatter_of_means([differences[None]], items)
    error = float(np.sqrt(scatter.together))
    if error < ROUNDING:
        return 1.0 if abs(mean) < ROUNDING else least_p(units)
    return float(2 * t.sf(abs(mean) / error, units - 1))


def _t_test(differences: Values) -> tuple[float | None, float | None]:
    """Test differences [N] by t: p and d_z; neither where all differ by the same and not by nothing."""
    from scipy.stats import ttest_1samp

    if len(differences) < 2:
        return None, None
    spread = differences.std(ddof=1)
    if spread < ROUNDING:
        return (1.0, 0.0) if abs(differences.mean()) < ROUNDING else (None, None)
    return float(ttest_1samp(differences, 0).pvalue), float(differences.mean() / spread)


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p values of several comparisons for their false discovery rate; None stays None.

    Source: Benjamini and Hochberg 1995, through scipy.stats.
    """
    from scipy.stats import false_discovery_control

    there = [p for p in p_values if p is not None]
    adjusted = iter(false_discovery_control(there).tolist() if there else [])
    return [None if p is None else next(adjusted) for p in p_values]


def limits_of_p(modes: Sequence[str], subjects: int) -> list[str]:
    """Say what a reader of minF′'s p must know, of runs trained in these modes."""
    is_inter = any("inter" in mode.split(" + ") for mode in modes)
    return [*([TWO] if subjects == 2 else []), *([FOLDS] if is_inter and subjects > 1 else [])]
