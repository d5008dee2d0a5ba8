"""Curves of calibration: the amounts from which on a level is reached, and controls that warn."""

from dataclasses import replace

import pytest

from brainhive_cli.core.measurements import Metric
from brainhive_cli.evaluation.calibration.curves import check_controls, find_range
from brainhive_cli.training.alignment.few_shot import PERMUTED_SCRATCH, PERMUTED_TRANSFER, ZERO_SHOT

PLAIN = Metric("top1", 0.0, 100, 100, 0.01, None, None, (1,), "calibration", "test", "none")


def metrics(*values, reach=None):
    ends = [(None, None) if reach is None else (value - reach, value + reach) for value in values]
    return [
        replace(PLAIN, value=value, low=low, high=high)
        for value, (low, high) in zip(values, ends, strict=True)
    ]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([(-0.6, -0.2), (-0.3, 0.1), (0.1, 0.3)], (1, 2)),
        ([(-0.6, -0.2), (0.0, 0.1), (-0.3, -0.1), (0.1, 0.2)], (3, 3)),  # for good, not by luck at one amount
        ([(-0.6, -0.2), (None, None), (0.1, 0.3)], (1, 2)),  # no interval is an unlimited one, not the value
        ([(None, None), (None, None)], (0, 2)),
        ([(-0.6, -0.2), (float("nan"), float("nan"))], (1, 2)),
    ],
)
def test_a_level_is_reached_between_amounts_whose_intervals_exclude_it(ends, expected):
    assert find_range(ends) == expected


def test_controls_warn_only_where_wrong_labels_help():
    def warnings(scratch, transfer):
        arms = {PERMUTED_SCRATCH: metrics(scratch, reach=0.01), PERMUTED_TRANSFER: metrics(transfer)}
        arms[ZERO_SHOT] = metrics(0.3)
        return check_controls({arm: [{"top1": top1} for top1 in m] for arm, m in arms.items()})

    assert warnings(0.015, 0.1) == []
    above, not_below = warnings(0.05, 0.31)
    assert above.startswith("permuted-scratch is above chance")
    assert not_below.startswith("permuted-transfer is not below zero-shot")
    assert check_controls({ZERO_SHOT: [{"top1": PLAIN}]}) == []
