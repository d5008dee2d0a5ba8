"""Likeness of the pictures of a split, by principal components of their embeddings."""

from collections.abc import Iterable

import numpy as np
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core.arrays import Float32, Int64
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.measurement.linear_maps import principal_axes

COMPONENTS, PICTURES_PER_COMPONENT = 32, 4
"""Components of each encoder at most, and pictures for each at least: of as many
components as pictures, all pictures would be equally alike.
"""
PICTURES = 1024
"""Pictures that are read at once, and that components are found of: of 427,648 numbers
each, 1.8 GB.
"""


def find_features(stores: Iterable[TargetStore]) -> Float32:
    """Find features of pictures of which products are similarities.

    Args:
        stores: Of the same M pictures, one for each encoder.

    Returns:
        [M, K] principal components of the encoders, each of unit spread, so that a few
        of large spread do not hide the others. 0 of pictures without embeddings.
    """
    columns = []
    for store in stores:
        rows = np.flatnonzero(store.done)
        blocks = -(-len(rows) // PICTURES)
        sample = _read(store, rows[::blocks])
        mean = sample.mean(0)
        count = min(COMPONENTS, 1 + len(sample) // PICTURES_PER_COMPONENT)
        axes = principal_axes(sample - mean, count)
        features = np.zeros((len(store.done), axes.shape[1]), np.float32)
        for part in np.array_split(rows, blocks):
            features[part] = ((_read(store, part) - mean) @ axes).numpy()
        spread = features[rows].std(0)
        columns.append(features / np.where(spread > 0, spread, 1))
    return np.concatenate(columns, 1)


def _read(store: TargetStore, rows: Int64) -> Tensor:
    """Read embeddings, flattened and of unit length, [n, F]."""
    return normalize(store.read_flat(rows))
