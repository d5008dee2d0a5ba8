"""SynCLR ViT-B/16: trained on synthetic pictures and captions alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from brainhive_cli.core import weights
from brainhive_cli.models.encoders import Encoder
from brainhive_cli.models.encoders._tokens import TokenConfig
from brainhive_cli.models.encoders._weights import prepare_network
from brainhive_cli.models.encoders.timm import build_outputs
from brainhive_cli.models.foreign_weights import refuse_absent, strip_prefix

if TYPE_CHECKING:
    from torch import nn

FILE = "synclr_vit_b_16.pth"
PREFIX = "visual."


class Config(TokenConfig):
    """The class token after the last norm.

    Source: `syn-rep-learn/SynCLR`; preprocessing as BrainHiVE's published repository
    has it.
    """

    cites = ("tian2024",)
    upstream = "synclr_vit_b_16"
    dim = 768
    image_px = 224
    licence = "Apache-2.0"
    weight_files = (FILE,)

    source: str = Field(
        "hub:paulgavrikov/synclr-vit-base-patch16-224",
        description=f"a folder with {FILE}, or `random`",
    )
    architecture: str = Field(
        "vit_base_patch16_224", description="timm's name of the network"
    )

    def build(self) -> Encoder:
        """Prepare network and transform; the checkpoint is read without running code
        from it.
        """
        import timm
        import torch
        from torchvision.transforms import v2

        # the network without its classifier
        model = partial(timm.create_model, self.architecture, num_classes=0)
        load, origin = prepare_network(self, model, partial(_load, model))

        # preprocessing of BrainHiVE's repository: bilinear resize, CLIP's mean and std
        side = timm.get_pretrained_cfg(self.architecture).input_size[-1]
        mean = timm.data.OPENAI_CLIP_MEAN
        std = timm.data.OPENAI_CLIP_STD
        steps = [
            v2.Resize(side),
            v2.CenterCrop(side),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
        ]

        # the words tell stores of different preprocessing apart
        words = (
            f"resize short side {side} bilinear, centre crop, mean {mean}, std {std}"
        )
        return Encoder(
            lambda: build_outputs(load(), self.output),
            v2.Compose([*steps, v2.Normalize(mean, std)]),
            words,
            origin,
        )


TINY = Config(source="random", architecture="test_vit")


def _load(model: Callable[[], nn.Module], folder: Path) -> nn.Module:
    """Read the image tower of a SynCLR checkpoint, which holds its training's other
    parts too.
    """
    file = folder / FILE
    network = model()
    tower = strip_prefix(weights.read(file), PREFIX)
    needed = network.state_dict()
    # the checkpoint may hold more tensors than the network needs, but not fewer
    refuse_absent(weights.find_unmatched(needed, tower), len(needed), file)
    weights.fill(network, {name: tower[name] for name in needed}, file)
    return network
