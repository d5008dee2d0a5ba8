"""Latents of pictures, encoded once into a store together with their size and crop ids."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.files import below
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import StimulusSet
from brainhive_cli.data.stores import hdf5
from brainhive_cli.data.stores.hdf5 import StoredRows, read_flags, read_strings
from brainhive_cli.data.stores.ids import Names
from brainhive_cli.data.stores.target_store import Blank, filling
from brainhive_cli.data.targets.views import Items, View, loaded

AGAIN = "brainhive train-prior cache_latents=true"
"""What makes a store."""


@dataclass(frozen=True)
class Latents:
    """A finished store, mapped into memory.

    Attributes:
        latent: [N, C, h, w] as the generator encodes them.
        sizes: [N, 6] original height, width; top, left of the crop; target height, width; pixels.
    """

    latent: StoredRows
    sizes: StoredRows

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map a finished store into memory."""
        with hdf5.open_file(path, AGAIN) as file:
            latent, sizes = (StoredRows(file, each, lambda: AGAIN, "f") for each in ("embedding", "sizes"))
            if latent.ndim != 4 or sizes.shape != (len(latent), 6):
                raise ValueError(f"it has latents {list(latent.shape)} and sizes {list(sizes.shape)}")
            return cls(latent, sizes)

    def __call__(self, index: int) -> tuple[Tensor, Tensor]:
        """Read the latent [C, h, w] and the ids of one picture."""
        return torch.from_numpy(np.array(self.latent[index])), torch.from_numpy(np.array(self.sizes[index]))


def path_of(paths: Paths, images: StimulusSet, autoencoder: str, view: View) -> Path:
    """Name the store of the latents of pictures by its autoencoder's digest, size and interpolation."""
    name = f"{autoencoder[:10]}-{view.side}px-{view.resize}.h5"
    source = "the data set or split of latents,"
    return below(paths.under_home("latents"), images.dataset, images.split, name, source=source)


def computed(
    images: StimulusSet,
    rows: NDArray[np.int64],
    generator: Any,
    view: View,
    paths: Paths,
    batch_size: int,
    workers: int,
    launch: Launch,
) -> Latents:
    """Open the latents of pictures, of which missing ones among `rows` are encoded; resumes where it stopped.

    Raises:
        BrainhiveError: if a picture cannot be decoded, or another command writes the store.
    """
    path = path_of(paths, images, generator.latent_digest, view)
    blank = Blank(
        path,
        images.image_ids,
        images.concepts,
        generator.latent_shape(view.side),
        "float32",
        {"dataset": images.dataset, "split": images.split},
        {"sizes": (6,)},
    )
    if launch.gather(_is_complete(path, images, rows))[0]:  # as the main process sees it
        return Latents.open(path)
    with filling([blank], launch, reopen=True) as filled:
        (writer,) = filled.writers
        pending, share = {*writer.pending.tolist()}, launch.shard(np.unique(rows).tolist())
        cut = [[*share[start : start + batch_size]] for start in range(0, len(share), batch_size)]
        cut = [batch for batch in cut if pending.intersection(batch)]  # whole, as others round differently
        with console.progress(f"latents of {images.dataset}", sum(map(len, cut)) * launch.processes) as bar:
            for batch in loaded(Items(images, view), cut, workers, launch):
                latents = generator.encode(batch["image"].to(launch.device).float() / 255)
                writer.write(batch["rows"].numpy(), latents.cpu().numpy(), sizes=batch["sizes"].numpy())
                bar.advance(len(latents) * launch.processes)
        filled.finish()
    return Latents.open(path)


def _is_complete(path: Path, images: StimulusSet, rows: NDArray[np.int64]) -> bool:
    """Whether a finished store has the latents of these pictures."""
    try:
        with hdf5.open_file(path, "") as file:
            is_same = Names(read_strings(file, "image_id")) == images.image_ids
            is_done = is_same and bool(read_flags(file, "done")[rows].all())
        return is_done and len(Latents.open(path).latent) == len(images)
    except BrainhiveError:  # absent, damaged or of another kind
        return False
