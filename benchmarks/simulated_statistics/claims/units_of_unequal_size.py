"""Intervals and verdicts hold where concepts have unequally many pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.hits import ITEM_SD, draw_hits, mean_hit
from benchmarks.simulated_statistics.judging import answer, holds, rank_all
from brainhive_cli.measurement.statistics import estimate_interval
from brainhive_cli.measurement.units import StimulusGrouping

DESIGNS = {
    "100 + 20 x 5": [100] + [5] * 20,
    "Zipf, 20 concepts": [
        56,
        28,
        19,
        14,
        11,
        9,
        8,
        7,
        6,
        6,
        5,
        5,
        4,
        4,
        4,
        3,
        3,
        3,
        3,
        2,
    ],
    "Zipf, 40 concepts": [
        47,
        23,
        16,
        12,
        9,
        8,
        7,
        6,
        5,
        5,
        4,
        4,
        4,
        3,
        3,
        3,
        3,
        3,
        *[2] * 13,
        *[1] * 9,
    ],
    "60 40 20 20 10 10 10 10 5 5 5 5": [60, 40, 20, 20, 10, 10, 10, 10, 5, 5, 5, 5],
    "40 x 5": [5] * 40,
}
"""Pictures of each concept."""
AXES: Mapping[str, Sequence[Any]] = {
    "design": tuple(DESIGNS),
    "subjects": (1, 4),
    "centre": (0.0, -2.0),
}
COLUMNS = "coverage | width | false verdicts"


def units_of_unequal_size(
    random: Random, design: str, subjects: int, centre: float
) -> list[float]:
    """Units of unequal size: coverage and width for units in general, and verdicts
    without an effect.

    Signals and pictures of a concept are alike, and have nothing to do with each other.
    """
    sizes = DESIGNS[design]
    concept = np.repeat(np.arange(len(sizes)), sizes)
    items = StimulusGrouping("concept", dict(enumerate(map(str, concept)))).make_items(
        [range(len(concept))] * subjects
    )
    by_subject = centre + random.normal(0, 0.3 if subjects > 1 else 0.0, (subjects, 1))
    logits = ITEM_SD * random.normal(size=len(sizes))[concept] + random.normal(
        size=len(concept)
    )
    hits = draw_hits(random, by_subject + logits)
    interval = estimate_interval(list(hits), items)
    truth = np.mean(
        [mean_hit(logit, float(np.hypot(ITEM_SD, 1))) for logit in by_subject[:, 0]]
    )
    alike = random.normal(size=(2, len(sizes), 20))[:, concept]
    features, shared = alike + 0.5 * random.normal(size=alike.shape)
    ranked = [
        rank_all(shared + random.normal(size=shared.shape), features)
        for _ in range(subjects)
    ]
    return [
        holds(interval, truth),
        interval.high - interval.low,
        answer(ranked, items).side != "at chance",
    ]
