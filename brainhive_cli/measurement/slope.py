"""Slope of retrieval scores over the similarity to the nearest training picture.

A slope above 0 points to a leak. Predictions lie near training pictures, so test
pictures near them rank well for every signal. The score is therefore the rank
advantage: how much better a picture ranks for its own signals than for others.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from brainhive_cli.core.base import Float64
from brainhive_cli.core.results import Metric
from brainhive_cli.measurement.units import MIN_UNITS_FOR_INTERVAL


def average_by_unit(
    cells: Iterable[Mapping[str, Sequence[Any]]],
) -> tuple[Float64, Float64]:
    """Average the cosine similarity and the rank advantage over the items of each unit.

    Args:
        cells: A mapping for each trained model and each subject, with a value for
            each tested item:

            - `units`: unit of the item, such as its concept.
            - `nearest`: cosine similarity to the nearest training picture.
            - `surplus`: rank advantage, or None for items that are skipped.

            Without similarities, `nearest` and `surplus` are empty.

    Returns:
        Mean cosine similarity [U] and mean rank advantage [U] of the units
        that have items.
    """
    # pairs of cosine similarity and rank advantage of each unit
    pairs_of_unit = defaultdict[str, list[tuple[float, float]]](list)
    for cell in cells:
        columns = zip(cell["units"], cell["nearest"], cell["surplus"], strict=False)
        for unit, cosine, advantage in columns:
            if advantage is not None:
                pairs_of_unit[unit].append((cosine, advantage))

    # without units, the reshape gives two empty arrays
    means = [np.mean(pairs, 0) for pairs in pairs_of_unit.values()]
    cosines, scores = np.reshape(means, (-1, 2)).T
    return cosines, scores


def fit_slope(
    cosines: Float64,
    scores: Float64,
    protocol: str,
    split: str,
    seeds: tuple[int, ...],
    caveats: Sequence[str] = (),
) -> Metric:
    """Fit a line to scores over cosines by least squares.

    The slope is the change of the score for one standard deviation of the cosines. Its
    95 % interval is a t interval over units.

    Args:
        cosines: Cosine similarity [U] of each unit to its nearest training picture,
            not all equal.
        scores: Rank advantage [U] of each unit.
        protocol: Name of the protocol.
        split: Name of the split.
        seeds: Seeds of the trainings.
        caveats: Phrases in `CAVEATS` that limit the metric.

    Returns:
        The metric `nearest_slope`, without an interval if there are fewer than
        `MIN_UNITS_FOR_INTERVAL` units, or if the scores are equal or lie on a line.
    """
    from scipy.special import stdtrit

    # least squares, written out because scipy.stats.linregress takes 0.6 s to import
    covariances = np.cov(cosines / cosines.std(), scores, bias=True)
    (variance, covariance), (_, score_variance) = covariances
    slope = covariance / variance

    # t interval from the standard error of the slope
    n_units = len(scores)
    low = high = None
    if n_units >= MIN_UNITS_FOR_INTERVAL and score_variance > 0:
        unexplained = 1 - covariance**2 / (variance * score_variance)
        # Largest share of unexplained variance of scores that count as on a line.
        if unexplained > 1e-12:
            error = np.sqrt(unexplained * score_variance / variance / (n_units - 2))
            half_width = float(stdtrit(n_units - 2, 0.975) * error)
            low = slope - half_width
            high = slope + half_width
    return Metric(
        name="nearest_slope",
        value=slope,
        n=n_units,
        pool=None,
        chance=0.0,
        low=low,
        high=high,
        interval=f"t over {n_units} units",
        protocol=protocol,
        split=split,
        seeds=seeds,
        caveats=tuple(caveats),
    )
