"""The sign-flip test over units, and the interval that is its inversion: they never disagree."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from brainhive_cli.core.arrays import Array, Bool
from brainhive_cli.core.facts import LEVEL
from brainhive_cli.measurement.units import Items, widen

ALL_SIGNS = 15
"""Units up to which all signs are tried (32,768); of more, as many random ones as `DRAWS`."""
DRAWS = 4_999
"""Random sign flips in addition to the identity; a p of .05 then has a standard error of .003."""
ROUNDING = 1e-12
"""Means closer to 0 than this are 0."""


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
    """Test whether the mean over subjects and items is 0, by the signs of the units' parts in it.

    Without an effect the part of each unit is as probable with the other sign. A flip moves the mean to the
    other side of a hypothetical effect exactly where the mean of the flipped units alone lies beyond it: so
    the quantiles of these means over all flips are the interval of effects that the test does not reject.

    Args:
        values: Values of the items [N], one array a subject.
        items: Which items are of one unit.

    Source: Hartigan 1969 (typical values); Fisher 1935.
    """
    # part of each unit in the mean over subjects of their means, and its weight
    parts, weights = np.zeros((2, items.count))
    for group, unit in zip(values, items.numbers, strict=True):
        np.add.at(parts, unit, group / len(group) / len(values))
        np.add.at(weights, unit, 1 / len(group) / len(values))

    # means of the flipped units: of all subsets, or of random ones
    flipped = _draw_flips(items.count).astype(np.float64)
    sums, totals = flipped @ parts, flipped @ weights
    if items.inflation > 1:
        sums = widen(sums, totals * parts.sum() / weights.sum(), items.inflation)
    means = sums / totals
    means[np.abs(means) < ROUNDING] = 0
    means.sort()
    count = len(means) + 1  # the identity flips nothing, and counts on both sides
    below, above = int((means <= 0).sum()), int((means >= 0).sum())

    # an end is the outermost mean that leaves less than half of the level beyond it
    beyond = int(np.floor(count * LEVEL / 2 + 1e-9))
    low, high = (float(means[beyond - 1]), float(means[-beyond])) if beyond else (None, None)
    p_above, p_below = (1 + below) / count, (1 + above) / count
    return SignFlips(min(1.0, 2 * min(p_above, p_below)), p_above, p_below, 2 / count, low, high)


@lru_cache(maxsize=4)  # the metrics of a run share them; 5 MB for a thousand units
def _draw_flips(units: int) -> Bool:
    """Choose which units are flipped, [K, U]: all subsets but the empty one, or random ones."""
    if units <= ALL_SIGNS:
        return (np.arange(1, 2**units)[:, None] >> np.arange(units) & 1).astype(bool)
    flips = np.random.default_rng(0).random((DRAWS, units)) < 0.5
    return flips[flips.any(1)]
