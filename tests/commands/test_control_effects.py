"""What controls cost each head, from what eval-retrieval measured."""

import pytest

from brainhive_cli.commands.demo import SHUFFLED_TRIALS, control_effects
from brainhive_cli.core.facts import Control, ControlMetric, Difference, RetrievalFacts
from brainhive_cli.core.measurements import Measurements, Metric


def top1(value: float) -> dict[str, Metric]:
    ends = (value - 0.1, value + 0.1)
    return {"top1": Metric("top1", value, 200, 100, 0.01, *ends, (1,), "", "test", "")}


def pair(first: str, second: str, difference: float) -> Difference:
    numbers = {"difference": difference, "low": difference - 0.05, "high": difference + 0.05, "n": 200}
    test = {"interval": "", "subjects": 1, "p_value": 0.01, "test": "", "least_p": 0.01, "cohens_dz": None}
    return Difference(first=first, second=second, metric="top1", **numbers, **test)


@pytest.fixture
def effects() -> list[Difference]:
    pairs = [pair("none", "swapped", 0.3), pair("none", "random", 0.2), pair("swapped", "random", -0.1)]
    values = {"none · all": top1(0.6), "swapped · all": top1(0.3), "random · all": top1(0.4)}
    drawn = ControlMetric(measured=0.6, mean=0.01, low=0.0, high=0.03, p=0.001)
    control = Control(kind="shuffled", draws=1000, n=200, pool=100, metrics={"top1": drawn})
    swept, shuffled = RetrievalFacts(comparisons=pairs), RetrievalFacts(control=control)
    return control_effects(
        {"latent": Measurements(values, facts=swept)}, {"latent": Measurements(facts=shuffled)}
    )


def test_each_control_is_compared_with_none_and_controls_are_not_compared(effects) -> None:
    assert [(each.first, each.second) for each in effects] == [
        ("latent", "swapped"),
        ("latent", "random"),
        ("latent", SHUFFLED_TRIALS),
    ]
    assert [each.difference for each in effects] == pytest.approx([0.3, 0.2, 0.59])
    assert (effects[0].low, effects[0].high) == pytest.approx((0.25, 0.35))


def test_the_interval_of_shuffled_trials_is_that_of_draws(effects) -> None:
    assert (effects[-1].low, effects[-1].high) == pytest.approx((0.57, 0.6))
    assert effects[-1].p == 0.001
