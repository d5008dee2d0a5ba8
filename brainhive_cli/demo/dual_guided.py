"""The demo's dual-guided generator, as Versatile Diffusion once converted, joined from what the wheel holds.

It shares the autoencoder and part of the U-Net with the demo's SDXL-type generator; the wheel holds the
weights in which it differs.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainhive_cli.core.hub import DEMO_WEIGHTS
from brainhive_cli.demo import joined

if TYPE_CHECKING:
    from torch import Tensor

PLACE = "models/demo-dual-guided"
"""Where HAVIR's generator is put, below home; its recipe names it."""
SHARED, OWN = DEMO_WEIGHTS / "generator", DEMO_WEIGHTS / "dual"
FILE = OWN / "unet.safetensors"
"""Weights of the dual U-Net in which it differs."""
STREAMS = ("image", "text")
"""Of each attention block there is one for either stream."""
TEXT_TOKENS, IMAGE_TOKENS, WIDTH = 12, 4, 128
"""How many tokens of which width it was trained with; without a condition they are zeros."""
_ADDED = "add_embedding."
_WEIGHTS = "diffusion_pytorch_model.safetensors"


def assemble(folder: Path) -> None:
    """Write the generator's folder, unless it is there."""
    joined.assemble(folder, (SHARED, OWN), _write)


def dual_state(shared: Mapping[str, "Tensor"], own: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Join the weights of the dual U-Net.

    Args:
        shared: Of the SDXL-type U-Net.
        own: What differs; a stream's attention block that has no own weight has the shared one.
    """
    return {each: own.get(each, value) for name, value in shared.items() for each in dual_names(name)}


def dual_names(name: str) -> Iterator[str]:
    """Name a weight of the SDXL-type U-Net as the dual one does: in both streams, or not at all."""
    block, is_attention, below = name.partition(".attentions.")
    if is_attention:
        place, _, rest = below.partition(".")
        yield from (f"{block}.attentions.{place}.{stream}.{rest}" for stream in STREAMS)
    elif not name.startswith(_ADDED):  # which embeds sizes, that never change here
        yield name


def unet_config() -> dict[str, Any]:
    """Describe the image U-Net: the SDXL-type one, without the embedding of sizes."""
    return joined.config_of(SHARED / "unet") | {"addition_embed_type": None}


def _write(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from brainhive_cli.core import weights

    scheduler = joined.config_of(SHARED / "scheduler")
    scheduler["steps_offset"] = 1  # diffusers' pipelines demand it; trailing timesteps do not use it
    vae = joined.config_of(SHARED / "vae")
    joined.write_configs(folder, {"image_unet": unet_config(), "vae": vae, "scheduler": scheduler})
    unet = dual_state(load_file(SHARED / "unet" / _WEIGHTS), load_file(FILE))
    tokens = {"text": torch.zeros(1, TEXT_TOKENS, WIDTH), "image": torch.zeros(1, IMAGE_TOKENS, WIDTH)}
    weights.save(folder / "unet.safetensors", unet)
    weights.save(folder / "vae.safetensors", load_file(SHARED / "vae" / _WEIGHTS))
    weights.save(folder / "unconditional.safetensors", tokens)
