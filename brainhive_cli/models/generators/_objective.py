"""What a denoiser learns from: noise at random levels, and the error of the noise or velocity it predicts."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError

Random = torch.Generator | Sequence[torch.Generator]
"""One generator of random numbers for all rows, or one for each."""


def check(schedule: Any) -> None:
    """Refuse a noise schedule whose model predicts neither noise nor velocity."""
    if (kind := schedule.config.prediction_type) not in ("epsilon", "v_prediction"):
        hint = "use a generator that predicts epsilon or v_prediction"
        raise BrainhiveError(f"the scheduler's prediction_type is {kind}", hint)


def draw(
    random: Random, shape: Sequence[int], timesteps: int, offset: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Draw noise of `shape` [B, C, h, w], channels shifted by `offset`, and as many of the timesteps [B].

    With a random number generator for each row, a row depends on its own alone.
    """
    if isinstance(random, torch.Generator):
        found = [_draw(random, shape, timesteps, offset)]
    else:
        found = [_draw(each, (1, *shape[1:]), timesteps, offset) for each in random]
    noise, drawn = (torch.cat(each) for each in zip(*found, strict=True))
    if device.type == "cuda":  # without a wait for the GPU
        noise, drawn = noise.pin_memory(), drawn.pin_memory()
    return noise.to(device, non_blocking=True), drawn.to(device, non_blocking=True)


def _draw(
    random: torch.Generator, shape: Sequence[int], timesteps: int, offset: float
) -> tuple[Tensor, Tensor]:
    noise = torch.randn(*shape, generator=random)
    if offset:
        noise += offset * torch.randn(*shape[:2], 1, 1, generator=random)
    return noise, torch.randint(0, timesteps, shape[:1], generator=random)


def error(
    schedule: Any, predicted: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor, gamma: float | None
) -> Tensor:
    """Mean squared error of a prediction [B, C, h, w] of the noise, or velocity, at timesteps [B].

    With gamma, rows are weighted by min(SNR, gamma), for errors of the clean latent (arXiv 2303.09556).
    """
    is_velocity = schedule.config.prediction_type == "v_prediction"
    target = schedule.get_velocity(latents, noise, timesteps) if is_velocity else noise
    if gamma is None:
        return F.mse_loss(predicted.float(), target.float())
    errors = (predicted.float() - target.float()).square().flatten(1).mean(1)  # [B]
    return (errors * _min_snr(schedule, timesteps, gamma, is_velocity)).mean()


def _min_snr(schedule: Any, timesteps: Tensor, gamma: float, is_velocity: bool) -> Tensor:
    from diffusers.training_utils import compute_snr

    snr = compute_snr(schedule, timesteps)  # [B]
    return snr.clamp(max=gamma) / (snr + 1 if is_velocity else snr)
