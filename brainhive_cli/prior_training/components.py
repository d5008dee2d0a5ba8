"""The diffusion model and the prior of a training, loaded or of shapes alone."""

from collections.abc import Mapping
from typing import Any

import torch

from brainhive_cli import priors
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.encoder_keys import match_prior
from brainhive_cli.prior_training.recipe import Recipe

WIDTH = 1024
"""D of an embedding of which nothing is known yet, in a plan."""


def load_generator(config: Any, recipe: Recipe, launch: Launch) -> Any:
    """Load a generator that denoises in the training's precision, and encodes in float32.

    Args:
        config: The generator's Config: the one trained on, or the sampler.
        recipe: Gives size and precision.
        launch: On whose device.

    Raises:
        BrainhiveError: if it has no pictures of `resolution_px`.
    """
    return _prepared(config.build(launch.device, _dtype(recipe)), recipe)


def outline_generator(config: Any, recipe: Recipe) -> Any:
    """Make of shapes alone, on the meta device, what `load_generator` would load."""
    return _prepared(config.skeleton(_dtype(recipe)), recipe)


def _prepared(generator: Any, recipe: Recipe) -> Any:
    generator.check_size(recipe.resolution_px)
    generator.use_float32_autoencoder()
    return generator


def _dtype(recipe: Recipe) -> torch.dtype:
    return torch.bfloat16 if recipe.train.precision == "bf16" else torch.float32


def embed_empty_prompt(generator: Any, folder: RunFolder, name: str, launch: Launch) -> None:
    """Embed the empty prompt once for a run: text encoders are loaded by one process, and never again."""
    file = folder.path / "checkpoints" / name
    if launch.is_main and not file.is_file():
        folder.replace(f"checkpoints/{name}", generator.save_empty_prompt)
    launch.barrier()
    generator.load_empty_prompt(file)


def make_prior(recipe: Recipe, dims: Mapping[str, int], generator: Any) -> tuple[Any, dict[str, str]]:
    """Load the prior whose training is continued, or make a new one.

    Args:
        recipe: The recipe.
        dims: D of each encoder's embedding, where it is known.
        generator: The diffusion model that it is for.

    Returns:
        The prior, and its key of each encoder.

    Raises:
        BrainhiveError: if it was made with other encoders, or for other widths.
    """
    source = recipe.continue_from
    if source is None:
        torch.manual_seed(recipe.seed)
        keys = {config.name: config.upstream or config.name for config in recipe.encoders}
        widths = {key: dims.get(name, WIDTH) for name, key in keys.items()}
        return recipe.prior.build(widths, generator), keys
    prior, keys = priors.load(source), match_prior(source, recipe.encoders)
    for name, found in dims.items():
        if found != (expected := prior.dims[keys[name]]):
            raise BrainhiveError(
                f"the prior {source} takes {name} of width {expected}, not {found}",
                "embed with the encoder that the prior was trained on",
            )
    return prior, keys
