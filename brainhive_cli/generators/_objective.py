"""What a denoiser learns from: the error of the noise, or velocity, that it predicts."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError


def check(schedule: Any) -> None:
    """Refuse a noise schedule whose model predicts neither noise nor velocity."""
    kind = schedule.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise BrainhiveError(
            f"the scheduler's prediction_type is {kind}",
            "use a generator that predicts epsilon or v_prediction",
        )


def error(
    schedule: Any, predicted: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor, gamma: float | None
) -> Tensor:
    """Mean squared error over pictures, weighed by min(SNR, gamma) of their level if gamma is given.

    Args:
        schedule: Of the noise; it says what is predicted.
        predicted: By the U-Net, [B, C, h, w].
        latents: Clean, as the prediction.
        noise: What was added to them.
        timesteps: Their levels [B].
        gamma: Of min-SNR, which weighs errors of the clean latent (arXiv 2303.09556); None for equal weights.
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
