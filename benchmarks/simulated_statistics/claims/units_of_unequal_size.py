"""Intervals and verdicts hold where concepts have unequally many pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.hits import ITEM_SD, draw_hits, mean_hit
from benchmarks.simulated_statistics.judging import holds, judge_items, rank_all
from brainhive_cli.measurement.statistics import estimate_interval
from brainhive_cli.measurement.units import StimulusGrouping

DESIGNS = {
    "100 + 20 x 5": [100] + [5] * 20,
    "Zipf, 20 concepts": [56, 28, 19, 14, 11, 9, 8, 7]
    + [6] * 2
    + [5] * 2
    + [4] * 3
    + [3] * 4
    + [2],
    "Zipf, 40 concepts": [47, 23, 16, 12, 9, 8, 7, 6]
    + [5] * 2
    + [4] * 3
    + [3] * 5
    + [2] * 13
    + [1] * 9,
    "60 40 20 20 10 10 10 10 5 5 5 5": [60, 40] + [20] * 2 + [10] * 4 + [5] * 4,
    "40 x 5": [5] * 40,
}
"""Number of pictures of each concept."""
AXES: Mapping[str, Sequence[Any]] = {
    "design": tuple(DESIGNS),
    "subjects": (1, 4),
    "centre": (0.0, -2.0),
}
COLUMNS = "coverage | width | false verdicts"


def units_of_unequal_size(
    random: Random, design: str, subjects: int, centre: float
) -> list[float]:
    """Test intervals for units in general, and verdicts without an effect.

    The signals of a concept are alike, and so are its pictures, but signals and
    pictures are unrelated.
    """
    sizes = DESIGNS[design]
    concept = np.repeat(np.arange(len(sizes)), sizes)
    count = len(concept)
    grouping = StimulusGrouping("concept", dict(enumerate(map(str, concept))))
    items = grouping.make_items([range(count)] * subjects)
    subject_sd = 0.3 if subjects > 1 else 0.0
    subject_logits = centre + random.normal(0, subject_sd, (subjects, 1))
    concept_logits = ITEM_SD * random.normal(size=len(sizes))
    logits = concept_logits[concept] + random.normal(size=count)
    hits = draw_hits(random, subject_logits + logits)
    interval = estimate_interval(list(hits), items)
    spread = float(np.hypot(ITEM_SD, 1))
    truth = np.mean([mean_hit(logit, spread) for logit in subject_logits[:, 0]])

    centres = random.normal(size=(2, len(sizes), 20))[:, concept]
    features, shared = centres + 0.5 * random.normal(size=centres.shape)
    ranks = []
    for _ in range(subjects):
        signals = shared + random.normal(size=shared.shape)
        ranks.append(rank_all(signals, features))
    return [
        holds(interval, truth),
        interval.high - interval.low,
        judge_items(ranks, items).side != "at chance",
    ]
