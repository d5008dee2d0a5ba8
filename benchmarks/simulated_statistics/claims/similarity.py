"""A test of similarity keeps its level, and its interval holds."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.corrected_profiles import correct
from benchmarks.simulated_statistics.judging import HOW, LEVEL
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
    """Similarity at 5 times, and the interval of one subject around the mean of all
    simulations.
    """
    features, mixing = random.normal(size=(40, 12)), random.normal(size=(12, 17))
    signals = strength * (features @ mixing)[..., None] / 3 + random.normal(
        size=(40, 17, 5)
    )
    places = ([signals[..., t]] for t in range(5))
    models, axis = rank_models({"model": features}), Axis("ms", range(5))
    (part,), _ = measure_similarity(axis, places, models, Items.from_sizes([40]), 200)
    profile = part.profiles["similarity · model:rho"]
    rho = measure_positions("rho", [profile.values[:1]], **HOW)
    return *rho, correct(profile.values.mean(1), profile.null).min() < LEVEL
