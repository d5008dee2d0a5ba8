"""Networks that run: each encodes a picture once for all stores that its outputs fill."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from PIL import Image
from torch import Tensor, nn

from brainhive_cli.core.launch import Launch
from brainhive_cli.encoders import Encoder, EncoderConfig, joined


@dataclass(frozen=True, eq=False)
class EncoderGroup:
    """A network, and the stores that its outputs fill.

    Attributes:
        encoder: Gives as many outputs as there are names.
        names: The encoders' names, in the order of the outputs.
        precision: Autocast dtype of the forward pass.
        launch: Where it runs.
    """

    encoder: Encoder
    names: tuple[str, ...]
    precision: str
    launch: Launch

    @classmethod
    def of(cls, group: Sequence[EncoderConfig], precision: str, launch: Launch) -> Self:
        """Build the one encoder of a group; its network is loaded when it is asked for."""
        return cls(joined(group).build(), tuple(config.name for config in group), precision, launch)

    @property
    def name(self) -> str:
        """What the network is called: the first of its names."""
        return self.names[0]

    def prepare(self) -> None:
        """Load the network onto the device; weights that autocast casts at each call are cast once."""
        module = self.encoder.module.to(self.launch.device)
        with self.launch.autocast(self.precision):
            if torch.is_autocast_enabled(self.launch.device.type):
                dtype = torch.get_autocast_dtype(self.launch.device.type)
                for layer in module.modules():
                    if isinstance(layer, nn.Linear | nn.Conv2d):
                        layer.to(dtype)

    def encode(self, pictures: Tensor) -> dict[str, Tensor]:
        """Encode preprocessed pictures [B, 3, H, W] in one forward: float32 [B, …] by name."""
        outputs = encode(self.encoder, pictures, self.precision, self.launch)
        return dict(zip(self.names, outputs, strict=True))

    @cached_property
    def blank(self) -> Tensor:
        """A blank picture, preprocessed: [3, H, W]."""
        return self.encoder.preprocess(Image.new("RGB", (256, 256)))

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of an embedding by name, learnt from a blank picture."""
        return {name: tuple(values.shape[1:]) for name, values in self.encode(self.blank[None]).items()}


@torch.inference_mode()
def encode(encoder: Encoder, pictures: Tensor, precision: str, launch: Launch) -> list[Tensor]:
    """Encode preprocessed pictures [B, 3, H, W] as float32 [B, …], once for each output."""
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)  # or a GPU's fp32 has 10 bits
    with launch.autocast(precision), exact:
        found = encoder.module(pictures.to(launch.device, non_blocking=True))
    outputs = [one.float() for one in (found if isinstance(found, list) else [found])]
    memory = pictures.untyped_storage().data_ptr()  # is filled anew while outputs wait to be written
    return [one.clone() if one.untyped_storage().data_ptr() == memory else one for one in outputs]


def grouped(configs: Sequence[EncoderConfig]) -> list[list[EncoderConfig]]:
    """Put together what one forward can serve."""
    groups: dict[str, list[EncoderConfig]] = {}
    for config in configs:
        groups.setdefault(config.trunk, []).append(config)
    return list(groups.values())
