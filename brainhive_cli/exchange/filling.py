"""Embedding stores filled with vectors that are there already."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.file_lock import FileLock
from brainhive_cli.datasets import ImageSet
from brainhive_cli.exchange.reading import Vectors
from brainhive_cli.stores import hdf5
from brainhive_cli.stores.target_store import TargetWriter


@dataclass(frozen=True)
class Share:
    """The vectors that go to one store.

    Attributes:
        images: The pictures of the store.
        path: Where it lies.
        rows: [N] the store's row of each vector of the source; -1 for those that go elsewhere.
    """

    images: ImageSet
    path: Path
    rows: NDArray[np.int64]


def fill(shares: Sequence[Share], vectors: Vectors, attributes: Mapping[str, Any], dtype: str) -> None:
    """Copy vectors to their stores, which get their final names when all is there, or leave nothing.

    Raises:
        BrainhiveError: if vectors differ in shape, are no numbers, or are not as many as their names.
    """
    where, at = vectors.files[0], 0
    with ExitStack() as held:
        for share in shares:
            claim = FileLock.for_path(share.path)
            held.callback(claim.release)
        writers: list[TargetWriter] = []
        shape: tuple[int, ...] = ()
        for batch in vectors.batches():  # [n, …]
            shape = shape or batch.shape[1:]
            if not shape or batch.shape[1:] != shape or batch.dtype.kind not in "fiu":
                wanted = f"after vectors {list(shape)}" if shape else "where vectors should be"
                what = f"{where} has {batch.dtype} {list(batch.shape[1:])} {wanted}"
                raise BrainhiveError(what, "give one encoder's vectors only")
            writers = writers or [_begin(share, attributes, shape, dtype, held) for share in shares]
            for share, writer in zip(shares, writers, strict=True):
                rows = share.rows[at : at + len(batch)]
                writer.write(rows[rows >= 0], batch[: len(rows)][rows >= 0])
            at += len(batch)
        if at != len(vectors.names):
            what = f"{where} holds {at} vectors for {len(vectors.names)} names"
            raise BrainhiveError(what, "fetch it again, with the list of names that belongs to it")
        for writer in writers:
            writer.finish()


def _begin(
    share: Share, attributes: Mapping[str, Any], shape: tuple[int, ...], dtype: str, held: ExitStack
) -> TargetWriter:
    images, part = share.images, hdf5.part_of(share.path)
    part.unlink(missing_ok=True)
    held.callback(part.unlink, missing_ok=True)
    made = {**attributes, "dataset": images.dataset, "split": images.split}
    TargetWriter.begin(share.path, images.image_ids, images.concepts, shape, dtype, made)
    writer = TargetWriter(share.path)
    held.callback(writer.close)
    return writer
