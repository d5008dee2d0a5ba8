"""Training examples of a prior: pictures, embeddings and latents."""

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

from brainhive_cli.core.base import (
    BrainhiveError,
    Int64,
    Line,
    MissingData,
    RecipeError,
    console,
)
from brainhive_cli.core.files import resolve_below
from brainhive_cli.core.runs import Launch
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.files import Names, hdf5
from brainhive_cli.data.media import (
    BatchContent,
    Latents,
    PictureBatch,
    StimulusSet,
    View,
    count_decoders,
    crop_centre,
    load_batches,
    read_pictures,
)
from brainhive_cli.data.stores import StorePlan, finish_stores, open_writers
from brainhive_cli.data.targets import Targets, open_targets
from brainhive_cli.training.prior.recipe import Recipe


@dataclass(frozen=True)
class PriorExamples:
    """Pictures with their embeddings, for training and for validation.

    Attributes:
        images: All pictures of the split.
        targets: Embeddings of the pictures.
        training_rows: Rows of the training pictures.
        held_out_rows: Rows of the held-out pictures, in random order.
        view: Crop and size of the pictures.
        latents: Function that reads cached latents, or None.
    """

    images: StimulusSet
    targets: Targets
    training_rows: Int64
    held_out_rows: Int64
    view: View
    latents: Latents | None = None

    @classmethod
    def open(cls, recipe: Recipe, launch: Launch) -> Self:
        """Open the pictures and embeddings, and hold out a fifth of them at most.

        Raises:
            MissingData: if embeddings are absent.
            RecipeError: if the stimuli are clips.
        """
        dataset: Dataset = recipe.dataset.build(recipe.paths)
        images = dataset.images(recipe.split)
        if images.medium == "clip":
            raise RecipeError(
                "train-prior needs pictures, and the stimuli of "
                f"{dataset.name} are clips",
                "choose another dataset",
            )
        targets = _open_embeddings(recipe, images, launch)

        # the seed decides which pictures are held out
        rng = np.random.default_rng(recipe.seed)
        order = rng.permutation(np.flatnonzero(targets.done))
        n_needed = max(recipe.validation_items, recipe.sample_items, recipe.fid_items)
        n_held_out = min(n_needed, len(order) // 5)
        if n_held_out < n_needed:
            console.warn(
                f"{n_held_out} of {len(order)} pictures are kept from training, not "
                f"{n_needed}: a fifth at most"
            )
        view = partial(crop_centre, side_px=recipe.resolution_px, resize=recipe.resize)
        return cls(
            images,
            targets,
            training_rows=np.sort(order[n_held_out:]),
            held_out_rows=order[:n_held_out],
            view=view,
        )

    def to_device(self, recipe: Recipe, launch: Launch) -> Self:
        """Open the embeddings again, on the device of each process."""
        return replace(self, targets=_open_embeddings(recipe, self.images, launch))

    def read(self, rows: Sequence[int]) -> BatchContent:
        """Read the pictures of rows as training sees them.

        Raises:
            BrainhiveError: if a picture cannot be decoded.
        """
        views = {group.name: group.view for group in self.targets.groups}
        return read_pictures(self.images, self.view, views, self.latents, rows)

    def count_in_step(self, size: int, passes: int, processes: int) -> int:
        """Count the pictures of a step, over all passes and processes.

        Args:
            size: Largest number of pictures.
            passes: Backward passes of a step.
            processes: Number of processes.

        Raises:
            BrainhiveError: if a pass of a process has no picture.
        """
        size = min(size, len(self.training_rows))
        if size < passes * processes:
            raise BrainhiveError(
                f"{size} training pictures are too few for {passes} passes "
                f"(train.accumulate) on {processes} processes",
                "use more pictures, or lower train.accumulate",
            )
        return size


def load_examples(
    pictures: PriorExamples,
    steps: range,
    size: int,
    passes: int,
    seed: int,
    workers: int,
    launch: Launch,
) -> Iterator[PictureBatch]:
    """Load this process's share of the pictures of some steps.

    Args:
        pictures: Pictures with embeddings.
        steps: Numbers of the steps.
        size: Pictures in a step, as `count_in_step` returns it.
        passes: Backward passes of a step.
        seed: Seed of the order, which changes with every epoch.
        workers: Number of processes that decode pictures.
        launch: Processes that share the steps.

    Yields:
        A batch for each pass of each step.

    Raises:
        BrainhiveError: if a picture cannot be decoded.
    """
    # positions of each pass in a step
    shard = np.asarray(launch.shard(range(size)))
    passes_of_step = np.array_split(shard, passes)
    if pictures.latents is not None and not pictures.targets.groups:
        workers = 0  # nothing is decoded
    rows = _shuffle_rows(pictures.training_rows, steps, size, passes_of_step, seed)
    loader = load_batches(pictures.read, len(pictures.images), rows, workers, launch)

    # step and position seed the noise of each picture
    places = product(steps, passes_of_step)
    for (step, positions), batch in zip(places, loader, strict=True):
        yield replace(batch, step=step, positions=tuple(positions.tolist()))


def _shuffle_rows(
    training_rows: Int64,
    steps: range,
    size: int,
    passes_of_step: Sequence[Int64],
    seed: int,
) -> Iterator[list[int]]:
    """Yield the picture rows of each pass of each step.

    Each epoch has whole steps, in an order that depends on seed and epoch only.

    Args:
        training_rows: Rows of the training pictures.
        steps: Numbers of the steps.
        size: Pictures in a step.
        passes_of_step: Positions in a step that each pass of this process takes.
        seed: Seed of the order.
    """
    steps_per_epoch = len(training_rows) // size
    shuffled_epoch = -1
    shuffled_rows = training_rows
    for step in steps:
        epoch, step_in_epoch = divmod(step, steps_per_epoch)
        if epoch != shuffled_epoch:
            shuffled_epoch = epoch
            shuffled_rows = np.random.default_rng((seed, epoch)).permutation(
                training_rows
            )
        for positions in passes_of_step:
            yield shuffled_rows[step_in_epoch * size + positions].tolist()


def _open_embeddings(recipe: Recipe, images: StimulusSet, launch: Launch) -> Targets:
    """Open the embeddings of the pictures by each encoder of the recipe.

    Raises:
        MissingData: if embeddings are absent, and `recipe.embed_missing` is not set.
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
        hint = f"{error.hint}, or add --embed-missing"
        raise MissingData(error.message, hint) from error


def encode_latents(
    pictures: PriorExamples, generator: Any, recipe: Recipe, launch: Launch
) -> PriorExamples:
    """Add the autoencoder's latents of pictures, and encode pictures without any.

    The store is named by the digest of the autoencoder, and by the size and
    interpolation of the pictures.

    Raises:
        BrainhiveError: if a picture cannot be decoded, or if another command writes the
            store.
    """
    images = pictures.images
    rows = np.flatnonzero(pictures.targets.done)
    digest = generator.digest_autoencoder()[:10]
    name = f"{digest}-{recipe.resolution_px}px-{recipe.resize}.h5"
    root = recipe.paths.under_home("latents")
    source = "the data set or split of latents,"
    path = resolve_below(root, images.dataset, images.split, name, source=source)

    # use a complete store, if the main process finds one
    is_complete = False
    with suppress(BrainhiveError):  # absent or damaged
        open_latents(path, images, rows)
        is_complete = True
    if launch.gather(is_complete)[0]:
        return replace(pictures, latents=open_latents(path, images, rows))

    # create or open a store of latents [M, C, h, w], and resume after its last batch
    plan = StorePlan(
        path,
        images.image_ids,
        images.concepts,
        generator.latent_shape(recipe.resolution_px),
        "float32",
        {"dataset": images.dataset, "split": images.split},
        {"sizes": (6,)},
    )
    with open_writers([plan], launch, reopens_finished=True) as writers:
        (writer,) = writers
        pending_rows = set(writer.pending_rows.tolist())
        share = launch.shard(rows.tolist())
        batch_size = recipe.train.batch_size
        workers = count_decoders(recipe.run.workers, launch)

        # encode whole batches again, because other sizes would be rounded differently
        batches = []
        n_rows = 0
        for start in range(0, len(share), batch_size):
            batch_rows = list(share[start : start + batch_size])
            if pending_rows.intersection(batch_rows):
                batches.append(batch_rows)
                n_rows += len(batch_rows)
        total = n_rows * launch.processes
        with console.progress(f"encoding {images.dataset}", total) as bar:
            read = partial(read_pictures, images, pictures.view, {}, None)
            for batch in load_batches(read, len(images), batches, workers, launch):
                latents = generator.encode(batch.image.to(launch.device).float() / 255)
                sizes = batch.sizes.numpy()
                writer.write(batch.rows, latents.cpu().numpy(), sizes=sizes)
                bar.advance(len(latents) * launch.processes)
        finish_stores(writers, launch)
    return replace(pictures, latents=open_latents(path, images, rows))


def open_latents(path: Path, images: StimulusSet, rows: Int64) -> Latents:
    """Map a store of latents into memory.

    Args:
        path: File of the store.
        images: Pictures of the store.
        rows: Rows whose latents must be stored.

    Returns:
        Function that reads the latent [C, h, w] and the size ids [6] of a row.

    Raises:
        BrainhiveError: if the store is absent, damaged or incomplete, or if it is of
            other pictures.
    """
    # Command that makes a store of latents.
    latents_command = Line("train-prior", "cache_latents=true")
    with hdf5.open_file(path, latents_command) as file:
        latents = hdf5.open_rows(file, "embedding", latents_command, "f")
        sizes = hdf5.open_rows(file, "sizes", latents_command, "f")
        has_images = Names(hdf5.read_strings(file, "image_id")) == images.image_ids
        if not has_images or len(latents) != len(images):
            raise ValueError("it is of other pictures")
        if not hdf5.read_flags(file, "done")[rows].all():
            raise ValueError("it lacks the latents of some pictures")

    def read(index: int) -> tuple[Tensor, Tensor]:
        latent = torch.from_numpy(np.array(latents[index]))
        return latent, torch.from_numpy(np.array(sizes[index]))

    return read
