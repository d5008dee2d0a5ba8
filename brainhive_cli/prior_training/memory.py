"""How much memory training a prior would take on a GPU."""

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from brainhive_cli.data.memory_estimate import Footprint, drawing, peak, size_of
from brainhive_cli.prior_training.optimisation import trainable
from brainhive_cli.prior_training.recipe import Recipe
from brainhive_cli.priors.fusion_prior import FusionPrior

ADAM = {"adamw": 8, "adamw8bit": 2}
"""Bytes of the optimiser's two averages, a weight."""


def estimate(what: Recipe, generator: Any, sampler: Any, prior: FusionPrior, processes: int) -> Footprint:
    """Estimate what training takes on each GPU: weights and the tensors that live at once, no workspaces.

    Encoders that embed or compare pictures are not counted.

    Args:
        what: The recipe.
        generator: The diffusion model that it is trained on, on the meta device.
        sampler: The one that draws, which may be the same.
        prior: On the meta device; it is attached to the diffusion models.
        processes: How many share the work.
    """
    train, parameters = what.train, trainable(prior, what.freeze)
    prior.attach(generator.unet)
    if train.gradient_checkpointing:
        generator.unet.enable_gradient_checkpointing()
    gradients = size_of(parameters)
    held = {
        "weights": sum(map(size_of, (generator.unet, generator.vae, prior))),
        "optimiser": gradients // 4 * ADAM[train.optimizer] + gradients * bool(train.ema),
    }
    averaged = 2 * gradients if processes > 1 else 0  # over processes, in one piece
    moments = {"a step": max(_step(what, generator, prior), averaged)}
    if drawn := min(train.batch_size, max(what.sample_items, what.fid_items)):
        moments["drawing"] = max(drawing(sampler, drawn, drawn, what.resolution_px))
        if sampler is not generator:
            prior.attach(sampler.unet)
            moments["drawing"] += size_of(sampler.unet) + size_of(sampler.vae)
    return Footprint(train.batch_size, held, moments)


def _step(what: Recipe, generator: Any, prior: FusionPrior) -> int:
    """Count what forward and backward passes take, the prior's gradients included."""

    def work() -> None:
        for _ in range(min(what.train.accumulate, 2)):  # the second pass finds the gradients of the first
            _pass(what, generator, prior)

    return peak(work, generator.unet, generator.vae, prior)


def _pass(what: Recipe, generator: Any, prior: FusionPrior) -> None:
    count, px = what.train.batch_size, what.resolution_px
    side = px // generator.pipeline.vae_scale_factor
    with torch.device("meta"):
        latents = torch.empty(count, generator.vae.config.latent_channels, side, side)
        if not what.cache_latents:
            latents = generator.encode(torch.empty(count, 3, px, px))
        tokens = _tokens(prior, count, generator.unet.dtype)
        noise, sizes = torch.empty_like(latents), torch.empty(count, 6)
        timesteps = torch.empty(count, dtype=torch.int64)
    generator.loss(latents, tokens, noise, timesteps, sizes, what.train.min_snr_gamma).backward()


def _tokens(prior: FusionPrior, count: int, dtype: torch.dtype) -> Tensor:
    """Make image tokens of weights that are cast once, as autocast does."""
    weights = {name: w.to(dtype) for name, w in prior.named_parameters() if "attn_adapter" not in name}
    embeddings = {key: torch.empty(count, dim, dtype=dtype) for key, dim in prior.dims.items()}
    tokens: Tensor = functional_call(prior, weights, (embeddings,))
    return tokens
