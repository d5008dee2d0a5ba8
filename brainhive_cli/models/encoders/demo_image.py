"""Image tokens of the demo's dual-guided generator: a projected embedding."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from brainhive_cli.core.files import hub
from brainhive_cli.core.runs import weights
from brainhive_cli.models.encoders import (
    Encoder,
    EncoderConfig,
    source_field,
    transformers_vit,
)
from brainhive_cli.models.encoders._weights import require_files

if TYPE_CHECKING:
    from torch import nn

WIDTH = 128
"""Width of the generator's condition tokens."""


class Config(EncoderConfig):
    """Four tokens [4, 128] with the content of a picture, but little of its layout."""

    image_px = 64
    licence = "Apache-2.0"
    shape = (4, WIDTH)
    source: str = source_field("demo:encoder")

    def build(self) -> Encoder:
        """Prepare the encoder of demo-clip, and the projection.

        Raises:
            MissingData: if the projection is absent.
        """
        from torch import nn

        clip = transformers_vit.Config(source=self.source).build()
        folder = hub.folder("demo:dual")
        projection_file = "image_projection.safetensors"
        require_files(folder, projection_file)
        weights_digest = hub.digest(folder, (projection_file,))

        def load() -> nn.Module:
            # [S · D, D of the embedding]
            weight = weights.read(folder / projection_file)["weight"].float()
            projection = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            projection.weight = nn.Parameter(weight)
            tokens = nn.Unflatten(1, (-1, WIDTH))  # [B, S · D] to [B, S, D]
            return nn.Sequential(
                OrderedDict(clip=clip.module, projection=projection, tokens=tokens)
            )

        return Encoder(
            network=load,
            preprocess=clip.preprocess,
            preprocessing=f"{clip.preprocessing}, projected to tokens",
            weights={
                **clip.weights,
                "digest": f"{clip.weights['digest']} {weights_digest}",
            },
        )


TINY = Config()
