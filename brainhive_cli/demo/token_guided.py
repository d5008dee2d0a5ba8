"""The demo's model from image tokens to pictures, in SDXL-unCLIP's layout, joined from what the wheel holds.

SDXL's size ids and its empty pooled prompt never change here: they become a bias of the time embedding. The
Fusion Prior's image attention takes the place of the text attention, which sees nothing but zeros.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainhive_cli.core.hub import DEMO_WEIGHTS
from brainhive_cli.demo import joined
from brainhive_cli.demo.dual_guided import SHARED, dual_names, unet_config

if TYPE_CHECKING:
    from torch import Tensor

PLACE = "models/demo-token-guided"
"""Where the folder is put, below home; recipes name it."""
PRIOR = DEMO_WEIGHTS / "prior"
SIZE_IDS = (64.0, 64.0, 0.0, 0.0, 64.0, 64.0)  # of every picture of the SDXL-type generator
TIME_ID_DIM = 8
_WEIGHTS = "diffusion_pytorch_model.safetensors"


def assemble(folder: Path) -> None:
    """Write the folder, unless it is there."""
    joined.assemble(folder, (SHARED, PRIOR), _write)


def plain_state() -> dict[str, "Tensor"]:
    """Give the weights of a U-Net that takes latents, timesteps and image tokens, and nothing else."""
    import torch
    from diffusers import UNet2DConditionModel

    unet: Any = UNet2DConditionModel.from_pretrained(SHARED / "unet", torch_dtype=torch.float32)
    with torch.no_grad():
        ids = unet.add_time_proj(torch.tensor(SIZE_IDS)).reshape(1, -1)
        pooled = torch.zeros(1, unet.add_embedding.linear_1.in_features - ids.shape[1])
        unet.time_embedding.linear_2.bias += unet.add_embedding(torch.cat([pooled, ids], 1))[0]
        for name, weight in _attentions().items():
            unet.get_parameter(name).copy_(weight)
    state: dict[str, Tensor] = unet.state_dict()
    return {name: each for name, each in state.items() if [*dual_names(name)]}


def _attentions() -> dict[str, "Tensor"]:
    """Name the Fusion Prior's keys and values as the U-Net's own."""
    from safetensors.torch import load_file

    folder = PRIOR / "attn_adapter"
    names = joined.config_of(folder)["attn_processor_keys"]
    found = {}
    for key, weight in load_file(folder / _WEIGHTS).items():
        place, kind = key.removeprefix("attn_processors.").removesuffix("_ip.weight").split(".")
        found[f"{names[int(place)].removesuffix('.processor')}.{kind}.weight"] = weight
    return found


def _write(folder: Path) -> None:
    import torch

    from brainhive_cli.core import weights

    for shared in ("vae", "scheduler"):
        shutil.copytree(SHARED / shared, folder / shared)
    ids, width = 4 * TIME_ID_DIM, 4 * unet_config()["block_out_channels"][0]
    sizes = {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": ids}
    joined.write_configs(folder, {"unet": unet_config() | sizes})
    state = plain_state()
    for layer, shape in (("linear_1", (width, ids)), ("linear_2", (width, width))):  # they add nothing
        state[f"add_embedding.{layer}.weight"] = torch.zeros(shape)
        state[f"add_embedding.{layer}.bias"] = torch.zeros(shape[0])
    weights.save(folder / "unet" / _WEIGHTS, {name: each.half() for name, each in state.items()})
