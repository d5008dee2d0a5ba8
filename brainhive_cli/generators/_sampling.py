"""The scheduler, start and callback that sampling with diffusers' pipelines takes."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.generators import SCHEDULERS


def scheduler(name: str, config: Any) -> Any:
    """Make a scheduler by its short name, for the noise schedule of the generator's own config."""
    import diffusers

    kind, differing = SCHEDULERS[name]
    return getattr(diffusers, kind).from_config(config, **differing)


def resized(pictures: Tensor, side_px: int) -> Tensor:
    """Resize pictures [B, 3, H, W] in 0..1 to [B, 3, side, side]."""
    square = F.interpolate(pictures.float(), (side_px, side_px), mode="bicubic", antialias=True)
    return square.clamp(0, 1)


def from_latents(pipeline: Any, latents: Tensor, steps: int, strength: float) -> tuple[Any, dict[str, Any]]:
    """Make the pipeline that starts from latents [B, C, h, w] under noise, and its arguments.

    Of `steps` denoising steps the share `strength` is done (SDEdit, arXiv 2108.01073), one at least.
    """
    from diffusers import StableDiffusionXLImg2ImgPipeline

    if int(steps * strength) < 1:  # as diffusers counts the steps
        raise RecipeError(
            f"strength {strength:g} of {steps} steps leaves none to do", f"give at least {1 / steps:.2g}"
        )
    other: Any = StableDiffusionXLImg2ImgPipeline(**pipeline.components, add_watermarker=False)
    other.set_progress_bar_config(disable=True)
    return other, {"image": latents, "strength": strength}


def callback(on_step: Callable[[int], None] | None) -> Callable[..., dict[str, Any]] | None:
    """Make diffusers' callback, which calls `on_step` with the number of each step done."""

    def call(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if on_step is not None:
            on_step(step + 1)
        return tensors

    return on_step and call
