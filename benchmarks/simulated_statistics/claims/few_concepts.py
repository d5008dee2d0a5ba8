"""Intervals and verdicts hold with two to eight concepts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.hits import draw_hits, mean_hit
from benchmarks.simulated_statistics.judging import holds, rank_all
from brainhive_cli.measurement.statistics import estimate_interval
from brainhive_cli.measurement.units import StimulusGrouping
from brainhive_cli.measurement.verdict import judge

AXES: Mapping[str, Sequence[Any]] = {
    "concepts": (2, 3, 5, 8),
    "pictures": (10, 50),
    "drift": (0.0, 1.0),
}
COLUMNS = (
    "coverage | false: picture | false: concept | top-1 | found: picture | "
    "found: concept"
)


def few_concepts(
    random: Random, concepts: int, pictures: int, drift: float
) -> list[float]:
    """Few concepts: coverage for these, false answers to each question, and both found
    at top-1 .6 of 20.

    With drift, the signals of a session share what has nothing to do with pictures, and
    three in four pictures of a concept were shown in its own session. Concepts are not
    equally decodable: the effect grows from the first to the last.
    """
    concept = np.repeat(np.arange(concepts), pictures)
    count, names = len(concept), dict(enumerate(map(str, concept)))
    items = StimulusGrouping("concept", names).make_items([range(count)])
    options: Any = {"concept_of": names}
    strength = np.linspace(0.5, 1.5, concepts)[concept]
    logits = 2 * strength - 2 + random.normal(size=count)
    interval = estimate_interval([draw_hits(random, logits[None])[0]], items)
    truth = np.mean([mean_hit(2 * each - 2, 1.0) for each in strength])
    session = np.where(np.arange(count) % 4 > 0, concept, (concept + 1) % concepts)
    options["concept_parts"] = dict(enumerate(session.tolist()))
    features = random.normal(size=(concepts, 20))[concept] + random.normal(
        size=(count, 20)
    )
    drifted = drift * random.normal(size=(concepts, 20))[session]
    noise = random.normal(size=(count, 20))
    false = judge([rank_all(drifted + noise, features)], items, range(count), **options)
    seen = 0.7 * (count / 20) ** 0.2 * strength[:, None] * features + drifted
    right = judge([rank_all(seen + noise, features)], items, range(count), **options)
    top1 = float((rank_all(seen + noise, features).diagonal() == 1).mean())
    called = [[each.side == "above chance" for each in both] for both in (false, right)]
    return [holds(interval, truth), *called[0], top1, *called[1]]
