"""Generators: diffusion models that make pictures or clips from a prior's conditioning."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.recipe import Section

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from brainhive_cli.models.conditioning import Conditioning

Media: TypeAlias = "Tensor"
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


def check_scheduler(name: str | None) -> str | None:
    """Refuse a scheduler that is none of these; None is the generator's own."""
    if name is not None and name not in SCHEDULERS:
        raise RecipeError(f"no scheduler called {name!r}", f"there are: {', '.join(SCHEDULERS)}")
    return name


SchedulerName = Annotated[str | None, AfterValidator(check_scheduler)]


class Sampling(Section):
    """How a generator samples; defaults are BrainHiVE's for turbo models."""

    steps: int = Field(4, gt=0, le=10_000, description="denoising steps")
    guidance: float = Field(0.0, ge=0, description="classifier-free guidance; turbo models want 0")
    scheduler: SchedulerName = Field(
        None, description=f"{', '.join(SCHEDULERS)}; default: the generator's own"
    )
    prompt: str = Field("", description="text next to the conditioning; the paper: none")
    negative_prompt: str = Field("", description="text that guidance above 1 moves away from")
    strength: float = Field(
        0.75,
        ge=0,
        le=1,
        description="share of the denoising steps that are done where sampling starts from latents or "
        "pictures; 0 decodes the start as it is, 1 starts from noise alone (clips: from the noised start)",
    )

    @property
    def words(self) -> list[str]:
        """What differs from plain sampling, in words that travel with metrics."""
        words = {
            self.scheduler or "": self.scheduler,
            f"guidance {self.guidance:g}": self.guidance > 1,
            f"prompt {self.prompt!r}": self.prompt,
            f"negative prompt {self.negative_prompt!r}": self.negative_prompt,
        }
        return [word for word, is_set in words.items() if is_set]

    @model_validator(mode="after")
    def _guides_or_not(self) -> "Sampling":
        if 0 < self.guidance < 1:
            raise RecipeError(f"guidance {self.guidance:g} has no effect, only above 1 has", "guidance=0")
        if self.negative_prompt and self.guidance <= 1:
            raise RecipeError("negative_prompt has no effect without guidance", "guidance=5")
        return self


class Objective(Section):
    """What the error of a prediction is weighted and noised by in training."""

    min_snr_gamma: float | None = Field(
        None, gt=0, description="weight losses by min(SNR, gamma); 5 in Min-SNR (arXiv 2303.09556)"
    )
    noise_offset: float = Field(0.0, ge=0, description="spread of a shift of each latent channel's noise")


class Generator(Protocol):
    """What every generator offers; its networks are its own. `loss` is needed for train-prior alone."""

    def encode(
        self, media: "Media", random: "torch.Generator | Sequence[torch.Generator] | None"
    ) -> "Tensor":
        """Encode media in 0..1 as latents [B, C, h, w]; `random` samples where None takes the mode."""
        ...

    def decode(self, latents: "Tensor") -> "Media":
        """Decode latents to media in 0..1."""
        ...

    def loss(
        self,
        latents: "Tensor",
        conditioning: "Conditioning",
        random: "torch.Generator | Sequence[torch.Generator]",
        sizes: "Tensor",
    ) -> "Tensor":
        """Compute the training loss, a scalar, of clean latents at noise that `random` draws.

        Args:
            latents: [B, C, h, w].
            conditioning: Of B rows.
            random: One for all rows, or one for each.
            sizes: [B, 6], pixels: original height, width; top, left of the crop; target height, width.
        """
        ...

    def generate(
        self,
        conditioning: "Conditioning",
        seeds: Sequence[int],
        size_px: int,
        sampling: Sampling,
        null: "Conditioning | None" = None,
        on_step: Callable[[int], None] | None = None,
    ) -> "Media":
        """Generate media for B seeds; each depends on its own row and seed, not on the batch.

        Args:
            conditioning: Of B rows, or without any condition.
            seeds: [B], of the noise.
            size_px: Height and width.
            sampling: Steps, guidance, prompts.
            null: The unconditional side of guidance.
            on_step: Called with the number of each step done.
        """
        ...
