"""Tables of simulations, averaged over many with the same arguments."""

from collections.abc import Sequence
from functools import partial
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
    "verdicts_under_drift",
    "sorted_pictures",
    "ceilings_by_order",
    "equal_learners",
    "folds_of_pictures",
    "calibration",
    "sufficient_amounts",
    "better_amounts",
    "unequal_categories",
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
    """Print the table of a claim, each row averaged over so many simulations."""
    claim = import_module(f"benchmarks.simulated_statistics.claims.{name}")
    simulate, axes, columns = getattr(claim, name), claim.AXES, claim.COLUMNS
    print(
        "\n"
        f"{(simulate.__doc__ or '').splitlines()[0]} {count} simulations of "
        "each row\n"
    )
    print(
        f"| {' | '.join(axes)} | {columns} |\n"
        f"|{'---|' * (len(axes) + columns.count('|') + 1)}"
    )
    for number, values in enumerate(product(*axes.values())):
        random = np.random.default_rng(number)
        work = partial(simulate, random, **dict(zip(axes, values, strict=True)))
        shares = average([work() for _ in range(count)])
        cells = ["–" if np.isnan(share) else f"{share:.3f}" for share in shares]
        print(f"| {' | '.join([*map(str, values), *cells])} |", flush=True)


def average(results: Sequence[Sequence[Any]]) -> list[float]:
    """Average results; of metrics give the mean, and how often their intervals hold
    it.
    """
    columns: list[Any] = [*zip(*results, strict=True)]
    if hasattr(columns[0][0], "low"):
        truth = float(np.mean([metric.value for metric in columns[0]]))
        widths = [metric.high - metric.low for metric in columns[0]]
        columns[:1] = [[truth], [holds(metric, truth) for metric in columns[0]], widths]
    # what was not measured has no mean
    means = []
    for column in columns:
        values = np.array(column, np.float64)
        measured = values[~np.isnan(values)]
        means.append(float(measured.mean()) if len(measured) else np.nan)
    return means
