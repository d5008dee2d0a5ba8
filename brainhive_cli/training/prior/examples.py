"""The examples of a prior's training: pictures, embeddings and latents, ordered by seed and step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files import below
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.lines import Line
from brainhive_cli.data.datasets import Dataset, StimulusSet
from brainhive_cli.data.media.decoding import decoders
from brainhive_cli.data.stores import hdf5
from brainhive_cli.data.stores.hdf5 import LazyRows, open_rows, read_flags, read_strings
from brainhive_cli.data.stores.ids import Names
from brainhive_cli.data.stores.target_store import Blank, filling, finish_stores
from brainhive_cli.data.targets.targets import Targets, open_targets
from brainhive_cli.data.targets.views import Items, View, collate, loaded
from brainhive_cli.training.prior.recipe import Recipe

AGAIN = Line("train-prior", "cache_latents=true")
"""Command that makes a store."""


@dataclass(frozen=True)
class Latents:
    """A finished store, mapped into memory.

    Attributes:
        latent: [N, C, h, w] as the generator encodes them.
        sizes: [N, 6] original height, width; top, left of the crop; target height, width; pixels.
    """

    latent: LazyRows
    sizes: LazyRows

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map a finished store into memory."""
        with hdf5.open_file(path, AGAIN) as file:
            latent, sizes = (open_rows(file, key, lambda: AGAIN, "f") for key in ("embedding", "sizes"))
            if len(latent.shape) != 4 or sizes.shape != (len(latent), 6):
                raise ValueError(f"it has latents {list(latent.shape)} and sizes {list(sizes.shape)}")
            return cls(latent, sizes)

    def __call__(self, index: int) -> tuple[Tensor, Tensor]:
        """Read the latent [C, h, w] and the ids of one picture."""
        return torch.from_numpy(np.array(self.latent[index])), torch.from_numpy(np.array(self.sizes[index]))


@dataclass(frozen=True)
class Pictures:
    """Pictures with their embeddings, and which are kept from training."""

    images: StimulusSet
    targets: Targets
    train: Int64  # rows of the pictures that are learned
    held: Int64  # rows of those kept from training, in random order
    view: View
    latents: Latents | None = None  # where these were computed before

    @classmethod
    def open(cls, recipe: Recipe, launch: Launch) -> Self:
        """Match pictures and embeddings, of which MissingData names absent ones; keep a fifth at most."""
        dataset: Dataset = recipe.dataset.build(recipe.paths)
        images = dataset.images(recipe.split)
        if images.medium == "clip":
            raise RecipeError(
                f"train-prior learns from pictures, and the stimuli of {dataset.name} are clips",
                "choose another dataset",
            )
        try:
            targets = open_targets(
                dataset,
                recipe.dataset,
                recipe.split,
                recipe.encoders,
                recipe.paths,
                launch,
                compute_missing=recipe.embed_missing,
                images=images,
            )
        except MissingData as error:
            raise MissingData(error.message, f"{error.hint}, or add --embed-missing") from error
        order = np.random.default_rng(recipe.seed).permutation(np.flatnonzero(targets.done))
        needed = max(recipe.validation_items, recipe.sample_items, recipe.fid_items)
        if (held := min(needed, len(order) // 5)) < needed:
            console.warn(
                f"{held} of {len(order)} pictures are kept from training, not {needed}: a fifth at most"
            )
        view = View(recipe.resolution_px, recipe.resize)
        return cls(images, targets, np.sort(order[held:]), order[:held], view)

    @property
    def items(self) -> Items:
        """The pictures as training reads them."""
        views = {group.name: group.view for group in self.targets.groups}
        return Items(self.images, self.view, views, self.latents)

    def count_in_step(self, size: int, passes: int, processes: int) -> int:
        """Count the pictures of a step, at most `size`; BrainhiveError if a pass of a process has none."""
        size = min(size, len(self.train))
        if size < passes * processes:
            raise BrainhiveError(
                f"{size} pictures to learn are fewer than {passes} passes on {processes} processes",
                "use more pictures, or lower train.accumulate",
            )
        return size

    def batch(self, chosen: Int64) -> "Batch":
        """Read pictures in this process."""
        items = self.items
        read = collate([items[index] for index in chosen.tolist()])
        if "error" in read:
            raise read["error"]
        return Batch.of(read)


def encode_latents(pictures: Pictures, generator: Any, recipe: Recipe, launch: Launch) -> Pictures:
    """Add the latents of pictures, of which missing ones are encoded; resumes where it stopped.

    The store is named by the autoencoder's digest, and by size and interpolation of the pictures.

    Raises:
        BrainhiveError: if a picture cannot be decoded, or another command writes the store.
    """
    images, view, rows = pictures.images, pictures.view, np.flatnonzero(pictures.targets.done)
    name = f"{generator.latent_digest[:10]}-{view.side}px-{view.resize}.h5"
    root, source = recipe.paths.under_home("latents"), "the data set or split of latents,"
    path = below(root, images.dataset, images.split, name, source=source)

    def is_complete() -> bool:
        """Whether a finished store has the latents of these pictures."""
        try:
            with hdf5.open_file(path, "") as file:
                is_same = Names(read_strings(file, "image_id")) == images.image_ids
                is_done = is_same and bool(read_flags(file, "done")[rows].all())
            return is_done and len(Latents.open(path).latent) == len(images)
        except BrainhiveError:  # absent, damaged or of another kind
            return False

    if launch.gather(is_complete())[0]:  # as the main process sees it
        return replace(pictures, latents=Latents.open(path))

    # an empty store of latents [M, C, h, w]
    attributes = {"dataset": images.dataset, "split": images.split}
    shape, sizes = generator.latent_shape(view.side), {"sizes": (6,)}
    blank = Blank(path, images.image_ids, images.concepts, shape, "float32", attributes, sizes)
    with filling([blank], launch, reopen=True) as writers:
        # batches of this process's share
        (writer,) = writers
        pending, share = {*writer.pending.tolist()}, launch.shard(rows.tolist())
        size, workers = recipe.train.batch_size, decoders(recipe.run.workers, launch)
        batches = [[*share[start : start + size]] for start in range(0, len(share), size)]
        # a batch is encoded again as it was, since batches of other sizes round differently
        batches = [batch for batch in batches if pending.intersection(batch)]
        count = sum(map(len, batches)) * launch.processes
        with console.progress(f"latents of {images.dataset}", count) as bar:
            for batch in loaded(Items(images, view), batches, workers, launch):
                latents = generator.encode(batch["image"].to(launch.device).float() / 255)
                writer.write(batch["rows"].numpy(), latents.cpu().numpy(), sizes=batch["sizes"].numpy())
                bar.advance(len(latents) * launch.processes)
        finish_stores(writers, launch)
    return replace(pictures, latents=Latents.open(path))


@dataclass(frozen=True)
class Batch:
    """Some pictures of a step."""

    rows: Int64  # [B]
    image: Tensor  # bytes [B, 3, H, W], or latents [B, C, h, w] where they were computed before
    sizes: Tensor  # [B, 6], pixels: original height, width; top, left of the crop; target height, width
    views: dict[str, Tensor]  # preprocessed for encoders that embed in each step, [B, 3, H, W] by name
    step: int = 0
    places: tuple[int, ...] = ()  # [B] among the pictures of the step, over all processes
    count: int = 0  # pictures of the step over all processes
    is_last: bool = True  # of this process's share of the step

    @classmethod
    def of(cls, read: Mapping[str, Any], **place: Any) -> Self:
        """Take what `collate` returns."""
        return cls(read["rows"].numpy(), read["image"], read["sizes"], read["views"], **place)


def batches(
    pictures: Pictures, steps: range, size: int, passes: int, seed: int, workers: int, launch: Launch
) -> Iterator[Batch]:
    """Yield this process's share of the pictures of `steps`.

    Args:
        pictures: The pictures.
        steps: Which steps.
        size: Pictures a step, over all passes and processes.
        passes: Batches that the share of a step is cut into.
        seed: Of the order, which differs between epochs.
        workers: Processes that decode.
        launch: This process among those that share the steps.

    Raises:
        BrainhiveError: if a picture cannot be decoded, or there are fewer than one a pass and process.
    """
    # positions of each pass in a step
    size = pictures.count_in_step(size, passes, launch.processes)
    cuts = np.array_split(np.asarray(launch.shard(range(size))), passes)

    def order() -> Iterator[list[int]]:
        """Yield the rows of each cut of each step: every epoch is a new order, cut into whole steps."""
        steps_per_epoch, shuffled = len(pictures.train) // size, (-1, pictures.train)
        for step in steps:
            epoch, step_in_epoch = divmod(step, steps_per_epoch)
            if shuffled[0] != epoch:
                shuffled = (epoch, np.random.default_rng((seed, epoch)).permutation(pictures.train))
            for cut in cuts:
                yield shuffled[1][step_in_epoch * size + cut].tolist()

    read = loaded(pictures.items, order(), workers, launch)
    for (step, (number, cut)), items in zip(product(steps, enumerate(cuts, 1)), read, strict=True):
        yield Batch.of(items, step=step, places=tuple(cut.tolist()), count=size, is_last=number == passes)
