"""AnimateDiff's repositories at tiny widths beside stable-diffusion-v1-5's: their
folders and files.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import MotionAdapter, SparseControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor

from tests.repositories import sd15_repositories
from tests.repositories.sd15_repositories import SD15, TEXT

MOTION, SPARSE = (
    "guoyww/animatediff-motion-adapter-v1-5-3",
    "guoyww/animatediff-sparsectrl-rgb",
)
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
}
CONTROL |= {
    "cross_attention_dim": TEXT,
    "motion_num_attention_heads": 2,
    "conditioning_channels": 4,
}
CONTROL |= {"down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion")}


def write(root: Path) -> Path:
    """Write all of them."""
    sd15_repositories.write(root)
    torch.manual_seed(1)
    write_motion(root)
    write_sparse_control(root)
    file = root.joinpath(*ADAPTER)
    file.parent.mkdir()
    torch.save(adapter_of(UNet2DConditionModel(**sd15_repositories.UNET)), file)
    (file.parent / "mm_sd_v15_v2.ckpt").write_bytes(b"many gigabytes")
    return root


def write_motion(root: Path, **config: Any) -> None:
    """Write motion modules: v3's have none in the middle."""
    adapter = MotionAdapter(**{**MODULES, "use_motion_mid_block": False, **config})
    adapter.save_pretrained(root / MOTION)


def write_sparse_control(root: Path, **config: Any) -> None:
    """Write SparseCtrl, trained: new ones change nothing."""
    network: Any = SparseControlNetModel(**{**CONTROL, **config})
    for weight in network.controlnet_mid_block.parameters():
        torch.nn.init.normal_(weight)
    for weight in network.controlnet_cond_embedding.parameters():
        torch.nn.init.normal_(weight)
    network.save_pretrained(root / SPARSE)


def adapter_of(unet: Any, rank: int = 2) -> dict[str, Tensor]:
    """Name low-rank weights of every attention as AnimateDiff's checkpoint does."""
    found = {}
    for place in unet.attn_processors:
        attention = unet.get_submodule(place.removesuffix(".processor"))
        layers = {
            "to_q": attention.to_q,
            "to_k": attention.to_k,
            "to_v": attention.to_v,
        }
        for name, layer in {**layers, "to_out": attention.to_out[0]}.items():
            outputs, inputs = layer.weight.shape
            found[f"{place}.{name}_lora.down.weight"] = torch.randn(rank, inputs)
            found[f"{place}.{name}_lora.up.weight"] = torch.randn(outputs, rank)
    return found


def unet_of(root: Path) -> dict[str, Tensor]:
    """Read the weights of Stable Diffusion's U-Net."""
    return load_file(root / SD15 / "unet/diffusion_pytorch_model.safetensors")
