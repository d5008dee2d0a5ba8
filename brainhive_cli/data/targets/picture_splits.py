"""Splits of pictures into training and test, by their embeddings."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import Float32, Int64, RecipeError, progress
from brainhive_cli.core.files import atomic_write
from brainhive_cli.core.recipes import Section
from brainhive_cli.data.signals import MAX_FOLDS
from brainhive_cli.data.stores import TargetStore

DRAWS = 1000
"""Number of random tests, of which the most similar to the training pictures is used.
"""
Folds = list[tuple[Int64, Int64]]
"""Rows of the training pictures and of the test pictures of each fold."""


class HeldOut(Section):
    """Split of the pictures of `train`, written into the folder of their embeddings."""

    by: Literal["clusters", "neighbours"] = Field(
        description="clusters: each of `folds` clusters of concepts is the test once; "
        "neighbours: one test, whose nearest training pictures are far"
    )
    folds: int = Field(
        5,
        ge=2,
        le=MAX_FOLDS,
        description="number of clusters; with `neighbours`, 1/folds of the pictures is "
        "tested",
    )


@progress("splitting pictures")
def write_split(store: TargetStore, held_out: HeldOut, folder: Path) -> Path:
    """Split the pictures of a target store, and write a file for dataset.holdout.split.

    The file has the form of LAION-fMRI's splits.

    Args:
        store: Target store of the pictures.
        held_out: Kind of the split.
        folder: Folder of the file.

    Returns:
        The file.

    Raises:
        RecipeError: if there are too few concepts.
    """
    from sklearn.preprocessing import normalize

    rows = np.flatnonzero(store.done)
    encoder = store.attributes["encoder"]
    embedding = np.asarray(store.embedding[:], np.float32)[rows]
    unit = normalize(embedding.reshape(len(rows), -1))  # [N, D]
    ids = np.asarray(store.image_ids)[rows]
    concepts = np.asarray(store.concepts)[rows].tolist()
    params = dict[str, float]()
    if held_out.by == "clusters":
        folds = hold_out_clusters(unit, concepts, held_out.folds)
    else:
        folds, params = match_neighbours(unit, held_out.folds)

    variants = []
    for train, test in folds:
        variant = {"train_ids": ids[train].tolist(), "test_ids": ids[test].tolist()}
        variants.append(variant)
    name = f"{held_out.by}_k{held_out.folds}-{encoder}"
    document = {"name": name, "params": params, "variants": variants}
    path = folder / f"{name}.json"
    with atomic_write(path) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return path


def hold_out_clusters(unit: Float32, concepts: Sequence[str], count: int) -> Folds:
    """Cluster concepts by their mean embeddings (k-means), and test each cluster once.

    Each fold tests as many pictures as the smallest cluster has, drawn at random, so
    that chance is the same in all folds. The other pictures of its cluster are unused.

    Args:
        unit: Embeddings [N, D] of unit length.
        concepts: Concept [N] of each picture.
        count: Number of clusters.

    Raises:
        RecipeError: if there are fewer concepts, or a cluster has one picture.
    """
    from sklearn.cluster import KMeans

    names, concept_rows = np.unique(concepts, return_inverse=True)
    means = [unit[concept_rows == row].mean(0) for row in range(len(names))]
    kmeans = KMeans(min(count, len(names)), n_init=10, random_state=0)
    labels = kmeans.fit_predict(means)[concept_rows]
    size = int(np.bincount(labels, minlength=count).min())
    if size < 2:
        raise RecipeError(
            f"held_out: the smallest of {count} clusters of {len(names)} concepts has "
            f"{size} pictures",
            f"held_out.folds below {count}",
        )

    order = np.random.default_rng(0).permutation(len(unit))
    folds = []
    for label in range(count):
        test = order[labels[order] == label][:size]
        folds.append((np.flatnonzero(labels != label), test))
    return folds


def match_neighbours(unit: Float32, count: int) -> tuple[Folds, dict[str, float]]:
    """Choose test pictures far from each training picture, but similar overall.

    Pictures whose cosine is above tau are in the same group. Tau is the lowest value
    for which no group has more than the share 0.05 of the pictures. The test
    pictures are the random draw of whole groups with the lowest MMD².

    Args:
        unit: Embeddings [N, D] of unit length.
        count: 1/count of the groups is tested.

    Returns:
        The fold, with `tau` and `mmd2`.

    Source: LAION-fMRI's split `tau` has the same aims, but another algorithm. MMD
    with the cosine as kernel (Gretton et al. 2012) is the squared distance between the
    mean embeddings.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from sklearn.model_selection import GroupShuffleSplit

    # single linkage joins nearest pictures first (30,000 pictures take 3.6 GB)
    merges = linkage(unit, "single")
    # Largest share of the pictures in a group of neighbours. A group is wholly in
    # training or test, so larger groups would leave few possible tests.
    is_too_large = merges[:, 3] > 0.05 * len(unit)
    distance = merges[is_too_large, 2].min() * (1 - 1e-9)
    labels = fcluster(merges, distance, "distance")

    def measure_mmd2(fold: tuple[Int64, Int64]) -> float:
        train, test = fold
        difference = unit[train].mean(0) - unit[test].mean(0)
        return float(np.sum(difference**2))

    draws = GroupShuffleSplit(DRAWS, test_size=1 / count, random_state=0)
    fold = min(draws.split(unit, groups=labels), key=measure_mmd2)
    return [fold], {"tau": float(1 - distance**2 / 2), "mmd2": measure_mmd2(fold)}
