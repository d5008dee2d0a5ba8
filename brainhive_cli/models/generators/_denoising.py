"""Noise and its removal: what a denoiser learns from, and the steps by which it
samples.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models.generators import SCHEDULERS, Sampling

Random = torch.Generator | Sequence[torch.Generator]
"""One generator of random numbers for all rows, or one for each."""


def draw_noise(
    random: Random, shape: Sequence[int], timesteps: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Draw noise of `shape` [B, C, h, w], and as many of the timesteps [B].

    With a random number generator for each row, a row depends on its own alone.
    """
    # a generator for all rows draws them at once, otherwise each draws a row
    generators = [random] if isinstance(random, torch.Generator) else random
    rows = shape if isinstance(random, torch.Generator) else (1, *shape[1:])
    noises = []
    times = []
    for generator in generators:
        noises.append(torch.randn(*rows, generator=generator))
        times.append(torch.randint(0, timesteps, rows[:1], generator=generator))

    return torch.cat(noises).to(device), torch.cat(times).to(device)


def choose_scheduler(default: Any, sampling: Sampling) -> Any:
    """Make the scheduler that is asked for, with the noise schedule of the generator's
    own; else that one.
    """
    import diffusers

    if sampling.scheduler is None:
        return default
    # the noise schedule stays that of the training
    kind, settings = SCHEDULERS[sampling.scheduler]
    return getattr(diffusers, kind).from_config(default.config, **settings)


def count_steps(sampling: Sampling) -> int:
    """Count the steps that are done from a start, as diffusers does; RecipeError if
    there is none.
    """
    count = min(int(sampling.steps * sampling.strength), sampling.steps)
    if count < 1:
        raise RecipeError(
            f"strength {sampling.strength:g} of {sampling.steps} steps leaves none "
            "to do",
            f"give at least {1 / sampling.steps:.2g}, or 0 for the start alone",
        )
    return count


def denoise(
    default: Any,
    sampling: Sampling,
    noise: Tensor,
    start: Tensor | None,
    predict: Callable[[Tensor, Tensor], Tensor],
    random: Sequence[torch.Generator] = (),
    on_step: Callable[[int], None] | None = None,
    timesteps: Sequence[int] = (),
) -> Tensor:
    """Sample latents of B rows where diffusers' pipelines do not take a generator's
    inputs.

    Args:
        default: The generator's scheduler, where the recipe names none.
        sampling: Steps, guidance and scheduler, and from a start the share of the steps
            that are done.
        noise: Of B rows.
        start: Latents under the noise of the first step; None to start from noise
            alone.
        predict: Predicts noise from latents and timestep; with guidance 2 B rows,
            unconditional first.
        random: Of each row, for schedulers that add noise.
        on_step: Called with the number of each step done.
        timesteps: Instead of those of the default scheduler.
    """
    # choose the timesteps
    scheduler = choose_scheduler(default, sampling)
    if timesteps and sampling.scheduler is None:
        scheduler.set_timesteps(timesteps=timesteps, device=noise.device)
    else:
        scheduler.set_timesteps(sampling.steps, device=noise.device)
    times = scheduler.timesteps

    # begin at noise alone, or at the start with the noise of the first step that is
    # done
    if start is None:
        latents = noise * scheduler.init_noise_sigma
    elif sampling.strength == 0:
        return start
    else:
        first = (sampling.steps - count_steps(sampling)) * scheduler.order
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        times = times[first:]
        latents = scheduler.add_noise(start, noise, times[:1].expand(len(start)))

    # remove noise step by step, guided away from the unconditional prediction
    extra = (
        {"generator": list(random)}
        if "generator" in inspect.signature(scheduler.step).parameters
        else {}
    )
    for step, time in enumerate(times, 1):
        rows = torch.cat([latents] * 2) if sampling.guidance > 1 else latents
        predicted = predict(scheduler.scale_model_input(rows, time), time).float()
        if sampling.guidance > 1:
            away, towards = predicted.chunk(2)
            predicted = away + sampling.guidance * (towards - away)
        latents = scheduler.step(predicted, time, latents, **extra).prev_sample
        if on_step is not None:
            on_step(step)
    return latents
