"""NEW ENCODER: its architecture and training in a sentence."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.transforms import v2

from brainhive_cli.core.runs import weights
from brainhive_cli.models.encoders import Encoder, EncoderConfig
from brainhive_cli.models.encoders._weights import prepare_network

FILE = "model.safetensors"
"""Weight file, with its name in the publisher's repository."""
SIDE_PX = 224
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Config(EncoderConfig):
    """Embedding before the classifier.

    Source: the paper, and the repository whose preprocessing is followed.
    """

    cites = ()  # keys of the papers in reports/references.bib
    dim = 512  # of the default `width`
    image_px = SIDE_PX
    licence = "Apache-2.0"
    weight_files = (FILE,)

    source: str = Field(
        "hub:OWNER/NAME", description=f"hub reference or folder of {FILE}, or `random`"
    )
    width: int = Field(512, gt=0, description="width of the embedding")

    def build(self) -> Encoder:
        """Prepare network and preprocessing.

        Raises:
            MissingData: if the weights are absent.
        """
        make_network = partial(NewEncoderNetwork, self.width)
        network, description = prepare_network(
            self, draw=make_network, load=partial(_load, make_network)
        )
        transforms = [
            v2.Resize(SIDE_PX, v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(SIDE_PX),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
        return Encoder(
            network=network,
            preprocess=v2.Compose(transforms),
            # stores whose preprocessing differs must differ in this text
            preprocessing=(
                f"short side {SIDE_PX} bicubic, centre crop, mean {MEAN}, std {STD}"
            ),
            weights=description,
        )


TINY = Config(source="random", width=8)
"""Small instance without weights, with which the tests of all encoders are run."""


class NewEncoderNetwork(nn.Module):
    """Network of the publisher. Use one of timm or transformers if they have it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, kernel_size=16, stride=16)
        self.norm = nn.LayerNorm(width)

    def forward(self, pictures: Tensor) -> Tensor:
        """Encode pictures [B, 3, H, W] as embeddings [B, D]."""
        patches = self.stem(pictures).flatten(2)  # [B, D, S]
        embedding: Tensor = self.norm(patches.mean(2))
        return embedding


def _load(make_network: Callable[[], nn.Module], folder: Path) -> nn.Module:
    """Build the network, and load all of its weights."""
    path = folder / FILE
    network = make_network()
    weights.fill(network, weights.read(path), path)
    return network
