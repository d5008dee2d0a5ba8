"""Features of pictures, whose products are the similarities of the pictures."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from brainhive_cli.core.base import Float32, Int64
from brainhive_cli.data.stores import TargetStore
from brainhive_cli.measurement import Components

COMPONENTS = 32
"""Largest number of principal components of an encoder."""
PICTURES_PER_COMPONENT = 4
"""Smallest number of pictures per component. With as many components as pictures, all
pictures would be equally similar.
"""
MAX_VALUES = 2**29
"""Largest number of values of a further split, which take 2 GB."""
PICTURES = 1024
"""Number of pictures that are read at a time, and that determine the components. With
427,648 numbers per picture they take 1.8 GB.
"""


def find_features(
    stores: Mapping[str, Mapping[str, TargetStore]],
) -> dict[str, Float32]:
    """Compute features of the pictures of several splits, in a common space.

    They come from the encoder with the fewest values.

    Args:
        stores: Target stores by split and encoder. Further splits than the first are
            read if they are small enough.

    Returns:
        Principal components [M, K] by split, scaled to unit spread, so that a few of
        large spread do not hide the others. 0 for pictures that were not read.
    """
    first_stores = next(iter(stores.values()))
    widths = {
        name: np.prod(store.embedding.shape[1:]) for name, store in first_stores.items()
    }
    encoder = min(widths, key=widths.__getitem__)
    rows_of_split = {}
    samples: list[Tensor] = []
    for split, split_stores in stores.items():
        rows = np.flatnonzero(split_stores[encoder].done)
        if samples and len(rows) * widths[encoder] > MAX_VALUES:
            continue
        rows_of_split[split] = rows
        samples.append(_read(split_stores[encoder], rows[:: _count_blocks(rows)]))

    # components of evenly spaced pictures of all splits
    sample = torch.cat(samples)
    mean = sample.mean(0)
    n_components = min(COMPONENTS, 1 + len(sample) // PICTURES_PER_COMPONENT)
    axes = Components.fit(sample, n_components).basis
    spread = ((sample - mean) @ axes).numpy().std(0)
    features = {}
    for split, split_stores in stores.items():
        store = split_stores[encoder]
        features[split] = np.zeros((len(store.done), axes.shape[1]), np.float32)
        if split not in rows_of_split:
            continue
        rows = rows_of_split[split]
        for block_rows in np.array_split(rows, _count_blocks(rows)):
            centred = _read(store, block_rows) - mean
            features[split][block_rows] = (centred @ axes).numpy()
        features[split] /= np.where(spread > 0, spread, 1)
    return features


def _count_blocks(rows: Int64) -> int:
    """Count the blocks of at most `PICTURES` rows."""
    return max(1, -(-len(rows) // PICTURES))


def _read(store: TargetStore, rows: Int64) -> Tensor:
    """Read embeddings [n, F], flattened and scaled to unit length."""
    return normalize(store.read_flat(rows))
