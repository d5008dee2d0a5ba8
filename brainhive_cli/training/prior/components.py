"""The diffusion model and the prior of a training, loaded or of shapes alone."""

from collections.abc import Mapping
from typing import Any

import torch

from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.targets.encoder_keys import match_prior
from brainhive_cli.models import priors
from brainhive_cli.training.prior.recipe import Recipe

WIDTH = 1024
"""D of an embedding of which nothing is known yet, in a plan."""


def load_generator(config: Any, recipe: Recipe, launch: Launch) -> Any:
    """Load a generator (or sampler) that denoises in the training's precision, and encodes in float32.

    Raises:
        BrainhiveError: if it has no pictures of `resolution_px`, or cannot be trained on.
    """
    return _prepared(config.build(launch.device, _dtype(recipe)), recipe)


def outline_generator(config: Any, recipe: Recipe) -> Any:
    """Make the shapes, on the meta device, of what `load_generator` would load."""
    return _prepared(config.skeleton(_dtype(recipe)), recipe)


def _prepared(generator: Any, recipe: Recipe) -> Any:
    generator.check_size(recipe.resolution_px)
    if not hasattr(generator, "prepare_training"):
        raise RecipeError(
            "no prior can be trained on this generator", "name a single diffusion model of the default kind"
        )
    generator.use_float32_autoencoder()
    return generator


def _dtype(recipe: Recipe) -> torch.dtype:
    return torch.bfloat16 if recipe.train.precision == "bf16" else torch.float32


def embed_empty_prompt(generator: Any, folder: RunFolder, name: str, launch: Launch) -> None:
    """Embed the empty prompt once a run: text encoders are loaded by one process, and never again."""
    file = folder.path / "checkpoints" / name
    if launch.is_main:
        try:
            generator.load_empty_prompt(file)
        except MissingData:  # or damaged
            folder.replace(f"checkpoints/{name}", generator.save_empty_prompt)
    launch.barrier()
    generator.load_empty_prompt(file)


def make_prior(recipe: Recipe, dims: Mapping[str, int], generator: Any) -> tuple[Any, dict[str, str]]:
    """Load the prior whose training is continued, or make a new one for a generator.

    Args:
        recipe: The recipe.
        dims: D of each encoder's embedding, where it is known.
        generator: The diffusion model.

    Returns:
        The prior, and its key of each encoder.

    Raises:
        BrainhiveError: if it was made with other encoders, for other widths, or cannot be trained.
    """
    source = recipe.continue_from
    if source is None:
        torch.manual_seed(recipe.seed)
        keys = {config.name: config.upstream or config.name for config in recipe.encoders}
        widths = {key: dims.get(name, WIDTH) for name, key in keys.items()}
        return _trainable(recipe.prior.build(widths, generator)), keys
    prior, keys = _trainable(priors.load(source)), match_prior(source, recipe.encoders)
    for name, found in dims.items():
        if found != (expected := prior.dims[keys[name]]):
            raise BrainhiveError(
                f"the prior {source} takes {name} of width {expected}, not {found}",
                "embed with the encoder that the prior was trained on",
            )
    return prior, keys


def _trainable(prior: Any) -> Any:
    if not hasattr(prior, "condition_on_embeddings"):
        raise RecipeError(f"a prior of kind {prior.kind} cannot be trained", f"prior={priors.DEFAULT}")
    return prior
