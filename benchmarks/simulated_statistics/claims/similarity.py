"""A test of similarity keeps its level, and its interval holds."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.corrected_profiles import correct
from benchmarks.simulated_statistics.judging import LEVEL, MEASURE_OPTIONS
from brainhive_cli.evaluation.explanation.profiles import Axis
from brainhive_cli.evaluation.explanation.similarity import (
    measure_similarity,
    rank_models,
)
from brainhive_cli.measurement.statistics import measure_positions
from brainhive_cli.measurement.units import Items

AXES: Mapping[str, Sequence[Any]] = {"strength": (0.0, 0.5, 1.0)}
COLUMNS = "mean rho | coverage | width | any of 5 times at corrected p < .05"


def similarity(random: Random, strength: float) -> Any:
    """Test similarity at 5 times, around the mean of all simulations."""
    features = random.normal(size=(40, 12))
    mixing = random.normal(size=(12, 17))
    noise = random.normal(size=(40, 17, 5))
    signals = strength * (features @ mixing)[..., None] / 3 + noise
    positions = ([signals[..., time]] for time in range(5))
    models = rank_models({"model": features})
    parts, _ = measure_similarity(
        Axis("ms", range(5)), positions, models, Items.from_sizes([40]), 200
    )
    profile = parts[0].profiles["similarity · model:rho"]
    rho = measure_positions("rho", [profile.values[:1]], **MEASURE_OPTIONS)[0]
    return rho, correct(profile.values.mean(1), profile.null).min() < LEVEL
