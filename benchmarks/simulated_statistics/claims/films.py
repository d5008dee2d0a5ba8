"""Intervals, verdicts and differences hold where neighbouring clips correlate."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.alike_items import draw_film
from benchmarks.simulated_statistics.hits import ITEM_SD, draw_hits
from benchmarks.simulated_statistics.judging import LEVEL, holds, judge_items, rank_all
from brainhive_cli.measurement.comparison import compare_values
from brainhive_cli.measurement.statistics import estimate_interval
from brainhive_cli.measurement.units import StimulusGrouping

AXES: Mapping[str, Sequence[Any]] = {
    "clips": (7, 20, 40, 80, 240, 360, 480, 1200),
    "near": (0.0, 0.6, 0.9),
}
COLUMNS = (
    "false verdicts | not testable | coverage of hits | of values | false "
    "differences: one | six people"
)


def films(random: Random, clips: int, near: float) -> list[float]:
    """Test verdicts, intervals and differences of shuffled clips, without an effect.

    Neighbours correlate in signals, embeddings, hits and values. Six people share half
    the variance of the values.
    """
    names = random.permutation(clips).tolist()
    grouping = StimulusGrouping(
        "neighbours", dict.fromkeys(range(clips), "film"), "clip"
    )
    items = grouping.make_items([names])
    items_of_six = grouping.make_items([names] * 6)
    features, signals = draw_film(random, 2, clips, 8, correlation=near)
    verdict = judge_items([rank_all(signals[names], features[items.names])], items)
    results = [verdict.side == "above chance", verdict.side == "not testable"]

    # coverage of intervals of hits and of values
    logits = ITEM_SD * draw_film(random, clips, 1, correlation=near).T
    hits = draw_hits(random, logits)[:, names]
    shared = draw_film(random, clips, 1, correlation=near)
    values = shared + draw_film(random, 6, clips, 1, correlation=near)
    values = values[:, names, 0]
    for scores, truth in ((list(hits), 0.5), ([values[0]], 0.0)):
        interval = estimate_interval(scores, items)
        results.append(np.nan if interval.low is None else holds(interval, truth))

    # false differences
    for people, units in ((values[:1], items), (values, items_of_six)):
        p = compare_values(list(people), list(0 * people), items=units).p_value
        results.append(np.nan if p is None else p <= LEVEL)
    return results
