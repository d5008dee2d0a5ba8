"""Intervals of runs hold for these subjects where subjects share no run."""

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
    """Test intervals for these subjects, of hits and of normal values.

    A design is the number of people, and of runs of each. Runs of 40 trials vary by .7
    in logits and in values, people by .3.
    """
    people, runs = design
    person_effect = random.normal(0, 0.3, (people, 1, 1))
    run_effect = random.normal(0, 0.7, (people, runs, 1))
    group_of = {}
    ids = []
    for person in range(people):
        trials = [(person, trial) for trial in range(40 * runs)]
        ids.append(trials)
        for _, trial in trials:
            group_of[person, trial] = f"{person} {trial % runs}"
    items = StimulusGrouping(group_of=group_of, group_kind="runs").make_items(ids)
    logits = (centre + person_effect + run_effect).transpose(0, 2, 1)
    logits = np.broadcast_to(logits, (people, 40, runs))
    hits = draw_hits(random, logits)
    values = logits - centre + random.normal(size=logits.shape)
    hit_rates = [mean_hit(centre + effect, 0.7) for effect in person_effect.ravel()]
    results = []
    for scores, truth in ((hits, np.mean(hit_rates)), (values, person_effect.mean())):
        interval = estimate_interval(list(scores.reshape(people, -1)), items)
        low, high = interval.these_subjects or (interval.low, interval.high)
        results += [low <= truth <= high, high - low]
    return results
