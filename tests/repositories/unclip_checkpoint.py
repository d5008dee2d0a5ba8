"""MindEye2's unclip6_epoch0_step110000.ckpt at a tiny width, in sgm's weight names."""

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
    """Write the checkpoint below a folder.

    Args:
        folder: Folder of repositories.
        unet: Weights of the U-Net in sgm's names. Default: random weights.
        sizes: Config of the random U-Net.
    """
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}
    for name, value in (unet or _make_unet(sizes)).items():
        state[f"model.diffusion_model.{name}"] = value
    for name, value in _make_vae().items():
        state[f"first_stage_model.{name}"] = value
    state["conditioner.embedders.0.model.positional_embedding"] = torch.zeros(7, 7)
    file = folder / NAME / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state, "epoch": 0, "global_step": 110000}, file)
    return file


def _make_unet(sizes: dict[str, Any]) -> dict[str, Tensor]:
    """Draw a tiny U-Net in sgm's names, where one list holds the layers of all
    blocks.
    """
    state = UNet2DConditionModel(**sizes).state_dict()
    renamed, n_layers = {}, sizes["layers_per_block"]
    for name, value in state.items():
        side_name, _, path = name.partition(".")
        if side_name in ("down_blocks", "up_blocks"):
            block, kind, layer, inner = path.split(".", 3)
            is_resampler = kind in ("downsamplers", "upsamplers")
            index = n_layers if is_resampler else int(layer)
            index += int(block) * (n_layers + 1)
            if side_name == "down_blocks":
                sgm_side, index = "input_blocks", index + 1
                column = {"resnets": 0, "attentions": 1, "downsamplers": 0}[kind]
            else:
                sgm_side = "output_blocks"
                column = {"resnets": 0, "attentions": 1, "upsamplers": 1}[kind]
                if kind == "upsamplers" and int(block) < 2:
                    column = 2  # an attention precedes the upsampler
            if kind == "downsamplers":
                inner = inner.replace("conv", "op")
            renamed[f"{sgm_side}.{index}.{column}.{_rename_inner(kind, inner)}"] = value
        elif side_name == "mid_block":
            kind, layer, inner = path.split(".", 2)
            column = 1 if kind == "attentions" else 2 * int(layer)
            renamed[f"middle_block.{column}.{_rename_inner(kind, inner)}"] = value
        else:
            renamed[_rename_outer(name)] = value
    return renamed


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


def _rename_outer(name: str) -> str:
    layer, _, kind = name.rpartition(".")
    return f"{OUTER[layer]}.{kind}"


def _rename_inner(kind: str, name: str) -> str:
    if kind != "resnets":
        return name
    layer, _, weight = name.partition(".")
    return f"{INNER[layer]}.{weight}"


def _make_vae() -> dict[str, Tensor]:
    """Draw a tiny autoencoder in sgm's names, with attention weights of
    convolutions.
    """
    renamed = {}
    for name, value in AutoencoderKL.from_config(VAE).state_dict().items():  # type: ignore[attr-defined]
        if (
            ".attentions." in name
            and name.endswith("weight")
            and "group_norm" not in name
        ):
            value = value[..., None, None]
        for diffusers_name, sgm_name in (
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
            name = name.replace(diffusers_name, sgm_name)
        if ".up_blocks." in name:
            prefix, path = name.split(".up_blocks.")
            block, suffix = path.split(".", 1)
            index = len(VAE["block_out_channels"]) - 1 - int(block)
            name = f"{prefix}.up.{index}.{suffix}"
        renamed[name] = value
    return renamed
