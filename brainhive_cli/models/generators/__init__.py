"""Generators: diffusion models that make pictures or clips from a prior's conditioning.

What a part on this shelf builds has these methods; which networks it has is nobody
else's business.

- `encode(media, random)`: media in 0..1 as latents [B, C, h, w]; `random` samples where
  None takes the mode.
- `decode(latents)`: latents to media in 0..1.
- `loss(latents, conditioning, random, sizes)`: the training loss, a scalar, of clean
  latents [B, C, h, w] at noise that `random` draws, one generator of random numbers for
  all rows or one for each. `sizes` [B, 6] are
  pixels: original height, width; top, left of the crop; target height, width.
      `train-prior` alone needs it.
- `generate(conditioning, seeds, size_px, sampling, null, on_step)`: media for B seeds,
  each by its own row and seed, not by the batch. The conditioning has B rows, or no
  condition at all; `null` is the unconditional side of guidance, and `on_step` is
  called with the number of each step done.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.sections import Section

if TYPE_CHECKING:
    from torch import Tensor

GeneratedMedia: TypeAlias = "Tensor"
"""Pictures [B, 3, H, W] or clips [B, F, 3, H, W], float32 in 0..1."""
DEFAULT = "sdxl"
"""The kind that a source alone means."""
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "lightning": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
}
"""diffusers' class, and the settings that differ from the generator's own config.

Source: SDXL-Lightning's model card for `lightning`; LCM (arXiv 2310.04378) for `lcm`.
"""


SchedulerName = (
    Literal["euler", "euler-ancestral", "ddim", "dpm++", "unipc", "lcm", "lightning"]
    | None
)
"""One of these; None is the generator's own."""


class Sampling(Section):
    """Settings of sampling; defaults are BrainHiVE's for turbo models."""

    steps: int = Field(4, gt=0, le=10_000, description="denoising steps")
    guidance: float = Field(
        0.0, ge=0, description="classifier-free guidance; turbo models want 0"
    )
    scheduler: SchedulerName = Field(
        None, description=f"{', '.join(SCHEDULERS)}; default: the generator's own"
    )
    prompt: str = Field(
        "", description="text next to the conditioning; the paper: none"
    )
    negative_prompt: str = Field(
        "", description="text that guidance above 1 moves away from"
    )
    strength: float = Field(
        0.75,
        ge=0,
        le=1,
        description="share of the denoising steps that are done where sampling starts "
        "from latents or pictures; 0 decodes the start as it is, 1 starts "
        "from noise alone (clips: from the noised start)",
    )

    @property
    def words(self) -> list[str]:
        """Differences from plain sampling, in words that travel with metrics."""
        # settings at their defaults have no words
        words = {
            self.scheduler or "": self.scheduler,
            f"guidance {self.guidance:g}": self.guidance > 1,
            f"prompt {self.prompt!r}": self.prompt,
            f"negative prompt {self.negative_prompt!r}": self.negative_prompt,
        }
        return [word for word, is_set in words.items() if is_set]

    @model_validator(mode="after")
    def _guides_or_not(self) -> "Sampling":
        # diffusers guides only above 1
        if 0 < self.guidance < 1:
            raise RecipeError(
                f"guidance {self.guidance:g} has no effect, only above 1 has",
                "guidance=0",
            )
        # the negative prompt is the other side of guidance
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
    way: str,
) -> None:
    """Refuse values that a file would show as black: networks overflow in fp16.

    Args:
        media: What was generated from B seeds.
        seeds: [B].
        items: Names of what is shown, [B]; none where there are no names.
        precision: The dtype of the generator.
        way: How to compute in fp32.

    Raises:
        BrainhiveError: naming the first seed and item.
    """
    is_finite = media.isfinite().flatten(1).all(1).tolist()  # [B]
    if all(is_finite):
        return
    row = is_finite.index(False)
    item = f" for {items[row]}" if items else ""
    raise BrainhiveError(
        f"the generator's values are not finite{item}, seed {seeds[row]}, in "
        f"{precision}: {is_finite.count(False)} of {len(seeds)} in this batch",
        "another generator or prior, whose weights are sound"
        if precision == "fp32"
        else way,
    )
