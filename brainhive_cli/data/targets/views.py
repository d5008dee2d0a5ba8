"""Pictures as training sees them, read in processes of their own."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from torch.utils.data import Dataset as TorchDataset

from brainhive_cli.core import foreign_code
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.datasets import StimulusSet
from brainhive_cli.data.media.media_files import to_bytes

View = Callable[[Image.Image], tuple[Tensor, Tensor]]
"""Bytes [3, side, side] of a picture as training sees it, and its six ids, as `crop_centre` gives them."""


def crop_centre(
    picture: Image.Image, side: int, resize: Literal["lanczos", "bilinear"]
) -> tuple[Tensor, Tensor]:
    """Resize the short side of a picture for training, and crop its centre.

    Args:
        picture: The picture.
        side: Pixels of the crop.
        resize: Interpolation.

    Returns:
        Bytes [3, side, side], and its six size and crop ids in pixels of the resized picture.
    """
    from torchvision.transforms.v2 import functional as F

    # resize the short side, crop the centre
    resized = F.resize(picture, [side], F.InterpolationMode(resize))
    top, left = (round((length - side) / 2) for length in (resized.height, resized.width))
    pixels = F.pil_to_tensor(F.crop(resized, top, left, side, side))
    # ids of the diffusion model: original size, corner of the crop, its size
    sizes = [picture.height, picture.width, top, left, side, side]
    return pixels, torch.tensor(sizes, dtype=torch.float32)


def crop_of_the_original(sizes: Tensor) -> Tensor:
    """Replace the crop's corner in ids [B, 6] by that of a crop of the picture before it was resized.

    Source: BrainHiVE's repository, train_prior.py; a side that is too short has 0.
    """
    # ids are [original height, width, top, left, target height, width]
    original, target = sizes[:, :2], sizes[:, 4:]
    return torch.cat([original, ((original - target) / 2).round().clamp(min=0), target], 1)


@dataclass(eq=False)
class Items(TorchDataset[Any]):
    """Each picture with its row, its ids, and preprocessed for encoders.

    Attributes:
        images: The pictures.
        view: Resizing and crop.
        views: Preprocessing of encoders, by name.
        latents: Gives the latent [C, h, w] and the ids of a picture whose latent is known already.
        decodes: Whether pictures are opened at all.
    """

    images: StimulusSet
    view: View
    views: Mapping[str, Callable[[Image.Image], Tensor]] = field(default_factory=dict)
    latents: Callable[[int], tuple[Tensor, Tensor]] | None = None
    decodes: bool = field(init=False)

    def __post_init__(self) -> None:
        """Note whether pictures are opened: one with a known latent is opened only for encoders."""
        self.decodes = self.latents is None or bool(self.views)

    def __getitem__(self, index: int) -> dict[str, Any] | BrainhiveError:
        """Read one picture: row, image, ids, and views by the encoder's name."""
        views = {}
        try:
            if self.decodes:
                picture = self.images.open(index)
                views = {name: view(picture) for name, view in self.views.items()}
            image, sizes = self.latents(index) if self.latents else self.view(picture)
        except Exception as error:  # a loader would hide it in the worker's traceback
            if described := error if isinstance(error, BrainhiveError) else foreign_code.mistake(error):
                return described
            raise
        return {"rows": index, "image": image, "sizes": sizes, "views": views}


@dataclass(frozen=True)
class Batch:
    """Pictures that are read together.

    Attributes:
        rows: [B] of the stimuli.
        image: Bytes [B, 3, H, W], or latents [B, C, h, w] where they were computed before.
        sizes: [B, 6] ids in pixels: original height, width; top, left of the crop; target height, width.
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

    @classmethod
    def of(cls, read: Mapping[str, Any]) -> Self:
        """Take what `collate` returns; raise the error of a picture that cannot be decoded."""
        if "error" in read:
            raise read["error"]
        return cls(read["rows"].numpy(), read["image"], read["sizes"], read["views"])


def collate(items: list[Any]) -> dict[str, Any]:
    """Stack what `Items` gives; an error is passed on, since a worker's traceback would hide it."""
    failed = next((item for item in items if isinstance(item, BrainhiveError)), None)
    return {"error": failed} if failed else default_collate(items)


def loaded(items: Items, rows: Iterable[list[int]], workers: int, launch: Launch) -> Iterator[Batch]:
    """Yield batches of these rows, in their order.

    Raises:
        BrainhiveError: if a picture cannot be decoded.
    """
    # nothing is decoded: no other processes are needed
    workers = workers if items.decodes else 0
    for batch in DataLoader(
        items,
        batch_sampler=rows,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=collate,
        multiprocessing_context="fork" if workers else None,  # data sets and encoders hold functions
        pin_memory=launch.device.type == "cuda",
    ):
        yield Batch.of(batch)


def to_pictures(images: Tensor) -> list[Image.Image]:
    """Turn [B, 3, H, W] in 0..1 into pictures."""
    return [*map(Image.fromarray, to_bytes(images))]
