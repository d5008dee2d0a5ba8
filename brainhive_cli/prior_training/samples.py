"""What a prior draws of pictures kept from training, beside the pictures, and how alike they are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli import encoders
from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.encoder_groups import encode
from brainhive_cli.data.views import to_pictures
from brainhive_cli.encoders import EncoderConfig
from brainhive_cli.generators import Sampling
from brainhive_cli.metrics.distribution import distances, require
from brainhive_cli.metrics.perceptual import inception, lpips
from brainhive_cli.metrics.statistics import Metric
from brainhive_cli.prior_training.loop import Training, load, remember_prompt
from brainhive_cli.prior_training.recipe import INCEPTION
from brainhive_cli.reports.sheets import contact_sheet

SAMPLER_PROMPT = "sampler_prompt.safetensors"
Found = NDArray[np.float64] | BrainhiveError
"""Values of the items, or why there are none."""


def show(training: Training, folder: RunFolder, name: str) -> dict[str, Found]:
    """Draw the sample items on a sheet `samples/<name>.png`, in one process.

    Returns:
        Each metric's values [N], or why it has none.
    """
    training = replace(training, launch=replace(training.launch, rank=0, processes=1))
    what, images = training.recipe, training.pictures.images
    chosen = training.pictures.held[: what.sample_items]
    if not len(chosen):
        return {}
    made, true = _drawn(training, folder, chosen), _true(training, chosen)
    labels = [images.concepts[index] for index in chosen]
    sheet = contact_sheet(to_pictures(true), [[picture] for picture in to_pictures(made)], labels)
    folder.replace(f"samples/{name}.png", sheet.save)
    launch = training.launch
    looks = {"lpips": partial(lpips, true, made, launch.device)} if what.lpips else {}
    for config in what.similarity:
        looks[f"similarity_{config.name}"] = partial(_similarity, config, true, made, launch)
    return {metric: _or_why_not(look) for metric, look in looks.items()}


def measure_distribution(training: Training, folder: RunFolder) -> list[Metric]:
    """Draw the items kept for it, each process its share, and measure FID and KID.

    Returns:
        Both, on the main process.

    Raises:
        BrainhiveError: if there are too few, or weights of the network that sees them are missing.
    """
    what, launch = training.recipe, training.launch
    chosen = training.pictures.held[: what.fid_items]
    require(len(chosen))
    features = _features(what.fid_features, launch)
    mine = chosen[list(launch.shard(range(len(chosen))))]
    seen: list[tuple[Tensor, Tensor]] = []
    with _sampler(training, folder) as generator:
        for some in _batches(mine, what.train.batch_size):
            true, made = _true(training, some), _draw(training, generator, some)
            seen.append((features(true).cpu(), features(made).cpu()))
    shares = launch.gather(seen)
    if not launch.is_main:
        return []
    true, made = (torch.cat(each) for each in zip(*chain.from_iterable(shares), strict=True))
    protocol = f"features of {what.fid_features}, {what.sample_steps} steps"
    return distances(true, made, protocol=protocol, split="validation", seeds=(what.seed,))


def try_out(training: Training, folder: RunFolder) -> None:
    """Draw and measure before the first step, so that what is amiss is told now and not after the last one.

    Raises:
        BrainhiveError: if nothing can be drawn.
    """
    if training.launch.is_main:
        found = show(training, folder, "step-000000")
        if training.recipe.fid_items:
            found["fid"] = _or_why_not(partial(_try_distribution, training))
        for metric, values in found.items():
            if isinstance(values, BrainhiveError):
                console.warn(f"there will be no {metric}: {values.in_one_line}")
    training.launch.barrier()


def _try_distribution(training: Training) -> NDArray[np.float64]:
    chosen = training.pictures.held[: training.recipe.fid_items]
    require(len(chosen))
    features = _features(training.recipe.fid_features, training.launch)
    return features(_true(training, chosen[:1])).double().cpu().numpy()


@contextmanager
def _sampler(training: Training, folder: RunFolder) -> Iterator[Any]:
    """Lend the diffusion model that draws; one of its own is loaded for as long as it is needed."""
    if training.recipe.sampler is None:
        yield training.generator
        return
    generator = load(training.recipe.sampler, training.recipe, training.launch)
    remember_prompt(generator, folder, SAMPLER_PROMPT, training.launch)
    training.prior.attach(generator)
    yield generator


def _drawn(training: Training, folder: RunFolder, chosen: NDArray[np.int64]) -> Tensor:
    with _sampler(training, folder) as generator:
        return _draw(training, generator, chosen)


@torch.no_grad()
def _draw(training: Training, generator: Any, chosen: NDArray[np.int64]) -> Tensor:
    """Draw pictures [N, 3, H, W] in 0..1 of the chosen ones' embeddings."""
    what, drawn = training.recipe, []
    for some in _batches(chosen, what.train.batch_size):
        embeddings = training.embeddings(training.pictures.batch(some))
        conditioning = training.prior.condition_on_embeddings(embeddings)
        sampling = Sampling(steps=what.sample_steps)
        made = generator.generate(conditioning, some.tolist(), what.resolution_px, sampling)
        drawn.append(made.cpu())
    return torch.cat(drawn)


def _batches(chosen: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(chosen), size):
        yield chosen[start : start + size]


def _true(training: Training, chosen: NDArray[np.int64]) -> Tensor:
    """Read pictures [N, 3, H, W] in 0..1 as training sees them."""
    pictures = training.pictures
    views = [pictures.view(pictures.images.open(index))[0] for index in chosen.tolist()]
    return torch.stack(views) / 255


def _similarity(config: EncoderConfig, true: Tensor, made: Tensor, launch: Launch) -> NDArray[np.float64]:
    """Cosine of an encoder's embeddings of pictures and drawings: [N]."""
    features = _seen_by(config, launch)
    return F.cosine_similarity(features(true), features(made)).double().cpu().numpy()


def _seen_by(config: EncoderConfig, launch: Launch) -> Callable[[Tensor], Tensor]:
    """Load an encoder: pictures [N, 3, H, W] in 0..1 to features [N, D]."""
    encoder = config.build()
    encoder.module.to(launch.device)

    def features(images: Tensor) -> Tensor:
        views = torch.stack([encoder.preprocess(picture) for picture in to_pictures(images)])
        return encode(encoder, views, "fp32", launch)[0].flatten(1).clone()

    return features


def _features(name: str, launch: Launch) -> Callable[[Tensor], Tensor]:
    return inception(launch.device) if name == INCEPTION else _seen_by(encoders.resolve(name), launch)


def _or_why_not(look: Callable[[], NDArray[np.float64]]) -> Found:
    try:
        return look()
    except RecipeError:  # a name that is wrong, not weights that are missing
        raise
    except BrainhiveError as error:
        return error
