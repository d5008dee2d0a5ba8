"""Samples of held-out pictures, and their metrics."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core.base import BrainhiveError, Float64, Int64, RecipeError, console
from brainhive_cli.core.results import Metric
from brainhive_cli.core.runs import Launch, RunFolder, artifacts
from brainhive_cli.data.media import PictureBatch, to_pictures
from brainhive_cli.data.targets import encode
from brainhive_cli.measurement.metrics.perceptual import (
    inception,
    lpips,
    measure_distances,
    require_distances,
)
from brainhive_cli.models import encoders
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.models.generators import Sampling, require_finite
from brainhive_cli.reports.figures import DrawnTile, save_sheet
from brainhive_cli.training.prior.loop import (
    LAST,
    Training,
    embed_empty_prompt,
    load_generator,
)
from brainhive_cli.training.prior.recipe import INCEPTION

ValuesOrError = Float64 | BrainhiveError
"""Values [N] of a metric, or the error that prevents it."""
PictureFeatures = Callable[[Tensor], Tensor]
"""Function from pictures [N, 3, H, W] in 0..1 to features [N, D]."""


def try_sampling(training: Training, folder: RunFolder) -> None:
    """Sample and measure before the first step.

    Metrics that cannot be measured are reported now, and not after hours of training.
    """
    training.launch.run_on_main(partial(_try_sampling, training, folder))


def _try_sampling(training: Training, folder: RunFolder) -> None:
    """Sample and measure in the main process, and warn about missing metrics."""
    metrics = save_samples(training, folder, "step-000000")
    if training.recipe.fid_items:
        metrics["fid"] = _catch_error(partial(_compute_one_feature, training))
    for name, values in metrics.items():
        if isinstance(values, BrainhiveError):
            console.warn(f"there will be no {name}: {values.in_one_line}")


def _compute_one_feature(training: Training) -> Float64:
    """Compute the features [1, D] of one picture, to try the network of FID."""
    rows, compute_features = _load_distances(training)
    features = compute_features(_read_pictures(training, rows[:1]))
    return features.double().cpu().numpy()


@console.progress("drawing samples")
def save_samples(
    training: Training, folder: RunFolder, name: str
) -> dict[str, ValuesOrError]:
    """Generate samples in this process, and save them as `samples/<name>.png`.

    Args:
        training: Prior, diffusion model and pictures.
        folder: Folder of the run.
        name: Name of the sheet. `LAST` also writes a sheet for the page of the run.

    Returns:
        Metrics of the samples by name.
    """
    training = replace(training, launch=training.launch.single_process)
    recipe = training.recipe
    launch = training.launch
    rows = training.pictures.held_out_rows[: recipe.sample_items]
    if not len(rows):
        return {}
    with _open_sampler(training, folder) as generator:
        generated = _generate(training, generator, rows)
    del generator  # the metrics need its memory
    true = _read_pictures(training, rows)

    # draw each picture next to its sample
    concepts = training.pictures.images.concepts
    tiles = []
    for row, seen_picture, sample in zip(
        rows, to_pictures(true), to_pictures(generated), strict=True
    ):
        tiles.append(
            [
                DrawnTile(seen_picture, [concepts[row]]),
                DrawnTile(sample, ["generated"]),
            ]
        )
    folder.replace(f"samples/{name}.png", partial(save_sheet, "", tiles))
    if name == LAST:
        _write_sheet(training, folder, rows, tiles)

    metrics: dict[str, ValuesOrError] = {}
    if recipe.lpips:
        metrics["lpips"] = _catch_error(lambda: lpips(true, generated, launch.device))
    for config in recipe.similarity:
        metrics[f"similarity_{config.name}"] = _catch_error(
            partial(_compute_similarity, config, true, generated, launch)
        )
    return metrics


def _write_sheet(
    training: Training,
    folder: RunFolder,
    rows: Int64,
    tiles: Sequence[Sequence[DrawnTile]],
) -> None:
    """Write the tiles [N, 2] of pictures and samples for the page of the run."""
    image_ids = training.pictures.images.image_ids
    sheet_rows = []
    for number, row in enumerate(rows):
        saved_tiles = []
        for column, tile in enumerate(tiles[number]):
            file = artifacts.save_picture(
                folder, f"samples/{number}-{column}", tile.picture
            )
            saved_tiles.append(artifacts.SheetTile(file, tile.lines[:1]))
        sheet_rows.append(artifacts.SheetRow(image_ids[row], saved_tiles))
    sheet = artifacts.Sheet(
        "What the prior generates",
        ("seen", "generated"),
        sheet_rows,
        section="Samples",
        note="Pictures kept from training, generated from their own embeddings, "
        "without a brain.",
    )
    artifacts.write(folder, [sheet])


def draw_loss_curve(run: RunFolder) -> list[artifacts.Curve]:
    """Draw the logged loss over the steps. Empty with fewer than two values."""
    step_losses = {}
    for event in run.events():
        if "step" in event and "loss" in event:
            step_losses[event["step"]] = event["loss"]
    if len(step_losses) < 2:
        return []
    line = artifacts.CurveLine("training loss", list(step_losses.values()))
    return [
        artifacts.Curve("Loss", "step", list(step_losses), [line], section="Training")
    ]


def measure_distribution(training: Training, folder: RunFolder) -> list[Metric]:
    """Measure FID and KID of samples, of which each process generates a share.

    Raises:
        BrainhiveError: if there are too few pictures, or if the weights of the network
            of the features are absent.
    """
    recipe = training.recipe
    launch = training.launch
    rows, compute_features = _load_distances(training)
    share = rows[list(launch.shard(range(len(rows))))]
    pairs = []
    with (
        _open_sampler(training, folder) as generator,
        console.progress(
            "generating pictures for distances of distributions", len(share)
        ) as bar,
    ):
        for start in range(0, len(share), recipe.train.batch_size):
            batch_rows = share[start : start + recipe.train.batch_size]
            true = _read_pictures(training, batch_rows)
            generated = _generate(training, generator, batch_rows)
            true_features = compute_features(true).cpu()
            pairs.append((true_features, compute_features(generated).cpu()))
            bar.advance(len(batch_rows))

    # concatenate the features [N, D] of all processes
    true_shares = []
    generated_shares = []
    for process_pairs in launch.gather(pairs):
        for true_features, generated_features in process_pairs:
            true_shares.append(true_features)
            generated_shares.append(generated_features)
    return measure_distances(
        torch.cat(true_shares),
        torch.cat(generated_shares),
        protocol=f"features of {recipe.fid_features}, {recipe.sample_steps} steps",
        split="validation",
        seeds=(recipe.seed,),
    )


def _load_distances(training: Training) -> tuple[Int64, PictureFeatures]:
    """Select the rows of FID and KID, and load the network of their features.

    Raises:
        BrainhiveError: if there are too few pictures, or no weights.
    """
    launch = training.launch
    rows = training.pictures.held_out_rows[: training.recipe.fid_items]
    name = training.recipe.fid_features
    require_distances(len(rows))
    if name == INCEPTION:
        return rows, inception(launch.device)
    return rows, _load_encoder_features(encoders.resolve(name), launch)


@contextmanager
def _open_sampler(training: Training, folder: RunFolder) -> Iterator[Any]:
    """Context manager that yields the diffusion model for samples.

    A separate model is loaded, and attached to the prior, if the recipe names one.
    """
    recipe = training.recipe
    if recipe.sampler is None:
        yield training.generator
        return
    generator = load_generator(recipe.sampler, recipe, training.launch.device)
    embed_empty_prompt(generator, folder, "sampler_prompt.safetensors", training.launch)
    training.prior.attach(generator)
    yield generator


@torch.no_grad()
def _generate(training: Training, generator: Any, rows: Int64) -> Tensor:
    """Generate pictures [N, 3, H, W] in 0..1 from the embeddings of rows [N]."""
    recipe = training.recipe
    image_ids = training.pictures.images.image_ids
    sampling = Sampling(steps=recipe.sample_steps)
    batches = []
    with console.progress("generating samples", len(rows)) as bar:
        # batches of the training's size fit into memory
        for start in range(0, len(rows), recipe.train.batch_size):
            batch_rows = rows[start : start + recipe.train.batch_size].tolist()
            batch = PictureBatch(*training.pictures.read(batch_rows))
            embeddings = training.gather_embeddings(batch)
            conditioning = training.prior.condition_on_embeddings(embeddings)
            pictures = generator.generate(
                conditioning, batch_rows, recipe.resolution_px, sampling
            )
            require_finite(
                pictures,
                batch_rows,
                [image_ids[row] for row in batch_rows],
                recipe.train.precision,
                "set train.precision=fp32, or a lower train.lr",
            )
            batches.append(pictures.cpu())
            bar.advance(len(batch_rows))
    return torch.cat(batches)


def _read_pictures(training: Training, rows: Int64) -> Tensor:
    """Read pictures [N, 3, H, W] in 0..1 as training sees them."""
    view = training.pictures.view
    images = training.pictures.images
    pictures = [view(images.open(row))[0] for row in rows.tolist()]
    return torch.stack(pictures) / 255


def _compute_similarity(
    config: EncoderConfig, true: Tensor, generated: Tensor, launch: Launch
) -> Float64:
    """Compute the cosine [N] of an encoder's embeddings of pictures and samples."""
    compute_features = _load_encoder_features(config, launch)
    similarity = F.cosine_similarity(
        compute_features(true), compute_features(generated)
    )
    return similarity.double().cpu().numpy()


def _load_encoder_features(config: EncoderConfig, launch: Launch) -> PictureFeatures:
    """Load an encoder as a function from pictures to embeddings."""
    encoder = config.prepare()
    encoder.module.to(launch.device)

    def compute_features(pictures: Tensor) -> Tensor:
        views = encoder.preprocess_all(to_pictures(pictures))
        return encode(encoder.module, views, "fp32", launch)[0].flatten(1).clone()

    return compute_features


def _catch_error(measure: Callable[[], Float64]) -> ValuesOrError:
    """Return the values of a metric, or its error, such as missing weights.

    Raises:
        RecipeError: if the recipe has a wrong name.
    """
    try:
        return measure()
    except RecipeError:
        raise
    except BrainhiveError as error:
        return error
