"""train-autoencoder: a small variational autoencoder of a folder of pictures."""

from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from brainhive_cli.core import console, parts
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.inputs import Input
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import ALL, Measurements
from brainhive_cli.core.recipe import BaseRecipe, Run
from brainhive_cli.core.results import Result
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.data.datasets import StimulusSet
from brainhive_cli.data.media.media_files import to_media
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.models.picture_autoencoder import Architecture, PictureAutoencoder

MOST = 100_000
"""Most pictures that are held in memory at once."""


class Recipe(BaseRecipe):
    """Recipe of train-autoencoder: an autoencoder, and the pictures that it learns from."""

    is_tracked = True

    dataset: Annotated[Any, parts.part("datasets", "image-folder")] = Field(
        "image-folder",
        validate_default=True,
        description="pictures; those that are decoded later are no part",
    )
    split: str = Field("train", description="split whose pictures are learned")
    model: Architecture = Architecture()
    epochs: int = Field(80, gt=0, le=100_000, description="passes over the pictures")
    batch_size: int = Field(64, gt=0, le=2**16, description="pictures in a step")
    lr: float = Field(2e-3, gt=0, le=1, description="highest learning rate of one cycle")
    validation: float = Field(0.1, gt=0, lt=1, description="share of the pictures that is kept from training")
    seed: int = Field(0, ge=0, description="seed of weights, order, noise, and of the pictures that are kept")
    run: Run = Run(device="cpu")


def find_pictures(recipe: Recipe) -> StimulusSet:
    """List the pictures to learn from.

    Raises:
        MissingData: if there are none.
        BrainhiveError: if there are too many, or too few.
    """
    images: StimulusSet = recipe.dataset.build(recipe.paths).images(recipe.split)
    if not 2 <= len(images) <= MOST or images.medium != "picture":
        raise BrainhiveError(
            f"{images.dataset} has {len(images)} {images.medium}s in {recipe.split}",
            f"2 to {MOST:,} pictures",
        )
    return images


def inputs(recipe: Recipe) -> list[Input]:
    """List the pictures."""
    images = find_pictures(recipe)
    return [Input(f"{len(images)} pictures of {images.dataset}")]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Train, save the autoencoder as RUN/model, and measure it on pictures that were kept from training."""
    # train unless the run is finished
    images = find_pictures(recipe)
    folder = RunFolder.open("train-autoencoder", images.dataset, recipe, launch, again)
    if launch.is_main and not folder.is_finished:
        with folder.finishing(launch.alone) as is_due:
            if is_due:
                folder.finish(_train(recipe, images, folder))
    launch.barrier()

    # report the metrics
    measured = folder.measurements()
    rows = [(name, m.value, m.interval_text(2), m.n) for name, m in measured.overall.items()]
    return Result(folder.path, (Table("autoencoder", ("metric", "value", "95 % CI", "n"), rows),), measured)


def _train(recipe: Recipe, images: StimulusSet, folder: RunFolder) -> Measurements:
    """Train on most pictures, and measure the evidence lower bound of the others."""
    # the generator draws order, noise and the held pictures; weights are drawn apart, by the same seed
    random = torch.Generator().manual_seed(recipe.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = PictureAutoencoder(recipe.model)

    # read all pictures at the network's size and colours
    rows = []
    with console.progress("reading pictures", len(images)) as bar:
        for row in range(len(images)):
            rows.append(network.flatten(to_media(images.open(row))[None])[0])
            bar.advance(1)
    pixels = torch.stack(rows)  # [N, pixels]

    # hold a random share back for validation
    order = torch.randperm(len(pixels), generator=random)
    held = order[: max(1, round(recipe.validation * len(pixels)))]
    if len(held) == len(pixels):
        raise MissingData(f"no picture of {len(pixels)} is left to learn from", "a smaller validation")

    # learn from the others
    with console.progress("training the autoencoder", recipe.epochs) as bar:

        def after_epoch(loss: float) -> None:
            folder.log(loss=loss)
            bar.advance(1, f"loss {loss:.1f}")

        network.fit(
            pixels[order[len(held) :]], recipe.epochs, recipe.batch_size, recipe.lr, random, after_epoch
        )
    folder.replace("model", network.eval().save)

    # measure the held pictures, with one draw of noise
    with torch.no_grad():
        noise = torch.randn(len(held), recipe.model.latents, generator=random)
        losses = network.loss(pixels[held], noise).double().numpy()  # [N]
    metric = measure(
        "validation_loss",
        [np.asarray(losses)],
        protocol="negative evidence lower bound, nats a picture",
        seeds=(recipe.seed,),
        split="validation",
    )
    return Measurements({ALL: {metric.name: metric}})
