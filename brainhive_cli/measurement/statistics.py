"""Metrics of items' values, and their confidence intervals over units of items and over subjects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Required, Unpack

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import SELECTED_ON_TEST, UNKNOWN_SELECTION, Metric, find_caveats
from brainhive_cli.measurement.units import Items

Values = NDArray[np.floating[Any]]
Statistic = Callable[..., Any]
"""Reduces values along `axis`: numpy's mean or median."""
Limits = tuple[float | None, float | None]
"""The least and the largest value that a statistic can take."""

UPPER = 0.975
"""Quantile at the upper end of a 95 % interval."""
DRAWS = 2000
"""Resamples of a median: its standard error then varies by about 2 %."""
MAX_RESAMPLED = 2**22
"""Values that are resampled at once, to bound memory."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval, in words too.

    Attributes:
        low: Lower end; None where there is no interval.
        high: Upper end.
        method: How it was made, and for whom it holds.
        these_subjects: Of several subjects, the interval over units alone, which holds for them only.
    """

    low: float | None
    high: float | None
    method: str
    these_subjects: tuple[float, float] | None = None


@dataclass(frozen=True)
class Scatter:
    """How a statistic varies with the units of items.

    Attributes:
        estimates: [S] the statistic of each subject.
        alone: [S] its variance over units.
        together: Variance over units of the mean over subjects.
    """

    estimates: NDArray[np.float64]
    alone: NDArray[np.float64]
    together: float


class Context(TypedDict, total=False):
    """What belongs to a value.

    Attributes:
        protocol: Name of the way it was measured.
        split: Part of the data set that it was measured on.
        pool: Candidates that each item was compared with.
        chance: Value expected of guessing.
        seeds: Seeds of the trainings that were measured.
    """

    protocol: Required[str]
    split: Required[str]
    pool: int | None
    chance: float | None
    seeds: Sequence[int]


def measure(
    name: str,
    groups: Sequence[Values],
    *,
    items: Items | None = None,
    statistic: Statistic = np.mean,
    limits: Limits = (None, None),
    is_share: bool | None = None,
    **context: Unpack[Context],
) -> Metric:
    """Measure items' values: the mean over subjects of their statistic, with a 95 % interval.

    Args:
        name: What was measured.
        groups: Values of the items [N], one array a subject; or [S, N] of S models, averaged for each item.
            Where there are as many models as seeds, the spread over seeds is measured too.
        items: See `describe`.
        statistic: How a group's values become one.
        limits: See `describe`.
        is_share: See `describe`.
        context: See `Context`.

    Raises:
        BrainhiveError: if there is no value, or one is not a number.
    """
    models = [np.atleast_2d(group) for group in groups]  # [S, N]
    interval = describe(models, items, statistic=statistic, limits=limits, is_share=is_share)
    value = float(np.mean([statistic(group.mean(0), axis=-1) for group in models]))
    return _metric(name, value, models, interval, context, statistic)


def measure_each(
    name: str,
    groups: Sequence[Values],
    *,
    items: Items | None = None,
    limits: Limits = (None, None),
    is_share: bool | None = None,
    **context: Unpack[Context],
) -> list[Metric]:
    """Measure the same items at many places, as `measure` does the mean at one.

    Args:
        name: What was measured.
        groups: Values [P, N] at P places, one array a subject; or [S, P, N] of S models.
        items: See `measure`, as those that follow.
        limits: See `measure`.
        is_share: See `measure`.
        context: See `measure`.
    """
    models = [group if np.ndim(group) == 3 else np.asarray(group)[None] for group in groups]  # [S, P, N]
    items = items or Items.unnamed([group.shape[2] for group in models])
    metrics = []
    scatters = scatter_of_means([group.mean(0, np.float64) for group in models], items)
    for place, scatter in enumerate(scatters):
        values = [group[:, place] for group in models]
        _check(values, items)
        interval = _interval(values, scatter, items, np.mean, limits, is_share)
        metrics.append(_metric(name, float(scatter.estimates.mean()), values, interval, context))
    return metrics


def _metric(
    name: str,
    value: float,
    models: Sequence[Values],
    interval: Interval,
    context: Context,
    statistic: Statistic = np.mean,
) -> Metric:
    """Put a value together with its interval and context, and with its spread over the seeds of models."""
    seeds, spread = tuple(context.get("seeds", ())), None
    if len(seeds) > 1 and {len(group) for group in models} == {len(seeds)}:
        spread = float(np.mean([statistic(group, axis=-1) for group in models], axis=0).std(ddof=1))
    caveats = find_caveats(context["protocol"])
    return Metric(
        name,
        value,
        sum(group.shape[1] for group in models),
        context.get("pool"),
        context.get("chance"),
        interval.low,
        interval.high,
        seeds,
        context["protocol"],
        context["split"],
        interval.method,
        interval.these_subjects,
        spread,
        True if SELECTED_ON_TEST in caveats else None if UNKNOWN_SELECTION in caveats else False,
    )


def interval(
    groups: Sequence[Values], items: Items | None = None, **options: Any
) -> tuple[float | None, float | None]:
    """Compute both ends of a confidence interval, as `describe` does with these options."""
    described = describe(groups, items, **options)
    return described.low, described.high


def describe(
    groups: Sequence[Values],
    items: Items | None = None,
    *,
    statistic: Statistic = np.mean,
    limits: Limits = (None, None),
    is_share: bool | None = None,
) -> Interval:
    """Make a confidence interval of the mean over subjects of their statistic, and say how it was made.

    Units of items and subjects are crossed: a concept that several subjects saw is easy or hard for all of
    them, and so are its pictures. What the interval holds for:

    - several subjects: people in general and units in general, by a t interval over subjects (one degree of
      freedom less than there are subjects), whose variance is the subjects' and, on top, the covariance that
      the shared units give them; a t interval of the subjects alone would hold for these pictures only;
    - one subject: this subject and units in general. Of hits by Wilson's interval with the number of
      independent hits that has the variance over units that was measured; else by a t interval over units;
    - one unit: there is none, and both ends are None.

    Variances over units are linearised (those of cluster-robust standard errors); that of a median is
    resampled. Between two limits, t intervals are made on the logit scale: near a limit they are asymmetric
    and never cross it. Where all hits of several subjects are 0, or all are 1, nothing varies: the interval
    is Wilson's over units, for these subjects.

    `benchmarks/simulated_statistics.py` prints how often they hold.

    Args:
        groups: Values of the items [N], one array a subject; or [S, N] of S models, averaged for each item.
        items: Which items are the same for several subjects, and which are alike. None: independent ones;
            subjects with as many have the same ones in the same order, others have none in common.
        statistic: How a group's values become one: numpy's mean or median.
        limits: Between which the statistic lies; 0 and 1 of hits.
        is_share: Whether values are hits; None: where all are 0 or 1.

    Raises:
        BrainhiveError: if there is no value, one is not a number, or the items do not fit.

    Source: Cameron, Gelbach and Miller 2011, Robust inference with multiway clustering (crossed variances);
    Korn and Graubard 1998 (effective number of hits); Wilson 1927; Clark 1973 (items as a random effect).
    """
    models = [np.atleast_2d(np.asarray(group, np.float64)) for group in groups]  # [S, N]
    items = items or Items.unnamed([group.shape[-1] for group in models])
    _check(models, items)
    averages = [group.mean(0) for group in models]
    if statistic is np.mean:
        (scatter,) = scatter_of_means([group[None] for group in averages], items)
    else:
        scatter = _resampled_scatter(averages, items)
    return _interval(models, scatter, items, statistic, limits, is_share)


def scatter_of_means(groups: Sequence[Values], items: Items) -> list[Scatter]:
    """Measure how means over items vary with their units.

    Args:
        groups: Values [P, N] at P places, one array a subject.
        items: The items, and which are alike.

    Returns:
        One for each place.
    """
    estimates, alone, influence = [], [], np.zeros((len(groups[0]), items.count))
    for values, number in zip(groups, items.numbers, strict=True):
        present, column, sizes = np.unique(number, return_inverse=True, return_counts=True)
        mean = values.mean(1)
        sums = np.zeros((len(values), len(present)))
        if len(present) == values.shape[1]:
            sums[:, column] = values
        else:
            np.add.at(sums.T, column, values.T)
        share = (sums - mean[:, None] * sizes) / values.shape[1]  # what each unit adds to the mean
        influence[:, present] += share / len(groups)
        estimates.append(mean)
        alone.append(_unbiased(share))
    together = _unbiased(influence)
    return [
        Scatter(estimate, variances, float(shared))
        for estimate, variances, shared in zip(
            np.stack(estimates, 1), np.stack(alone, 1), together, strict=True
        )
    ]


def _unbiased(influence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum the squared influences [P, U] of units to the variance of an estimate [P]; 0 of one unit."""
    units = influence.shape[1]
    variance: NDArray[np.float64] = (influence**2).sum(1) * units / max(1, units - 1)
    return variance


def _resampled_scatter(groups: Sequence[NDArray[np.float64]], items: Items) -> Scatter:
    """Measure how medians vary with units, by resampling them alike for all subjects.

    The variance is that of a normal distribution with the same middle 95 %: single outliers, which a median
    ignores, do not count. A draw that has none of a subject's units says nothing about it.
    """
    from scipy.stats import norm

    random, count = np.random.default_rng(0), items.count
    rows = max(1, MAX_RESAMPLED // max(count, *map(len, groups)))
    orders = [np.argsort(group) for group in groups]
    drawn = []
    for start in range(0, DRAWS, rows):
        times = random.multinomial(count, np.full(count, 1 / count), min(rows, DRAWS - start))  # [draws, U]
        medians = []
        for group, order, number in zip(groups, orders, items.numbers, strict=True):
            weights = times[:, number[order]].cumsum(1)
            half = weights[:, -1:] / 2
            low, high = (weights >= half).argmax(1), (weights > half).argmax(1)
            median = (group[order][low] + group[order][high]) / 2
            medians.append(np.where(weights[:, -1] > 0, median, np.median(group)))
        drawn.append(np.stack(medians, 1))
    resampled = np.concatenate(drawn)  # [draws, S]
    estimates = np.array([np.median(group) for group in groups])
    joined = np.column_stack([resampled, resampled.mean(1)])
    low, high = np.percentile(joined, [2.5, 97.5], axis=0)
    variances = ((high - low) / (2 * norm.ppf(0.975))) ** 2
    return Scatter(estimates, variances[:-1], float(variances[-1]))


def _interval(
    groups: Sequence[Values],
    scatter: Scatter,
    items: Items,
    statistic: Statistic,
    limits: Limits,
    is_share: bool | None,
) -> Interval:
    """Make the interval of values [S, N] by subject, whose scatter was measured."""
    subjects, units, total = len(groups), items.count, sum(map(np.size, groups))
    centre, named = float(scatter.estimates.mean()), f"{units} {items.kind}"
    if units == 1:
        is_one = max(group.shape[1] for group in groups) == 1
        return Interval(None, None, "none: one item" if is_one else "none: all items are of one unit")
    if is_share is None:
        could_be = statistic is np.mean and limits in ((None, None), (0.0, 1.0))
        is_share = could_be and all(np.isin(group, (0, 1)).all() for group in groups)
    if is_share:
        limits = (0.0, 1.0)
        over_units = _wilson(centre, _effective_size(centre, scatter.together, units, total))
    else:
        over_units = _t_interval(centre, float(np.sqrt(scatter.together)), units - 1, limits)
    if subjects == 1:
        return Interval(*over_units, f"{'Wilson' if is_share else 't'} over {named}")
    if is_share and centre in (0, 1):
        return Interval(
            *over_units, f"Wilson over {named}; for these subjects, who do not differ", over_units
        )
    between = scatter.estimates.var(ddof=1) / subjects
    alone = scatter.alone.mean()
    shared = max(0.0, (subjects * scatter.together - alone) / (subjects - 1))  # covariance of two subjects
    least = (alone - shared) / subjects  # the variance of subjects who do not differ
    error = float(np.sqrt(max(between, least) + shared))
    ends = _t_interval(centre, error, subjects - 1, limits)
    return Interval(*ends, f"t over {subjects} subjects and {named}; for people in general", over_units)


def _t_interval(centre: float, error: float, freedom: int, limits: Limits) -> tuple[float, float]:
    """Make a t interval, on the logit scale where the statistic lies between two limits."""
    from scipy.special import expit, logit
    from scipy.stats import t

    reach = t.ppf(UPPER, freedom) * error
    low, high = limits
    if low is None or high is None or not low < centre < high:
        ends = np.array([centre - reach, centre + reach])
        ends = np.clip(ends, low, high) if limits != (None, None) else ends
    else:
        place, span = (centre - low) / (high - low), high - low
        ends = low + span * expit(logit(place) + np.array([-1, 1]) * reach / (span * place * (1 - place)))
    return float(ends[0]), float(ends[1])


def _effective_size(share: float, variance: float, units: int, total: int) -> float:
    """Count the independent hits whose share would vary as this one does over units; `total` at most.

    Few units tell little of the variance, which Korn and Graubard count as a smaller number still.
    """
    from scipy.stats import t

    if variance == 0:
        return units
    size = min(float(total), share * (1 - share) / (variance * (units - 1) / units))
    quantiles = t.ppf(UPPER, [max(1, total - 1), units - 1])
    return size * float(quantiles[0] / quantiles[1]) ** 2


def _wilson(share: float, size: float) -> tuple[float, float]:
    """Make Wilson's interval of a share of so many hits, not a whole number."""
    from scipy.stats import norm

    z = norm.ppf(UPPER)
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    reach = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    return max(0.0, float(centre - reach)), min(1.0, float(centre + reach))


def _check(groups: Sequence[Values], items: Items) -> None:
    if not groups or any(np.ndim(group) != 2 or np.size(group) == 0 for group in groups):
        raise BrainhiveError(
            "nothing to measure: a subject has no items", "check the split that is evaluated"
        )
    if not all(np.isfinite(group).all() for group in groups):
        raise BrainhiveError(
            "a value to be measured is not a finite number", "look for NaN in the model's output"
        )
    sizes = [group.shape[1] for group in groups]
    if sizes != [len(names) for names in items.units]:
        raise BrainhiveError(
            f"subjects with {sizes} values have {[len(names) for names in items.units]} item names",
            "give one list of names a subject, one name a value",
        )
