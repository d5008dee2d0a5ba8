"""Intervals and verdicts hold with two to eight concepts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.hits import draw_hits, mean_hit
from benchmarks.simulated_statistics.judging import holds, rank_all
from brainhive_cli.measurement.design import (
    Exchange,
    Timeline,
    describe_pictures,
    describe_trials,
)
from brainhive_cli.measurement.statistics import estimate_interval
from brainhive_cli.measurement.units import StimulusGrouping
from brainhive_cli.measurement.verdict import judge

AXES: Mapping[str, Sequence[Any]] = {
    "concepts": (2, 3, 5, 8),
    "pictures": (10, 50),
    "drift": (0.0, 1.0),
}
COLUMNS = (
    "coverage | false: picture | of its concept | concept | top-1 | "
    "found: picture | of its concept | concept"
)


def few_concepts(
    random: Random, concepts: int, pictures: int, drift: float
) -> list[float]:
    """Test intervals and verdicts on few concepts, without an effect and with one.

    With drift, the signals of a session share an offset unrelated to pictures, and
    three in four pictures of a concept were shown in its own session. The effect grows
    from the first concept to the last.
    """
    concept = np.repeat(np.arange(concepts), pictures)
    count = len(concept)
    concept_of = dict(enumerate(map(str, concept)))
    items = StimulusGrouping("concept", concept_of).make_items([range(count)])
    strength = np.linspace(0.5, 1.5, concepts)[concept]
    logits = 2 * strength - 2 + random.normal(size=count)
    interval = estimate_interval([draw_hits(random, logits[None])[0]], items)
    truth = np.mean([mean_hit(2 * value - 2, 1.0) for value in strength])
    session = np.where(np.arange(count) % 4 > 0, concept, (concept + 1) % concepts)
    centres = random.normal(size=(concepts, 20))[concept]
    features = centres + random.normal(size=(count, 20))
    offset = drift * random.normal(size=(concepts, 20))[session]
    noise = random.normal(size=(count, 20))
    response = 0.7 * (count / 20) ** 0.2 * strength[:, None] * features

    # pictures are shown once, in random order in their session
    shown = np.lexsort((random.random(count), session))
    zeros = np.zeros(count, np.int64)
    timeline = Timeline(
        stimulus=shown,
        unit=shown,
        person=zeros,
        session=session[shown],
        run=session[shown],
        is_ordered=True,
        features=features,
        concept=concept,
    )
    by_concept = timeline._replace(
        stimulus=concept[shown], features=None, concept=np.arange(concepts)
    )
    concept_design, units = describe_trials(by_concept, zeros)
    options: dict[str, Any] = {
        "exchange": Exchange(describe_pictures(timeline, zeros), [np.arange(count)]),
        "concept_exchange": Exchange(concept_design, [units]),
    }

    # verdicts without an effect and with one
    verdicts = []
    for signals in (offset + noise, response + offset + noise):
        ranks = rank_all(signals, features)
        answers = judge([ranks], items, range(count), concept_of, **options)
        verdicts.append([answer.side == "above chance" for answer in answers])
    top1 = float((ranks.diagonal() == 1).mean())
    return [holds(interval, truth)] + verdicts[0] + [top1] + verdicts[1]
