"""The samplers of diffusers that pictures are drawn with, by short names."""

from typing import Any

from brainhive_cli.core.errors import RecipeError

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


def known(name: str | None) -> str | None:
    """Refuse a sampler that is none of these; None is the generator's own."""
    if name is not None and name not in SCHEDULERS:
        raise RecipeError(f"no scheduler called {name!r}", f"there are: {', '.join(SCHEDULERS)}")
    return name


def make(name: str, config: Any) -> Any:
    """Make a sampler of the same noise schedule as the generator's own, whose config is given."""
    import diffusers

    known(name)
    kind, unlike = SCHEDULERS[name]
    return getattr(diffusers, kind).from_config(config, **unlike)
