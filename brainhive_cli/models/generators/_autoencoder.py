"""Pictures to latents and back by an autoencoder of diffusers, a few at a time."""

from typing import Any

import torch
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.conditioning import Media
from brainhive_cli.models.generators._objective import Random

AT_ONCE = 4
"""Pictures that a VAE takes at once: enough to fill a GPU at 512 px, where each needs 0.75 GiB in fp32."""


def encode(vae: Any, media: Media, device: torch.device, random: Random | None) -> Tensor:
    """Encode pictures [B, 3, H, W] in 0..1 as latents [B, C, h, w]; `random` samples the posterior."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    with torch.no_grad():
        some = (media.to(device, vae.dtype) * 2 - 1).split(AT_ONCE)
        moments = torch.cat([vae.encode(each).latent_dist.parameters for each in some])
    posterior = DiagonalGaussianDistribution(moments)
    if random is not None and not isinstance(random, torch.Generator):
        random = list(random)
    latents = posterior.mode() if random is None else posterior.sample(random)
    return latents.float() * vae.config.scaling_factor


def decode(vae: Any, latents: Tensor, device: torch.device) -> Media:
    """Decode latents [B, C, h, w] to pictures [B, 3, H, W] in 0..1."""
    return (decoded(vae, latents, device) / 2 + 0.5).clamp(0, 1)


def decoded(vae: Any, latents: Tensor, device: torch.device) -> Tensor:
    """Decode latents [B, C, h, w] to what the VAE makes of them, [B, 3, H, W] of about −1..1, in float32."""
    some = (latents.to(device, vae.dtype) / vae.config.scaling_factor).split(AT_ONCE)
    with torch.no_grad():
        return torch.cat([vae.decode(each).sample.float() for each in some])


def shrinks_by(vae: Any) -> int:
    """Return how many times smaller the sides of a latent are than those of its picture."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def latent_shape(vae: Any, size_px: int) -> tuple[int, int, int]:
    """Return the shape [C, h, w] of the latent of a picture; raises as `check_size` does."""
    check_size(vae, size_px)
    side = size_px // shrinks_by(vae)
    return vae.config.latent_channels, side, side


def check_size(vae: Any, size_px: int) -> None:
    """Refuse a size of pictures that the VAE does not have."""
    factor = max(8, shrinks_by(vae))  # 8: diffusers' own demand
    if size_px % factor or size_px <= 0:
        raise BrainhiveError(f"resolution_px is {size_px}", f"give a multiple of {factor}")
