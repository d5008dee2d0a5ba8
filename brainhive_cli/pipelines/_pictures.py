"""What a prior learns from: pictures with their embeddings, in an order that seed and step decide."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from brainhive_cli import parts
from brainhive_cli.datasets import Dataset, ImageSet
from brainhive_cli.embeddings import EmbeddingStore
from brainhive_cli.encoders import EncoderConfig
from brainhive_cli.launch import Launch
from brainhive_cli.pipelines._data import open_embeddings
from brainhive_cli.recipe import Paths


@dataclass(frozen=True)
class Pictures:
    """Pictures with their embeddings, and which are kept for validation.

    Attributes:
        rows: [M] the row of each picture in the stores; -1 where it could not be decoded.
        train: Pictures that are learned.
        validation: Pictures that are kept from training.
    """

    images: ImageSet
    stores: dict[str, EmbeddingStore]
    rows: NDArray[np.int64]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]

    @classmethod
    def open(
        cls,
        dataset: parts.Config,
        split: str,
        encoders: Sequence[EncoderConfig],
        paths: Paths,
        validation_items: int,
        seed: int,
    ) -> Self:
        """Match pictures and embeddings, and keep some (a fifth at most) for validation."""
        built: Dataset = dataset.build(paths)  # type: ignore[attr-defined]
        images = built.images(split)
        stores = open_embeddings(built, dataset, split, encoders, paths)
        rows = next(iter(stores.values())).rows(images.image_ids)
        order = np.random.default_rng(seed).permutation(np.flatnonzero(rows >= 0))
        held = min(validation_items, len(order) // 5)
        return cls(images, stores, rows, np.sort(order[held:]), order[:held])

    def embeddings(
        self, chosen: NDArray[np.int64], keys: dict[str, str], device: torch.device
    ) -> dict[str, Tensor]:
        """Read the embeddings of the chosen pictures, by the prior's keys."""
        taken = {name: store.embedding[self.rows[chosen]] for name, store in self.stores.items()}
        return {
            keys[name]: torch.from_numpy(np.asarray(e, np.float32)).to(device) for name, e in taken.items()
        }

    def view(self, index: int, side: int) -> tuple[Tensor, Tensor]:
        """Open a picture as training sees it."""
        return view_of(self.images.open(index), side)


def view_of(picture: Image.Image, side: int) -> tuple[Tensor, Tensor]:
    """Resize the short side, crop the centre: [3, side, side] in -1..1, and SDXL's six ids in pixels."""
    from torchvision.transforms.v2 import functional as F

    resized = F.resize(picture, [side], F.InterpolationMode.LANCZOS)
    top, left = (resized.height - side) // 2, (resized.width - side) // 2
    pixels = F.pil_to_tensor(F.crop(resized, top, left, side, side)).float().div(127.5).sub(1)
    return pixels, torch.tensor([picture.height, picture.width, top, left, side, side], dtype=torch.float32)


@dataclass(frozen=True)
class Batch:
    """My share of the pictures of a step.

    Attributes:
        step: Which step.
        count: Pictures of the step over all processes.
        rows: [B] which pictures.
        views: [B, 3, H, W] in -1..1.
        sizes: [B, 6] SDXL's size and crop ids, pixels.
    """

    step: int
    count: int
    rows: NDArray[np.int64]
    views: Tensor
    sizes: Tensor


def batches(
    pictures: Pictures, steps: range, size: int, resolution_px: int, seed: int, workers: int, launch: Launch
) -> Iterator[Batch]:
    """Yield the batches of `steps`, of `size` pictures over all processes."""
    size = min(size, len(pictures.train))
    loader = DataLoader(
        _Views(pictures, resolution_px),
        batch_sampler=_order(pictures.train, steps, size, seed, launch),  # type: ignore[arg-type]
        num_workers=workers,
    )
    for step, (rows, views, sizes) in zip(steps, loader, strict=True):
        yield Batch(step, size, rows.numpy(), views, sizes)


def _order(
    train: NDArray[np.int64], steps: range, size: int, seed: int, launch: Launch
) -> Iterator[list[int]]:
    """Yield my rows of each step: every epoch is a new order, cut into whole batches."""
    each, shuffled = len(train) // size, (-1, train)
    for step in steps:
        epoch, place = divmod(step, each)
        if shuffled[0] != epoch:
            shuffled = (epoch, np.random.default_rng((seed, epoch)).permutation(train))
        chosen = shuffled[1][place * size : (place + 1) * size]
        yield list(launch.mine(chosen.tolist()))


class _Views(TorchDataset[tuple[int, Tensor, Tensor]]):
    """Each picture with its row and ids."""

    def __init__(self, pictures: Pictures, side: int) -> None:
        self.pictures, self.side = pictures, side

    def __getitem__(self, index: int) -> tuple[int, Tensor, Tensor]:
        return index, *self.pictures.view(index, self.side)
