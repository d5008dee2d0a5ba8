"""Intervals, verdicts and differences hold where neighbouring clips correlate."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.alike_items import draw_film
from benchmarks.simulated_statistics.hits import ITEM_SD, draw_hits
from benchmarks.simulated_statistics.judging import LEVEL, answer, holds, rank_all
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
    """Films in a shuffled order: verdicts without an effect, coverage, and false
    differences.

    Neighbours correlate in signals, embeddings, hits and values, of which six people
    share half the variance.
    """
    names = random.permutation(clips).tolist()
    alike = StimulusGrouping("neighbours", dict.fromkeys(range(clips), "film"), "clip")
    items, of_six = alike.make_items([names]), alike.make_items([names] * 6)
    features, signals = draw_film(random, 2, clips, 8, near=near)
    verdict = answer([rank_all(signals[names], features[items.names])], items)
    hits = draw_hits(random, ITEM_SD * draw_film(random, clips, 1, near=near).T)[
        :, names
    ]
    values = draw_film(random, clips, 1, near=near) + draw_film(
        random, 6, clips, 1, near=near
    )
    values = values[:, names, 0]
    described = [
        (estimate_interval(list(hits), items), 0.5),
        (estimate_interval([values[0]], items), 0.0),
    ]
    held = [
        np.nan if each.low is None else holds(each, truth) for each, truth in described
    ]
    pairs = [
        ([*each], [*(0 * each)], by)
        for each, by in ((values[:1], items), (values, of_six))
    ]
    p_values = [
        compare_values(first, second, items=by).p_value for first, second, by in pairs
    ]
    shown = [np.nan if p is None else p <= LEVEL for p in p_values]
    return [
        verdict.side == "above chance",
        verdict.side == "not testable",
        *held,
        *shown,
    ]
