"""Intervals over units hold where the items of a unit are alike."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random, Values
from benchmarks.simulated_statistics.alike_items import CLIPS, draw_concepts, draw_film
from benchmarks.simulated_statistics.hits import ITEM_SD, draw_hits, mean_hit
from benchmarks.simulated_statistics.judging import holds
from brainhive_cli.measurement.statistics import estimate_interval
from brainhive_cli.measurement.units import Items, StimulusGrouping

UNITS = (
    "1200 clips, neighbours correlate 0.0",
    "1200 clips, neighbours correlate 0.6",
    "1200 clips, neighbours correlate 0.9",
    "40 concepts of 5 pictures",
    "40 concepts of 10 pictures",
    "200 concepts of 5 pictures",
    "200 concepts of 10 pictures",
)
AXES: Mapping[str, Sequence[Any]] = {
    "items": UNITS,
    "subjects": (1, 10),
    "centre": (0.0, -2.0),
}
COLUMNS = "mean hit | over units | over items"


def intervals_of_units(
    random: Random, items: str, subjects: int, centre: float
) -> list[float]:
    """Test intervals of items that are alike, over units and over single items."""
    subject_sd = 0.3 if subjects > 1 else 0.0
    subject_effect = random.normal(0, subject_sd, (subjects, 1))
    units, sd, item_logits = draw_alike_items(random, items)
    truth = mean_hit(centre, float(np.hypot(sd, subject_sd)))
    hits = draw_hits(random, centre + subject_effect + item_logits)
    grouped = Items(
        list(units.ids) * subjects, list(units.units) * subjects, units.kind
    )
    over_units = estimate_interval(list(hits), grouped)
    over_items = estimate_interval(list(hits), None)
    return [truth, holds(over_units, truth), holds(over_items, truth)]


def draw_alike_items(random: Random, name: str) -> tuple[Items, float, Values]:
    """Draw items that are alike, by a name from `UNITS`.

    Returns:
        The items of a subject, the standard deviation of their logits, and their logits
        [1, N].
    """
    words = name.split()
    if words[1] == "clips,":
        features = draw_film(random, 5, 240, 1, correlation=float(words[-1]))
        logits = ITEM_SD * features.reshape(1, -1)
        return CLIPS.make_items([list(range(1200))]), ITEM_SD, logits

    n_concepts = int(words[0])
    n_pictures = int(words[3])
    concepts = np.repeat(np.arange(n_concepts), n_pictures).tolist()
    grouping = StimulusGrouping("concept", dict(enumerate(concepts)))
    items = grouping.make_items([list(range(len(concepts)))])
    features = draw_concepts(
        random, len(concepts), 1, pictures=n_pictures, picture_sd=1 / ITEM_SD
    )
    return items, float(np.hypot(ITEM_SD, 1)), ITEM_SD * features.T
