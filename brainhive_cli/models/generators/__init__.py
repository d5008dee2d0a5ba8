"""Generators: diffusion models that make pictures or clips from a prior's conditioning.

A generator has these methods:

- `encode(media, rng)`: Encode media in 0..1 as latents [B, C, h, w]. With `rng` the
  posterior is sampled, with None its mode is taken.
- `decode(latents)`: Decode latents to media in 0..1.
- `loss(latents, conditioning, rng, sizes)`: Return the training loss, a scalar, for
  clean latents [B, C, h, w]. `rng` draws the noise. It is one random generator for all
  rows or one for each row. `sizes` [B, 6] are pixels: original height and width, top
  and left of the crop, target height and width. Only `train-prior` needs it.
- `generate(conditioning, seeds, size_px, sampling, null, on_step)`: Generate media for
  B seeds. Each depends on its own row and seed, not on the batch. The conditioning has
  B rows, or no condition at all. `null` is for the unconditional batch of guidance.
  `on_step` is called with the number of each finished step.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from pydantic import Field, model_validator

from brainhive_cli.core.base import BrainhiveError, RecipeError
from brainhive_cli.core.files import Input
from brainhive_cli.core.recipes import Section

if TYPE_CHECKING:
    from torch import Tensor

GeneratedMedia: TypeAlias = "Tensor"
"""Pictures [B, 3, H, W] or clips [B, F, 3, H, W], float32 in 0..1."""
DEFAULT_KIND = "sdxl"
"""Kind of a generator that the recipe gives as a source alone."""
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "lightning": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
}
"""Class in diffusers, and settings that replace the generator's own, by scheduler name.

Source: SDXL-Lightning's model card for `lightning`. LCM (arXiv 2310.04378) for `lcm`.
"""

SchedulerName = (
    Literal["euler", "euler-ancestral", "ddim", "dpm++", "unipc", "lcm", "lightning"]
    | None
)
"""Name of a scheduler, or None for the generator's own."""


@runtime_checkable
class NeedsTextEncoders(Protocol):
    """Config of a generator that needs text encoders for prompts and captions."""

    def text_inputs(self) -> list[Input]:
        """List the text encoders, with their states."""
        ...


class Sampling(Section):
    """Settings of sampling. The defaults are BrainHiVE's settings for turbo models."""

    steps: int = Field(4, gt=0, le=10_000, description="Number of denoising steps.")
    guidance: float = Field(
        0.0, ge=0, description="Scale of classifier-free guidance, 0 for turbo models."
    )
    scheduler: SchedulerName = Field(
        None,
        description=f"One of {', '.join(SCHEDULERS)}. By default the generator's own.",
    )
    prompt: str = Field(
        "", description="Text in addition to the conditioning. The paper has none."
    )
    negative_prompt: str = Field(
        "", description="Text from which guidance above 1 moves away."
    )
    strength: float = Field(
        0.75,
        ge=0,
        le=1,
        description="Share of the denoising steps that are done after a start, which "
        "is latents or pictures. With 0, the start is decoded unchanged. With 1, "
        "sampling begins with noise alone, or for clips with their start under noise.",
    )

    @property
    def changed_settings(self) -> list[str]:
        """Settings that differ from plain sampling, as texts such as `guidance 5`."""
        descriptions = []
        if self.scheduler:
            descriptions.append(str(self.scheduler))
        if self.guidance > 1:
            descriptions.append(f"guidance {self.guidance:g}")
        if self.prompt:
            descriptions.append(f"prompt {self.prompt!r}")
        if self.negative_prompt:
            descriptions.append(f"negative prompt {self.negative_prompt!r}")
        return descriptions

    @model_validator(mode="after")
    def _refuse_guidance_without_effect(self) -> "Sampling":
        # diffusers guides only above 1
        if 0 < self.guidance < 1:
            raise RecipeError(
                f"guidance {self.guidance:g} has no effect, only above 1 has",
                "guidance=0",
            )
        if self.negative_prompt and self.guidance <= 1:
            raise RecipeError(
                "negative_prompt has no effect without guidance", "guidance=5"
            )
        return self


def require_finite(
    media: GeneratedMedia,
    seeds: Sequence[int],
    items: Sequence[str],
    precision: str,
    fp32_hint: str,
) -> None:
    """Raise an error if media have values that are not finite.

    Networks overflow in fp16, and a file would show such values as black.

    Args:
        media: Media of B seeds.
        seeds: Seeds [B].
        items: Names [B] of the stimuli, or empty.
        precision: Precision of the generator, such as `fp32`.
        fp32_hint: Advice to users of another precision than fp32.

    Raises:
        BrainhiveError: naming the first seed and item.
    """
    is_finite = media.isfinite().flatten(1).all(1).tolist()  # [B]
    if all(is_finite):
        return
    row = is_finite.index(False)
    item_text = f" for {items[row]}" if items else ""
    hint = fp32_hint
    if precision == "fp32":
        hint = "another generator or prior, whose weights are sound"
    raise BrainhiveError(
        f"the generator's values are not finite{item_text}, seed {seeds[row]}, in "
        f"{precision}: {is_finite.count(False)} of {len(seeds)} in this batch",
        hint,
    )
