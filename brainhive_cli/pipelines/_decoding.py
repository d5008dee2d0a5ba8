"""Pictures decoded and preprocessed in processes of their own."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from brainhive_cli.datasets import BadPicture, ImageSet
from brainhive_cli.launch import Launch

DECODERS = 8
"""Most decoding processes taken unless told otherwise."""


def decoders(asked: int | None, launch: Launch) -> int:
    """Say how many processes decode pictures: spare cores, eight at most."""
    return min(DECODERS, max(0, (os.cpu_count() or 1) // launch.processes - 1)) if asked is None else asked


def decoded(
    rows: Sequence[int],
    images: ImageSet,
    views: Mapping[str, Callable[[Any], Tensor]],
    batch_size: int,
    workers: int,
) -> Iterator[list[tuple[int, Any]]]:
    """Yield batches of (row, views by encoder); text stands for a picture that cannot be decoded."""
    few = len(rows) <= 2 * batch_size  # not worth starting processes for
    pictures = _Views(rows, images, views)
    return iter(DataLoader(pictures, batch_size, num_workers=0 if few else workers, collate_fn=list))


class _Views(TorchDataset[tuple[int, Any]]):
    def __init__(
        self, rows: Sequence[int], images: ImageSet, views: Mapping[str, Callable[[Any], Tensor]]
    ) -> None:
        self.rows, self.images, self.views = rows, images, views

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        row = self.rows[index]
        try:
            picture = self.images.open(row)
        except BadPicture as error:
            return row, error.what
        return row, {name: view(picture) for name, view in self.views.items()}
