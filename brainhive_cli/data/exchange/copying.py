"""Target stores filled with vectors that are there already."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.datasets import StimulusSet
from brainhive_cli.data.exchange.parquet import AGAIN
from brainhive_cli.data.exchange.reading import Vectors
from brainhive_cli.data.stores.damage import described
from brainhive_cli.data.stores.filling import filling
from brainhive_cli.data.stores.target_store import Blank, TargetStore

ALONE = Launch(0, 1, torch.device("cpu"))
"""One process reads files from start to end."""


@dataclass(frozen=True)
class Share:
    """The vectors that go to one store.

    Attributes:
        images: The pictures of the store.
        path: Where it lies.
        rows: [N] the store's row of each vector of the source; -1 for those that go elsewhere.
    """

    images: StimulusSet
    path: Path
    rows: NDArray[np.int64]


def copy_vectors(
    shares: Sequence[Share], vectors: Vectors, attributes: Mapping[str, Any], dtype: str
) -> None:
    """Copy vectors to their stores, which get their final names when complete, or leave nothing.

    Raises:
        BrainhiveError: if vectors differ in shape, are no numbers, or are not as many as their names.
    """
    batches = checked_batches(vectors)
    first = next(batches, np.empty((0, 0)))
    blanks = []
    for share in shares:
        images = share.images
        made = {**attributes, "dataset": images.dataset, "split": images.split}
        shape = first.shape[1:]
        blanks.append(Blank(share.path, images.image_ids, images.concepts, shape, dtype, made))
    at = 0
    with filling(blanks, ALONE, again=True, keep=False) as filled:
        for batch in chain([first], batches):  # [n, *shape]
            for share, writer in zip(shares, filled.writers, strict=True):
                rows = share.rows[at : at + len(batch)]
                writer.write(rows[rows >= 0], batch[: len(rows)][rows >= 0])
            at += len(batch)
        if at != len(vectors.names):
            problem = f"{vectors.files[0]} holds {at} vectors for {len(vectors.names)} names"
            raise BrainhiveError(problem, "fetch it again, with the list of names that belongs to it")
        filled.finish()


def holds(share: Share, vectors: Vectors) -> bool:
    """Whether a store has these vectors, in its own dtype, and no others."""
    store, at = TargetStore.open(share.path), 0
    if set(np.flatnonzero(store.done)) != set(share.rows[share.rows >= 0]):
        return False
    for batch in checked_batches(vectors):  # [n, *shape]
        rows = share.rows[at : at + len(batch)]
        order = np.argsort(rows)[(rows < 0).sum() :]  # as HDF5 reads them
        kept = batch[: len(rows)][order]
        at += len(batch)
        if len(order) and not np.array_equal(
            store.embedding[rows[order]], kept.astype(store.embedding.dtype)
        ):
            return False
    return True


def checked_batches(vectors: Vectors) -> Iterator[NDArray[Any]]:
    """Read batches [n, *shape], all of one shape.

    Raises:
        BrainhiveError: if they differ in shape, or are no numbers.
    """
    shape: tuple[int, ...] = ()
    batches = vectors.batches()
    while True:
        with described(vectors.files[0], AGAIN):
            batch = next(batches, None)
        if batch is None:
            return
        shape = shape or batch.shape[1:]
        if not shape or batch.shape[1:] != shape or batch.dtype.kind not in "fiu":
            place = f"after vectors {list(shape)}" if shape else "where vectors should be"
            problem = f"{vectors.files[0]} has {batch.dtype} {list(batch.shape[1:])} {place}"
            raise BrainhiveError(problem, "give one encoder's vectors only")
        yield batch
