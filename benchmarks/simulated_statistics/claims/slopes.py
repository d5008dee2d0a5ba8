"""The slope over the nearest training picture is 0 without a leak."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.simulated_statistics import Random
from brainhive_cli.measurement.ranks import rank_first_pictures
from brainhive_cli.measurement.retrieval import Scores
from brainhive_cli.measurement.slope import average_by_unit, fit_slope

AXES: Mapping[str, Sequence[Any]] = {
    "common": (0.0, 1.0),
    "pictures": ((100, 40), (400, 200), (1000, 200)),
    "effect": (0.0, 0.5),
}
COLUMNS = "above 0 by own ranks alone | above 0 | below 0"


def slopes(
    random: Random, common: float, pictures: tuple[int, int], effect: float
) -> list[float]:
    """Slope of scores over the cosine with the nearest training picture, of a ridge
    on noise, or on signals that hold training pictures near the seen ones.
    """
    # embeddings with a common direction, as CLIP's; 64 dimensions
    known_count, tested_count = pictures
    vectors = common * random.normal(size=64) + random.normal(
        size=(known_count + tested_count, 64)
    ) * np.exp(-np.arange(64) / 30)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known, tested = vectors[:known_count], vectors[known_count:]
    cosines = tested @ known.T
    nearest = cosines.max(1)

    # a ridge with an intercept on 150 features; an effect adds what is known of each
    # picture to the prediction, the more the nearer it lies
    train = random.normal(size=(known_count, 150))
    test = random.normal(size=(tested_count, 150))
    kernel = train.T @ train + known_count * np.eye(150)
    weights = np.linalg.solve(kernel, train.T @ (known - known.mean(0)))
    predicted = test @ weights + known.mean(0)
    near = (nearest - nearest.min()) / np.ptp(nearest)
    predicted += effect * near[:, None] * known[cosines.argmax(1)]

    # with and without the ranks by signals of other pictures
    tokens = (torch.from_numpy(each).float() for each in (predicted, tested))
    table, names = (
        rank_first_pictures(*tokens, tested_count),
        [*map(str, range(tested_count))],
    )
    scores = Scores(labels=names, verdict_ids=names, verdict_ranks=table)
    alone = 1 - (table.diagonal() - 1) / (tested_count - 1)
    found = []
    for surplus in (alone, scores.compute_rank_advantages()):
        cell = {"units": names, "nearest": nearest, "surplus": surplus}
        slope = fit_slope(*average_by_unit([cell]), protocol="", split="test", seeds=())
        found += [slope.low is not None and slope.low > 0]
    return [*map(float, found), float(slope.high is not None and slope.high < 0)]
