"""Samples of pictures kept from training, next to the true pictures, and the metrics of
both.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core import artifacts, console
from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.media.views import PictureBatch, to_pictures
from brainhive_cli.data.targets.encoder_groups import encode
from brainhive_cli.measurement.metrics.perceptual import (
    inception,
    lpips,
    measure_distances,
    require_distances,
)
from brainhive_cli.measurement.statistics import Metric
from brainhive_cli.models import encoders
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.models.generators import Sampling, require_finite
from brainhive_cli.reports.drawings import DrawnTile, save_sheet
from brainhive_cli.training.prior.loop import (
    LAST,
    Training,
    embed_empty_prompt,
    load_generator,
)
from brainhive_cli.training.prior.recipe import INCEPTION

SAMPLER_PROMPT = "sampler_prompt.safetensors"
ValuesOrError = Float64 | BrainhiveError
"""Values of the items [N], or the reason why there are none."""
PictureFeatures = Callable[[Tensor], Tensor]
"""Pictures [N, 3, H, W] in 0..1 to features [N, D]."""


@console.progress("drawing samples")
def save_samples(
    training: Training, folder: RunFolder, name: str
) -> dict[str, ValuesOrError]:
    """Generate the sample items, in one process, on a sheet `samples/<name>.png`;
    return their metrics.
    """
    # the main process generates alone
    training = replace(training, launch=training.launch.single_process)
    recipe, images, launch = training.recipe, training.pictures.images, training.launch
    chosen = training.pictures.held_out_rows[: recipe.sample_items]
    if not len(chosen):
        return {}

    # pictures [N, 3, H, W] of the prior, and those that were seen
    with _sampler(training, folder) as generator:
        generated = _generate(training, generator, chosen)
    del generator  # its memory is the metrics' now
    true = _true(training, chosen)

    # a row of two tiles for each item
    rows = [
        [DrawnTile(seen, [images.concepts[index]]), DrawnTile(picture, ["generated"])]
        for index, seen, picture in zip(
            chosen, to_pictures(true), to_pictures(generated), strict=True
        )
    ]
    folder.replace(f"samples/{name}.png", partial(save_sheet, "", rows))
    if name == LAST:  # the samples of the finished prior, which a page shows
        # each tile as a file of its own, for pages
        sheet_rows = []
        for row, (index, tiles) in enumerate(zip(chosen, rows, strict=True)):
            saved = []
            for column, tile in enumerate(tiles):
                file = artifacts.save_picture(
                    folder, f"samples/{row}-{column}", tile.picture
                )
                saved.append(artifacts.SheetTile(file, tile.lines[:1]))
            sheet_rows.append(artifacts.SheetRow(images.image_ids[index], saved))
        note = (
            "Of pictures kept from training; made of their own embeddings, without a "
            "brain."
        )
        title, columns = "What the prior generates", ("seen", "generated")
        artifacts.write(
            folder,
            [artifacts.Sheet(title, columns, sheet_rows, section="Samples", note=note)],
        )

    # metrics of the true and generated pictures
    metrics = {}
    if recipe.lpips:
        metrics["lpips"] = _or_reason(lambda: lpips(true, generated, launch.device))
    for config in recipe.similarity:
        metrics[f"similarity_{config.name}"] = _or_reason(
            partial(_similarity, config, true, generated, launch)
        )
    return metrics


def draw_loss_curve(run: RunFolder) -> list[artifacts.Curve]:
    """Draw the loss over the steps, as the log has it; nothing where there are not
    two.
    """
    # losses of the log, by step
    loss_by_step = {
        event["step"]: event["loss"]
        for event in run.events()
        if {"step", "loss"} <= event.keys()
    }
    line = artifacts.CurveLine("training loss", list(loss_by_step.values()))
    curve = artifacts.Curve(
        "Loss", "step", list(loss_by_step), [line], section="Training"
    )
    return [curve] if len(loss_by_step) > 1 else []


def measure_distribution(training: Training, folder: RunFolder) -> list[Metric]:
    """Generate the items kept for it, each process its share, and measure FID and
    KID.

    Raises:
        BrainhiveError: if there are too few items, or weights of the network that
            embeds them are missing.
    """
    recipe, launch = training.recipe, training.launch

    # each process generates its share of the items
    chosen, features = _load_distances(training)
    share = chosen[list(launch.shard(range(len(chosen))))]
    pairs = []
    with (
        _sampler(training, folder) as generator,
        console.progress(
            "generating pictures for distances of distributions", len(share)
        ) as bar,
    ):
        for start in range(0, len(share), recipe.train.batch_size):
            rows = share[start : start + recipe.train.batch_size]
            true = _true(training, rows)
            generated = _generate(training, generator, rows)
            pairs.append((features(true).cpu(), features(generated).cpu()))
            bar.advance(len(rows))

    # join the features [N, D] of all processes
    shares = chain.from_iterable(launch.gather(pairs))
    true, generated = (torch.cat(joined) for joined in zip(*shares, strict=True))
    protocol = f"features of {recipe.fid_features}, {recipe.sample_steps} steps"
    return measure_distances(
        true, generated, protocol=protocol, split="validation", seeds=(recipe.seed,)
    )


def _load_distances(training: Training) -> tuple[Int64, PictureFeatures]:
    """Choose the items of FID and KID, and load the network whose features these
    take.
    """
    recipe, launch = training.recipe, training.launch
    chosen, name = (
        training.pictures.held_out_rows[: recipe.fid_items],
        recipe.fid_features,
    )
    # refuse too few items before a network is loaded
    require_distances(len(chosen))
    if name == INCEPTION:
        return chosen, inception(launch.device)
    return chosen, _encoder_features(encoders.resolve(name), launch)


def try_sampling(training: Training, folder: RunFolder) -> None:
    """Sample and measure before the first step, so that what is missing is known before
    hours of training.
    """
    training.launch.run_on_main(partial(_try_out, training, folder))


def _try_out(training: Training, folder: RunFolder) -> None:
    def try_distances() -> Float64:
        chosen, features = _load_distances(training)
        # one picture suffices to try the network
        return features(_true(training, chosen[:1])).double().cpu().numpy()

    metrics = save_samples(training, folder, "step-000000")
    if training.recipe.fid_items:
        metrics["fid"] = _or_reason(try_distances)
    # report before the training what cannot be measured after it
    for metric, values in metrics.items():
        if isinstance(values, BrainhiveError):
            console.warn(f"there will be no {metric}: {values.in_one_line}")


@contextmanager
def _sampler(training: Training, folder: RunFolder) -> Iterator[Any]:
    """Yield the diffusion model that samples; a separate one is loaded for as long as
    it is needed.
    """
    if training.recipe.sampler is None:
        yield training.generator
        return
    generator = load_generator(
        training.recipe.sampler, training.recipe, training.launch.device
    )
    embed_empty_prompt(generator, folder, SAMPLER_PROMPT, training.launch)
    # the prior under training also conditions this model
    training.prior.attach(generator)
    yield generator


@torch.no_grad()
def _generate(training: Training, generator: Any, chosen: Int64) -> Tensor:
    """Generate pictures [N, 3, H, W] in 0..1 from the chosen ones' embeddings."""
    recipe, batches = training.recipe, []
    sampling = Sampling(steps=recipe.sample_steps)
    with console.progress("generating samples", len(chosen)) as bar:
        # batches as large as those of the training
        for start in range(0, len(chosen), recipe.train.batch_size):
            rows = chosen[start : start + recipe.train.batch_size]
            embeddings = training.gather_embeddings(
                PictureBatch(*training.pictures.read(rows.tolist()))
            )
            conditioning = training.prior.condition_on_embeddings(embeddings)
            pictures = generator.generate(
                conditioning, rows.tolist(), recipe.resolution_px, sampling
            )
            require_finite(
                pictures,
                rows.tolist(),
                [training.pictures.images.image_ids[row] for row in rows],
                recipe.train.precision,
                "train.precision=fp32, or a lower train.lr",
            )
            batches.append(pictures.cpu())
            bar.advance(len(rows))
    return torch.cat(batches)


def _true(training: Training, chosen: Int64) -> Tensor:
    """Read pictures [N, 3, H, W] in 0..1 as training sees them."""
    view, images = training.pictures.view, training.pictures.images
    return torch.stack([view(images.open(index))[0] for index in chosen.tolist()]) / 255


def _similarity(
    config: EncoderConfig, true: Tensor, generated: Tensor, launch: Launch
) -> Float64:
    """Cosine of an encoder's embeddings of true and generated pictures: [N]."""
    features = _encoder_features(config, launch)
    return (
        F.cosine_similarity(features(true), features(generated)).double().cpu().numpy()
    )


def _encoder_features(config: EncoderConfig, launch: Launch) -> PictureFeatures:
    """Load an encoder: pictures [N, 3, H, W] in 0..1 to features [N, D]."""
    encoder = config.prepare()
    encoder.module.to(launch.device)

    def features(images: Tensor) -> Tensor:
        views = encoder.preprocess_all(to_pictures(images))
        return encode(encoder.module, views, "fp32", launch)[0].flatten(1).clone()

    return features


def _or_reason(measure: Callable[[], Float64]) -> ValuesOrError:
    try:
        return measure()
    except RecipeError:  # a name that does not exist, not weights that are missing
        raise
    except BrainhiveError as error:
        return error
