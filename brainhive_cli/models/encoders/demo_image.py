"""The image tokens of the demo's dual-guided generator: its encoder's embedding, projected."""

from typing import Any

from torch import Tensor, nn

from brainhive_cli.core import hub, weights
from brainhive_cli.models.encoders import Encoder, EncoderConfig, located, transformers_vit
from brainhive_cli.models.encoders._weights import require

PROJECTION = "image_projection.safetensors"
WIDTH = 128
"""Of the generator's conditions."""


class Config(EncoderConfig):
    """Four tokens of 128 dimensions that tell what a picture shows, and little of where and how large."""

    image_px = 64
    licence = "Apache-2.0"
    shape = (4, WIDTH)
    source: str = located("demo:encoder")
    projection: str = located("demo:dual")

    def build(self) -> Encoder:
        """Prepare the encoder of demo-clip, and the projection."""
        clip = transformers_vit.Config(source=self.source).build()
        folder = hub.folder(self.projection)
        require(folder, PROJECTION)
        digests = {"digest": f"{clip.weights['digest']} {hub.digest(folder, (PROJECTION,))}"}

        # both networks are loaded when they are first used
        words = f"{clip.preprocessing}, projected to tokens"
        return Encoder(
            lambda: _Projected(clip.module, weights.read(folder / PROJECTION)["weight"].float()),
            clip.preprocess,
            words,
            {**clip.weights, **digests},
        )


TINY = Config()


class _Projected(nn.Module):
    def __init__(self, clip: nn.Module, weight: Tensor) -> None:
        super().__init__()
        self.clip, self.projection = clip, nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.projection.weight = nn.Parameter(weight)

    def forward(self, pictures: Tensor) -> Any:
        return self.projection(self.clip(pictures)).unflatten(1, (-1, WIDTH))  # [B, S, D]
