"""Tables whose rows average many simulations with the same arguments."""

from collections.abc import Sequence
from importlib import import_module
from itertools import product
from typing import Any

import numpy as np

from benchmarks.simulated_statistics.judging import holds

CLAIMS = (
    "intervals_over_people",
    "intervals_of_one_subject",
    "intervals_of_units",
    "intervals_of_shared_pools",
    "verdicts",
    "units_of_unequal_size",
    "units_of_one_subject",
    "few_concepts",
    "small_and_bounded",
    "films",
    "differences",
    "controls_of_films",
    "differences_near_a_limit",
    "best_of_many",
    "pooled_folds",
    "designs_of_pictures",
    "designs_of_classes",
    "random_orders",
    "ceilings_by_order",
    "ceilings_of_few_repetitions",
    "equal_learners",
    "folds_of_pictures",
    "calibration",
    "sufficient_amounts",
    "better_amounts",
    "unequal_categories",
    "several_categories",
    "live",
    "live_tests",
    "tests_along_a_course",
    "tests_of_many_profiles",
    "misfiled",
    "slopes",
    "onsets",
    "tests_of_shared_labels",
    "tests_of_alike_items",
    "intervals_of_profiles",
    "similarity",
    "encoding",
)
"""Files of `claims`, in the order in which their tables are printed."""


def print_table(name: str, count: int) -> None:
    """Print the table of a claim, whose rows average `count` simulations."""
    claim = import_module(f"benchmarks.simulated_statistics.claims.{name}")
    simulate = getattr(claim, name)
    axes = claim.AXES
    columns = claim.COLUMNS
    summary = (simulate.__doc__ or "").splitlines()[0]
    print(f"\n{summary} {count} simulations of each row\n")
    print(f"| {' | '.join(axes)} | {columns} |")
    print(f"|{'---|' * (len(axes) + columns.count('|') + 1)}")
    for number, values in enumerate(product(*axes.values())):
        random = np.random.default_rng(number)
        arguments = dict(zip(axes, values, strict=True))
        means = average([simulate(random, **arguments) for _ in range(count)])
        cells = [str(value) for value in values]
        for mean in means:
            cells.append("–" if np.isnan(mean) else f"{mean:.3f}")
        print(f"| {' | '.join(cells)} |", flush=True)


def average(results: Sequence[Sequence[Any]]) -> list[float]:
    """Average each column of the results over the simulations, ignoring NaN.

    A first column of metrics becomes three: the mean of their values, the share of
    their intervals that hold this mean, and the mean width.
    """
    columns: list[Any] = list(zip(*results, strict=True))
    if hasattr(columns[0][0], "low"):
        metrics = columns[0]
        truth = float(np.mean([metric.value for metric in metrics]))
        coverage = [holds(metric, truth) for metric in metrics]
        widths = [metric.high - metric.low for metric in metrics]
        columns[:1] = [[truth], coverage, widths]

    means = []
    for column in columns:
        values = np.array(column, np.float64)
        values = values[~np.isnan(values)]
        means.append(float(values.mean()) if len(values) else np.nan)
    return means
