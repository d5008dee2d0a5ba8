"""The demo's dual-guided generator, as Versatile Diffusion once converted, joined from what the wheel holds.

It shares the autoencoder and part of the U-Net with the demo's SDXL-type generator; the wheel holds the
weights in which it differs.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainhive_cli.core import hub
from brainhive_cli.core.file_lock import FileLock
from brainhive_cli.core.hub import DEMO_WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

SHARED, OWN = DEMO_WEIGHTS / "generator", DEMO_WEIGHTS / "dual"
FILE = OWN / "unet.safetensors"
"""Weights of the dual U-Net in which it differs."""
STREAMS = ("image", "text")
"""Of each attention block there is one for either stream."""
TEXT_TOKENS, IMAGE_TOKENS, WIDTH = 12, 4, 128
"""How many tokens of which width it was trained with; without a condition they are zeros."""
STAMP = "made_of.txt"
"""Digests of what a folder was joined from."""
_ADDED = "add_embedding."
_WEIGHTS = "diffusion_pytorch_model.safetensors"


def assemble(folder: Path) -> None:
    """Write the generator's folder, unless it is there; interrupted, that leaves no folder of this name."""
    made_of = " ".join(hub.digest(each, ("*/*.safetensors", "*.safetensors")) for each in (SHARED, OWN))
    lock = FileLock.for_path(folder, wait=True)
    try:
        if (folder / STAMP).is_file() and (folder / STAMP).read_text() == made_of:
            return
        part = folder.with_name(f".{folder.name}.part")
        for each in (part, folder):
            shutil.rmtree(each, ignore_errors=True)
        part.mkdir()
        _write(part)
        (part / STAMP).write_text(made_of)
        os.replace(part, folder)
    finally:
        lock.release()


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
    found: dict[str, Any] = json.loads((SHARED / "unet/config.json").read_text())
    return {**found, "addition_embed_type": None}


def _write(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from brainhive_cli.core import weights

    scheduler = json.loads((SHARED / "scheduler/scheduler_config.json").read_text())
    scheduler["steps_offset"] = 1  # diffusers' pipelines demand it; trailing timesteps do not use it
    vae = json.loads((SHARED / "vae/config.json").read_text())
    configs = {"image_unet/config": unet_config(), "vae/config": vae}
    for name, config in {**configs, "scheduler/scheduler_config": scheduler}.items():
        (folder / name).parent.mkdir()
        text = json.dumps(config, indent=2) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    unet = dual_state(load_file(SHARED / "unet" / _WEIGHTS), load_file(FILE))
    tokens = {"text": torch.zeros(1, TEXT_TOKENS, WIDTH), "image": torch.zeros(1, IMAGE_TOKENS, WIDTH)}
    weights.save(folder / "unet.safetensors", unet)
    weights.save(folder / "vae.safetensors", load_file(SHARED / "vae" / _WEIGHTS))
    weights.save(folder / "unconditional.safetensors", tokens)
