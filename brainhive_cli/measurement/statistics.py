"""Metrics of items' values, and their confidence intervals over units of items and over
subjects.

The sign-flip test over units has an interval that is its inversion, so that they never
disagree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.arrays import Array, Bool, Float64, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import SIGNIFICANCE_LEVEL
from brainhive_cli.core.measurements import (
    SELECTED_ON_TEST,
    UNKNOWN_SELECTION,
    Metric,
    find_caveats,
)
from brainhive_cli.measurement.units import (
    MIN_SUBJECTS_FOR_POPULATION,
    Items,
    widen_null_distribution,
)

ValueArray = NDArray[np.floating[Any]]
Limits = tuple[float | None, float | None]
"""The least and the largest value that a mean can take."""

UPPER = 0.975
"""Quantile at the upper end of a 95 % interval."""
ROUNDING = 1e-12
"""Share of the largest value, below which a difference from the mean is the rounding of
a sum.
"""
ALL_SIGNS = 15
"""Units up to which all signs are tried (32,768); of more, as many random ones as
`FLIPS`.
"""
FLIPS = 4_999
"""Random sign flips in addition to the identity; a p of .05 then has a standard error
of .003.
"""
MOST_HITS, AT_LIMIT = 4, 2
"""Independent hits that the share of an item is worth at most (guessed two-way shares
are worth 3, reciprocal ranks nearly 4), and where nearly all items lie at a limit.
"""


@dataclass(frozen=True)
class Interval:
    """A confidence interval, in words too.

    Attributes:
        low: Lower end; None where there is no interval.
        high: Upper end.
        method: How it was made, and for whom it holds; or why there is none.
        these_subjects: Of several subjects, the interval over units alone, which holds
            for them only.
        people: Of several subjects, the interval for people in general; None where it
            says nothing.
    """

    low: float | None
    high: float | None
    method: str
    these_subjects: tuple[float, float] | None = None
    people: tuple[float, float] | None = None


@dataclass(frozen=True)
class MeanVariance:
    """Variation of means over items with their units.

    Attributes:
        estimates: [S] the mean of each subject.
        together: Variance over units of the mean over subjects.
        freedom: Degrees of freedom of that variance, by what the units weigh.
        shared: Covariance of two subjects, whose units are the same.
        noise: Variance of the mean over subjects by their own noise alone: the least
            that subjects add.
        subject_variance: Variance of the mean over subjects that they differ by; their
            noise at least.
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
    **how: Any,
) -> Metric:
    """Measure items' values: the mean over subjects of their means, with a 95 %
    interval.

    Args:
        name: What was measured.
        groups: Values of the items [N], one array a subject; or [S, N] of S models,
            averaged for each item. Where there are as many models as seeds, the spread
            over seeds is measured too.
        protocol: Name of the way it was measured.
        split: Part of the data set that it was measured on.
        pool: Candidates that each item was compared with.
        chance: Value expected of guessing.
        seeds: Seeds of the trainings that were measured.
        items: See `estimate_interval`.
        how: Other arguments of `estimate_interval`.

    Raises:
        BrainhiveError: if there is no value, or one is not a number.
    """
    # seeds are averaged by item, in the value as in its interval
    models = [np.atleast_2d(group) for group in groups]  # [S, N]
    interval = estimate_interval(models, items, **how)

    # spread over seeds, where there is a model of each
    spread = None
    if len(seeds) > 1 and {len(group) for group in models} == {len(seeds)}:
        spread = float(np.mean([group.mean(-1) for group in models], 0).std(ddof=1))

    # a selection by the test scores is told by the protocol
    caveats = find_caveats(protocol)
    return Metric(
        name,
        float(np.mean([group.mean(0).mean(-1) for group in models])),
        sum(group.shape[1] for group in models),
        pool,
        chance,
        interval.low,
        interval.high,
        tuple(seeds),
        protocol,
        split,
        interval.method,
        interval.these_subjects,
        interval.people,
        spread,
        True
        if SELECTED_ON_TEST in caveats
        else None
        if UNKNOWN_SELECTION in caveats
        else False,
    )


def measure_positions(
    name: str, groups: Sequence[ValueArray], **how: Any
) -> list[Metric]:
    """Measure the same items at many positions, as `measure` does at one.

    Args:
        name: What was measured.
        groups: Values [P, N] at P positions, one array a subject; or [S, P, N] of S
            models.
        how: Other arguments of `measure`.
    """
    arrays = [np.asarray(group, np.float64) for group in groups]
    positions = range(arrays[0].shape[-2])
    return [
        measure(name, [group[..., n, :] for group in arrays], **how) for n in positions
    ]


def estimate_interval(
    groups: Sequence[ValueArray],
    items: Items | None = None,
    *,
    limits: Limits = (None, None),
    is_share: bool | None = None,
    max_hits: float | None = None,
) -> Interval:
    """Make a confidence interval of the mean over subjects of their means, and say how
    it was made.

    Units of items and subjects are crossed: a concept that several subjects saw is easy
    or hard for all of them, and so are its pictures. What the interval holds for:

    - one subject, and two to four: these subjects, and units in general (or the few
      that `items` names). Of shares by Wilson's interval with the number of independent
      hits that has the variance over units that was measured; else by a t interval over
      units;
    - five subjects or more: people in general, by a t interval over subjects (one
      degree of freedom less than there are subjects), whose variance is the subjects'
      and, on top, the covariance that the shared units give them. Of two to four it is
      the second one, unless it covers more than half of the scale;
    - fewer than six units, or values that do not vary: there is none, and both ends are
      None.

    Variances over units are linearised (cluster-robust, CR2). Between two limits, t
    intervals are made on the logit scale: near a limit they are asymmetric and never
    cross it. Where all shares are at one limit, nothing varies: the interval is
    Wilson's of as many hits as units.

    `benchmarks/simulated_statistics` prints how often they hold.

    Args:
        groups: Values of the items [N], one array a subject; or [S, N] of S models,
            averaged for each item.
        items: Which items are the same for several subjects, and which are alike. None:
            independent ones; subjects with as many have the same ones in the same
            order, others have none in common.
        limits: Between which the mean lies; 0 and 1 of shares.
        is_share: Whether values are shares of tries or candidates, hits among them;
            None: where the limits are 0 and 1, or all values are.
        most_hits: Independent hits that the values are worth at most, where these are
            linearised: their mean is a share, and they vary as it does. None: values
                are shares themselves.

    Raises:
        BrainhiveError: if there is no value, or one is not a number.

    Source: Cameron, Gelbach and Miller 2011, Robust inference with multiway clustering
    (crossed variances); Korn and Graubard 1998 (effective number of hits); Wilson 1927;
    Clark 1973 (items as a random effect).
    """
    # averages over seeds, so that an item counts once
    # [S, N]
    models = [np.atleast_2d(np.asarray(group, np.float64)) for group in groups]
    if not models or any(
        np.ndim(group) != 2 or np.size(group) == 0 for group in models
    ):
        raise BrainhiveError(
            "nothing to measure: a subject has no items",
            "check the split that is evaluated",
        )
    if not all(np.isfinite(group).all() for group in models):
        raise BrainhiveError(
            "a value to be measured is not a finite number",
            "look for NaN in the model's output",
        )
    items = items or Items.from_sizes([group.shape[-1] for group in models])
    scatter = estimate_mean_variance([group.mean(0) for group in models], items)

    # hits, or shares of hits
    subjects = len(models)
    units = items.n_units
    centre = float(scatter.estimates.mean())
    counted = f"{units} {items.kind}"
    if is_share is None:
        are_hits = limits == (None, None) and all(
            np.isin(group, (0, 1)).all() for group in models
        )
        is_share = limits == (0.0, 1.0) or are_hits
    low, high = limits
    if is_share and (low is None or high is None):
        low, high = limits = (0.0, 1.0)

    # too few units for an interval
    if items.shortage:
        return Interval(None, None, f"none: {items.shortage}")

    # over units: for one subject, or for these
    over_units = None
    method = "none: no item differs from others"
    if is_share and low is not None and high is not None:
        over_units = _share_interval(models, scatter, items, (low, high), max_hits)
        method = f"Wilson over {counted}"
    elif scatter.variance > 0:
        error = float(np.sqrt(scatter.variance))
        over_units = _t_interval(centre, error, scatter.dof, limits)
        method = f"t over {counted}"
    low_high: tuple[float | None, float | None] = over_units or (None, None)
    scope = [items.scope] if items.scope else []
    if subjects == 1:
        return Interval(*low_high, "; for ".join([method, *scope]))
    these = f"{method}; for {' and '.join([*scope, f'these {subjects} subjects'])}"

    # over people too: the variance of subjects and, on top, the covariance of those who
    # saw the same units
    variance = scatter.subject_variance + scatter.covariance
    if variance == 0:
        return Interval(*low_high, f"{these}, who do not differ", over_units)
    people = _t_interval(centre, float(np.sqrt(variance)), subjects - 1, limits)
    if subjects >= MIN_SUBJECTS_FOR_POPULATION:
        about = " and ".join(["people in general", *scope])
        return Interval(
            *people,
            f"t over {subjects} subjects and {counted}; for {about}",
            over_units,
            people,
        )
    says_little = (
        low is not None
        and high is not None
        and people[1] - people[0] > (high - low) / 2
    )
    return Interval(*low_high, these, over_units, None if says_little else people)


def estimate_mean_variance(groups: Sequence[ValueArray], items: Items) -> MeanVariance:
    """Measure how means over items vary with their units, within strata where there are
    any.

    The variance over units is split into what subjects share and their own noise.

    Args:
        groups: Values [N], one array a subject.
        items: The items, and which are alike.
    """
    subjects = len(groups)
    units = items.n_units
    strata = items.stratum_of_unit
    estimates = []
    alone = []
    influence = np.zeros(units)
    weights = np.zeros((subjects, units))
    for weight, values, unit in zip(weights, groups, items.unit_indices, strict=True):
        # what each unit adds to the mean, beyond its stratum's: [U], and its share of
        # the items: [U]
        count = len(values)
        sizes = np.bincount(unit, minlength=units)
        sums = np.bincount(unit, values, units)
        means = np.bincount(strata, sums) / np.maximum(1, np.bincount(strata, sizes))
        part = (sums - means[strata] * sizes) / count
        part[np.abs(part) < ROUNDING * np.abs(values).max()] = 0  # of equal values

        # its variance for this subject, and its part in the mean over subjects
        weight[:] = sizes / count
        estimates.append(values.mean())
        alone.append(_variance(part, weight[None], strata)[0])
        influence += part / subjects

    # variance of the mean over subjects, who may have units in common
    together, freedom = _variance(influence, weights / subjects, strata)
    together *= items.inflation

    # what subjects share, and their own noise, of which their differences consist at
    # least
    subject_means = np.array(estimates)
    mean_variance = float((np.array(alone) * items.inflation).mean())
    shared = max(0.0, (subjects * together - mean_variance) / max(1, subjects - 1))
    noise = max(0.0, mean_variance - shared) / subjects
    between = float(subject_means.var(ddof=1)) / subjects if subjects > 1 else 0.0
    return MeanVariance(
        subject_means, together, freedom, shared, noise, max(between, noise)
    )


def _variance(
    influence: Float64, weights: Float64, strata: Int64
) -> tuple[float, float]:
    """Sum the squared influences [U] of units to the variance of an estimate, and its
    freedom.

    A unit that has the share l of a subject's stratum pulls its mean towards itself, so
    its square is divided by 1 - l (CR2); of a unit that subjects share, l is the mean
    over them by their weights [S, U]. The freedom is Satterthwaite's, as of independent
    items; where all weigh the same, it is units less one, or, of units of one subject
    each, units less subjects. A stratum of one unit says nothing of its variance; it
    counts as the others do.

    Source: Bell and McCaffrey 2002, Bias reduction in standard errors for linear
    regression with multi-stage samples; Imbens and Kolesár 2016.
    """
    # units that have others of their stratum to be compared with
    # [S, U]
    stratum_sums = np.array([np.bincount(strata, row)[strata] for row in weights])
    pulls = weights / np.sqrt(np.where(stratum_sums > 0, stratum_sums, 1))
    weight = weights.sum(0)
    pull = (pulls**2).sum(0)
    is_compared = (weight > 0) & (pull < weight * (1 - 1e-9))
    if not is_compared.any():
        return 0.0, 1.0

    # variance of the estimates, bias-reduced by the leverage of each unit
    w = weight[is_compared]
    total = weight[is_compared].sum()
    rest = 1 - pull[is_compared] / w
    variance = float((influence[is_compared] ** 2 / rest).sum() / total**2)

    # Satterthwaite's freedom, by the squared covariances of units [S, S] of each
    # stratum
    pulls = pulls[:, is_compared] / np.sqrt(rest)
    squares = -((pulls**2).sum(0) ** 2).sum()
    for stratum in np.unique(strata[is_compared]):
        inside = pulls[:, strata[is_compared] == stratum]
        squares += ((inside @ inside.T) ** 2).sum()
    return variance, float(total**2 / ((w**2).sum() + squares))


def _t_interval(
    centre: float, error: float, freedom: float, limits: Limits
) -> tuple[float, float]:
    """Make a t interval, on the logit scale where the mean lies between two limits."""
    from scipy.special import expit, logit, stdtrit

    # symmetric where there are no limits, or the centre is at one
    reach = stdtrit(freedom, UPPER) * error
    low, high = limits
    if low is None or high is None or not low < centre < high:
        ends = np.array([centre - reach, centre + reach])
        ends = np.clip(ends, low, high) if limits != (None, None) else ends
    else:
        position = (centre - low) / (high - low)
        span = high - low
        steps = np.array([-1, 1]) * reach / (span * position * (1 - position))
        ends = low + span * expit(logit(position) + steps)
    return float(ends[0]), float(ends[1])


def _share_interval(
    groups: Sequence[ValueArray],
    scatter: MeanVariance,
    items: Items,
    limits: tuple[float, float],
    most_hits: float | None,
) -> tuple[float, float]:
    """Make Wilson's interval of shares, of as many independent hits as would vary alike
    over units.

    Few units tell little of the variance, which Korn and Graubard count as a smaller
    number still. Shares that are no hits vary less; where many of them lie at a limit,
    those that do not were hardly seen, so the number of hits is bounded.
    """
    # quantiles of t and of the normal distribution, which scipy.stats takes from here
    from scipy.special import ndtri, stdtrit

    # share of the span between the limits, and its variance
    (low, high), span = limits, limits[1] - limits[0]
    share = (float(scatter.estimates.mean()) - low) / span
    variance = scatter.variance / span**2

    # number of independent hits that would have this variance
    size = min(items.n_units, most_hits or np.inf)
    if ROUNDING < share < 1 - ROUNDING:
        values = np.concatenate([group.mean(0) for group in groups])
        are_hits = all(np.isin(group, limits).all() for group in groups)
        at_limit = max(
            (values == low).mean(), (values == high).mean(), AT_LIMIT / MOST_HITS
        )
        most = (
            sum(map(np.size, groups)) if are_hits else AT_LIMIT / at_limit * len(values)
        )
        hits = share * (1 - share) * len(items.names) / (len(items.names) - 1)
        size = min(most_hits or most, hits / variance if variance > 0 else np.inf)
        are_units = are_hits and items.n_units == len(values)
        if not are_units or items.strata is not None:
            quantiles = stdtrit(
                [len(values) - 1 if are_units else np.inf, scatter.dof], UPPER
            )
            size *= float(quantiles[0] / quantiles[1]) ** 2

    # Wilson's interval of as many hits, not a whole number
    z = ndtri(UPPER)
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    variance = share * (1 - share) / size + z**2 / (4 * size**2)
    reach = z / (1 + z**2 / size) * np.sqrt(variance)
    # rounding must not leave the share itself outside
    below = min(float(share), float(centre - reach))
    above = max(float(share), float(centre + reach))
    return low + span * max(0.0, below), low + span * min(1.0, above)


@dataclass(frozen=True)
class SignFlips:
    """Result of sign flips for a mean.

    Attributes:
        p: Two-sided p.
        p_above: Probability, without an effect, of a mean as large.
        p_below: Probability of one as small.
        least_p: The smallest two-sided p that so many units can give.
        low: Lower end of the 95 % interval; None where the units are too few for one.
        high: Upper end.
    """

    p: float
    p_above: float
    p_below: float
    least_p: float
    low: float | None
    high: float | None


def flip_signs(values: Sequence[Array], items: Items) -> SignFlips:
    """Test whether the mean over subjects and items is 0, by the signs of the units'
    parts in it.

    Without an effect the part of each unit is as probable with the other sign. A flip
    moves the mean to the other side of a hypothetical effect exactly where the mean of
    the flipped units alone lies beyond it: so the quantiles of these means over all
    flips are the interval of effects that the test does not reject.

    Args:
        values: Values of the items [N], one array a subject.
        items: Which items are of one unit.

    Source: Hartigan 1969 (typical values); Fisher 1935.
    """
    # part of each unit in the mean over subjects of their means, and its weight
    parts, weights = np.zeros((2, items.n_units))
    for group, unit in zip(values, items.unit_indices, strict=True):
        np.add.at(parts, unit, group / len(group) / len(values))
        np.add.at(weights, unit, 1 / len(group) / len(values))

    # means of the flipped units: of all subsets, or of random ones
    flipped = _draw_flips(items.n_units).astype(np.float64)
    sums = flipped @ parts
    totals = flipped @ weights
    if items.inflation > 1:
        sums = widen_null_distribution(
            sums, totals * parts.sum() / weights.sum(), items.inflation
        )
    means = sums / totals
    means[np.abs(means) < ROUNDING] = 0
    means.sort()
    count = len(means) + 1  # the identity flips nothing, and counts on both sides
    below = int((means <= 0).sum())
    above = int((means >= 0).sum())

    # an end is the outermost mean that leaves less than half of the level beyond it
    beyond = int(np.floor(count * SIGNIFICANCE_LEVEL / 2 + 1e-9))
    low, high = (
        (float(means[beyond - 1]), float(means[-beyond])) if beyond else (None, None)
    )
    p_above = (1 + below) / count
    p_below = (1 + above) / count
    return SignFlips(
        min(1.0, 2 * min(p_above, p_below)), p_above, p_below, 2 / count, low, high
    )


@lru_cache(maxsize=4)  # the metrics of a run share them; 5 MB for a thousand units
def _draw_flips(units: int) -> Bool:
    """Choose which units are flipped, [K, U]: all subsets but the empty one, or random
    ones.
    """
    if units <= ALL_SIGNS:
        return (np.arange(1, 2**units)[:, None] >> np.arange(units) & 1).astype(bool)
    flips = np.random.default_rng(0).random((FLIPS, units)) < 0.5
    return flips[flips.any(1)]
