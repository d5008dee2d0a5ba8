"""Metrics of items' values, and their confidence intervals over items and subjects."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.caveats import SELECTED_ON_TEST, UNKNOWN_SELECTION, find_caveats
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Metric
from brainhive_cli.metrics.resampling import Statistic, Values, by_item, resampled_means, resampled_statistics

Correlation = TypeVar("Correlation", float, NDArray[np.float64])
Limits = tuple[float | None, float | None]
"""The least and the largest value that a statistic can take."""

DRAWS = 2000
"""Resamples of an interval: the ends of a 95 % interval then vary by about 2 % of its width."""
ENOUGH_SUBJECTS = 6
"""With fewer, resampled subjects vary too little: coverage of .82 to .96 instead of .95."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval, in words too.

    Attributes:
        low: Lower end; None where there is no interval.
        high: Upper end.
        method: How it was made, and for whom it holds.
        these_subjects: Of several subjects, the interval over items alone, which holds for them only.
    """

    low: float | None
    high: float | None
    method: str
    these_subjects: tuple[float, float] | None = None


def measure(
    name: str,
    groups: Sequence[Values],
    *,
    protocol: str,
    split: str,
    ids: Sequence[Sequence[Hashable]] | None = None,
    statistic: Statistic = np.mean,
    pool: int | None = None,
    chance: float | None = None,
    seeds: Sequence[int] = (),
    limits: Limits = (None, None),
    wilson: bool = True,
) -> Metric:
    """Measure items' values: the mean over subjects of their statistic, with a 95 % interval.

    Args:
        name: What was measured.
        groups: Values of the items [N], one array a subject; or [S, N] of S models, averaged for each item.
            Where there are as many models as seeds, the spread over seeds is measured too.
        protocol: Name of the way it was measured.
        split: Part of the data set that it was measured on.
        ids: See `describe`.
        statistic: How a group's values become one.
        pool: Candidates that each item was compared with.
        chance: Value expected of guessing.
        seeds: Seeds of the trainings that were measured.
        limits: See `describe`.
        wilson: See `describe`.

    Raises:
        BrainhiveError: if there is no value, or one is not a number.
    """
    models = [np.atleast_2d(group) for group in groups]  # [S, N]
    averages = [group.mean(0) if len(group) else np.empty(0) for group in models]
    found = describe(averages, ids=ids, statistic=statistic, limits=limits, wilson=wilson)
    value = float(np.mean([statistic(group, axis=-1) for group in averages]))
    spread = None
    if len(seeds) > 1 and {len(group) for group in models} == {len(seeds)}:
        spread = float(np.mean([statistic(group, axis=-1) for group in models], axis=0).std(ddof=1))
    how = (protocol, split, found, spread)
    return _metric(name, value, sum(map(len, averages)), pool, chance, seeds, *how)


def measure_each(
    name: str,
    groups: Sequence[Values],
    *,
    protocol: str,
    split: str,
    pool: int | None = None,
    chance: float | None = None,
    seeds: Sequence[int] = (),
    limits: Limits = (None, None),
    wilson: bool = True,
) -> list[Metric]:
    """Measure the same items at many places, as `measure` does at one, with one resampling for all places.

    Args:
        name: What was measured.
        groups: Values [P, N] at P places, one array a subject; or [S, P, N] of S models. All subjects have
            the same items in the same order.
        protocol: See `measure`, as those that follow.
        split: See `measure`.
        pool: See `measure`.
        chance: See `measure`.
        seeds: See `measure`.
        limits: See `measure`.
        wilson: See `measure`.
    """
    models = [group if np.ndim(group) == 3 else np.asarray(group)[None] for group in groups]
    averages = np.stack([group.mean(0) for group in models]).astype(np.float64)  # [subjects, P, N]
    random = np.random.default_rng(0).spawn(3)[0]
    resampled = resampled_means(averages, DRAWS, random)  # [P, draws, subjects]
    found = []
    for place, drawn in enumerate(resampled):
        own = [*averages[:, place]]
        _check(own, None)
        interval = _interval_of(own, drawn, own[0].size, np.mean, 0.95, 0, limits, wilson)
        spread = None
        if len(seeds) > 1 and {len(group) for group in models} == {len(seeds)}:
            by_seed = np.mean([group[:, place].mean(-1) for group in models], axis=0)
            spread = float(by_seed.std(ddof=1))
        value, count = float(np.mean(averages[:, place])), int(averages[:, place].size)
        how = (protocol, split, interval, spread)
        found.append(_metric(name, value, count, pool, chance, seeds, *how))
    return found


def _metric(
    name: str,
    value: float,
    count: int,
    pool: int | None,
    chance: float | None,
    seeds: Sequence[int],
    protocol: str,
    split: str,
    interval: Interval,
    spread: float | None,
) -> Metric:
    caveats = find_caveats(protocol)
    return Metric(
        name,
        value,
        count,
        pool,
        chance,
        interval.low,
        interval.high,
        tuple(seeds),
        protocol,
        split,
        interval.method,
        interval.these_subjects,
        spread,
        True if SELECTED_ON_TEST in caveats else None if UNKNOWN_SELECTION in caveats else False,
    )


def spearman_brown(halves: Correlation, times: float = 2.0) -> Correlation:
    """Predict the correlation of two halves if both had `times` as many repetitions.

    That is times · r / (1 + (times - 1) · |r|). Below zero the formula has no meaning, and a pole; made odd,
    it is one to one, so that it corrects the ends of an interval too, and the noise of uncorrelated halves
    still averages to 0.

    Args:
        halves: A correlation, or an array of any shape.
        times: Repetitions of the whole over those of a half: 2, or 3 of three that were halved into 1 and 1.

    Source: Spearman 1910; Brown 1910.
    """
    return times * halves / (1 + (times - 1) * abs(halves))


def interval(groups: Sequence[Values], **options: Any) -> tuple[float | None, float | None]:
    """Compute both ends of a confidence interval, as `describe` does with these options."""
    found = describe(groups, **options)
    return found.low, found.high


def describe(
    groups: Sequence[Values],
    *,
    ids: Sequence[Sequence[Hashable]] | None = None,
    statistic: Statistic = np.mean,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
    limits: Limits = (None, None),
    wilson: bool = True,
) -> Interval:
    """Make a confidence interval of the mean over subjects of their statistic, and say how it was made.

    Items and subjects are crossed: an item that several subjects saw is easy or hard for all of them. So a
    draw resamples the items once for all subjects that have them. What the interval holds for:

    - six subjects and more: people in general and pictures in general, by a percentile bootstrap whose every
      draw resamples the items once and the subjects once;
    - two to five subjects: the same, by a t interval over subjects (one degree of freedom less than there are
      subjects) whose variance has the subjects' and, on top, the covariance that the shared items give them;
      a t interval of the subjects alone would hold for these pictures only;
    - one subject: this subject and pictures in general, by Wilson's interval where all values are 0 or 1,
      else by a percentile bootstrap over items;
    - one item: there is none, and both ends are None.

    Where all of several subjects' values are 0, or all are 1, nothing varies that could be resampled: it is
    Wilson's over items, for these subjects.

    `benchmarks/simulated_statistics.py` prints how often they hold.

    Args:
        groups: Values of the items [N], one array a subject.
        ids: Names of the items, one list a subject; those that a subject has twice are averaged. None:
            subjects with as many items have the same ones in the same order, others have none in common.
        statistic: How a group's values become one.
        level: How often the interval should hold the truth.
        draws: Number of resamples.
        seed: Seed of the resampling.
        limits: What the ends are cut to; by default 0 and 1 where all values are one of them.
        wilson: Whether values that are 0 or 1 are single successes and failures; an average of several can be
            0 or 1 too.

    Raises:
        BrainhiveError: if there is no value, one is not a number, or the ids do not fit.

    Source: Owen 2007, The pigeonhole bootstrap (crossed resampling); Efron and Tibshirani, An Introduction to
    the Bootstrap, chapter 13; Wilson 1927, through scipy.stats.
    """
    given = [np.asarray(group, np.float64) for group in groups]
    _check(given, ids)
    groups, places = by_item(given, ids)
    items = max(int(place.max()) for place in places) + 1
    random, filling, _ = np.random.default_rng(seed).spawn(3)

    def resample() -> Values:
        return resampled_statistics(groups, places, statistic, draws, random, filling)

    return _interval_of(groups, resample, items, statistic, level, seed, limits, wilson)


def _interval_of(
    groups: Sequence[Values],
    resample: Values | Callable[[], Values],
    items: int,
    statistic: Statistic,
    level: float,
    seed: int,
    limits: Limits,
    wilson: bool,
) -> Interval:
    """Make the interval of values [N] by subject from resampled statistics [draws, subjects]."""
    subjects, values = len(groups), np.concatenate(groups)
    can_be_share = wilson and statistic is np.mean and limits in ((None, None), (0.0, 1.0))
    is_binary = can_be_share and bool(np.isin(values, (0, 1)).all())
    if items == 1:
        return Interval(None, None, "none: one item")
    if is_binary and subjects == 1:
        return Interval(*_wilson(values.mean(), items, level), "Wilson, over items")
    if is_binary and values.min() == values.max():
        ends = _wilson(values.mean(), items, level)
        return Interval(*ends, "Wilson, over items; for these subjects, who do not differ", ends)
    if is_binary and limits == (None, None):
        limits = (0.0, 1.0)
    resampled = resample() if callable(resample) else resample
    over_items = _cut(_percentiles(resampled.mean(1), level), limits)
    if subjects == 1:
        return Interval(*over_items, "bootstrap over items")
    if subjects < ENOUGH_SUBJECTS:
        found = np.array([statistic(group, axis=-1) for group in groups])
        ends = _cut(_t_interval(found, resampled, level), limits)
        method = f"t over {subjects} subjects, with the variance of shared items; for people in general"
        return Interval(*ends, method, over_items)
    choosing = np.random.default_rng(seed).spawn(3)[2]
    chosen = choosing.integers(subjects, size=resampled.shape)
    both = np.take_along_axis(resampled, chosen, 1).mean(1)
    method = f"bootstrap over {subjects} subjects and, shared by them, items; for people in general"
    return Interval(*_cut(_percentiles(both, level), limits), method, over_items)


def _t_interval(found: Values, resampled: Values, level: float) -> tuple[float, float]:
    """Make a t interval over subjects, whose variance contains what they share because items are the same."""
    from scipy.stats import t

    count = len(found)
    together, alone = resampled.mean(1).var(), resampled.var(0).mean()
    shared = max(0.0, (count * together - alone) / (count - 1))  # covariance of two subjects, on average
    least = (alone - shared) / count  # the variance of subjects who do not differ
    error = np.sqrt(max(found.var(ddof=1) / count, least) + shared)
    reach = t.ppf((1 + level) / 2, count - 1) * error
    return float(found.mean() - reach), float(found.mean() + reach)


def _percentiles(values: Values, level: float) -> tuple[float, float]:
    tail = 50 * (1 - level)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _wilson(share: float, count: int, level: float) -> tuple[float, float]:
    from scipy.stats import binomtest

    found = binomtest(round(share * count), count).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def _cut(ends: tuple[float, float], limits: Limits) -> tuple[float, float]:
    low, high = np.clip(ends, *limits) if limits != (None, None) else ends
    return float(low), float(high)


def _check(groups: Sequence[Values], ids: Sequence[Sequence[Hashable]] | None) -> None:
    if not groups or any(np.ndim(group) != 1 or len(group) == 0 for group in groups):
        raise BrainhiveError(
            "nothing to measure: a subject has no items", "check the split that is evaluated"
        )
    if not all(np.isfinite(group).all() for group in groups):
        raise BrainhiveError(
            "a value to be measured is not a finite number", "look for NaN in the model's output"
        )
    sizes = [len(group) for group in groups]
    if ids is not None and sizes != [len(names) for names in ids]:
        raise BrainhiveError(
            f"subjects with {sizes} values have {[len(names) for names in ids]} item names",
            "give one list of names a subject, one name a value",
        )
