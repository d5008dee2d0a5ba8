"""The interval of a profile over clips holds for these subjects."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.alike_items import CLIPS, draw_film
from benchmarks.simulated_statistics.judging import MEASURE_OPTIONS
from brainhive_cli.measurement.statistics import measure_positions
from brainhive_cli.measurement.units import Items

AXES: Mapping[str, Sequence[Any]] = {"clips": (240, 1200), "subjects": (1, 5)}
COLUMNS = "over clips | over blocks"


def intervals_of_profiles(random: Random, clips: int, subjects: int) -> list[float]:
    """Test the interval, for these subjects, of a profile with mean 0 over clips."""
    shared = draw_film(random, clips, 1)[:, 0]
    profiles = [shared + draw_film(random, clips, 1).T for _ in range(subjects)]
    coverage = []
    for units in (Items.from_sizes([clips]), CLIPS.make_items([range(clips)])):
        items = replace(
            units,
            ids=list(units.ids) * subjects,
            units=list(units.units) * subjects,
        )
        metrics = measure_positions("margin", profiles, items=items, **MEASURE_OPTIONS)
        metric = metrics[0]
        low, high = metric.these_subjects or (metric.low, metric.high)
        coverage.append(np.nan if low is None else low <= 0 <= high)
    return coverage
