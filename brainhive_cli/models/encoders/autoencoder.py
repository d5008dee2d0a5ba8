"""A small autoencoder of pictures by its latent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from brainhive_cli.core import hub
from brainhive_cli.models.encoders import Encoder, EncoderConfig
from brainhive_cli.models.picture_autoencoder import (
    RANDOM,
    SIDE_PX,
    WEIGHTS_FILE,
    find_weights,
    open_autoencoder,
)

if TYPE_CHECKING:
    from torch import Tensor, nn


class Config(EncoderConfig):
    """The latent of a picture, by an autoencoder that learns from other pictures when
    it is first used.
    """

    cites: ClassVar[tuple[str, ...]] = ("kingma2014",)
    weight_files = (WEIGHTS_FILE,)
    usual_cosine = (-1.0, 1.0)
    usual_repeats = 1.0
    usual_dead = 1.0  # pixels at the border of digits are always black

    source: str = Field(
        "",
        description=(
            "folder of pictures to learn from, which then holds "
            f"{WEIGHTS_FILE}; or `random`"
        ),
    )

    def build(self) -> Encoder:
        """Prepare the network; it learns from the pictures of its source where no
        weights are there.
        """
        # learned weights are identified by their digest; random ones are the same every
        # time
        digests = {"source": self.source}
        if self.source != RANDOM:
            digests["digest"] = hub.digest(
                find_weights(self.source).parent, self.weight_files
            )
        return build_encoder(partial(open_autoencoder, self.source), SIDE_PX, digests)


def build_encoder(
    network: Callable[[], nn.Module], side_px: int, digests: dict[str, str]
) -> Encoder:
    """Prepare an encoder whose pictures are squeezed to a square."""

    def preprocess(picture: Any) -> Tensor:
        from torchvision.transforms import v2

        pixels = v2.functional.pil_to_tensor(picture.convert("RGB")).float() / 255
        # [3, H, W] in 0..1
        return v2.functional.resize(pixels, [side_px, side_px], antialias=True)

    return Encoder(
        network, preprocess, f"resize to {side_px} x {side_px} bilinear, 0..1", digests
    )


TINY = Config(source=RANDOM)
