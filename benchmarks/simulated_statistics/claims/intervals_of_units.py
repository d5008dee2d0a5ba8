"""Intervals over units hold where the items of a unit are alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random, Values
from benchmarks.simulated_statistics.alike_items import CLIPS, draw_concepts, draw_film
from benchmarks.simulated_statistics.hits import ITEM_SD, draw_hits, mean_hit
from benchmarks.simulated_statistics.judging import holds
from brainhive_cli.measurement.statistics import estimate_interval
from brainhive_cli.measurement.units import Items, StimulusGrouping

UNITS = [f"1200 clips, neighbours correlate {near}" for near in (0.0, 0.6, 0.9)]
UNITS += [
    f"{concepts} concepts of {pictures} pictures"
    for concepts in (40, 200)
    for pictures in (5, 10)
]
AXES: Mapping[str, Sequence[Any]] = {
    "items": UNITS,
    "subjects": (1, 10),
    "centre": (0.0, -2.0),
}
COLUMNS = "mean hit | over units | over items"


def intervals_of_units(
    random: Random, items: str, subjects: int, centre: float
) -> list[float]:
    """Intervals of items that are alike, over units and over single items."""
    (units, sd, draw), between = alike_items(items), 0.3 if subjects > 1 else 0.0
    truth = mean_hit(centre, float(np.hypot(sd, between)))
    grouped = Items(
        list(units.ids) * subjects, list(units.units) * subjects, units.kind
    )
    drawn = draw_hits(
        random, centre + random.normal(0, between, (subjects, 1)) + draw(random)
    )
    return [
        truth,
        *(holds(estimate_interval(list(drawn), how), truth) for how in (grouped, None)),
    ]


def alike_items(items: str) -> tuple[Items, float, Callable[[Random], Values]]:
    """Read the name of items that are alike: a subject's items, sd of a logit, how
    logits are drawn.
    """
    words = items.split()
    if words[1] == "clips,":
        near = float(words[-1])

        def film_logits(random: Random) -> Values:
            return ITEM_SD * draw_film(random, 5, 240, 1, near=near).reshape(1, -1)

        return CLIPS.make_items([list(range(1200))]), ITEM_SD, film_logits
    concepts, pictures = int(words[0]), int(words[3])
    settings: Any = {"pictures": pictures, "by_picture": 1 / ITEM_SD}
    concept_of = dict(enumerate(np.repeat(np.arange(concepts), pictures).tolist()))
    by = StimulusGrouping("concept", concept_of).make_items(
        [list(range(len(concept_of)))]
    )

    def logits(random: Random) -> Values:
        return ITEM_SD * draw_concepts(random, len(concept_of), 1, **settings).T

    return by, float(np.hypot(ITEM_SD, 1)), logits
