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
    """Test the slope of a ridge on noise, or on signals that hold training pictures."""
    # embeddings of 64 dimensions with a common direction, like those from CLIP
    n_train, n_test = pictures
    direction = common * random.normal(size=64)
    noise = random.normal(size=(n_train + n_test, 64))
    embeddings = direction + noise * np.exp(-np.arange(64) / 30)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    train_embeddings = embeddings[:n_train]
    test_embeddings = embeddings[n_train:]
    cosines = test_embeddings @ train_embeddings.T
    nearest = cosines.max(1)

    # a ridge with an intercept on 150 features
    train = random.normal(size=(n_train, 150))
    test = random.normal(size=(n_test, 150))
    kernel = train.T @ train + n_train * np.eye(150)
    mean = train_embeddings.mean(0)
    weights = np.linalg.solve(kernel, train.T @ (train_embeddings - mean))
    predicted = test @ weights + mean

    # the effect adds the nearest training picture, the more the nearer it lies
    closeness = (nearest - nearest.min()) / np.ptp(nearest)
    predicted += effect * closeness[:, None] * train_embeddings[cosines.argmax(1)]

    # fit without and with the ranks by signals of other pictures
    table = rank_first_pictures(
        torch.from_numpy(predicted).float(),
        torch.from_numpy(test_embeddings).float(),
        n_test,
    )
    names = [str(number) for number in range(n_test)]
    scores = Scores(labels=names, verdict_ids=names, verdict_ranks=table)
    rank_shares = 1 - (table.diagonal() - 1) / (n_test - 1)
    results = []
    for surplus in (rank_shares, scores.compute_rank_advantages()):
        cell = {"units": names, "nearest": nearest, "surplus": surplus}
        slope = fit_slope(*average_by_unit([cell]), protocol="", split="test", seeds=())
        results.append(float(slope.low is not None and slope.low > 0))
    results.append(float(slope.high is not None and slope.high < 0))
    return results
