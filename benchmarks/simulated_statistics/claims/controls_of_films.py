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

AXES: Mapping[str, Sequence[Any]] = {"clips": (10, 15, 20, 40), "near": (0.0, 0.9)}
COLUMNS = "p <= .05 by top-1 | top-5 | mean rank | MRR"


def controls_of_films(random: Random, clips: int, near: float) -> list[float]:
    """Give how often a control of permuted pictures of a film says p <= .05, by metric,
    where signals carry nothing.
    """
    names = [f"{number:04d}" for number in range(clips)]
    film = Gallery({"test": np.arange(clips)}, names, ["film"] * clips, "neighbours")
    pictures, signals = (
        torch.from_numpy(draw_film(random, 8, clips, near=near).T.copy())
        for _ in range(2)
    )
    shown = np.arange(clips)
    seed = int(random.integers(2**31))
    _, *drawn = permute_targets(shown, film, "permuted", seed, ())
    found = measure_control(film, pictures, signals, [shown, *drawn])
    return [
        float(np.mean(values <= values[0] if "rank" in name else values >= values[0]))
        <= LEVEL
        for name, values in found.items()
    ]
