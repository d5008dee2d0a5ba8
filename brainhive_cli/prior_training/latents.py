"""Latents of pictures, encoded once into a store together with their size and crop ids."""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.file_lock import FileLock
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.views import Items, View, loaded
from brainhive_cli.datasets import ImageSet
from brainhive_cli.stores import hdf5

FORMAT = 1


@dataclass(frozen=True)
class Latents:
    """A finished store, mapped into memory.

    Attributes:
        latent: [N, C, h, w] as the generator encodes them.
        sizes: [N, 6] original height, width; top, left of the crop; target height, width; pixels.
    """

    latent: NDArray[np.float32]
    sizes: NDArray[np.float32]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map a finished store into memory."""
        with hdf5.open_file(path, "brainhive train-prior cache_latents=true") as file:
            return cls(hdf5.mapped(file["latent"]), hdf5.mapped(file["sizes"]))

    def __call__(self, index: int) -> tuple[Tensor, Tensor]:
        """Read the latent [C, h, w] and the ids of one picture."""
        return torch.from_numpy(np.array(self.latent[index])), torch.from_numpy(np.array(self.sizes[index]))


def path_of(paths: Paths, images: ImageSet, autoencoder: str, view: View) -> Path:
    """Name the store of the latents of pictures by its autoencoder's digest, size and interpolation."""
    name = f"{autoencoder[:10]}-{view.side}px-{view.resize}.h5"
    return paths.under_home("latents") / images.dataset / images.split / name


def computed(
    images: ImageSet,
    rows: NDArray[np.int64],
    generator: Any,
    view: View,
    paths: Paths,
    batch_size: int,
    workers: int,
    launch: Launch,
) -> Latents:
    """Open the latents of pictures; those missing are encoded first, and an interruption costs a batch.

    Args:
        images: The pictures.
        rows: Those that can be decoded.
        generator: Encodes them.
        view: Resizing and crop.
        paths: Where stores lie.
        batch_size: Pictures that are encoded at once.
        workers: Processes that decode.
        launch: This process among those that share the pictures.

    Raises:
        BrainhiveError: if a picture cannot be decoded, or another command writes the store.
    """
    path = path_of(paths, images, generator.latent_digest, view)
    lacking = _pending(path, images, rows)
    if launch.gather(lacking is None or len(lacking) > 0)[0]:  # as the main process sees it
        _fill(path, images, rows, generator, view, batch_size, workers, launch)
    return Latents.open(path)


def _fill(
    path: Path,
    images: ImageSet,
    rows: NDArray[np.int64],
    generator: Any,
    view: View,
    batch_size: int,
    workers: int,
    launch: Launch,
) -> None:
    part = hdf5.part_of(path)
    with ExitStack() as held:
        if launch.is_main:
            held.callback(FileLock.for_path(path).release)
            if _pending(path, images, rows) is not None:  # finished when fewer pictures could be decoded
                os.replace(path, part)
            if _pending(part, images, rows) is None:
                _create(part, images, generator.latent_shape(view.side))
        launch.barrier()
        pending = _pending(part, images, rows)
        assert pending is not None
        launch.barrier()  # nobody writes before everybody knows what is pending
        writers = {name: hdf5.RowWriter(part, name) for name in ("latent", "sizes", "done")}
        for writer in writers.values():
            held.callback(writer.close)
        share = np.array(launch.shard(pending.tolist()), int)
        cut = [share[start : start + batch_size].tolist() for start in range(0, len(share), batch_size)]
        with console.progress(f"latents of {images.dataset}", len(pending)) as bar:
            for batch in loaded(Items(images, view), cut, workers, launch):
                chosen = batch["rows"].numpy()
                pictures = batch["image"].to(launch.device).float() / 255
                writers["latent"].write(chosen, generator.encode(pictures).cpu().numpy())
                writers["sizes"].write(chosen, batch["sizes"].numpy())
                writers["done"].write(chosen, np.ones(len(chosen), np.uint8))
                bar.advance(len(chosen) * launch.processes)
        launch.barrier()
        if launch.is_main:
            os.replace(part, path)
        launch.barrier()


def _create(part: Path, images: ImageSet, shape: tuple[int, ...]) -> None:
    count = len(images)
    hdf5.create(
        part,
        {"latent": ((count, *shape), "float32"), "sizes": ((count, 6), "float32")},
        {"image_id": images.image_ids.packed, "done": np.zeros(count, np.uint8)},
        {"format": FORMAT, "dataset": images.dataset, "split": images.split},
    )


def _pending(path: Path, images: ImageSet, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """List the rows that a store lacks; None if it is absent, or not of exactly these pictures."""
    try:
        with h5py.File(path, "r") as file:
            is_known = hdf5.get_attributes(file).get("format") == FORMAT
            if is_known and np.array_equal(file["image_id"][()], images.image_ids.packed):
                return rows[file["done"][()][rows] == 0]
    except (OSError, KeyError):  # absent, or killed while it was being created
        pass
    return None
