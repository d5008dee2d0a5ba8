"""Splits of pictures by their embeddings, in LAION-fMRI's form: clusters that are held
out, and tests without near neighbours in training.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core.arrays import Float32, Int64
from brainhive_cli.core.console import progress
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.files import atomic_write
from brainhive_cli.core.sections import Section
from brainhive_cli.data.signals.holdout import MAX_FOLDS
from brainhive_cli.data.stores.target_store import TargetStore

MAX_GROUP = 0.05
"""Largest share of the pictures that neighbours of neighbours may form: they are on one
side, and a larger group would leave few choices of a test.
"""
DRAWS = 1000
"""Random tests among which the one most like the training pictures is chosen."""
Folds = list[tuple[Int64, Int64]]
"""Rows of the training and of the test pictures of each fold."""


class HeldOut(Section):
    """Split of the pictures of `train`, written into the folder of their embeddings."""

    by: Literal["clusters", "neighbours"] = Field(
        description="clusters: each of `folds` clusters of concepts is a test once; "
        "neighbours: one test, whose nearest training pictures are far"
    )
    folds: int = Field(
        5,
        ge=2,
        le=MAX_FOLDS,
        description="clusters; `neighbours` tests one part of so many",
    )


@progress("splitting pictures")
def write_split(store: TargetStore, how: HeldOut, folder: Path) -> Path:
    """Split the pictures of a target store, and write the file that
    `dataset.holdout.split` reads.

    Raises:
        RecipeError: if there are too few concepts.
    """
    from sklearn.preprocessing import normalize

    # pictures with embeddings, at unit length [N, D]
    rows = np.flatnonzero(store.done)
    encoder = store.attributes["encoder"]
    embedding = np.asarray(store.embedding[:], np.float32)[rows]
    unit = normalize(embedding.reshape(len(rows), -1))
    ids = np.asarray(store.image_ids)[rows]
    concepts = np.asarray(store.concepts)[rows].tolist()
    params = dict[str, float]()
    if how.by == "clusters":
        folds = hold_out_clusters(unit, concepts, how.folds)
    else:
        folds, params = match_neighbours(unit, how.folds)

    # ids of each side
    name = f"{how.by}_k{how.folds}-{encoder}"
    variants = [
        {"train_ids": ids[train].tolist(), "test_ids": ids[test].tolist()}
        for train, test in folds
    ]
    document = {"name": name, "params": params, "variants": variants}
    path = folder / f"{name}.json"
    with atomic_write(path) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return path


def hold_out_clusters(unit: Float32, concepts: Sequence[str], count: int) -> Folds:
    """Cluster concepts by their mean embeddings (k-means), and test each cluster in
    turn.

    All pictures of a concept are on one side. Each fold tests as many pictures as the
    smallest cluster has, drawn at random, so that chance is the same in all; the others
    of its cluster are on neither side.

    Args:
        unit: [N, D] embeddings of unit length.
        concepts: [N].
        count: Clusters.

    Raises:
        RecipeError: if there are fewer concepts, or a cluster has one picture.
    """
    from sklearn.cluster import KMeans

    # clusters of concepts, and the cluster of each picture
    names, number = np.unique(concepts, return_inverse=True)
    means = [unit[number == one].mean(0) for one in range(len(names))]
    kmeans = KMeans(min(count, len(names)), n_init=10, random_state=0)
    labels = kmeans.fit_predict(means)[number]
    size = int(np.bincount(labels, minlength=count).min())
    if size < 2:
        raise RecipeError(
            f"held_out: the smallest of {count} clusters of {len(names)} concepts has "
            f"{size} pictures",
            f"held_out.folds below {count}",
        )

    # each cluster, cut to the size of the smallest
    order = np.random.default_rng(0).permutation(len(unit))
    return [
        (np.flatnonzero(labels != label), order[labels[order] == label][:size])
        for label in range(count)
    ]


def match_neighbours(unit: Float32, count: int) -> tuple[Folds, dict[str, float]]:
    """Choose a test whose pictures have no near neighbour in training, and that is
    otherwise like training.

    Pictures with a cosine above tau, and their neighbours in turn, are on one side. Tau
    is the lowest for which no such group has more than `MAX_GROUP` of the pictures.
    Among random tests of whole groups the one with the lowest MMD² is chosen.

    Source: the two aims are those of LAION-fMRI's split `tau`; the way is our own. MMD
    with the cosine as kernel (Gretton et al. 2012) is the squared distance of the mean
    embeddings.

    Args:
        unit: [N, D] embeddings of unit length.
        count: One part of so many is tested.

    Returns:
        The fold, with `tau` and `mmd2`.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from sklearn.model_selection import GroupShuffleSplit

    # groups: single linkage joins a picture to its nearest neighbour first, and
    # compares all pairs (30,000 pictures take 3.6 GB)
    merges = linkage(unit, "single")
    too_large = merges[:, 3] > MAX_GROUP * len(unit)
    distance = merges[too_large, 2].min() * (1 - 1e-9)
    labels = fcluster(merges, distance, "distance")

    # random groups; the mean embeddings of both sides are close
    def measure_mmd2(fold: tuple[Int64, Int64]) -> float:
        train, test = (unit[rows].mean(0) for rows in fold)
        return float(np.sum((train - test) ** 2))

    draws = GroupShuffleSplit(DRAWS, test_size=1 / count, random_state=0)
    fold = min(draws.split(unit, groups=labels), key=measure_mmd2)
    return [fold], {"tau": float(1 - distance**2 / 2), "mmd2": measure_mmd2(fold)}
