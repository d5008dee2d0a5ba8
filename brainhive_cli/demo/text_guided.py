"""The demo's text-to-picture model in the layout of Stable Diffusion 1, joined from what the wheel holds.

It is the text stream of the dual-guided generator, with its text encoder; motion modules make clips of it.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainhive_cli.core.hub import DEMO_WEIGHTS
from brainhive_cli.demo import joined
from brainhive_cli.demo.dual_guided import FILE, OWN, SHARED, dual_state, unet_config

if TYPE_CHECKING:
    from torch import Tensor

MOTION = DEMO_WEIGHTS / "films"
"""Motion modules and SparseCtrl, which were trained on drawn films."""
PLACE = "models/demo-text-guided"
"""Where the folder is put, below home; recipes name it."""
LENGTH = 2.563
"""Mean length of a caption's projected end token (spread 0.2), by which the dual-guided generator divides."""
_WEIGHTS = "diffusion_pytorch_model.safetensors"


def assemble(folder: Path) -> None:
    """Write the folder, unless it is there."""
    joined.assemble(folder, (SHARED, OWN), _write)


def text_state(dual: Mapping[str, "Tensor"], projection: "Tensor") -> dict[str, "Tensor"]:
    """Take the text stream of a dual U-Net; its keys and values take text tokens before their projection.

    Args:
        dual: Its weights.
        projection: Of the text encoder, [D_cross, D_text].
    """
    found = {}
    for name, value in dual.items():
        block, is_stream, rest = name.partition(".text.")
        own = f"{block}.{rest}" if is_stream else name
        if ".image." in name:
            continue
        if own.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")):
            value = (value.float() @ projection.float() / LENGTH).to(value)
        found[own] = value
    return found


def _write(folder: Path) -> None:
    from safetensors.torch import load_file

    from brainhive_cli.core import weights

    text = load_file(OWN / "text_encoder/model.safetensors")
    projection = text.pop("text_projection.weight")
    encoder = joined.config_of(OWN / "text_encoder") | {"architectures": ["CLIPTextModel"]}
    unet: dict[str, Any] = unet_config() | {"cross_attention_dim": projection.shape[1]}
    for drawn in ("vae", "scheduler"):
        shutil.copytree(SHARED / drawn, folder / drawn)
    shutil.copytree(OWN / "tokenizer", folder / "tokenizer")
    joined.write_configs(folder, {"unet": unet, "text_encoder": encoder})
    dual = dual_state(load_file(SHARED / "unet" / _WEIGHTS), load_file(FILE))
    weights.save(folder / "unet" / _WEIGHTS, text_state(dual, projection))
    weights.save(folder / "text_encoder/model.safetensors", text)
