"""The interval of a profile over clips holds for these subjects."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.alike_items import CLIPS, draw_film
from benchmarks.simulated_statistics.judging import HOW
from brainhive_cli.measurement.statistics import measure_positions
from brainhive_cli.measurement.units import Items

AXES: Mapping[str, Sequence[Any]] = {"clips": (240, 1200), "subjects": (1, 5)}
COLUMNS = "over clips | over blocks"


def intervals_of_profiles(random: Random, clips: int, subjects: int) -> list[float]:
    """The interval, for these subjects, of a profile over clips, whose mean is 0."""
    shared, held = draw_film(random, clips, 1)[:, 0], []
    # [1, N] each
    values = [shared + draw_film(random, clips, 1).T for _ in range(subjects)]
    for units in (Items.from_sizes([clips]), CLIPS.make_items([range(clips)])):
        items = replace(
            units, ids=[*units.ids] * subjects, units=[*units.units] * subjects
        )
        (metric,) = measure_positions("margin", values, items=items, **HOW)
        low, high = metric.these_subjects or (metric.low, metric.high)
        held.append(np.nan if low is None else low <= 0 <= high)
    return held
