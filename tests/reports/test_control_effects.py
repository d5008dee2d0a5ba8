"""What controls cost each head, from what eval-retrieval measured."""

import pytest

from brainhive_cli.core.measurements import Measurements, Metric
from brainhive_cli.reports.tables import SHUFFLED, control_effects, effects_table


def top1(value: float) -> dict[str, Metric]:
    ends = (value - 0.1, value + 0.1)
    return {"top1": Metric("top1", value, 200, 100, 0.01, *ends, (1,), "", "test", "")}


def pair(first: str, second: str, difference: float) -> dict[str, object]:
    ends = {"low": difference - 0.05, "high": difference + 0.05}
    return {"pair": (first, second), "difference": difference, **ends}


@pytest.fixture
def effects() -> list[dict[str, object]]:
    pairs = [pair("none", "swapped", 0.3), pair("none", "random", 0.2), pair("swapped", "random", -0.1)]
    values = {"none · all": top1(0.6), "swapped · all": top1(0.3), "random · all": top1(0.4)}
    drawn = {"top1": {"measured": 0.6, "mean": 0.01, "low": 0.0, "high": 0.03, "p": 0.001}}
    shuffled = Measurements(notes={"control": {"metrics": drawn}})
    return control_effects(
        {"latent": Measurements(values, notes={"comparisons": pairs})}, {"latent": shuffled}
    )


def test_each_control_is_compared_with_none_and_controls_are_not_compared(effects) -> None:
    assert [(each["control"], each["top1"]) for each in effects] == [
        ("none", 0.6),
        ("swapped", 0.3),
        ("random", 0.4),
        (SHUFFLED, 0.01),
    ]
    assert [each["loss"] for each in effects] == pytest.approx([0.0, 0.3, 0.2, 0.59])
    assert (effects[1]["low"], effects[1]["high"]) == pytest.approx((0.25, 0.35))


def test_the_interval_of_shuffled_trials_is_that_of_draws(effects) -> None:
    assert (effects[-1]["low"], effects[-1]["high"]) == pytest.approx((0.57, 0.6))


def test_the_table_has_a_row_for_each_and_marks_the_interval_that_is_not_of_a_loss(effects) -> None:
    table = effects_table(effects, "title")
    assert [row[1] for row in table.rows] == ["none", "swapped", "random", SHUFFLED]
    assert table.rows[0][3:] == ("–", "0.500–0.700 (top-1)")
    assert table.rows[1][3:] == ("0.300", "0.250–0.350")
    assert table.columns == ("head", "control", "top-1", "loss", "95 % CI")
