"""Pictures as training sees them, read in processes of their own."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.media.decoding import catch_error
from brainhive_cli.data.media.media_files import to_bytes
from brainhive_cli.data.media.stimuli import StimulusSet

View = Callable[[Image.Image], tuple[Tensor, Tensor]]
"""Bytes [3, side, side] of a picture as training sees it, and its six ids, as
`crop_centre` gives them.
"""
Latents = Callable[[int], tuple[Tensor, Tensor]]
"""Latent [C, h, w] of a picture as the generator encodes it, and its sizes [6], as in
`Batch`.
"""


def crop_centre(
    picture: Image.Image, side: int, resize: Literal["lanczos", "bilinear"]
) -> tuple[Tensor, Tensor]:
    """Resize the short side of a picture for training, and crop its centre.

    Args:
        picture: The picture.
        side: Pixels of the crop.
        resize: Interpolation.

    Returns:
        Bytes [3, side, side], and its six size and crop ids in pixels of the resized
        picture.
    """
    from torchvision.transforms.v2 import functional as F

    # resize the short side, crop the centre
    resized = F.resize(picture, [side], F.InterpolationMode(resize))
    top, left = (
        round((length - side) / 2) for length in (resized.height, resized.width)
    )
    pixels = F.pil_to_tensor(F.crop(resized, top, left, side, side))
    # ids of the diffusion model: original size, corner of the crop, its size
    sizes = [picture.height, picture.width, top, left, side, side]
    return pixels, torch.tensor(sizes, dtype=torch.float32)


def use_crop_of_original(sizes: Tensor) -> Tensor:
    """Replace the crop's corner in ids [B, 6] by that of a crop of the picture before
    it was resized.

    Source: BrainHiVE's repository, train_prior.py; a side that is too short has 0.
    """
    # ids are [original height, width, top, left, target height, width]
    original = sizes[:, :2]
    target = sizes[:, 4:]
    return torch.cat(
        [original, ((original - target) / 2).round().clamp(min=0), target], 1
    )


@dataclass(frozen=True)
class PictureBatch:
    """Pictures that are read together.

    Attributes:
        rows: [B] of the stimuli.
        image: Bytes [B, 3, H, W], or latents [B, C, h, w] where they were computed
            before.
        sizes: [B, 6] ids in pixels: original height, width; top, left of the crop;
            target height, width.
        views: [B, 3, H, W] by name, preprocessed for encoders that embed in each step.
        step: Of the training.
        positions: [B] among the pictures of the step, over all processes.
    """

    rows: Int64
    image: Tensor
    sizes: Tensor
    views: dict[str, Tensor]
    step: int = 0
    positions: tuple[int, ...] = ()


BatchContent = tuple[Int64, Tensor, Tensor, dict[str, Tensor]]
"""The first four fields of a `Batch`."""


def read_pictures(
    images: StimulusSet,
    view: View,
    views: Mapping[str, Callable[[Image.Image], Tensor]],
    latents: Latents | None,
    rows: Sequence[int],
) -> BatchContent:
    """Read pictures for training.

    Args:
        images: The pictures.
        view: Resizing and crop.
        views: Preprocessing of encoders, by name.
        latents: Gives what is known of a picture already, which then is opened for
            encoders alone.
        rows: Which pictures.
    """
    shown = list[Tensor]()
    sizes = list[Tensor]()
    seen: dict[str, list[Tensor]] = {name: [] for name in views}
    for row in rows:
        if latents is None or views:
            picture = images.open(row)
            for name, preprocess in views.items():
                seen[name].append(preprocess(picture))
        image, size = latents(row) if latents else view(picture)
        shown.append(image)
        sizes.append(size)
    stacked = {name: torch.stack(tensors) for name, tensors in seen.items()}
    return np.array(rows), torch.stack(shown), torch.stack(sizes), stacked


def load_batches(
    read: Callable[[Sequence[int]], BatchContent],
    count: int,
    rows: Iterable[list[int]],
    workers: int,
    launch: Launch,
) -> Iterator[PictureBatch]:
    """Yield batches of these rows, of `count` pictures, in their order.

    Raises:
        BrainhiveError: if a picture cannot be decoded.
    """
    for content in DataLoader(
        range(count),  # type: ignore[arg-type]
        batch_sampler=rows,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=partial(catch_error, read),
        # data sets and encoders hold functions
        multiprocessing_context="fork" if workers else None,
        pin_memory=launch.device.type == "cuda",
    ):
        if isinstance(content, BrainhiveError):
            raise content
        yield PictureBatch(*content)


def to_pictures(images: Tensor) -> list[Image.Image]:
    """Turn [B, 3, H, W] in 0..1 into pictures."""
    return [*map(Image.fromarray, to_bytes(images))]
