"""SynCLR ViT-B/16, trained only on synthetic pictures and captions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from brainhive_cli.core.runs import weights
from brainhive_cli.models import refuse_absent, strip_prefix
from brainhive_cli.models.encoders import Encoder
from brainhive_cli.models.encoders._tokens import TokenConfig
from brainhive_cli.models.encoders._weights import prepare_network
from brainhive_cli.models.encoders.timm import build_outputs

if TYPE_CHECKING:
    from torch import nn

FILE = "synclr_vit_b_16.pth"
PREFIX = "visual."


class Config(TokenConfig):
    """Class token after the last norm.

    Source: `syn-rep-learn/SynCLR`; preprocessing of BrainHiVE's published repository.
    """

    cites = ("tian2024",)
    upstream = "synclr_vit_b_16"
    dim = 768
    image_px = 224
    licence = "Apache-2.0"
    weight_files = (FILE,)

    source: str = Field(
        "hub:paulgavrikov/synclr-vit-base-patch16-224",
        description=f"hub reference or folder of {FILE}, or `random`",
    )
    architecture: str = Field(
        "vit_base_patch16_224", description="name of the network in timm"
    )

    def build(self) -> Encoder:
        """Prepare network and preprocessing.

        Raises:
            MissingData: if the checkpoint is absent.
        """
        import timm
        import torch
        from torchvision.transforms import v2

        # without a classifier
        build_model = partial(timm.create_model, self.architecture, num_classes=0)
        load, description = prepare_network(
            self, build_model, partial(_load, build_model)
        )

        # preprocessing of BrainHiVE's repository, with CLIP's mean and std
        side_px = timm.get_pretrained_cfg(self.architecture).input_size[-1]
        mean = timm.data.OPENAI_CLIP_MEAN
        std = timm.data.OPENAI_CLIP_STD
        transforms = [
            v2.Resize(side_px),
            v2.CenterCrop(side_px),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
        return Encoder(
            network=lambda: build_outputs(load(), self.output),
            preprocess=v2.Compose(transforms),
            preprocessing=(
                f"resize short side {side_px} bilinear, centre crop, mean {mean}, std "
                f"{std}"
            ),
            weights=description,
        )


TINY = Config(source="random", architecture="test_vit")


def _load(build_model: Callable[[], nn.Module], folder: Path) -> nn.Module:
    """Build the network, and load the image tower of a SynCLR checkpoint.

    No code in the checkpoint is run.
    """
    file = folder / FILE
    network = build_model()
    state = network.state_dict()
    tower = strip_prefix(weights.read(file), PREFIX)
    # further weights of the checkpoint, such as a classifier, are left out
    refuse_absent(weights.find_unmatched(state, tower), len(state), file)
    weights.fill(network, {name: tower[name] for name in state}, file)
    return network
