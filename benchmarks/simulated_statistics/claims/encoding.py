"""A test of the encoding model keeps its level, and its interval holds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.corrected_profiles import correct
from benchmarks.simulated_statistics.judging import LEVEL, MEASURE_OPTIONS
from brainhive_cli.evaluation.explanation.encoding_model import (
    predict_signals,
    profile_correlation,
)
from brainhive_cli.evaluation.explanation.profiles import Axis, Labels
from brainhive_cli.measurement.statistics import measure_positions
from brainhive_cli.measurement.units import Items

AXES: Mapping[str, Sequence[Any]] = {"strength": (0.0, 0.3)}
COLUMNS = "mean r | coverage | width | any of 6 times at corrected p < .05"


def encoding(random: Random, strength: float) -> Any:
    """Test the encoding model at 6 times, around the mean of all simulations."""
    weights = np.random.default_rng(3).normal(size=(8, 18)) / 8**0.5
    all_features = [random.normal(size=(size, 16)) for size in (150, 40)]
    all_signals = []
    levels = []
    for features in all_features:
        noise = random.normal(size=(len(features), 18))
        all_signals.append(strength * features[:, :8] @ weights + noise)
        tensor = torch.from_numpy(features).float()
        levels.append({"a": tensor[:, :8], "b": tensor[:, 8:]})
    train, test = all_signals
    train_signals = torch.from_numpy(train).float()
    permutations = (np.roll(np.arange(150), 75), np.roll(np.arange(40), 20))
    predicted, _ = predict_signals(
        *levels, lambda: iter([train_signals]), (3, 6), permutations, 8
    )
    times = [np.s_[..., [time]] for time in range(6)]
    seed = int(random.integers(2**31))
    labels = Labels.draw(np.arange(40), Items.from_sizes([40]), 200, seed)
    profile = profile_correlation(
        predicted, test.reshape(-1, 3, 6), Axis("ms", range(6)), times, labels
    )
    r = measure_positions("r", [profile.values[:1]], **MEASURE_OPTIONS)[0]
    return r, correct(profile.values.mean(1), profile.null).min() < LEVEL
