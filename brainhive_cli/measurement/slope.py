"""Score of a picture against the cosine with its nearest training picture: above 0 if
pictures near training pictures score better.

Predictions lie near training pictures, whatever was seen, and so does a picture near
them rank well for every signal. The score of a picture is therefore what its own
signals give, less what signals of other pictures give.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.measurements import Metric
from brainhive_cli.measurement.units import MIN_UNITS_FOR_INTERVAL


def average_by_unit(
    items: Iterable[Mapping[str, Sequence[Any]]],
) -> tuple[Float64, Float64]:
    """Average items by unit, as a concept, over all cells and subjects.

    Args:
        items: `units`, `nearest` and `surplus` [N] of each cell and subject.

    Returns:
        Cosine with the nearest training picture, and `Scores.surplus`; [U] of the units
        that have both.
    """
    # a cell without cosines has an empty list of them
    values = defaultdict[str, list[Any]](list)
    for one in items:
        columns = (one[key] for key in ("units", "nearest", "surplus"))
        for unit, nearest, surplus in zip(*columns, strict=False):
            if surplus is not None:
                values[unit].append((nearest, surplus))
    means = [np.mean(pairs, 0) for pairs in values.values()]
    cosine, score = np.reshape(means, (-1, 2)).T
    return cosine, score


def fit_slope(nearest: Float64, score: Float64, **how: Any) -> Metric:
    """Fit the slope of scores [U] over cosines [U] by least squares, with a 95 % t
    interval over units. It is of these subjects and these trainings.

    The slope is the change of the score for one standard deviation of the cosines, as
    these lie close together in one embedding and far apart in another.

    Args:
        nearest: Not all equal.
        score: Share of the wrong candidates that rank below, less that for signals of
            other pictures.
        how: Protocol, split and seeds of the metric.
    """
    from scipy.special import stdtrit

    # least squares by the steps of scipy.stats.linregress, which takes .6 s to import
    covariances = np.cov(nearest / nearest.std(), score, bias=True)
    (variance, covariance), (_, score_variance) = covariances
    slope = covariance / variance
    count = len(score)
    low = high = None
    if count >= MIN_UNITS_FOR_INTERVAL and score_variance > 0:
        r = np.clip(covariance / np.sqrt(variance * score_variance), -1, 1)
        error = np.sqrt((1 - r**2) * score_variance / variance / (count - 2))
        if error > 0:
            width = float(stdtrit(count - 2, 0.975) * error)
            low = slope - width
            high = slope + width
    ends: Any = {"low": low, "high": high, "interval": f"t over {count} units"}
    return Metric("nearest_slope", slope, count, None, 0.0, **ends, **how)
