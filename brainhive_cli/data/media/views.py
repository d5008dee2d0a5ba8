"""Pictures for training: cropped, with their sizes, in batches."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from brainhive_cli.core.base import Int64
from brainhive_cli.core.runs import Launch
from brainhive_cli.data.media.decoding import read_batches
from brainhive_cli.data.media.media_files import to_bytes
from brainhive_cli.data.media.stimuli import StimulusSet

View = Callable[[Image.Image], tuple[Tensor, Tensor]]
"""Function from a picture to its bytes [3, side, side] and size ids [6], such as
`crop_centre`.
"""
Latents = Callable[[int], tuple[Tensor, Tensor]]
"""Function from the row of a picture to its latent [C, h, w] and size ids [6]."""


def crop_centre(
    picture: Image.Image, side_px: int, resize: Literal["lanczos", "bilinear"]
) -> tuple[Tensor, Tensor]:
    """Resize the short side of a picture, and crop its centre.

    Args:
        picture: The picture.
        side_px: Side of the crop.
        resize: Interpolation.

    Returns:
        Bytes [3, side_px, side_px], and size ids [6] as in `PictureBatch.sizes`, with
        the corner of the crop in pixels of the resized picture.
    """
    from torchvision.transforms.v2 import functional as F

    resized = F.resize(picture, [side_px], F.InterpolationMode(resize))
    top = round((resized.height - side_px) / 2)
    left = round((resized.width - side_px) / 2)
    pixels = F.pil_to_tensor(F.crop(resized, top, left, side_px, side_px))
    sizes = [picture.height, picture.width, top, left, side_px, side_px]
    return pixels, torch.tensor(sizes, dtype=torch.float32)


def use_crop_of_original(sizes: Tensor) -> Tensor:
    """Set the corner in size ids [B, 6] as for a crop of the original's centre.

    The corner is at 0 along a side that is shorter than the crop.

    Source: BrainHiVE's repository, train_prior.py.
    """
    original = sizes[:, :2]
    target = sizes[:, 4:]
    corner = ((original - target) / 2).round().clamp(min=0)
    return torch.cat([original, corner, target], 1)


@dataclass(frozen=True)
class PictureBatch:
    """A batch of B pictures of a training step.

    Attributes:
        rows: Rows [B] of the pictures in the stimulus set.
        image: Bytes [B, 3, H, W], or stored latents [B, C, h, w].
        sizes: Size ids [B, 6] in pixels: height and width of the original picture, top
            and left of the crop, height and width of the crop.
        views: Preprocessed pictures [B, 3, H, W] for encoders that run in each step,
            keyed by encoder.
        step: Number of the training step.
        positions: Positions [B] of the pictures in the step, over all processes.
    """

    rows: Int64
    image: Tensor
    sizes: Tensor
    views: dict[str, Tensor]
    step: int = 0
    positions: tuple[int, ...] = ()


BatchContent = tuple[Int64, Tensor, Tensor, dict[str, Tensor]]
"""The first four fields of a `PictureBatch`."""


def read_pictures(
    images: StimulusSet,
    view: View,
    views: Mapping[str, Callable[[Image.Image], Tensor]],
    latents: Latents | None,
    rows: Sequence[int],
) -> BatchContent:
    """Read pictures for training.

    Args:
        images: Stimulus set of the pictures.
        view: Function that resizes and crops a picture.
        views: Preprocessing of encoders, keyed by encoder.
        latents: Function that replaces `view`. Pictures are then only opened for
            encoders.
        rows: Rows of the pictures.
    """
    image_list = list[Tensor]()
    size_list = list[Tensor]()
    view_lists: dict[str, list[Tensor]] = {name: [] for name in views}
    for row in rows:
        if latents is None or views:
            picture = images.open(row)
            for name, preprocess in views.items():
                view_lists[name].append(preprocess(picture))
        image, sizes = latents(row) if latents else view(picture)
        image_list.append(image)
        size_list.append(sizes)
    stacked = {name: torch.stack(tensors) for name, tensors in view_lists.items()}
    return np.array(rows), torch.stack(image_list), torch.stack(size_list), stacked


def load_batches(
    read: Callable[[Sequence[int]], BatchContent],
    count: int,
    rows: Iterable[list[int]],
    workers: int,
    launch: Launch,
) -> Iterator[PictureBatch]:
    """Read batches of pictures in worker processes, and yield them in order.

    Args:
        read: Function that reads the pictures of some rows.
        count: Number of pictures in the stimulus set.
        rows: Rows of each batch.
        workers: Number of processes, 0 for this process.
        launch: Device for which the batches are prepared.

    Raises:
        BrainhiveError: if a picture cannot be decoded.
    """
    on_gpu = launch.device.type == "cuda"
    for content in read_batches(read, count, rows, workers, pinned=on_gpu):
        yield PictureBatch(*content)


def to_pictures(images: Tensor) -> list[Image.Image]:
    """Convert tensors [B, 3, H, W] in 0..1 to pictures."""
    return [Image.fromarray(pixels) for pixels in to_bytes(images)]
