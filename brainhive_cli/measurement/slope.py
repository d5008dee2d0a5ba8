"""Score of a picture against the cosine with its nearest training picture: above 0 if
pictures near training pictures score better.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.measurements import Metric
from brainhive_cli.measurement.units import FEWEST_UNITS

DRAWS = 2000
"""Bootstrap samples of units."""


Pictures = tuple[Float64, Float64, Int64]
"""Tested pictures [N], averaged over subjects and cells: cosine with the nearest
training picture, share of the wrong candidates that rank below, number of the unit.
"""


def average_by_picture(
    items: Iterable[Mapping[str, Sequence[Any]]], pool: int
) -> Pictures:
    """Average items by picture over all cells and subjects.

    Args:
        items: `image_ids`, `units`, `ranks` and `nearest` [N] of each cell and subject.
        pool: Number of candidates.
    """
    values, unit_of = defaultdict[str, list[Any]](list), {}
    for listed in items:
        columns = (listed[key] for key in ("image_ids", "units", "ranks", "nearest"))
        # without embeddings of training pictures, there are no cosines
        for name, unit, rank, cosine in zip(*columns, strict=False):
            values[name].append((cosine, 1 - (rank - 1) / max(1, pool - 1)))
            unit_of[name] = unit
    means = np.array([np.mean(pairs, 0) for pairs in values.values()]).reshape(-1, 2)
    units = np.unique([*map(str, unit_of.values())], return_inverse=True)[1]
    return means[:, 0], means[:, 1], np.asarray(units, np.int64)


def fit_slope(
    pictures: Pictures, *, protocol: str, split: str, seeds: Sequence[int] = ()
) -> Metric:
    """Fit the slope of scores over cosines by least squares, with a 95 % interval over
    units.

    The slope is the change of the score for one standard deviation of the cosines, as
    these lie close together in one embedding and far apart in another. The interval is
    the t interval of the bootstrap's standard error. It is of these
    subjects and these trainings.
    """
    from scipy.stats import t

    # sums of each unit, of which bootstrap samples are weighted sums: [U, 5]
    nearest, y, units = pictures
    x = (nearest - nearest.mean()) / max(1e-12, float(nearest.std()))
    moments = np.stack([np.ones_like(x), x, y, x * x, x * y], 1)
    count = int(units.max()) + 1
    sums = np.zeros((count, 5))
    np.add.at(sums, units, moments)

    def solve(total: Float64) -> Float64:
        n, sx, sy, sxx, sxy = total.T
        spread = n * sxx - sx**2
        return np.asarray((n * sxy - sx * sy) / np.where(spread > 1e-9, spread, np.nan))

    slope = float(np.nan_to_num(solve(moments.sum(0))))
    low = high = None
    reason = f"no interval: {count} units, or all cosines are equal"
    random = np.random.default_rng(0)
    weights = random.multinomial(count, np.full(count, 1 / count), DRAWS)  # [B, U]
    drawn = solve(weights @ sums)
    if count >= FEWEST_UNITS and np.isfinite(drawn).mean() > 0.99:
        # a sample of units has less spread than their population
        error = float(np.nanstd(drawn, ddof=1)) * np.sqrt(count / (count - 2))
        width = float(t.ppf(0.975, count - 2)) * error
        low, high = slope - width, slope + width
        reason = f"bootstrap over {count} units, t, for these subjects"
    return Metric(
        "nearest_slope",
        slope,
        len(x),
        None,
        0.0,
        low,
        high,
        tuple(seeds),
        protocol,
        split,
        reason,
    )
