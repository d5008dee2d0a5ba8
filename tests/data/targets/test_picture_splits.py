"""Splits by embeddings test whole clusters, or pictures without near neighbours."""

import numpy as np
import pytest

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.data.targets.picture_splits import (
    hold_out_clusters,
    match_neighbours,
)


def draw(groups, number, spread):
    """Draw unit vectors [groups × each, 16], around a direction for each group."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(groups, 16))
    vectors = np.repeat(centres, number, 0) + spread * random.normal(
        size=(groups * number, 16)
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def test_each_cluster_is_tested_and_concepts_are_not_divided():
    unit = draw(4, 30, 0.3)
    concepts = [f"{row // 30}-{row % 10}" for row in range(120)]

    folds = hold_out_clusters(unit, concepts, 4)

    for train, test in folds:
        # the clusters are the groups, and no concept is on both sides
        assert len(set(test // 30)) == 1
        assert set(test // 30).isdisjoint(train // 30)
        assert len(train) == 90
        assert len(test) == 30
    assert set(np.concatenate([test for _, test in folds])) == set(range(120))
    with pytest.raises(RecipeError, match="60 clusters of 40 concepts"):
        hold_out_clusters(unit, concepts, 60)


def test_near_duplicates_are_not_divided_and_means_are_close():
    unit = draw(100, 3, 0.05)

    (fold,), found = match_neighbours(unit, 5)
    train, test = fold

    assert 50 <= len(test) <= 70
    assert set(train) | set(test) == set(range(300))
    assert set(test // 3).isdisjoint(train // 3)
    assert (unit[test] @ unit[train].T).max() < found["tau"] + 1e-6 < 0.9
    # a random split of groups has a larger MMD², and a random split of pictures has
    # near-duplicates of most test pictures in training
    random, distances = np.random.default_rng(0), []
    for _ in range(100):
        is_tested = np.isin(np.arange(300) // 3, random.permutation(100)[:20])
        gap = unit[is_tested].mean(0) - unit[~is_tested].mean(0)
        distances.append(gap @ gap)
    assert found["mmd2"] < np.median(distances) / 2
    permutation = random.permutation(300)
    assert np.median((unit[permutation[:60]] @ unit[permutation[60:]].T).max(1)) > 0.95
