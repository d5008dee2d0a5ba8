"""Curves of calibration: the amounts from which on a level is reached, and controls that warn."""

from dataclasses import replace

import pytest

from brainhive_cli.core.measurements import Metric
from brainhive_cli.evaluation.calibration.curves import Metrics, check_controls, find_amounts
from brainhive_cli.training.alignment.few_shot import PERMUTED_SCRATCH, PERMUTED_TRANSFER, ZERO_SHOT

PLAIN = Metric("top1", 0.0, 100, 100, 0.01, None, None, (1,), "calibration", "test", "none")


def metrics(*values, reach=None):
    ends = [(None, None) if reach is None else (value - reach, value + reach) for value in values]
    return [
        replace(PLAIN, value=value, low=low, high=high)
        for value, (low, high) in zip(values, ends, strict=True)
    ]


@pytest.mark.parametrize(
    ("values", "reach", "expected"),
    [
        ((0.5, 0.8, 0.95, 1.0), 0.15, [2, 1, None]),
        ((0.5, 0.95, 1.1, 1.2), 0.1, [1, 1, 2]),
        ((0.5, 0.95, 0.8, 1.0), None, [3, 3, 3]),  # reached for good, not by luck at one amount
        ((0.9, 1.0), None, [0, 0, 0]),
        ((0.5, float("nan")), None, [None, None, None]),
    ],
)
def test_an_amount_suffices_from_where_all_later_ones_reach_the_level(values, reach, expected):
    assert find_amounts(metrics(*values, reach=reach), 0.9) == expected


def test_values_that_fall_to_a_level_reach_it_from_above():
    assert find_amounts(metrics(0.3, 0.1, 0.02, -0.1, reach=0.05), 0.0, -1) == [3, 2, 3]
    assert find_amounts(metrics(0.3, 0.2, reach=0.05), 0.0, -1) == [None, None, None]


def test_controls_warn_only_where_wrong_labels_help():
    def warnings(scratch, transfer):
        arms = {PERMUTED_SCRATCH: metrics(scratch, reach=0.01), PERMUTED_TRANSFER: metrics(transfer)}
        arms[ZERO_SHOT] = metrics(0.3)
        return check_controls(
            Metrics({arm: [{"top1": top1} for top1 in m] for arm, m in arms.items()}, [], {}, [])
        )

    assert warnings(0.015, 0.1) == []
    above, not_below = warnings(0.05, 0.31)
    assert above.startswith("permuted-scratch is above chance")
    assert not_below.startswith("permuted-transfer is not below zero-shot")
    assert check_controls(Metrics({ZERO_SHOT: [{"top1": PLAIN}]}, [], {}, [])) == []
