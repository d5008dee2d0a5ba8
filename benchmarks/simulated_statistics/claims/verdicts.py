"""A verdict keeps its level without an effect and under shared wrong labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.judging import LEVEL, answer, rank_all
from brainhive_cli.measurement.units import Items

AXES: Mapping[str, Sequence[Any]] = {
    "subjects": (1, 4, 10, 20),
    "pictures": (20, 200),
    "effect": (0.015, 0.05),
}
COLUMNS = "no effect | shared wrong labels | effect | permutation | t over items"


def verdicts(
    random: Random, subjects: int, pictures: int, effect: float
) -> list[float]:
    """Verdict: level without an effect and under wrong labels that all share; power
    beside two peers.

    The permutation is one of 1,000 of labels shared by all subjects, as an oracle would
    write it here; t is of the mean rank of items, against that of guesses.
    """
    features, wrong = random.normal(size=(pictures, 20)), random.permutation(pictures)
    noise = random.normal(size=(subjects, pictures, 20))
    items = Items.independent([range(pictures)] * subjects, "pictures")
    pure = [rank_all(each, features) for each in noise]
    clear = [rank_all(features + each, features)[:, wrong] for each in noise]
    weak = [rank_all(effect * features + each, features) for each in noise]
    mean, rows = np.mean(weak, 0), np.arange(pictures)
    null = [mean[rows, random.permutation(pictures)].mean() for _ in range(999)]
    permuted = (
        1 + sum(value <= mean.trace() / pictures + 1e-9 for value in null)
    ) / 1000
    own = mean.diagonal()
    p = 2 * t.sf(
        abs(own.mean() - (pictures + 1) / 2) / own.std(ddof=1) * pictures**0.5,
        pictures - 1,
    )
    called = [
        answer(ranked, items).side != "at chance" for ranked in (pure, clear, weak)
    ]
    return [*called, 2 * permuted <= LEVEL, p <= LEVEL]
