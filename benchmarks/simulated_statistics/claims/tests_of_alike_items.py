"""Tests of margin and similarity keep their level where items are alike."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.alike_items import (
    CLIPS,
    EACH,
    draw_concepts,
    draw_film,
)
from benchmarks.simulated_statistics.corrected_profiles import (
    correct,
    is_significant,
    profile_margins,
)
from benchmarks.simulated_statistics.judging import LEVEL
from brainhive_cli.evaluation.explanation.profiles import Axis, Labels
from brainhive_cli.evaluation.explanation.similarity import (
    measure_similarity,
    rank_models,
)
from brainhive_cli.measurement.units import Items, StimulusGrouping

CONCEPT_OF = dict(enumerate(np.arange(200) // EACH))
"""Concept of each of 200 pictures."""
AXES: Mapping[str, Sequence[Any]] = {
    "items": ("1200 clips", "240 clips", f"200 pictures, {EACH} a concept"),
    "subjects": (1, 5),
}
COLUMNS = "margin: one by one | in units | similarity: one by one | in units"


def tests_of_alike_items(random: Random, items: str, subjects: int) -> list[float]:
    """Margin and similarity of signals and embeddings that have nothing to do with each
    other.
    """
    is_film, count = items.endswith("clips"), int(items.split()[0])
    draw: Any = draw_film if is_film else draw_concepts
    by = CLIPS if is_film else StimulusGrouping("concept", CONCEPT_OF)
    targets, seed, places = (
        draw(random, count, 16),
        int(random.integers(2**31)),
        np.arange(count),
    )
    signals = draw(random, count, 16) + draw(random, subjects, 5, count, 16)
    margins, similar = [], []
    for units in (Items.from_sizes([count]), by.make_items([range(count)])):
        labels = Labels.draw(places, units, 100, seed)
        margins.append(
            is_significant([profile_margins(each, targets, labels) for each in signals])
        )
        if count == 1200:  # 720,000 pairs of clips: too slow
            similar.append(np.nan)
            continue
        models, axis = rank_models({"model": targets}), Axis("ms", [0])
        parts, _ = measure_similarity(
            axis, [list(signals[:, 0])], models, units, 100, seed
        )
        rhos = [part.profiles["similarity · model:rho"] for part in parts]
        mean = np.mean([rho.values.mean(1) for rho in rhos], 0)
        similar.append(correct(mean, rhos[0].null).min() < LEVEL)
    return [*margins, *similar]
