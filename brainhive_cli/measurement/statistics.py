"""Confidence intervals and sign-flip tests of means over items and subjects.

An item is a tested picture or trial. A unit is a group of items that are alike, such as
the pictures of a concept. Units and subjects are crossed random factors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.base import Array, Bool, BrainhiveError, Float64, Int64
from brainhive_cli.core.results import (
    SELECTED_ON_TEST,
    SIGNIFICANCE_LEVEL,
    UNKNOWN_SELECTION,
    Metric,
)
from brainhive_cli.measurement.units import (
    MIN_SUBJECTS_FOR_POPULATION,
    Items,
    widen_null_distribution,
)

ValueArray = NDArray[np.floating[Any]]
Limits = tuple[float | None, float | None]
"""Smallest and largest value that a mean can take. None stands for a missing limit."""

UPPER_QUANTILE = 0.975
"""Quantile of the upper end of a 95 % interval."""
ROUNDING = 1e-12
"""Largest deviation from a mean that counts as rounding error, as a share of the
largest value.
"""


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval of a mean.

    Attributes:
        low: Lower end of the interval, or None.
        high: Upper end of the interval, or None.
        method: Method and population of the interval, or the reason why there is none.
        these_subjects: Ends of the interval for the tested subjects, or None with a
            single subject or without an interval.
        people: Ends of the interval for people in general, or None with a single
            subject, without an interval, or if it is too wide.
    """

    low: float | None
    high: float | None
    method: str
    these_subjects: tuple[float, float] | None = None
    people: tuple[float, float] | None = None


@dataclass(frozen=True)
class MeanVariance:
    """Components of the sampling variance of a mean over S subjects.

    Attributes:
        estimates: Mean [S] of the values of each subject.
        variance: Variance of the mean over random units, for fixed subjects. It is
            `covariance` + `noise_variance`, unless one of these is cut off at 0.
        dof: Satterthwaite's degrees of freedom of `variance`.
        covariance: Covariance between two subjects' means, due to shared units.
        noise_variance: Variance of the mean by noise that differs between subjects.
        subject_variance: Variance of the mean over random subjects, at least
            `noise_variance`.
    """

    estimates: Float64
    variance: float
    dof: float
    covariance: float
    noise_variance: float
    subject_variance: float


def measure(
    name: str,
    groups: Sequence[ValueArray],
    *,
    protocol: str,
    split: str,
    pool: int | None = None,
    chance: float | None = None,
    seeds: Sequence[int] = (),
    items: Items | None = None,
    caveats: Sequence[str] = (),
    **interval_options: Any,
) -> Metric:
    """Compute the mean over subjects of their mean values, with a 95 % interval.

    Args:
        name: Name of the metric.
        groups: Values of each subject: [N] for N items, or [S, N] of S models, which
            are averaged for each item.
        protocol: Name of the way in which the values were measured.
        split: Part of the data set that the items belong to.
        pool: Number of candidates that each item was compared with.
        chance: Expected value under guessing.
        seeds: Seeds of the trained models.
        items: Items with their units. If None, each item is a unit.
        caveats: Phrases in `CAVEATS` that limit the value.
        interval_options: Further arguments of `estimate_interval`.

    Returns:
        The mean with its interval, and with the sd over several seeds if each
        has a model.

    Raises:
        BrainhiveError: if a subject has no values, or a value is not finite.
    """
    model_values = [np.atleast_2d(group) for group in groups]
    interval = estimate_interval(model_values, items, **interval_options)
    subject_means = [group.mean(0).mean(-1) for group in model_values]

    # standard deviation over seeds, if each seed has a model
    seed_sd = None
    model_counts = {len(group) for group in model_values}
    if len(seeds) > 1 and model_counts == {len(seeds)}:
        seed_means = np.mean([group.mean(-1) for group in model_values], 0)
        seed_sd = float(seed_means.std(ddof=1))

    # a caveat says if a model was selected by its test scores
    is_selected: bool | None = SELECTED_ON_TEST in caveats
    if not is_selected and UNKNOWN_SELECTION in caveats:
        is_selected = None
    return Metric(
        name=name,
        value=float(np.mean(subject_means)),
        n=sum(group.shape[1] for group in model_values),
        pool=pool,
        chance=chance,
        low=interval.low,
        high=interval.high,
        seeds=tuple(seeds),
        protocol=protocol,
        split=split,
        interval=interval.method,
        these_subjects=interval.these_subjects,
        people=interval.people,
        seed_sd=seed_sd,
        selected=is_selected,
        caveats=tuple(caveats),
    )


def measure_positions(
    name: str, groups: Sequence[ValueArray], **options: Any
) -> list[Metric]:
    """Compute a metric separately at each of several positions, such as times.

    Args:
        name: Name of the metric.
        groups: An array for each subject: values [P, N] of N items at P positions, or
            values [S, P, N] of S models.
        options: Further arguments of `measure`.

    Returns:
        The metric at each of the P positions.
    """
    arrays = [np.asarray(group, np.float64) for group in groups]
    metrics = []
    for position in range(arrays[0].shape[-2]):
        values = [array[..., position, :] for array in arrays]
        metrics.append(measure(name, values, **options))
    return metrics


def estimate_interval(
    groups: Sequence[ValueArray],
    items: Items | None = None,
    *,
    limits: Limits = (None, None),
    is_share: bool | None = None,
    max_hits: float | None = None,
) -> Interval:
    """Estimate a 95 % confidence interval of the mean over subjects of their means.

    - Fewer than `MIN_UNITS_FOR_INTERVAL` units, or equal values that are not
      shares: no interval.
    - Fewer than `MIN_SUBJECTS_FOR_POPULATION` subjects, or no variance over subjects:
      an interval for these subjects over units, by Wilson for shares, or else by t.
    - More subjects: a t interval for people in general, whose variance includes the
      covariance of subjects by shared units.

    With two limits, t intervals are computed on the logit scale.

    Args:
        groups: Values of each subject: [N] for N items, or [S, N] of S models, which
            are averaged for each item.
        items: Items and their units. If None, items are independent, and shared by
            subjects with equal numbers of items.
        limits: Smallest and largest possible mean, such as 0 and 1.
        is_share: True if values are shares, such as hits. If None, values are shares if
            the limits are 0 and 1, or if there are no limits and all values are 0 or 1.
        max_hits: Largest number of independent hits that all values together count for,
            if they only approximate a share.

    Returns:
        The interval, or in its `method` the reason why there is none.

    Raises:
        BrainhiveError: if a subject has no values, or a value is not finite.

    Source: Cameron, Gelbach and Miller 2011, Robust inference with multiway clustering
    (crossed variances); Korn and Graubard 1998 (effective number of hits); Wilson 1927;
    Clark 1973 (items as a random effect).
    """
    model_values = [np.atleast_2d(np.asarray(group, np.float64)) for group in groups]
    _check_values(model_values)
    items = items or Items.from_sizes([group.shape[-1] for group in model_values])

    # the mean over models counts each item once
    components = estimate_mean_variance(
        [group.mean(0) for group in model_values], items
    )
    mean = float(components.estimates.mean())
    subjects = len(model_values)
    units_text = f"{items.n_units} {items.kind}"

    if is_share is None:
        are_hits = all(np.isin(group, (0, 1)).all() for group in model_values)
        is_share = limits == (0.0, 1.0) or (limits == (None, None) and are_hits)
    if is_share and None in limits:
        limits = (0.0, 1.0)
    low, high = limits
    if items.shortage:
        return Interval(None, None, f"none: {items.shortage}")

    # interval over units, for these subjects
    unit_interval = None
    method = "none: no item differs from others"
    if is_share and low is not None and high is not None:
        unit_interval = _share_interval(
            model_values, components, items, limits=(low, high), max_hits=max_hits
        )
        method = f"Wilson over {units_text}"
    elif components.variance > 0:
        error = float(np.sqrt(components.variance))
        unit_interval = _t_interval(mean, error, components.dof, limits)
        method = f"t over {units_text}"
    unit_low, unit_high = unit_interval or (None, None)

    # name the population, which is the tested units and subjects
    scope = [items.scope] if items.scope else []
    if subjects == 1:
        return Interval(unit_low, unit_high, "; for ".join([method] + scope))
    population = " and ".join(scope + [f"these {subjects} subjects"])
    method = f"{method}; for {population}"

    # interval for people in general
    variance = components.subject_variance + components.covariance
    if variance == 0:
        method = f"{method}, who do not differ"
        return Interval(unit_low, unit_high, method, these_subjects=unit_interval)
    people = _t_interval(mean, float(np.sqrt(variance)), subjects - 1, limits)
    if subjects >= MIN_SUBJECTS_FOR_POPULATION:
        population = " and ".join(["people in general"] + scope)
        return Interval(
            low=people[0],
            high=people[1],
            method=f"t over {subjects} subjects and {units_text}; for {population}",
            these_subjects=unit_interval,
            people=people,
        )

    # an interval over more than half of the scale is not informative
    is_wide = False
    if low is not None and high is not None:
        is_wide = people[1] - people[0] > (high - low) / 2
    return Interval(
        unit_low,
        unit_high,
        method,
        these_subjects=unit_interval,
        people=None if is_wide else people,
    )


def _check_values(model_values: Sequence[Float64]) -> None:
    """Raise an error if a subject has no values, or if a value is not finite.

    Args:
        model_values: Values [S, N] of S models for N items, by subject.
    """
    has_values = [group.ndim == 2 and group.size > 0 for group in model_values]
    if not model_values or not all(has_values):
        raise BrainhiveError(
            "nothing to measure: a subject has no items",
            "check the split that is evaluated",
        )
    for group in model_values:
        is_finite = np.isfinite(group)
        if not is_finite.all():
            raise BrainhiveError(
                f"{(~is_finite).sum()} of {group.size} values to be measured are not "
                "finite",
                "look for NaN in the model's output",
            )


def estimate_mean_variance(groups: Sequence[ValueArray], items: Items) -> MeanVariance:
    """Estimate the components of the variance of a mean over subjects.

    The mean over S subjects has the variance V = (m + (S - 1) c) / S, where m is the
    mean variance of a subject's mean over units, and c the covariance of two subjects.
    So c = (S V - m) / (S - 1), and the noise of subjects adds (m - c) / S.

    Args:
        groups: Values [N] of the N items of each of the S subjects.
        items: Items and their units. Variances are computed within strata.

    Returns:
        The mean of each subject, and the components of the variance.
    """
    # influence of each unit on the mean over subjects, and its weight by subject
    subjects = len(groups)
    n_units = items.n_units
    strata = items.stratum_of_unit
    estimates = np.zeros(subjects)
    subject_variances = np.zeros(subjects)
    influence = np.zeros(n_units)
    weights = np.zeros((subjects, n_units))
    for subject, (values, units) in enumerate(
        zip(groups, items.unit_indices, strict=True)
    ):
        # mean of each stratum (group of comparable units)
        sizes = np.bincount(units, minlength=n_units)
        sums = np.bincount(units, values, n_units)
        stratum_sizes = np.maximum(1, np.bincount(strata, sizes))
        stratum_means = np.bincount(strata, sums) / stratum_sizes

        # influence [U] of each unit on the mean
        unit_influence = (sums - stratum_means[strata] * sizes) / len(values)
        is_rounding = np.abs(unit_influence) < ROUNDING * np.abs(values).max()
        unit_influence[is_rounding] = 0

        weights[subject] = sizes / len(values)
        subject_variances[subject], _ = _variance_over_units(
            unit_influence, weights[subject : subject + 1], strata
        )
        estimates[subject] = values.mean()
        influence += unit_influence / subjects

    # variance over units, which subjects may share
    variance, dof = _variance_over_units(influence, weights / subjects, strata)
    variance *= items.inflation

    # covariance of subjects, and their own noise
    mean_variance = float((subject_variances * items.inflation).mean())
    covariance = max(0.0, (subjects * variance - mean_variance) / max(1, subjects - 1))
    noise_variance = max(0.0, mean_variance - covariance) / subjects
    between_variance = 0.0
    if subjects > 1:
        between_variance = float(estimates.var(ddof=1)) / subjects
    return MeanVariance(
        estimates=estimates,
        variance=variance,
        dof=dof,
        covariance=covariance,
        noise_variance=noise_variance,
        subject_variance=max(between_variance, noise_variance),
    )


def _variance_over_units(
    influence: Float64, weights: Float64, strata: Int64
) -> tuple[float, float]:
    """Compute the cluster-robust variance (CR2) of a mean, and its degrees of freedom.

    The variance is the sum of influence² / (1 - l). The leverage l of a unit is its
    share of the weight of its stratum, averaged over subjects by weight. Units that are
    alone in their stratum are assumed to vary like the others.

    Args:
        influence: Influence [U] of each unit on the mean: the sum of its deviations
            from the mean of the stratum, divided by the number of all items.
        weights: Weight [S, U] of each unit in the mean, by subject, with the sum 1.
        strata: Index [U] of the stratum of each unit.

    Returns:
        The variance and Satterthwaite's degrees of freedom, or 0 and 1 if no stratum
        has two units.

    Source: Bell and McCaffrey 2002, Bias reduction in standard errors for linear
    regression with multi-stage samples; Imbens and Kolesár 2016.
    """
    # weight [S, U] of each unit divided by the root of the weight of its stratum
    stratum_weights = np.array([np.bincount(strata, row)[strata] for row in weights])
    loadings = weights / np.sqrt(np.where(stratum_weights > 0, stratum_weights, 1))
    unit_weights = weights.sum(0)
    pulls = (loadings**2).sum(0)  # leverage times weight

    # leave out units with a leverage of 1, which are alone in their stratum
    is_compared = (unit_weights > 0) & (pulls < unit_weights * (1 - 1e-9))
    if not is_compared.any():
        return 0.0, 1.0

    # variance, scaled up to all units
    unit_weights = unit_weights[is_compared]
    total_weight = unit_weights.sum()
    slack = 1 - pulls[is_compared] / unit_weights  # 1 - leverage
    squares = influence[is_compared] ** 2 / slack
    variance = float(squares.sum() / total_weight**2)

    # Satterthwaite: trace(C)² / trace(C²) of the covariance C of the influences
    loadings = loadings[:, is_compared] / np.sqrt(slack)
    strata = strata[is_compared]
    off_diagonal = -((loadings**2).sum(0) ** 2).sum()
    for stratum in np.unique(strata):
        stratum_loadings = loadings[:, strata == stratum]
        off_diagonal += ((stratum_loadings @ stratum_loadings.T) ** 2).sum()
    dof = float(total_weight**2 / ((unit_weights**2).sum() + off_diagonal))
    return variance, dof


def _t_interval(
    mean: float, error: float, dof: float, limits: Limits
) -> tuple[float, float]:
    """Compute the 95 % t interval of a mean, with its lower and upper end.

    If the mean lies between two limits, the interval is computed on the logit scale.
    Otherwise it is symmetric, and cut off at the limits.
    """
    from scipy.special import expit, logit, stdtrit

    reach = stdtrit(dof, UPPER_QUANTILE) * error
    low, high = limits
    if low is None or high is None or not low < mean < high:
        ends = np.array([mean - reach, mean + reach])
        if limits != (None, None):
            ends = np.clip(ends, low, high)
    else:
        # delta method: the derivative of the logit of a share p is 1 / (p (1 - p))
        span = high - low
        share = (mean - low) / span
        logit_reach = np.array([-1, 1]) * reach / (span * share * (1 - share))
        ends = low + span * expit(logit(share) + logit_reach)
    return float(ends[0]), float(ends[1])


def _share_interval(
    groups: Sequence[ValueArray],
    components: MeanVariance,
    items: Items,
    limits: tuple[float, float],
    max_hits: float | None,
) -> tuple[float, float]:
    """Compute Wilson's 95 % interval of a share, with its lower and upper end.

    The number of trials is n = share (1 - share) / variance over units, with an upper
    bound. Unless values are independent hits, a squared ratio of t quantiles reduces
    it, because few units estimate the variance poorly (Korn and Graubard 1998).

    Args:
        groups: Values [S, N] of S models for the N items of each subject.
        components: Components of the variance of the mean.
        items: Items and their units.
        limits: Values of a miss and of a hit.
        max_hits: Upper bound of n, or None for `_max_effective_hits`.
    """
    from scipy.special import ndtri, stdtrit  # quantiles of the normal and t

    # mean and variance on a scale from 0 to 1
    low, high = limits
    span = high - low
    share = (float(components.estimates.mean()) - low) / span
    variance = components.variance / span**2

    # effective number of trials, at most one for each unit if all are misses or hits
    size = min(items.n_units, max_hits or np.inf)
    if ROUNDING < share < 1 - ROUNDING:
        values = np.concatenate([group.mean(0) for group in groups])
        are_hits = all(np.isin(group, limits).all() for group in groups)
        max_size = max_hits or _max_effective_hits(groups, values, limits, are_hits)
        n_items = len(items.names)
        item_variance = share * (1 - share) * n_items / (n_items - 1)
        size = min(max_size, item_variance / variance if variance > 0 else np.inf)

        # only the variance of independent hits is known from their share
        are_independent = are_hits and items.n_units == len(values)
        if not are_independent or items.strata is not None:
            item_dof = len(values) - 1 if are_independent else np.inf
            quantiles = stdtrit([item_dof, components.dof], UPPER_QUANTILE)
            size *= float(quantiles[0] / quantiles[1]) ** 2

    z = ndtri(UPPER_QUANTILE)
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    wilson_variance = share * (1 - share) / size + z**2 / (4 * size**2)
    reach = z / (1 + z**2 / size) * np.sqrt(wilson_variance)

    # rounding must not exclude the share itself
    lower_share = min(float(share), float(centre - reach))
    upper_share = max(float(share), float(centre + reach))
    return low + span * max(0.0, lower_share), low + span * min(1.0, upper_share)


def _max_effective_hits(
    groups: Sequence[ValueArray],
    values: Float64,
    limits: tuple[float, float],
    are_hits: bool,
) -> float:
    """Compute the largest number of independent hits that all values count for.

    - All values are hits or misses: each value counts for 1.
    - At most half of the items lie at the same limit: each item counts for
      4.
    - Otherwise: fewer, down to 2 if all lie there.

    Args:
        groups: Values [S, N] of S models for N items, by subject.
        values: Value of each item of each subject, averaged over models.
        limits: Values of a miss and of a hit.
        are_hits: True if all values are hits or misses.
    """
    if are_hits:
        return sum(map(np.size, groups))

    # Largest number of hits that one item counts for if almost all items have the
    # smallest or the largest possible value.
    max_hits_per_item_at_limit = 2
    # fraction of the items at the more frequent limit, at least one half
    share_at_limit = max(
        (values == limits[0]).mean(),
        (values == limits[1]).mean(),
        # Largest number of hits that one item counts for. By their variance under
        # guessing, a share of correct two-way comparisons counts for 3 hits, and a
        # reciprocal rank for almost 4.
        max_hits_per_item_at_limit / 4,
    )
    hits: float = max_hits_per_item_at_limit / share_at_limit * len(values)
    return hits


@dataclass(frozen=True)
class SignFlips:
    """Result of a permutation test of a mean, which flips the signs of values.

    Attributes:
        p: Two-sided p of the hypothesis that the true mean is 0.
        p_above: One-sided p of a mean at least as large as measured, if the true
            mean is 0.
        p_below: One-sided p of a mean at most as large as measured, if the true
            mean is 0.
        least_p: Smallest two-sided p that the test can give.
        low: Lower end of the 95 % interval of the mean, or None with too few flips.
        high: Upper end of the interval, or None with too few flips.
    """

    p: float
    p_above: float
    p_below: float
    least_p: float
    low: float | None
    high: float | None


def flip_signs(values: Sequence[Array], items: Items) -> SignFlips:
    """Test if the mean over subjects and items is 0, by flipping the signs of units.

    Flipping the signs of some units increases the mean exactly if their own mean is
    negative. So p and the interval both follow from the means of sets of units.

    Args:
        values: Values [N] of the N items of each subject.
        items: Items and their units (groups of items that are alike). The sign of a
            unit is flipped for all subjects at once.

    Source: Hartigan 1969 (typical values); Fisher 1935.
    """
    # sum and weight [U] of each unit in the mean over subjects
    unit_sums = np.zeros(items.n_units)
    unit_weights = np.zeros(items.n_units)
    for group, units in zip(values, items.unit_indices, strict=True):
        np.add.at(unit_sums, units, group / len(group) / len(values))
        np.add.at(unit_weights, units, 1 / len(group) / len(values))

    # mean of the flipped units, for each set of units
    flips = _draw_flips(items.n_units).astype(np.float64)
    sums = flips @ unit_sums
    weights = flips @ unit_weights
    if items.inflation > 1:
        expected_sums = weights * unit_sums.sum() / unit_weights.sum()
        sums = widen_null_distribution(sums, expected_sums, items.inflation)
    means = sums / weights
    means[np.abs(means) < ROUNDING] = 0
    means.sort()

    # both tails include the measured mean, which flips no unit
    count = len(means) + 1
    p_above = (1 + int((means <= 0).sum())) / count
    p_below = (1 + int((means >= 0).sum())) / count

    # interval, with half of the significance level beyond each end
    n_beyond = int(np.floor(count * SIGNIFICANCE_LEVEL / 2 + 1e-9))
    low = high = None
    if n_beyond:
        low = float(means[n_beyond - 1])
        high = float(means[-n_beyond])
    return SignFlips(
        p=min(1.0, 2 * min(p_above, p_below)),
        p_above=p_above,
        p_below=p_below,
        least_p=2 / count,
        low=low,
        high=high,
    )


@lru_cache(maxsize=4)
def _draw_flips(units: int) -> Bool:
    """Choose sets of units whose signs are flipped, without the empty set.

    Returns:
        Masks [K, units] of the flipped units: all sets for at most
        15 units, or else about 4,999 random sets.
    """
    # Largest number of units for which all 32,768 sign flips are tried.
    if units <= 15:
        numbers = np.arange(1, 2**units)[:, None]
        return (numbers >> np.arange(units) & 1).astype(bool)
    # Number of random sign flips if there are more units. The standard error of a p of
    # .05 is then .003.
    flips = np.random.default_rng(0).random((4_999, units)) < 0.5
    return flips[flips.any(1)]
