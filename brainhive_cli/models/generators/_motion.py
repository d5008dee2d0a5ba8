"""Stable Diffusion 1's U-Net with AnimateDiff's motion modules, and what the two need to fit each other."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError, MissingData

LOW_RANK = re.compile(
    r"(?:module\.)?(?P<layer>.+)\.processor\.(?P<name>to_\w+?)_lora\.(?P<half>down|up)\.weight"
)
"""A weight of AnimateDiff's domain adapter, as its checkpoint names it."""


class FrameNorm(nn.GroupNorm):
    """Normalises each frame by itself, as AnimateDiff's weights were trained.

    diffusers normalises [B, C, F, h, w] over the frames too, which is up to 40 % off in SparseCtrl's output.

    Source: AnimateDiff's InflatedGroupNorm (Apache 2.0); diffusers issue 9508.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, F, h, w]."""
        frames = x.transpose(1, 2).flatten(0, 1)  # [B F, C, h, w]
        return super().forward(frames).unflatten(0, (len(x), -1)).transpose(1, 2)


def normalise_frame_by_frame(network: nn.Module) -> nn.Module:
    """Let the motion modules of a network of diffusers normalise each frame by itself; weights are kept."""
    from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

    for module in network.modules():
        if isinstance(module, AnimateDiffTransformer3D):
            norm = module.norm
            module.norm = FrameNorm(norm.num_groups, norm.num_channels, norm.eps, device="meta")
            module.norm.weight, module.norm.bias = norm.weight, norm.bias
    return network


def in_motion(unet: Any, motion: Any) -> Any:
    """Put motion modules into a 2D U-Net."""
    from diffusers import UNetMotionModel

    with console.hushed():
        return normalise_frame_by_frame(UNetMotionModel.from_unet2d(unet, motion))


def merge_adapter(unet: nn.Module, state: Mapping[str, Tensor], where: object) -> None:
    """Add a domain adapter to the attentions of a 2D U-Net: W += up · down.

    Raises:
        MissingData: if it holds no such weights.
        BrainhiveError: if it is of another U-Net.
    """
    # pair the halves of each layer, by the layer's name in today's diffusers
    halves: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if match := LOW_RANK.fullmatch(name):
            layer = f"{match['layer']}.{match['name']}" + (".0" if match["name"] == "to_out" else "")
            halves.setdefault(layer, {})[match["half"]] = value
    if not halves:
        raise MissingData(
            f"{where} holds no to_q_lora.down.weight", "give AnimateDiff's v3_sd15_adapter.ckpt"
        )

    # add their product to the layer's weight, in float32
    parameters = dict(unet.named_parameters())
    for layer, pair in halves.items():
        weight, shapes = parameters.get(f"{layer}.weight"), [tuple(pair[half].shape) for half in sorted(pair)]
        if weight is None or len(pair) != 2 or (pair["up"].shape[0], pair["down"].shape[1]) != weight.shape:
            raise BrainhiveError(
                f"the domain adapter {where} does not fit the U-Net: {layer} has {shapes}",
                "use the adapter of Stable Diffusion 1.5, or generator.domain_adapter=null",
            )
        with torch.no_grad():
            weight.add_((pair["up"].float() @ pair["down"].float()).to(weight))


def in_between(frames: Tensor, count: int, decimals: int | None = None) -> Tensor:
    """Interpolate frames [B, F, …] in time to as many as `count`, linearly, ends kept.

    Args:
        frames: The frames; of one all are made.
        count: How many are wanted.
        decimals: Round the weights to these; NEURONS: 2.
    """
    # position of each new frame between two old ones
    positions = torch.arange(count, dtype=torch.float64) * (frames.shape[1] - 1) / max(count - 1, 1)
    before = positions.floor().long()
    after = (before + 1).clamp(max=frames.shape[1] - 1)

    # mix them by nearness
    share = positions - before  # [count]
    share = (share if decimals is None else share.round(decimals=decimals)).to(frames)
    share = share.view(-1, *[1] * (frames.ndim - 2))
    return frames[:, before] * (1 - share) + frames[:, after] * share
