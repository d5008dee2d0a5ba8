"""How much GPU memory training a prior takes, estimated by shapes alone."""

from typing import Any

import torch

from brainhive_cli.core.launch import num_processes
from brainhive_cli.core.memory_estimate import peak, size_of
from brainhive_cli.data.stores.target_store import TargetStore, path_of
from brainhive_cli.training.prior.components import load_generator, make_prior, trainable
from brainhive_cli.training.prior.recipe import Recipe

ADAM_BYTES = {"adamw": 8, "adamw8bit": 2}
"""Bytes of the optimiser's two averages, a weight."""


def training_bytes(recipe: Recipe) -> int:
    """Estimate what training takes on each GPU: weights, optimiser and the tensors that live at once.

    Encoders that embed or compare pictures, and workspaces, are not counted. A file to start from need not be
    there.

    Raises:
        BrainhiveError: if generator, sampler, prior and embeddings do not fit each other.
    """
    train = recipe.train
    generator = load_generator(recipe.generator, recipe, None)
    with torch.device("meta"):
        prior = make_prior(recipe, _known_dims(recipe), generator)[0].to("meta", torch.float32)
    parameters = trainable(prior, recipe.freeze)
    prior.attach(generator)
    generator.prepare_training(train.gradient_checkpointing)
    networks = (*generator.networks, prior)
    gradients = size_of(parameters)
    held = sum(map(size_of, networks))
    held += gradients // 4 * ADAM_BYTES[train.optimizer] + gradients * bool(train.ema)

    def work() -> None:
        for _ in range(min(train.accumulate, 2)):  # the second pass finds the gradients of the first
            _pass(generator, prior, recipe)

    averaged = 2 * gradients if num_processes(recipe.run) > 1 else 0  # over processes, in one piece
    step = held + max(peak(work, *networks), averaged)
    samples = min(train.batch_size, max(recipe.sample_items, recipe.fid_items))
    if not samples:
        return step
    if recipe.sampler is None:
        held -= sum(map(size_of, generator.networks))  # which the estimate of sampling counts too
    else:
        generator = load_generator(recipe.sampler, recipe, None)
        prior.attach(generator)
    return max(step, held + generator.memory_estimate(samples, recipe.resolution_px))


def _known_dims(recipe: Recipe) -> dict[str, int]:
    """Find D of each encoder's embedding, where a store or the encoder itself fixes it."""
    root, name = recipe.paths.under_home("embeddings"), recipe.dataset.build(recipe.paths).name
    dims = {}
    for config in recipe.encoders:
        path = path_of(root, name, recipe.split, config.name)
        dim = TargetStore.open(path).embedding.shape[-1] if path.is_file() else config.known_dim
        if dim is not None:
            dims[config.name] = dim
    return dims


def _pass(generator: Any, prior: Any, recipe: Recipe) -> None:
    count, size_px = recipe.train.batch_size, recipe.resolution_px
    with torch.device("meta"):
        latents = torch.empty(count, *generator.latent_shape(size_px))
        if not recipe.cache_latents:
            latents = generator.encode(torch.empty(count, 3, size_px, size_px))
        embeddings = {key: torch.empty(count, dim) for key, dim in prior.dims.items()}
        conditioning = prior.condition_on_embeddings(embeddings)
    sizes = torch.empty(count, 6)
    generator.loss(latents, conditioning, torch.Generator(), sizes, recipe.train).backward()
