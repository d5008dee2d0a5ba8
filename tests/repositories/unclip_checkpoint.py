"""MindEye2's unclip6_epoch0_step110000.ckpt at a tiny width: its repository, names and
what else it holds.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from brainhive_cli.models.generators.sdxl_unclip import ARCHITECTURE, TINY

NAME, FILE = "pscotti/mindeyev2", "unclip6_epoch0_step110000.ckpt"
SOURCE = f"hub:datasets/{NAME}/{FILE}"
UNET: dict[str, Any] = {
    **ARCHITECTURE["unet"],
    "sample_size": 8,
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 1,
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (1, 2, 2),
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 16,
}
VAE = TINY.architecture["vae"]  # type: ignore[index]
TINY_WIDTHS = {"unet": UNET, "vae": VAE}


def write(
    folder: Path, unet: dict[str, Tensor] | None = None, sizes: dict[str, Any] = UNET
) -> Path:
    """Write the checkpoint below a folder; `unet` replaces the random weights, in sgm's
    names.
    """
    torch.manual_seed(0)
    state = {
        f"model.diffusion_model.{name}": value
        for name, value in (unet or _unet(sizes)).items()
    }
    state |= {f"first_stage_model.{name}": value for name, value in _vae().items()}
    state["conditioner.embedders.0.model.positional_embedding"] = torch.zeros(7, 7)
    file = folder / NAME / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state, "epoch": 0, "global_step": 110000}, file)
    return file


def _unet(sizes: dict[str, Any]) -> dict[str, Tensor]:
    """Name the weights of a tiny U-Net as sgm does: blocks in one row, an attention
    beside each ResNet.
    """
    state = UNet2DConditionModel(**sizes).state_dict()
    found, layers = {}, sizes["layers_per_block"]
    for name, value in state.items():
        part, *rest = name.split(".")
        if part in ("down_blocks", "up_blocks"):
            block, kind, place, *rest = rest
            row = layers + 1
            if part == "down_blocks":
                number = (
                    1
                    + int(block) * row
                    + (layers if kind == "downsamplers" else int(place))
                )
                column = {"resnets": 0, "attentions": 1, "downsamplers": 0}[kind]
            else:
                number = int(block) * row + (
                    layers if kind == "upsamplers" else int(place)
                )
                column = {"resnets": 0, "attentions": 1, "upsamplers": 1}[kind]
                if kind == "upsamplers" and int(block) < 2:
                    column = 2
            below = "input_blocks" if part == "down_blocks" else "output_blocks"
            rest = ["op", *rest[1:]] if kind == "downsamplers" else rest
            found[f"{below}.{number}.{column}.{_inner(kind, rest)}"] = value
        elif part == "mid_block":
            kind, place, *rest = rest
            column = 1 if kind == "attentions" else 2 * int(place)
            found[f"middle_block.{column}.{_inner(kind, rest)}"] = value
        else:
            found[_outer(name)] = value
    return found


OUTER = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
INNER = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _outer(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    return f"{OUTER[stem]}.{kind}"


def _inner(kind: str, rest: list[str]) -> str:
    return ".".join([INNER[rest[0]], *rest[1:]] if kind == "resnets" else rest)


def _vae() -> dict[str, Tensor]:
    """Name the weights of a tiny autoencoder as sgm does, its attention as
    convolutions.
    """
    found = {}
    for name, value in AutoencoderKL.from_config(VAE).state_dict().items():  # type: ignore[attr-defined]
        if (
            ".attentions." in name
            and name.endswith("weight")
            and "group_norm" not in name
        ):
            value = value[..., None, None]
        for new, old in (
            ("mid_block.resnets.0", "mid.block_1"),
            ("mid_block.resnets.1", "mid.block_2"),
            ("mid_block.attentions.0", "mid.attn_1"),
            ("group_norm", "norm"),
            ("to_out.0", "proj_out"),
            ("to_", ""),
            ("down_blocks", "down"),
            ("resnets", "block"),
            ("downsamplers.0", "downsample"),
            ("upsamplers.0", "upsample"),
            ("conv_shortcut", "nin_shortcut"),
            ("conv_norm_out", "norm_out"),
        ):
            name = name.replace(new, old)
        if ".up_blocks." in name:
            front, back = name.split(".up_blocks.")
            block, back = back.split(".", 1)
            name = (
                f"{front}.up.{len(VAE['block_out_channels']) - 1 - int(block)}.{back}"
            )
        found[name] = value
    return found
