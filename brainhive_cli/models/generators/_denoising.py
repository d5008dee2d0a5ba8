"""Noise of training and the denoising loop of sampling."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from brainhive_cli.core.base import RecipeError
from brainhive_cli.models.generators import SCHEDULERS, Sampling

RandomGenerators = torch.Generator | Sequence[torch.Generator]
"""One random generator for all rows, or one for each row."""


def draw_noise(
    rng: RandomGenerators, shape: Sequence[int], n_timesteps: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Draw the noise and the timesteps of a training step.

    A list of random generators draws each row with its own.

    Returns:
        Noise of `shape` [B, C, h, w], and timesteps [B] below `n_timesteps`.
    """
    if isinstance(rng, torch.Generator):
        rngs: Sequence[torch.Generator] = [rng]
        shape_per_rng = tuple(shape)
    else:
        rngs = rng
        shape_per_rng = (1, *shape[1:])

    noises = []
    timesteps = []
    for generator in rngs:
        noises.append(torch.randn(shape_per_rng, generator=generator))
        timesteps.append(
            torch.randint(0, n_timesteps, shape_per_rng[:1], generator=generator)
        )
    return torch.cat(noises).to(device), torch.cat(timesteps).to(device)


def make_scheduler(noise_scheduler: Any, sampling: Sampling) -> Any:
    """Make the requested scheduler, with the generator's noise schedule.

    Without a request, the generator's own scheduler is returned.
    """
    import diffusers

    if sampling.scheduler is None:
        return noise_scheduler
    class_name, settings = SCHEDULERS[sampling.scheduler]
    scheduler_class = getattr(diffusers, class_name)
    return scheduler_class.from_config(noise_scheduler.config, **settings)


def count_steps(sampling: Sampling) -> int:
    """Count the steps that denoise a noisy start: the share `strength` of all steps.

    Raises:
        RecipeError: if `strength` leaves no step.
    """
    n_steps = min(int(sampling.steps * sampling.strength), sampling.steps)
    if n_steps < 1:
        raise RecipeError(
            f"strength {sampling.strength:g} of {sampling.steps} steps leaves none "
            "to do",
            f"give at least {1 / sampling.steps:.2g}, or 0 for the start alone",
        )
    return n_steps


def denoise(
    noise_scheduler: Any,
    sampling: Sampling,
    noise: Tensor,
    start: Tensor | None,
    predict: Callable[[Tensor, Tensor], Tensor],
    rngs: Sequence[torch.Generator] = (),
    on_step: Callable[[int], None] | None = None,
    timesteps: Sequence[int] = (),
) -> Tensor:
    """Sample latents with a U-Net whose inputs the pipelines of diffusers do not take.

    Args:
        noise_scheduler: Scheduler, unless the recipe names another.
        sampling: Settings of sampling.
        noise: Noise of B rows.
        start: Latents to which the noise is added, or None to start from noise alone.
        predict: Function from latents and a timestep to the noise. With guidance it
            takes 2 B rows, the unconditional rows first.
        rngs: Random generator of each row, for schedulers that add noise.
        on_step: Called with the number of each finished step.
        timesteps: Timesteps to use unless the recipe names a scheduler.

    Returns:
        Latents in the shape of `noise`. With a strength of 0, `start` unchanged.
    """
    scheduler = make_scheduler(noise_scheduler, sampling)
    if timesteps and sampling.scheduler is None:
        scheduler.set_timesteps(timesteps=timesteps, device=noise.device)
    else:
        scheduler.set_timesteps(sampling.steps, device=noise.device)
    scheduled_timesteps = scheduler.timesteps

    # begin with noise alone, or with the start under the noise of the first step
    if start is None:
        latents = noise * scheduler.init_noise_sigma
    elif sampling.strength == 0:
        return start
    else:
        first = (sampling.steps - count_steps(sampling)) * scheduler.order
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        scheduled_timesteps = scheduled_timesteps[first:]
        first_timesteps = scheduled_timesteps[:1].expand(len(start))
        latents = scheduler.add_noise(start, noise, first_timesteps)

    step_options = {}
    if "generator" in inspect.signature(scheduler.step).parameters:
        step_options["generator"] = list(rngs)

    # remove the noise step by step
    is_guided = sampling.guidance > 1
    for step, timestep in enumerate(scheduled_timesteps, 1):
        unet_latents = torch.cat([latents] * 2) if is_guided else latents
        unet_latents = scheduler.scale_model_input(unet_latents, timestep)
        noise_pred = predict(unet_latents, timestep).float()
        if is_guided:
            noise_pred_uncond, noise_pred_cond = noise_pred.chunk(2)
            noise_pred = noise_pred_uncond + sampling.guidance * (
                noise_pred_cond - noise_pred_uncond
            )
        latents = scheduler.step(
            noise_pred, timestep, latents, **step_options
        ).prev_sample
        if on_step is not None:
            on_step(step)
    return latents
