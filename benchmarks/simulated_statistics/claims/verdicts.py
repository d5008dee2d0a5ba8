"""A verdict keeps its level without an effect and under shared wrong labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.judging import LEVEL, judge_items, rank_all
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
    """Test the level and the power of a verdict, beside two other tests.

    An oracle permutes labels 999 times, in the same way for all subjects. A t test
    compares the mean rank of items with guesses.
    """
    features = random.normal(size=(pictures, 20))
    wrong_labels = random.permutation(pictures)
    noise = random.normal(size=(subjects, pictures, 20))
    items = Items.independent([range(pictures)] * subjects, "pictures")
    null_ranks = []
    mislabelled_ranks = []
    effect_ranks = []
    for subject_noise in noise:
        null_ranks.append(rank_all(subject_noise, features))
        clear_ranks = rank_all(features + subject_noise, features)
        mislabelled_ranks.append(clear_ranks[:, wrong_labels])
        effect_ranks.append(rank_all(effect * features + subject_noise, features))

    # the oracle
    mean = np.mean(effect_ranks, 0)
    limit = mean.trace() / pictures + 1e-9
    rows = np.arange(pictures)
    n_lower = 0
    for _ in range(999):
        n_lower += mean[rows, random.permutation(pictures)].mean() <= limit
    oracle_p = (1 + n_lower) / 1000

    # the t test
    target_ranks = mean.diagonal()
    difference = abs(target_ranks.mean() - (pictures + 1) / 2)
    t_value = difference / target_ranks.std(ddof=1) * pictures**0.5
    p_value = 2 * t.sf(t_value, pictures - 1)

    results = []
    for ranks in (null_ranks, mislabelled_ranks, effect_ranks):
        results.append(judge_items(ranks, items).side != "at chance")
    return results + [2 * oracle_p <= LEVEL, p_value <= LEVEL]
