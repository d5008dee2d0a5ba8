"""From tokens to pictures, by a prior and a generator joined once."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import torch
from PIL import Image
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor

from brainhive_cli import generators
from brainhive_cli.core.decoded import Decoded
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.heads import TOKEN
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Section
from brainhive_cli.data.views import to_pictures
from brainhive_cli.generators import SCHEDULERS, known
from brainhive_cli.priors.fusion_prior import FusionPrior

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Sampling(Section):
    """How a token becomes a picture; defaults are BrainHiVE's for turbo models."""

    resolution_px: int = Field(512, gt=0)
    steps: int = Field(4, gt=0, description="denoising steps")
    guidance: float = Field(0.0, ge=0, description="classifier-free guidance; turbo models want 0")
    scheduler: Annotated[str | None, AfterValidator(known)] = Field(
        None, description=f"{', '.join(SCHEDULERS)}; default: the generator's own"
    )
    prompt: str = Field("", description="text beside the token; the paper: none")
    negative_prompt: str = Field("", description="text that guidance above 1 moves away from")
    adapter: Literal["apply", "skip"] = Field(
        "skip", description="the prior's adapter on the token (paper: skip)"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp16", description="dtype of the generator; a CPU takes fp32 for fp16"
    )
    batch_size: int = Field(20, gt=0, description="pictures drawn at once, on each process")
    offload: bool = Field(False, description="keep U-Net and VAE off the GPU while they do not compute")
    vae_tiling: bool = Field(False, description="decode picture by picture, and large ones in tiles")

    @model_validator(mode="after")
    def _guides_or_not(self) -> Self:
        if 0 < self.guidance < 1:
            raise RecipeError(f"guidance {self.guidance:g} has no effect, only above 1 has", "guidance=0")
        if self.negative_prompt and self.guidance <= 1:
            raise RecipeError("negative_prompt has no effect without guidance", "guidance=5")
        return self


class Sampler:
    """Prior and generator; they are joined when the first picture is drawn.

    Args:
        how: How pictures are drawn.
        build: Loads the generator onto a device.
        prior: On the launch's device.
        launch: Where pictures are drawn.
    """

    def __init__(
        self,
        how: Sampling,
        build: Callable[[torch.device, torch.dtype], Any],
        prior: FusionPrior,
        launch: Launch,
    ) -> None:
        self._how, self._build, self._prior, self._device = how, build, prior, launch.device

    @cached_property
    def generator(self) -> Any:
        """The generator, with the prior attached."""
        how, on_cpu = self._how, self._device.type == "cpu"
        offloaded = how.offload and not on_cpu
        generator = self._build(
            torch.device("cpu") if offloaded else self._device,
            torch.float32 if on_cpu and how.precision == "fp16" else DTYPES[how.precision],
        )
        generator.spare_memory(self._device if offloaded else None, how.vae_tiling)
        self._prior.attach(generator)
        return generator

    @torch.inference_mode()
    def draw(
        self,
        tokens: Tensor,
        seeds: Sequence[int],
        initial: Tensor | None = None,
        strength: float = 1.0,
        on_step: Callable[[int], None] | None = None,
    ) -> list[Image.Image]:
        """Draw a picture for each token [B, D] and seed, from pictures [B, 3, H, W] in 0..1 if given."""
        how, prior, generator = self._how, self._prior, self.generator
        prior.adapter = how.adapter
        settings = ("steps", "guidance", "scheduler", "prompt", "negative_prompt")
        sampling = generators.Sampling(**{name: getattr(how, name) for name in settings}, strength=strength)
        conditioning = replace(prior.condition(Decoded({TOKEN: tokens}), seeds), start=initial)
        null = prior.null(len(seeds), seeds)
        images = generator.generate(conditioning, seeds, how.resolution_px, sampling, null, on_step)
        return to_pictures(images)
