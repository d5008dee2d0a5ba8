"""The examples of a prior's training: pictures with their embeddings, in an order given by seed and step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.datasets import Dataset, StimulusSet
from brainhive_cli.data.targets.targets import Targets, open_targets
from brainhive_cli.data.targets.views import Items, View, collate, loaded
from brainhive_cli.training.prior.latents import Latents
from brainhive_cli.training.prior.recipe import Recipe


@dataclass(frozen=True)
class Pictures:
    """Pictures with their embeddings, and which are kept from training."""

    images: StimulusSet
    targets: Targets
    train: NDArray[np.int64]  # rows of the pictures that are learned
    held: NDArray[np.int64]  # rows of those kept from training, in random order
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
                hold=False,  # memory is needed for the generator
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

    def batch(self, chosen: NDArray[np.int64]) -> "Batch":
        """Read pictures in this process."""
        items = self.items
        read = collate([items[index] for index in chosen.tolist()])
        if "error" in read:
            raise read["error"]
        return _batch(read)


@dataclass(frozen=True)
class Batch:
    """Some pictures of a step."""

    rows: NDArray[np.int64]  # [B]
    image: Tensor  # bytes [B, 3, H, W], or latents [B, C, h, w] where they were computed before
    sizes: Tensor  # [B, 6], pixels: original height, width; top, left of the crop; target height, width
    views: dict[str, Tensor]  # preprocessed for encoders that embed in each step, [B, 3, H, W] by name
    step: int = 0
    places: tuple[int, ...] = ()  # [B] among the pictures of the step, over all processes
    count: int = 0  # pictures of the step over all processes
    is_last: bool = True  # of this process's share of the step


def _batch(read: dict[str, Any], **place: Any) -> Batch:
    return Batch(read["rows"].numpy(), read["image"], read["sizes"], read["views"], **place)


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
    size = pictures.count_in_step(size, passes, launch.processes)
    cuts = np.array_split(np.asarray(launch.shard(range(size))), passes)
    rows = _order(pictures.train, steps, cuts, size, seed)
    read = loaded(pictures.items, rows, workers, launch)
    for (step, (number, cut)), items in zip(product(steps, enumerate(cuts, 1)), read, strict=True):
        yield _batch(items, step=step, places=tuple(cut.tolist()), count=size, is_last=number == passes)


def _order(
    train: NDArray[np.int64], steps: range, cuts: Sequence[NDArray[np.int64]], size: int, seed: int
) -> Iterator[list[int]]:
    """Yield the rows of each cut of each step: every epoch is a new order, cut into whole steps."""
    each, shuffled = len(train) // size, (-1, train)
    for step in steps:
        epoch, place = divmod(step, each)
        if shuffled[0] != epoch:
            shuffled = (epoch, np.random.default_rng((seed, epoch)).permutation(train))
        for cut in cuts:
            yield shuffled[1][place * size + cut].tolist()
