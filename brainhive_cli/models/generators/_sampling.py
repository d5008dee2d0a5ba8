"""The scheduler, start and callback that sampling with diffusers' pipelines takes."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.models.conditioning import Conditioning
from brainhive_cli.models.generators import SCHEDULERS, Sampling


def check_rows(conditioning: Conditioning, rows: int) -> None:
    """Refuse a conditioning of another number of rows than there are seeds; one of none serves any number."""
    if len(conditioning) not in (0, rows):
        raise BrainhiveError(
            f"{rows} seeds need a conditioning of {rows} rows; got {len(conditioning)}",
            "give one seed for each row",
        )


def scheduler_of(own: Any, sampling: Sampling) -> Any:
    """Make the scheduler that is asked for, with the noise schedule of the generator's own; else that one."""
    import diffusers

    if sampling.scheduler is None:
        return own
    kind, differing = SCHEDULERS[sampling.scheduler]
    return getattr(diffusers, kind).from_config(own.config, **differing)


def resized(pictures: Tensor, side_px: int) -> Tensor:
    """Resize pictures [B, 3, H, W] in 0..1 to [B, 3, side, side]."""
    square = F.interpolate(pictures.float(), (side_px, side_px), mode="bicubic", antialias=True)
    return square.clamp(0, 1)


def begin(
    generator: Any,
    pipeline: Any,
    image_to_image: Callable[..., Any],
    start: Tensor | None,
    size_px: int,
    sampling: Sampling,
) -> tuple[Any, dict[str, Any]]:
    """Choose diffusers' pipeline and its arguments: from noise alone, or from a start under noise.

    Of the denoising steps the share `strength` is done (SDEdit, arXiv 2108.01073), one at least.

    Args:
        generator: Whose latents these are.
        pipeline: The pipeline that starts from noise.
        image_to_image: Makes the other one of its components.
        start: Latents [B, C, h, w], or pictures [B, 3, H, W] in 0..1.
        size_px: Height and width.
        sampling: Steps and strength.

    Returns:
        The pipeline, None where nothing is to be denoised (strength 0: `image` is the result); arguments.

    Raises:
        BrainhiveError: if latents are not of the generator's shape.
        RecipeError: if no step is left to do.
    """
    if start is None or sampling.strength == 1:
        return pipeline, {"height": size_px, "width": size_px}
    latents = latents_of(start, size_px, generator)
    if sampling.strength == 0:
        return None, {"image": latents}
    if int(sampling.steps * sampling.strength) < 1:  # as diffusers counts the steps
        raise RecipeError(
            f"strength {sampling.strength:g} of {sampling.steps} steps leaves none to do",
            f"give at least {1 / sampling.steps:.2g}, or 0 for the start alone",
        )
    with console.hushed():
        made = image_to_image(**pipeline.components)
    made.set_progress_bar_config(disable=True)
    return made, {"image": latents, "strength": sampling.strength}


def latents_of(start: Tensor, size_px: int, generator: Any) -> Tensor:
    """Give the latents of pictures, or latents themselves; BrainhiveError if they are of another shape."""
    shape = generator.latent_shape(size_px)
    if start.shape[1] == 3:
        found: Tensor = generator.encode(resized(start, size_px))
        return found
    if tuple(start.shape[1:]) != shape:
        raise BrainhiveError(
            f"latents to start from are {list(start.shape[1:])}, the generator's are {list(shape)}",
            "use the resolution_px and the autoencoder that the latents were made with",
        )
    return start.to(generator.device)


def callback(on_step: Callable[[int], None] | None) -> Callable[..., dict[str, Any]] | None:
    """Make diffusers' callback, which calls `on_step` with the number of each step done."""

    def call(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if on_step is not None:
            on_step(step + 1)
        return tensors

    return on_step and call
