"""The interval of the reliability holds for few repetitions of few pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.simulated_statistics import Random
from brainhive_cli.evaluation.retrieval.measure import measure_ceiling
from brainhive_cli.measurement.statistics import measure

FEATURES = 48
AXES: Mapping[str, Sequence[Any]] = {
    "pictures": (10, 30, 100, 200),
    "repetitions": (2, 3, 4, 8),
    "effect": (0.3, 1.0),
    "features": ("equal", "from none to twice"),
}
COLUMNS = "coverage | bias | width"


def ceilings_of_few_repetitions(
    random: Random, pictures: int, repetitions: int, effect: float, features: str
) -> list[float]:
    """Measure the reliability of features that carry equal or unequal effects."""
    gains = np.full(FEATURES, effect)
    if features != "equal":
        gains *= np.linspace(0, 2, FEATURES)
    truth = (gains**2 / (gains**2 + 1 / repetitions)).mean()
    signals = gains * random.normal(size=(pictures, 1, FEATURES))
    signals = signals + random.normal(size=(pictures, repetitions, FEATURES))

    ceiling = measure_ceiling(
        torch.from_numpy(signals),
        torch.full((pictures,), repetitions),
        [str(number) for number in range(pictures)],
        splits=5,
        seed=0,
        parts=torch.arange(repetitions).expand(pictures, -1),
    )
    found = measure(
        "reliability",
        [ceiling.values["reliability"]],
        protocol="",
        split="test",
        limits=(-1.0, 1.0),
        is_share=False,
    )
    assert found.low is not None and found.high is not None
    is_covered = found.low <= truth <= found.high
    return [float(is_covered), found.value - truth, found.high - found.low]
