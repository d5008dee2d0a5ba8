"""The image tokens of the demo's Fusion Prior: what is shown, where, and how large."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from brainhive_cli.core import hub, parts
from brainhive_cli.models.encoders import Encoder, EncoderConfig, located, resolve

FUSION, PROJECTION = (f"{part}/diffusion_pytorch_model.safetensors" for part in ("fusion_encoder", "proj"))
WIDTH = 128
"""Of the generator's conditions."""


class Config(EncoderConfig):
    """Four tokens of 128 dimensions, of which the demo's generators make pictures."""

    image_px = 64
    licence = "Apache-2.0"
    shape = (4, WIDTH)
    source: str = located("demo:prior")
    clip: str = located("demo:encoder")
    vae: str = located("demo:generator/vae")

    def build(self) -> Encoder:
        """Prepare the encoders of demo-clip and demo-vae, and the fusion of both."""
        # three sets of weights make the tokens, so the digest names all three
        clip = resolve({"kind": "demo-clip", "source": self.clip}).build()
        vae = resolve({"kind": "demo-vae", "source": self.vae}).build()
        folder = hub.folder(self.source)
        fusion = hub.digest(folder, (FUSION, PROJECTION))
        digest = " ".join([clip.weights["digest"], vae.weights["digest"], fusion])

        # networks are loaded when they are first used; a picture is preprocessed for both: [6, H, W]
        words = f"for demo-clip: {clip.preprocessing}; for demo-vae: {vae.preprocessing}"
        return Encoder(
            lambda: _Tokens(clip.module, vae.module, parts.package("priors").load(self.source)),
            lambda picture: torch.cat([clip.preprocess(picture), vae.preprocess(picture)]),
            words,
            {**clip.weights, "digest": digest},
        )


TINY = Config()


class _Tokens(nn.Module):
    """Pictures, preprocessed for both encoders, to image tokens."""

    def __init__(self, clip: nn.Module, vae: nn.Module, prior: Any) -> None:
        super().__init__()
        self.clip, self.vae, self.fusion = clip, vae, prior.fuser
        self.projection, self.norm = prior.proj.proj, prior.proj.norm

    def forward(self, views: Tensor) -> Tensor:
        # channels 0 to 2 were preprocessed for demo-clip, 3 to 5 for demo-vae
        embeddings = {"demo-clip": self.clip(views[:, :3]), "demo-vae": self.vae(views[:, 3:]).flatten(1)}
        tokens = self.projection(self.fusion(embeddings)).unflatten(1, (-1, WIDTH))  # [B, S, D]
        return cast(Tensor, self.norm(tokens))
