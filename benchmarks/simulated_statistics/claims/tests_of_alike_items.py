"""Tests of margin and similarity keep their level where items are alike."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.alike_items import (
    CLIPS,
    PICTURES_PER_CONCEPT,
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

CONCEPT_OF = dict(enumerate(np.arange(200) // PICTURES_PER_CONCEPT))
"""Concept of each of 200 pictures."""
AXES: Mapping[str, Sequence[Any]] = {
    "items": (
        "1200 clips",
        "240 clips",
        f"200 pictures, {PICTURES_PER_CONCEPT} a concept",
    ),
    "subjects": (1, 5),
}
COLUMNS = "margin: one by one | in units | similarity: one by one | in units"


def tests_of_alike_items(random: Random, items: str, subjects: int) -> list[float]:
    """Test margin and similarity of signals that are unrelated to the embeddings."""
    is_film = items.endswith("clips")
    count = int(items.split()[0])
    draw: Any = draw_film if is_film else draw_concepts
    grouping = CLIPS if is_film else StimulusGrouping("concept", CONCEPT_OF)
    targets = draw(random, count, 16)
    seed = int(random.integers(2**31))
    signals = draw(random, count, 16) + draw(random, subjects, 5, count, 16)
    models = rank_models({"model": targets})
    margin_rejections = []
    similarity_rejections = []
    for units in (Items.from_sizes([count]), grouping.make_items([range(count)])):
        labels = Labels.draw(np.arange(count), units, 100, seed)
        profiles = [profile_margins(subject, targets, labels) for subject in signals]
        margin_rejections.append(is_significant(profiles))
        if count == 1200:  # too slow for 720,000 pairs of clips
            similarity_rejections.append(np.nan)
            continue
        parts, _ = measure_similarity(
            Axis("ms", [0]), [list(signals[:, 0])], models, units, 100, seed
        )
        rhos = [part.profiles["similarity · model:rho"] for part in parts]
        mean = np.mean([rho.values.mean(1) for rho in rhos], 0)
        similarity_rejections.append(correct(mean, rhos[0].null).min() < LEVEL)
    return margin_rejections + similarity_rejections
