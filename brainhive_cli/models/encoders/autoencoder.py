"""A small autoencoder of pictures by its latent."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import documents, hub
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.files import locate
from brainhive_cli.models.encoders import Encoder, EncoderConfig, slug
from brainhive_cli.models.encoders._weights import require
from brainhive_cli.models.picture_autoencoder import (
    CONFIG,
    PIXELS,
    WEIGHTS,
    Architecture,
    open_autoencoder,
    write_way,
)


class Config(EncoderConfig):
    """The latent of a picture, by an autoencoder that `train-autoencoder` has trained."""

    cites: ClassVar[tuple[str, ...]] = ("kingma2014",)
    usual_cosine = (-1.0, 1.0)
    usual_repeats = 1.0
    usual_dead = 1.0  # pixels at the border of digits are always black

    source: str = Field("", description="folder of a trained autoencoder, RUN/model; or `random`")
    resolution_px: int = Field(28, gt=0, le=256, description="side of the pictures, where no network says it")

    def _base_name(self) -> str:
        if self.source in ("", PIXELS, "random"):
            return super()._base_name()
        folder = Path(self.source)
        return slug(str(folder.parent if folder.name == "model" else folder))

    def build(self) -> Encoder:
        """Prepare the network; pictures are squeezed to its square."""
        # a trained network says its side itself
        digests = {"source": self.source}
        side = self.resolution_px
        if self.source not in (PIXELS, "random"):
            folder = locate(self.source)
            require(folder, CONFIG, WEIGHTS, way=write_way())
            digests["digest"] = hub.digest(folder, (CONFIG, WEIGHTS))
            side = documents.read(folder / CONFIG, Architecture, write_way(), MissingData).resolution_px

        def preprocess(picture: Any) -> Tensor:
            from torchvision.transforms import v2

            pixels = v2.functional.pil_to_tensor(picture.convert("RGB")).float() / 255
            return v2.functional.resize(pixels, [side, side], antialias=True)  # [3, H, W] in 0..1

        words = f"resize to {side} x {side} bilinear, 0..1"
        return Encoder(lambda: _Latent(self.source, side), preprocess, words, digests)


TINY = Config(source="random")


class _Latent(nn.Module):
    def __init__(self, source: str, side: int) -> None:
        super().__init__()
        self.model = open_autoencoder(source, side)
        self.latent_space = self.model.latent_space

    def forward(self, pictures: Tensor) -> torch.Tensor:
        return self.model.encode(pictures)
