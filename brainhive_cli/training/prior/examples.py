"""The examples of a prior's training: pictures, embeddings and latents, ordered by seed
and step.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.errors import BrainhiveError, Line, MissingData, RecipeError
from brainhive_cli.core.files import resolve_below
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media.decoding import count_decoders
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.media.views import (
    BatchContent,
    Latents,
    PictureBatch,
    View,
    crop_centre,
    load_batches,
    read_pictures,
)
from brainhive_cli.data.stores.target_writer import (
    StorePlan,
    finish_stores,
    open_writers,
)
from brainhive_cli.data.targets.targets import Targets, open_targets
from brainhive_cli.training.prior.recipe import Recipe

AGAIN = Line("train-prior", "cache_latents=true")
"""Command that makes a store."""


def open_latents(path: Path, images: StimulusSet, rows: Int64) -> Latents:
    """Map a finished store into memory; BrainhiveError if it lacks a latent of these
    rows, or is damaged.
    """
    # refuse a store of other pictures, or an incomplete one
    with hdf5.open_file(path, AGAIN) as file:
        latents, sizes = (
            hdf5.open_rows(file, key, AGAIN, "f") for key in ("embedding", "sizes")
        )
        if Names(hdf5.read_strings(file, "image_id")) != images.image_ids or len(
            latents
        ) != len(images):
            raise ValueError("it is of other pictures")
        if not hdf5.read_flags(file, "done")[rows].all():
            raise ValueError("it lacks the latents of some pictures")

    def read(index: int) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(np.array(latents[index])), torch.from_numpy(
            np.array(sizes[index])
        )

    return read


def _open_embeddings(recipe: Recipe, images: StimulusSet, launch: Launch) -> Targets:
    """Open the embeddings of the pictures; they are computed now if the recipe says so.

    Raises:
        MissingData: naming absent ones.
    """
    try:
        return open_targets(
            recipe.dataset.build(recipe.paths),
            recipe.dataset,
            recipe.split,
            recipe.encoders,
            recipe.paths,
            launch,
            compute_missing=recipe.embed_missing,
            images=images,
        )
    except MissingData as error:
        way = f"{error.hint}, or add --embed-missing"
        raise MissingData(error.message, way) from error


@dataclass(frozen=True)
class PriorExamples:
    """Pictures with their embeddings, and which are kept from training."""

    images: StimulusSet
    targets: Targets
    train: Int64  # rows of the pictures that are learned
    held: Int64  # rows of those kept from training, in random order
    view: View
    latents: Latents | None = None  # where these were computed before

    @classmethod
    def open(cls, recipe: Recipe, launch: Launch) -> Self:
        """Match pictures and embeddings, of which MissingData names absent ones; keep a
        fifth at most.
        """
        dataset: Dataset = recipe.dataset.build(recipe.paths)
        images = dataset.images(recipe.split)
        if images.medium == "clip":
            raise RecipeError(
                "train-prior learns from pictures, and the stimuli of "
                f"{dataset.name} are clips",
                "choose another dataset",
            )
        targets = _open_embeddings(recipe, images, launch)

        # hold pictures out by the seed, but a fifth at most
        order = np.random.default_rng(recipe.seed).permutation(
            np.flatnonzero(targets.done)
        )
        needed = max(recipe.validation_items, recipe.sample_items, recipe.fid_items)
        if (held := min(needed, len(order) // 5)) < needed:
            console.warn(
                f"{held} of {len(order)} pictures are kept from training, not "
                f"{needed}: a fifth at most"
            )
        view = partial(crop_centre, side_px=recipe.resolution_px, resize=recipe.resize)
        return cls(images, targets, np.sort(order[held:]), order[:held], view)

    def on(self, recipe: Recipe, launch: Launch) -> Self:
        """Take the embeddings to the device of a launch."""
        return replace(self, targets=_open_embeddings(recipe, self.images, launch))

    def read(self, rows: Sequence[int]) -> BatchContent:
        """Read pictures as training sees them; raises BrainhiveError if one cannot be
        decoded.
        """
        views = {group.name: group.view for group in self.targets.groups}
        return read_pictures(self.images, self.view, views, self.latents, rows)

    def count_in_step(self, size: int, passes: int, processes: int) -> int:
        """Count the pictures of a step, at most `size`; BrainhiveError if a pass of a
        process has none.
        """
        size = min(size, len(self.train))
        if size < passes * processes:
            raise BrainhiveError(
                f"{size} pictures to learn are fewer than {passes} passes on "
                f"{processes} processes",
                "use more pictures, or lower train.accumulate",
            )
        return size


def encode_latents(
    pictures: PriorExamples, generator: Any, recipe: Recipe, launch: Launch
) -> PriorExamples:
    """Add the latents of pictures, of which missing ones are encoded; resumes where it
    stopped.

    The store is named by the autoencoder's digest, and by size and interpolation of the
    pictures.

    Raises:
        BrainhiveError: if a picture cannot be decoded, or another command writes the
            store.
    """
    # the store of this autoencoder, picture size and interpolation
    images = pictures.images
    view = pictures.view
    rows = np.flatnonzero(pictures.targets.done)
    digest = generator.digest_autoencoder()[:10]
    name = f"{digest}-{recipe.resolution_px}px-{recipe.resize}.h5"
    root = recipe.paths.under_home("latents")
    source = "the data set or split of latents,"
    path = resolve_below(root, images.dataset, images.split, name, source=source)

    # a complete store is opened as it is
    is_complete = False
    with suppress(BrainhiveError):  # absent, damaged or of another kind
        open_latents(path, images, rows)
        is_complete = True
    if launch.gather(is_complete)[0]:  # as the main process sees it
        return replace(pictures, latents=open_latents(path, images, rows))

    # an empty store of latents [M, C, h, w]
    attributes = {"dataset": images.dataset, "split": images.split}
    shape, sizes = generator.latent_shape(recipe.resolution_px), {"sizes": (6,)}
    blank = StorePlan(
        path, images.image_ids, images.concepts, shape, "float32", attributes, sizes
    )
    with open_writers([blank], launch, reopens_finished=True) as writers:
        # batches of this process's share
        (writer,) = writers
        pending, share = {*writer.pending_rows.tolist()}, launch.shard(rows.tolist())
        size, workers = (
            recipe.train.batch_size,
            count_decoders(recipe.run.workers, launch),
        )
        batches = [
            [*share[start : start + size]] for start in range(0, len(share), size)
        ]
        # a batch is encoded again as it was, since batches of other sizes round
        # differently
        batches = [batch for batch in batches if pending.intersection(batch)]
        count = sum(map(len, batches)) * launch.processes
        with console.progress(f"encoding {images.dataset}", count) as bar:
            read = partial(read_pictures, images, view, {}, None)
            for batch in load_batches(read, len(images), batches, workers, launch):
                latents = generator.encode(batch.image.to(launch.device).float() / 255)
                writer.write(
                    batch.rows, latents.cpu().numpy(), sizes=batch.sizes.numpy()
                )
                bar.advance(len(latents) * launch.processes)
        finish_stores(writers, launch)
    return replace(pictures, latents=open_latents(path, images, rows))


def batches(
    pictures: PriorExamples,
    steps: range,
    size: int,
    passes: int,
    seed: int,
    workers: int,
    launch: Launch,
) -> Iterator[PictureBatch]:
    """Yield this process's share of the pictures of `steps`, a batch for each pass.

    Args:
        pictures: The pictures.
        steps: Which steps.
        size: Pictures a step, over all passes and processes, as `count_in_step` limits
            it.
        passes: Batches that the share of a step is cut into.
        seed: Of the order, which differs between epochs.
        workers: Processes that decode.
        launch: This process among those that share the steps.

    Raises:
        BrainhiveError: if a picture cannot be decoded.
    """
    # positions of each pass in a step
    cuts = np.array_split(np.asarray(launch.shard(range(size))), passes)

    def order() -> Iterator[list[int]]:
        """Yield the rows of each cut of each step: every epoch is a new order, cut into
        whole steps.
        """
        steps_per_epoch, shuffled = len(pictures.train) // size, (-1, pictures.train)
        for step in steps:
            epoch, step_in_epoch = divmod(step, steps_per_epoch)
            # by seed and epoch, so that a resumed training has the same order
            if shuffled[0] != epoch:
                shuffled = (
                    epoch,
                    np.random.default_rng((seed, epoch)).permutation(pictures.train),
                )
            for cut in cuts:
                yield shuffled[1][step_in_epoch * size + cut].tolist()

    # workers decode ahead; step and positions seed the noise of each picture
    decodes = pictures.latents is None or pictures.targets.groups
    loader = load_batches(
        pictures.read, len(pictures.images), order(), workers if decodes else 0, launch
    )
    for (step, cut), batch in zip(product(steps, cuts), loader, strict=True):
        yield replace(batch, step=step, positions=tuple(cut.tolist()))
