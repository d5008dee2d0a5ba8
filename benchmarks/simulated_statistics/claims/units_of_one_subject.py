"""Intervals of runs hold for these subjects where each run is of one subject."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.hits import draw_hits, mean_hit
from brainhive_cli.measurement.statistics import estimate_interval
from brainhive_cli.measurement.units import StimulusGrouping

AXES: Mapping[str, Sequence[Any]] = {
    "design": ((2, 5), (4, 3), (5, 2), (6, 2), (8, 2), (8, 5)),
    "centre": (0.0, -2.0),
}
COLUMNS = "coverage of hits | width | of values | width"


def units_of_one_subject(
    random: Random, design: tuple[int, int], centre: float
) -> list[float]:
    """Runs of one subject each: coverage and width for these subjects, of hits and of
    normal values.

    A design is people, and runs of each. Runs of 40 trials vary by .7 in logits and in
    values, people by .3.
    """
    people, runs = design
    person, run = (
        random.normal(0, 0.3, (people, 1, 1)),
        random.normal(0, 0.7, (people, runs, 1)),
    )
    group_of = {
        (row, trial): f"{row} {trial % runs}"
        for row in range(people)
        for trial in range(40 * runs)
    }
    ids = [[(row, trial) for trial in range(40 * runs)] for row in range(people)]
    items = StimulusGrouping(group_of=group_of, group_kind="runs").make_items(ids)
    logits = np.broadcast_to(
        (centre + person + run).transpose(0, 2, 1), (people, 40, runs)
    )
    values = [
        draw_hits(random, logits),
        logits - centre + random.normal(size=logits.shape),
    ]
    truths = [
        np.mean([mean_hit(centre + each, 0.7) for each in person.ravel()]),
        person.mean(),
    ]
    results = []
    for drawn, truth in zip(values, truths, strict=True):
        interval = estimate_interval(list(drawn.reshape(people, -1)), items)
        low, high = interval.these_subjects or (interval.low, interval.high)
        results += [low <= truth <= high, high - low]
    return results
