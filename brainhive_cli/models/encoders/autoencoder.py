"""Encoder part of a small autoencoder of grey pictures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from brainhive_cli.core.files import hub
from brainhive_cli.models import (
    RANDOM,
    SIDE_PX,
    WEIGHTS_FILE,
    find_weights,
    open_autoencoder,
)
from brainhive_cli.models.encoders import Encoder, EncoderConfig

if TYPE_CHECKING:
    from torch import Tensor, nn


class Config(EncoderConfig):
    """Latent of a picture in an autoencoder, which is trained at its first use."""

    cites: ClassVar[tuple[str, ...]] = ("kingma2014",)
    weight_files = (WEIGHTS_FILE,)
    usual_cosine = (-1.0, 1.0)
    usual_repeats = 1.0
    # pixels at the border of digits are always black
    usual_dead = 1.0

    source: str = Field(
        "",
        description=(
            "folder of the pictures on which the autoencoder is trained, which then "
            f"holds {WEIGHTS_FILE}; or `random`"
        ),
    )

    def build(self) -> Encoder:
        """Prepare the network. Without weights, it is trained on the pictures.

        Raises:
            MissingData: if the source is not a folder of pictures.
        """
        # random weights are always the same, so they need no digest
        weights = {"source": self.source}
        if self.source != RANDOM:
            folder = find_weights(self.source).parent
            weights["digest"] = hub.digest(folder, self.weight_files)
        return build_encoder(partial(open_autoencoder, self.source), SIDE_PX, weights)


def build_encoder(
    network: Callable[[], nn.Module], side_px: int, weights: dict[str, str]
) -> Encoder:
    """Build an encoder of pictures that are squashed to a square.

    Args:
        network: Loads the network.
        side_px: Side of the square, pixels.
        weights: Description of the weights.
    """

    def preprocess(picture: Any) -> Tensor:
        from torchvision.transforms import v2

        pixels = v2.functional.pil_to_tensor(picture.convert("RGB")).float() / 255
        # [3, H, W] in 0..1
        return v2.functional.resize(pixels, [side_px, side_px], antialias=True)

    return Encoder(
        network, preprocess, f"resize to {side_px} x {side_px} bilinear, 0..1", weights
    )


TINY = Config(source=RANDOM)
