"""Repositories of AnimateDiff and stable-diffusion-v1-5 at tiny widths."""

from pathlib import Path
from typing import Any

import torch
from diffusers import MotionAdapter, SparseControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor

from tests.repositories import sd15_repositories
from tests.repositories.sd15_repositories import SD15, TEXT

MOTION = "guoyww/animatediff-motion-adapter-v1-5-3"
SPARSE = "guoyww/animatediff-sparsectrl-rgb"
ADAPTER = "guoyww/animatediff", "v3_sd15_adapter.ckpt"
WIDTHS = {"block_out_channels": (8, 16)}
MODULES = {
    **WIDTHS,
    "motion_layers_per_block": 1,
    "motion_norm_num_groups": 4,
    "motion_num_attention_heads": 2,
}
CONTROL = {
    **WIDTHS,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
    "cross_attention_dim": TEXT,
    "motion_num_attention_heads": 2,
    "conditioning_channels": 4,
    "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
}


def write(root: Path) -> Path:
    """Write all repositories below `root`."""
    sd15_repositories.write(root)
    torch.manual_seed(1)
    write_motion(root)
    write_sparse_control(root)
    file = root.joinpath(*ADAPTER)
    file.parent.mkdir()
    torch.save(make_adapter(UNet2DConditionModel(**sd15_repositories.UNET)), file)
    (file.parent / "mm_sd_v15_v2.ckpt").write_bytes(b"many gigabytes")
    return root


def write_motion(root: Path, **config: Any) -> None:
    """Write the motion modules. The v3 modules lack a middle block."""
    adapter = MotionAdapter(**{**MODULES, "use_motion_mid_block": False, **config})
    adapter.save_pretrained(root / MOTION)


def write_sparse_control(root: Path, **config: Any) -> None:
    """Write SparseCtrl with random weights. New zero weights would change nothing."""
    network: Any = SparseControlNetModel(**{**CONTROL, **config})
    for weight in network.controlnet_mid_block.parameters():
        torch.nn.init.normal_(weight)
    for weight in network.controlnet_cond_embedding.parameters():
        torch.nn.init.normal_(weight)
    network.save_pretrained(root / SPARSE)


def make_adapter(unet: Any, rank: int = 2) -> dict[str, Tensor]:
    """Draw low-rank weights of every attention, under AnimateDiff's names."""
    state_dict = {}
    for processor in unet.attn_processors:
        attention = unet.get_submodule(processor.removesuffix(".processor"))
        layers = {
            "to_q": attention.to_q,
            "to_k": attention.to_k,
            "to_v": attention.to_v,
            "to_out": attention.to_out[0],
        }
        for name, layer in layers.items():
            outputs, inputs = layer.weight.shape
            prefix = f"{processor}.{name}_lora"
            state_dict[f"{prefix}.down.weight"] = torch.randn(rank, inputs)
            state_dict[f"{prefix}.up.weight"] = torch.randn(outputs, rank)
    return state_dict


def load_unet(root: Path) -> dict[str, Tensor]:
    """Read the weights of Stable Diffusion's U-Net."""
    return load_file(root / SD15 / "unet/diffusion_pytorch_model.safetensors")
