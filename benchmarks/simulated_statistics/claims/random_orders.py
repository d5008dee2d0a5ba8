"""Random orders of trials tell nothing about labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from brainhive_cli.measurement.design import (
    Timeline,
    describe_pictures,
    describe_trials,
)

AXES: Mapping[str, Sequence[Any]] = {
    "units": ("10 pictures", "40 pictures", "200 pictures", "2 classes", "8 classes"),
    "people": (1, 10),
}
COLUMNS = "design tells | odds differ | labels that change, of free orders"


def random_orders(random: Random, units: str, people: int) -> list[float]:
    """Draw random orders, in which pictures of six kinds or classes are mixed."""
    number, _, noun = units.partition(" ")
    count = int(number)
    if noun == "pictures":
        is_tested = np.arange(count + 50) < count
        line = np.concatenate(
            [np.repeat(np.arange(count), 4), np.arange(count, count + 50)]
        )
        runs = 2
    else:
        is_tested = np.ones(count, bool)
        line = np.tile(np.arange(count), 8)
        runs = 6
    stimulus = []
    for _ in range(people):
        if noun == "pictures":
            stimulus.append(random.permutation(line))
        else:
            stimulus += [random.permutation(line) for _ in range(runs)]
    shown = np.concatenate(stimulus)
    person = np.arange(len(shown)) * people // len(shown)
    run = np.arange(len(shown)) * people * runs // len(shown)
    kind = random.integers(6, size=len(is_tested))
    features = 2 * random.normal(size=(6, 8))[kind] + random.normal(size=(len(kind), 8))
    if noun == "pictures":
        unit = np.where(is_tested[shown], shown, -1)
        timeline = Timeline(
            shown, unit, person, person, run, True, features, np.arange(len(kind))
        )
        design = describe_pictures(timeline, np.zeros(count, np.int64))
    else:
        unit = np.arange(len(shown))
        timeline = Timeline(
            shown, unit, person, person, run, True, None, np.arange(count)
        )
        design, _ = describe_trials(timeline, 0 * unit)
    free = type(design).free(design.label, design.stratum)
    return [
        design.tells,
        bool(design.telling),
        design.n_changed / free.n_changed if free.n_changed else np.nan,
    ]
