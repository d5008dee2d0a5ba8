"""Pictures decoded and preprocessed in processes of their own."""

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from torch.utils.data import Dataset as TorchDataset

from brainhive_cli.datasets import BadPicture, ImageSet
from brainhive_cli.launch import Launch

DECODERS = 16
"""Most decoding processes taken unless told otherwise."""


class Batch(NamedTuple):
    """Some pictures as each encoder sees them.

    Attributes:
        read: How many pictures, bad ones included.
        rows: Which pictures each encoder sees, [B].
        views: Preprocessed pictures by encoder, [B, 3, H, W].
        bad: What could not be decoded.
    """

    read: int
    rows: dict[str, NDArray[np.int64]]
    views: dict[str, Tensor]
    bad: list[str]


def decoders(asked: int | None, launch: Launch) -> int:
    """Say how many processes decode pictures: spare cores, sixteen at most."""
    return min(DECODERS, max(0, (os.cpu_count() or 1) // launch.processes - 1)) if asked is None else asked


def decoded(
    rows: NDArray[np.int64],
    images: ImageSet,
    views: Mapping[str, Callable[[Any], Tensor]],
    wanted: Mapping[str, NDArray[np.bool_]],
    batch_size: int,
    workers: int,
    pinned: bool = False,
) -> Iterator[Batch]:
    """Yield pictures in whatever order their batches are ready; each is decoded once for all encoders.

    Args:
        rows: Which pictures.
        images: The whole set.
        views: Preprocessing by encoder.
        wanted: Which of all pictures each encoder sees, [N].
        batch_size: Pictures a batch.
        workers: Processes that decode; none are started for a few pictures.
        pinned: Deliver pages that a GPU reads by itself.
    """
    if len(rows) <= 2 * batch_size:  # not worth starting processes for
        workers = 0
    loader = DataLoader(
        _Views(rows, images, views, wanted),
        batch_size,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,  # data sets and encoders hold functions
        collate_fn=_as_it_is,
        pin_memory=pinned,
        in_order=False,
    )
    gc.freeze()  # a collection writes on all that processes share, and so copies it for each
    try:
        yield from loader
    finally:
        gc.unfreeze()


class _Views(TorchDataset[Batch]):
    """Whole batches; what processes share is arrays, since a list's reference counts would copy its pages."""

    def __init__(
        self,
        rows: NDArray[np.int64],
        images: ImageSet,
        views: Mapping[str, Callable[[Any], Tensor]],
        wanted: Mapping[str, NDArray[np.bool_]],
    ) -> None:
        self.rows, self.images, self.views, self.wanted = rows, images, views, wanted

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> Batch:
        seen: dict[str, list[tuple[int, Tensor]]] = {name: [] for name in self.views}
        bad = []
        for row in self.rows[indices].tolist():
            try:
                picture = self.images.open(row)
            except BadPicture as error:
                bad.append(error.what)
                continue
            for name, view in self.views.items():
                if self.wanted[name][row]:
                    seen[name].append((row, view(picture)))
        rows = {name: np.array([row for row, _ in some]) for name, some in seen.items() if some}
        # default_collate stacks straight into memory that processes share
        stacked = {name: default_collate([view for _, view in some]) for name, some in seen.items() if some}
        return Batch(len(indices), rows, stacked, bad)


def _as_it_is(batch: Any) -> Any:
    return batch
