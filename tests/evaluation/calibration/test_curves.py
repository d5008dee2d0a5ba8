"""Curves of calibration: the arm of the finding, shares, the amount that suffices, controls that warn."""

from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.core.measurements import Metric
from brainhive_cli.evaluation.calibration.curves import (
    check_controls,
    measure_shares,
)
from brainhive_cli.measurement.units import Items
from brainhive_cli.training.alignment.few_shot import (
    ZERO_SHOT,
)

PLAIN = Metric("top1", 0.0, 100, 100, 0.01, None, None, (1,), "calibration", "test", "none")


@pytest.mark.parametrize(("low", "has_shares"), [(0.02, True), (0.005, False)])
def test_shares_are_stated_only_of_a_score_that_is_above_chance(low, has_shares):
    random = np.random.default_rng(0)
    rates = {"10 pictures": 0.2, "40 pictures": 0.8, "everything": 0.8}
    hits = {name: [1.0 * (random.random(100) < rate) for _ in range(3)] for name, rate in rates.items()}
    whole = replace(PLAIN, value=0.8, low=low, high=0.9)

    scopes, facts = measure_shares(hits, whole, Items.unnamed([100] * 3))

    assert facts.get("is_above_chance", False) is bool(scopes) is has_shares
    if has_shares:
        assert [*scopes] == [f"share_of_everything · {name}" for name in rates]
        assert scopes["share_of_everything · 10 pictures"]["share_of_everything"].value < 0.5
        assert facts["suffices"][0] == 1 and facts["lead"] == "40 pictures"


def metrics(*values, reach=None):
    ends = [(None, None) if reach is None else (value - reach, value + reach) for value in values]
    return [
        replace(PLAIN, value=value, low=low, high=high)
        for value, (low, high) in zip(values, ends, strict=True)
    ]


def test_controls_warn_only_where_wrong_labels_help():
    def warnings(scratch, transfer):
        scratch, transfer, zero_shot = *metrics(scratch, reach=0.01), *metrics(transfer), *metrics(0.3)
        scopes = {"permuted-scratch · everything": scratch, "permuted-transfer · everything": transfer}
        return check_controls(
            {name: {"top1": top1} for name, top1 in (scopes | {ZERO_SHOT: zero_shot}).items()}
        )

    assert warnings(0.015, 0.1) == []
    above, not_below = warnings(0.05, 0.31)
    assert above.startswith("permuted-scratch is above chance")
    assert not_below.startswith("permuted-transfer is not below zero-shot")
    assert check_controls({ZERO_SHOT: {"top1": PLAIN}}) == []
