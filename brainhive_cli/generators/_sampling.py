"""What sampling with diffusers' pipelines needs besides the call: where to start, whom to tell of a step."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError, RecipeError


def check_size(pipeline: Any, resolution_px: int) -> None:
    """Refuse a size that the VAE has not."""
    factor = max(8, pipeline.vae_scale_factor)  # 8: diffusers' own demand
    if resolution_px % factor or resolution_px <= 0:
        raise BrainhiveError(f"resolution_px is {resolution_px}", f"give a multiple of {factor}")


def check_tokens(tokens: Tensor | None, seeds: list[int]) -> None:
    """Refuse tokens [B, S, D_cross] that are not one for each seed."""
    if tokens is not None and (tokens.ndim != 3 or len(tokens) != len(seeds)):
        raise BrainhiveError(
            f"{len(seeds)} seeds need tokens [{len(seeds)}, S, D_cross], got {list(tokens.shape)}",
            "give one seed for each picture",
        )


def resized(pictures: Tensor, side_px: int) -> Tensor:
    """Bring pictures [B, 3, H, W] in 0..1 to [B, 3, side, side] in -1..1."""
    square = F.interpolate(pictures.float(), (side_px, side_px), mode="bicubic", antialias=True)
    return square.clamp(0, 1) * 2 - 1


def from_latents(pipeline: Any, latents: Tensor, steps: int, strength: float) -> tuple[Any, dict[str, Any]]:
    """Make the pipeline that starts from latents under noise, of the same parts, and its own arguments.

    Args:
        pipeline: The one that starts from noise alone.
        latents: [B, C, h, w], as the U-Net sees them.
        steps: Denoising steps from noise alone.
        strength: Share of them that is done.

    Raises:
        RecipeError: if that is none.
    """
    from diffusers import StableDiffusionXLImg2ImgPipeline

    if int(steps * strength) < 1:  # as diffusers counts the steps
        raise RecipeError(
            f"strength {strength:g} of {steps} steps leaves none to do", f"give at least {1 / steps:.2g}"
        )
    other: Any = StableDiffusionXLImg2ImgPipeline(**pipeline.components, add_watermarker=False)
    other.set_progress_bar_config(disable=True)
    return other, {"image": latents, "strength": strength}


def told(on_step: Callable[[int], None] | None) -> Callable[..., dict[str, Any]] | None:
    """Let diffusers tell `on_step` the number of each step done."""
    if on_step is None:
        return None

    def call(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1)
        return tensors

    return call
