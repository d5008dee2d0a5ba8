"""Verdicts on many trials, and on the pictures of several models."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from growth import Case, Task

from brainhive_cli.measurement import verdict
from brainhive_cli.measurement.units import Items
from brainhive_cli.measurement.verdict import judge


def prepare_trials(count: int, folder: Path) -> Task:
    """Make the ranks of 200 categories by single trials, for one verdict."""
    random = np.random.default_rng(0)
    ranks = random.integers(1, 201, (count, 200)).astype(np.uint16)
    label_of = dict(enumerate(random.integers(0, 200, count).tolist()))
    items = Items.independent([range(count)], "trials")
    data_bytes = 2 * count * verdict.MAX_PERMUTATIONS  # the permutations

    return Task(
        lambda: judge([ranks], items, range(200), label_of=label_of),
        data_bytes=data_bytes + ranks.nbytes,
    )


def prepare_verdicts(count: int, folder: Path) -> Task:
    """Make the ranks of pictures by their signals, for the verdicts of ten models."""
    ranks = np.random.default_rng(0).permuted(
        np.tile(np.arange(1, count + 1), (count, 1)), axis=1
    )

    def judge_models() -> None:
        for _ in range(10):
            items = Items.independent([range(count)], "pictures")
            judge([ranks], items, range(count))

    return Task(judge_models, data_bytes=ranks.nbytes)


def prepare_people(count: int, folder: Path) -> Task:
    """Make the ranks of 100 pictures by the signals of several people."""
    random = np.random.default_rng(0)
    ranks = [
        random.permuted(np.tile(np.arange(1, 101), (100, 1)), axis=1)
        for _ in range(count)
    ]
    items = Items.independent([range(100)] * count, "pictures")
    return Task(
        lambda: judge(ranks, items, range(100)),
        data_bytes=sum(matrix.nbytes for matrix in ranks),
    )


CASES: Mapping[str, Case] = {
    "judge_trials": Case("verdict on trials of 200 categories", 40_000, prepare_trials),
    "verdict_people": Case("verdict on MOSAIC's 93 people", 93, prepare_people),
    "verdict": Case("verdicts on the pictures of ten models", 1000, prepare_verdicts),
}
