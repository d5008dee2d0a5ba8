"""The vision transformers of DreamSim: timm's networks with the checkpoints of DreamSim's folder."""

import re
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brainhive_cli.core.weights import read, reading


@dataclass(frozen=True)
class Vit:
    """How one vision transformer is made.

    Attributes:
        network: timm's name. GELU is OpenAI's quick one where DreamSim's is.
        file: Where DreamSim keeps the checkpoint.
        hub_file: Where DreamSim has torch.hub put the network that it really runs.
    """

    network: str
    file: str
    hub_file: str = ""

    @property
    def is_clip(self) -> bool:
        """Whether the embedding is CLIP's: normed, then projected; the others' is the bare class token."""
        return "clip" in self.network

    def path(self, folder: Path) -> str:
        """Choose the checkpoint, below the folder."""
        return self.hub_file if self.hub_file and (folder / self.hub_file).is_file() else self.file

    def build(self, width: int | None = None, **architecture: Any) -> Any:
        """Make the untrained network.

        Args:
            width: Values that CLIP projects to.
            architecture: timm's arguments, for a network of another size.
        """
        import timm

        size = {"img_size": 224, "num_classes": (width or 512) if self.is_clip else 0, **architecture}
        network = timm.create_model(self.network, **size)
        if not self.is_clip:
            network.norm = nn.Identity()
        return network

    def load(self, path: Path, **architecture: Any) -> nn.Module:
        """Make the network with the weights of a checkpoint; MissingData if they are another's."""
        way = f"take DreamSim's, or put the authors' own at {self.hub_file or self.file}"
        with reading(path, way, problem=f"does not hold the weights of timm's {self.network}"):
            state = _renamed(read(path, way))
            with torch.device("meta"):  # the checkpoint's tensors become the network's
                network = self.build(len(state.get("head.weight", "")), **architecture)
            side = network.patch_embed.grid_size[0]
            state["pos_embed"] = _resized(state["pos_embed"], side)
            if not self.is_clip:
                state = {name: value for name, value in state.items() if not name.startswith("norm.")}
            network.load_state_dict(state, assign=True)
        return network


VITS = {
    "dino_vitb16": Vit(
        "vit_base_patch16_224", "dino_vitb16_pretrain.pth", "checkpoints/dino_vitbase16_pretrain.pth"
    ),
    "dinov2_vitb14": Vit("vit_base_patch14_dinov2", "dinov2_vitb14_pretrain.pth"),
    "synclr_vitb16": Vit("vit_base_patch16_224", "synclr_vit_b_16.pth"),
    "clip_vitb16": Vit("vit_base_patch16_clip_quickgelu_224", "clip_vitb16_pretrain.pth.tar"),
    "clip_vitb32": Vit("vit_base_patch32_clip_quickgelu_224", "clip_vitb32_pretrain.pth.tar"),
    "open_clip_vitb16": Vit("vit_base_patch16_clip_224", "open_clip_vitb16_pretrain.pth.tar"),
    "open_clip_vitb32": Vit("vit_base_patch32_clip_224", "open_clip_vitb32_pretrain.pth.tar"),
}
"""By DreamSim's names."""


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give a checkpoint timm's names: DINO's are timm's, DreamSim brings CLIP's into DINO's."""
    bare = {re.sub(r"^(module\.)?(visual|backbone)\.", "", name): value for name, value in state.items()}
    named = {
        name.replace("pos_drop.", "norm_pre."): value.detach().float()
        for name, value in bare.items()
        if not name.startswith("head.") and name != "mask_token"  # which only training needs
    }
    if "proj" in named:
        named["head.weight"] = named.pop("proj").T
        named["head.bias"] = torch.zeros(len(named["head.weight"]))
        named["pos_embed"][:, 1:] += named.pop("patch_embed.proj.bias")  # timm's CLIP has no such bias
    return named


def _resized(positions: Tensor, side: int) -> Tensor:
    """Resample the positions of a square of patches [1, 1 + S, D] to another side, as DINOv2 does.

    Source: dinov2, `interpolate_pos_encoding`: bicubic, no antialiasing, 0.1 patch added to the new side.
    """
    old = isqrt(positions.shape[1] - 1)
    if old == side:
        return positions
    grid = positions[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2)  # [1, D, H, W]
    scale = (side + 0.1) / old
    grid = nn.functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([positions[:, :1], grid.flatten(2).mT], dim=1)
