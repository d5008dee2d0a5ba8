"""The samplers of diffusers that pictures are drawn with, by short names."""

from typing import Any

from brainhive_cli.errors import RecipeError

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "lightning": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
}
"""diffusers' class, and what is set otherwise than in the generator's own config.

Source: SDXL-Lightning's model card for `lightning`; LCM (arXiv 2310.04378) for `lcm`.
"""


def make(name: str, config: Any) -> Any:
    """Make a sampler of the same noise schedule as the generator's own.

    Args:
        name: A key of `SCHEDULERS`.
        config: The own sampler's config.

    Raises:
        RecipeError: if there is none of that name.
    """
    import diffusers

    if name not in SCHEDULERS:
        raise RecipeError(f"no scheduler called {name!r}", f"there are: {', '.join(SCHEDULERS)}")
    kind, unlike = SCHEDULERS[name]
    return getattr(diffusers, kind).from_config(config, **unlike)
