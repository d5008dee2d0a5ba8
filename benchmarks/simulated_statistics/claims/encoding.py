"""A test of the encoding model keeps its level, and its interval holds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.corrected_profiles import correct
from benchmarks.simulated_statistics.judging import HOW, LEVEL
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
    """The encoding model at 6 times, and its interval around the mean of all
    simulations.
    """
    weights = np.random.default_rng(3).normal(size=(8, 18)) / 8**0.5
    features = [random.normal(size=(size, 16)) for size in (150, 40)]
    train, test = (
        strength * each[:, :8] @ weights + random.normal(size=(len(each), 18))
        for each in features
    )
    levels = [
        {"a": each[:, :8], "b": each[:, 8:]}
        for each in (torch.from_numpy(each).float() for each in features)
    ]
    wrong, trained = (
        (np.roll(np.arange(150), 75), np.roll(np.arange(40), 20)),
        torch.from_numpy(train).float(),
    )
    predicted, _ = predict_signals(*levels, lambda: iter([trained]), (3, 6), wrong, 8)
    times, seed = [np.s_[..., [time]] for time in range(6)], int(random.integers(2**31))
    labels = Labels.draw(np.arange(40), Items.from_sizes([40]), 200, seed)
    profile = profile_correlation(
        predicted, test.reshape(-1, 3, 6), Axis("ms", range(6)), times, labels
    )
    r = measure_positions("r", [profile.values[:1]], **HOW)[0]
    return r, correct(profile.values.mean(1), profile.null).min() < LEVEL
