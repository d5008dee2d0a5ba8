"""Splits of pictures by their embeddings, in LAION-fMRI's form: clusters that are held
out, and tests without near neighbours in training.
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core.arrays import Float32, Int64
from brainhive_cli.core.console import progress
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.files import atomic_write
from brainhive_cli.core.recipe import Section
from brainhive_cli.data.stores.target_store import TargetStore

MAX_LINKED = 30_000
"""Pictures whose distances are compared, at most: they take 3.6 GB."""
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
        "neighbours: a share whose nearest training pictures are far"
    )
    folds: int = Field(5, ge=2, le=1000, description="clusters of k-means")
    share: float = Field(
        0.2, ge=0.05, le=0.5, description="share that `neighbours` tests"
    )
    seed: int = Field(0, ge=0, description="seed of clusters and draws")


@progress("splitting pictures")
def write_split(store: TargetStore, how: HeldOut, folder: Path) -> Path:
    """Split the pictures of a target store, and write the file that
    `dataset.holdout.split` reads.

    Returns:
        The file, `clusters_k5-ENCODER.json` or `neighbours-ENCODER.json` in the folder.

    Raises:
        RecipeError: if there are too few concepts, or too many pictures to compare.
    """
    # unit-length embeddings [N, D]
    rows = np.flatnonzero(store.done)
    unit = np.asarray(store.embedding[:], np.float32)[rows].reshape(len(rows), -1)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    encoder = store.attributes["encoder"]
    params: dict[str, Any] = {"encoder": encoder, "seed": how.seed}
    if how.by == "clusters":
        concepts = [store.concepts[row] for row in rows.tolist()]
        folds = hold_out_clusters(unit, concepts, how.folds, how.seed)
        name, params["k"] = f"clusters_k{how.folds}", how.folds
    else:
        folds, found = match_neighbours(unit, how.share, how.seed)
        name, params = "neighbours", params | {"share": how.share, **found}

    # ids of each side, in LAION-fMRI's form
    ids = [store.image_ids[row] for row in rows.tolist()]
    variants = [
        {
            "variant_id": number,
            "train_ids": [ids[row] for row in train.tolist()],
            "test_ids": [ids[row] for row in test.tolist()],
        }
        for number, (train, test) in enumerate(folds)
    ]
    document = {
        "name": name,
        "pool": store.attributes["dataset"],
        "splitter": f"brainhive {how.by}",
        "params": params,
        "n_train": len(folds[0][0]),
        "n_test": len(folds[0][1]),
        "variants": variants,
    }
    path = folder / f"{name}-{encoder}.json"
    with atomic_write(path) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return path


def hold_out_clusters(
    unit: Float32, concepts: list[str], count: int, seed: int
) -> Folds:
    """Cluster concepts by their mean embeddings (k-means), and test each cluster in
    turn.

    All pictures of a concept are on one side. Each fold tests as many pictures as the
    smallest cluster has, drawn at random, so that chance is the same in all; the others
    of its cluster are on neither side.

    Args:
        unit: [N, D] embeddings of unit length.
        concepts: [N].
        count: Clusters.
        seed: Of k-means and the draws.

    Raises:
        RecipeError: if there are fewer concepts, or a cluster has one picture.
    """
    from sklearn.cluster import KMeans

    names, number = np.unique(concepts, return_inverse=True)
    if len(names) <= count:
        raise RecipeError(
            f"held_out: {count} clusters of {len(names)} concepts", "fewer folds"
        )
    means = np.zeros((len(names), unit.shape[1]))
    np.add.at(means, number, unit)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    labels = KMeans(count, n_init=10, random_state=seed).fit_predict(means)[number]
    tested = int(np.bincount(labels, minlength=count).min())
    if tested < 2:
        raise RecipeError(
            f"held_out: the smallest of {count} clusters has {tested} picture",
            f"held_out.folds below {count}",
        )
    random = np.random.default_rng(seed)
    return [
        (
            np.flatnonzero(labels != label),
            np.sort(random.permutation(np.flatnonzero(labels == label))[:tested]),
        )
        for label in range(count)
    ]


def match_neighbours(
    unit: Float32, share: float, seed: int
) -> tuple[Folds, dict[str, float]]:
    """Choose a test whose pictures have no near neighbour in training, and that is
    otherwise like training.

    Pictures with a cosine above tau, and their neighbours in turn, are on one side. Tau
    is the lowest for which no such group has more than `MAX_GROUP` of the pictures.
    Among random tests of whole groups the one with the lowest MMD² is taken.

    Source: the two aims are those of LAION-fMRI's split `tau`; the way is our own. MMD
    with the cosine as kernel (Gretton et al. 2012) is the squared distance of the mean
    embeddings.

    Args:
        unit: [N, D] embeddings of unit length.
        share: Of the pictures that are tested.
        seed: Of the draws.

    Returns:
        The fold, and `tau`, `mmd2` and the median `mmd2` of all draws.

    Raises:
        RecipeError: if there are too many pictures to compare.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    # groups: single linkage joins a picture to its nearest neighbour first
    count = len(unit)
    if not 10 <= count <= MAX_LINKED:
        raise RecipeError(
            f"held_out by neighbours: {count:,} pictures", f"10 to {MAX_LINKED:,}"
        )
    merges = linkage(unit, "single")
    too_large = np.flatnonzero(merges[:, 3] > max(1, MAX_GROUP * count))
    distance = merges[too_large[0], 2] * (1 - 1e-9)  # the last one has all pictures
    labels = fcluster(merges, distance, "distance")
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]

    # random groups up to the share, and how far the means of both sides are apart
    random, wanted, draws = np.random.default_rng(seed), round(share * count), []
    for _ in range(DRAWS):
        chosen, size = [], 0
        for group in random.permutation(len(members)).tolist():
            if size + len(members[group]) <= wanted:
                chosen.append(members[group])
                size += len(members[group])
        is_tested = np.zeros(count, bool)
        is_tested[np.concatenate(chosen)] = True
        gap = unit[is_tested].mean(0) - unit[~is_tested].mean(0)
        draws.append((float(gap @ gap), is_tested))
    mmd2, is_tested = min(draws, key=lambda draw: draw[0])
    found = {
        "tau": float(1 - distance**2 / 2),
        "mmd2": mmd2,
        "median_mmd2": float(np.median([draw[0] for draw in draws])),
    }
    return [(np.flatnonzero(~is_tested), np.flatnonzero(is_tested))], found
