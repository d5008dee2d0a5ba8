"""A control of permuted pictures of a film keeps its level."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.alike_items import draw_film
from benchmarks.simulated_statistics.judging import LEVEL
from brainhive_cli.measurement.retrieval import (
    Gallery,
    measure_control,
    permute_targets,
)
from brainhive_cli.measurement.units import StimulusGrouping

AXES: Mapping[str, Sequence[Any]] = {"clips": (10, 15, 20, 40), "near": (0.0, 0.9)}
COLUMNS = "p <= .05 by top-1 | top-5 | mean rank | MRR"


def controls_of_films(random: Random, clips: int, near: float) -> list[float]:
    """Test if a control of permuted clips rejects signals that carry nothing."""
    names = [f"{number:04d}" for number in range(clips)]
    film = Gallery({"test": np.arange(clips)}, names, ["film"] * clips, "neighbours")
    pictures = draw_film(random, 8, clips, correlation=near).T.copy()
    signals = draw_film(random, 8, clips, correlation=near).T.copy()
    targets = np.arange(clips)
    seed = int(random.integers(2**31))
    items = StimulusGrouping("neighbours", dict.fromkeys(range(clips), "film"))
    exchange = items.make_items([targets.tolist()])
    permutations = list(permute_targets(targets, targets, exchange, seed))[1:]
    control = measure_control(
        film,
        torch.from_numpy(pictures),
        torch.from_numpy(signals),
        [targets] + permutations,
    )
    rejections = []
    for name, values in control.items():
        is_extreme = values <= values[0] if "rank" in name else values >= values[0]
        rejections.append(float(np.mean(is_extreme)) <= LEVEL)
    return rejections
