"""Features of pictures, whose products are the similarities of the pictures."""

from collections.abc import Iterable

import numpy as np
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core.arrays import Float32, Int64
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.measurement.linear_maps import principal_axes

COMPONENTS = 32
"""Largest number of principal components of an encoder."""
PICTURES_PER_COMPONENT = 4
"""Smallest number of pictures per component. With as many components as pictures, all
pictures would be equally similar.
"""
PICTURES = 1024
"""Number of pictures that are read at a time, and that determine the components. With
427,648 numbers per picture they take 1.8 GB.
"""


def find_features(stores: Iterable[TargetStore]) -> Float32:
    """Compute features of M pictures.

    Args:
        stores: Target stores of the same pictures, one for each encoder.

    Returns:
        Principal components [M, K] of all encoders, scaled to unit spread, so that a
        few of large spread do not hide the others. 0 for pictures without embeddings.
    """
    columns = []
    for store in stores:
        rows = np.flatnonzero(store.done)
        n_blocks = -(-len(rows) // PICTURES)
        sample = _read(store, rows[::n_blocks])
        mean = sample.mean(0)
        n_components = min(COMPONENTS, 1 + len(sample) // PICTURES_PER_COMPONENT)
        axes = principal_axes(sample - mean, n_components)
        features = np.zeros((len(store.done), axes.shape[1]), np.float32)
        for block_rows in np.array_split(rows, n_blocks):
            centred = _read(store, block_rows) - mean
            features[block_rows] = (centred @ axes).numpy()
        spread = features[rows].std(0)
        columns.append(features / np.where(spread > 0, spread, 1))
    return np.concatenate(columns, 1)


def _read(store: TargetStore, rows: Int64) -> Tensor:
    """Read embeddings [n, F], flattened and scaled to unit length."""
    return normalize(store.read_flat(rows))
