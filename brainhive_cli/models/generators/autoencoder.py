"""Generator that decodes a latent with an autoencoder, without sampling."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.core.recipes import parts
from brainhive_cli.models import (
    PIXELS,
    Conditioning,
    PictureAutoencoder,
    Pixels,
    open_autoencoder,
    resize,
)
from brainhive_cli.models.generators import GeneratedMedia, Sampling


class Config(parts.Config):
    """Decoder of the latents that the head `latent` predicts."""

    cites = ("kingma2014",)
    called = "The decoder of an autoencoder"

    source: str = Field(
        PIXELS,
        description=(
            "Folder of the pictures from which the autoencoder learned, or `pixels` or "
            "`random`."
        ),
    )

    def build(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "Decoder":
        """Load the autoencoder, frozen. It computes in float32 with any `dtype`.

        Raises:
            MissingData: if the folder holds no pictures, or its weights are damaged.
        """
        autoencoder = open_autoencoder(self.source).eval().requires_grad_(False)
        return Decoder(autoencoder.to(device), self.source)

    def build_shapes(self) -> "Decoder":
        """Load the autoencoder, weights included, because it is small."""
        return self.build()

    def check(self) -> None:
        """Raise as `build` does."""
        self.build()


TINY = Config(source="random")


class Decoder:
    """Decoder of latents. Without a condition it decodes zeros, the mean latent.

    Args:
        model: Autoencoder.
        source: Source of the autoencoder, for messages.
    """

    def __init__(self, model: PictureAutoencoder | Pixels, source: str) -> None:
        self.model = model
        self.source = source
        self.latent_space: str = model.latent_space
        # pixels have no weights, and stay on the CPU
        self.device = next(
            (weight.device for weight in model.parameters()), torch.device("cpu")
        )

    def check_size(self, size_px: int) -> None:
        """Accept any size: pictures are resized."""

    def spare_memory(
        self, offload_to: torch.device | None = None, tile: bool = False
    ) -> None:
        """Do nothing, because the autoencoder is small."""

    def encode(self, media: GeneratedMedia, rng: Any = None) -> Tensor:
        """Encode pictures [B, 3, H, W] in 0..1 as latents [B, D]."""
        return self.model(media.to(self.device))  # [B, D]

    def decode(self, latents: Tensor) -> GeneratedMedia:
        """Decode latents [B, D] to pictures [B, 3, H, W] in 0..1."""
        # the decoder takes vectors [B, D], and latents may be maps [B, C, h, w]
        return self.model.decode(latents.flatten(1).float().to(self.device))

    def generate(
        self,
        conditioning: Conditioning,
        seeds: Sequence[int],
        size_px: int,
        sampling: Sampling,
        null: Conditioning | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> GeneratedMedia:
        """Decode the latents in `conditioning.start`, or zeros without any condition.

        Seeds and sampling have no effect.

        Raises:
            BrainhiveError: if the start is absent or has another width.
        """
        latents = conditioning.start
        width = self.model.latents
        if len(conditioning) == 0 and width is not None:
            latents = torch.zeros(len(seeds), width)
        if latents is None or (width is not None and latents[0].numel() != width):
            latents_text = "none"
            if latents is not None:
                latents_text = f"latents {list(latents.shape[1:])}"
            raise BrainhiveError(
                f"the autoencoder {self.source} decodes latents, and the prior gives "
                f"{latents_text}",
                "prior: identity, with a head `latent` of the same source",
            )

        # decoding is the only step of this generator
        pictures = resize(self.decode(latents), size_px)
        if on_step is not None:
            on_step(1)
        return pictures.clamp(0, 1)
