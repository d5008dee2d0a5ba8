"""The denoising loop of generators whose inputs diffusers' pipelines do not take."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models.generators import Sampling


class Placement:
    """On which device networks are: all on one, or there only while they are used.

    Args:
        networks: Of a generator.
        device: Where they compute.
    """

    def __init__(self, networks: Sequence[Any], device: torch.device) -> None:
        self.networks, self.device, self.is_offloaded = networks, device, False
        for network in networks:
            nn.Module.to(network, device).eval().requires_grad_(False)

    def offload(self, device: torch.device) -> None:
        """Compute on another device, and hold there only what is used."""
        self.device, self.is_offloaded = device, True

    def use(self, *networks: Any) -> None:
        """Have these networks on the device, and where memory is spared no others."""
        if self.is_offloaded:
            for network in self.networks:
                nn.Module.to(network, self.device if network in networks else "cpu")


def steps_left(scheduler: Any, sampling: Sampling) -> Tensor:
    """Take the timesteps that are left to do from a start; the scheduler begins at the first.

    Raises:
        RecipeError: if no step is left, of a strength above 0.
    """
    left: Tensor = scheduler.timesteps
    if sampling.strength == 0:
        return left[:0]
    done = min(int(sampling.steps * sampling.strength), sampling.steps)  # as diffusers counts the steps
    if done < 1:
        raise RecipeError(
            f"strength {sampling.strength:g} of {sampling.steps} steps leaves none to do",
            f"give at least {1 / sampling.steps:.2g}, or 0 for the start alone",
        )
    first = (sampling.steps - done) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return left[first:]


def denoise(
    scheduler: Any,
    latents: Tensor,
    times: Tensor,
    predict: Callable[[Tensor, Tensor], Tensor],
    guidance: float,
    random: Sequence[torch.Generator],
    on_step: Callable[[int], None] | None,
) -> Tensor:
    """Do the steps.

    Args:
        scheduler: At its first step.
        latents: Noisy latents, B rows.
        times: Timesteps.
        predict: Predicts noise from latents and timestep; with guidance 2 B rows, unconditional first.
        guidance: Classifier-free guidance; none up to 1.
        random: Of each row, for schedulers that add noise.
        on_step: Called with the number of each step done.
    """
    extra = {"generator": list(random)} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for step, time in enumerate(times, 1):
        rows = torch.cat([latents] * 2) if guidance > 1 else latents
        predicted = predict(scheduler.scale_model_input(rows, time), time).float()
        if guidance > 1:
            away, towards = predicted.chunk(2)
            predicted = away + guidance * (towards - away)
        latents = scheduler.step(predicted, time, latents, **extra).prev_sample
        if on_step is not None:
            on_step(step)
    return latents
