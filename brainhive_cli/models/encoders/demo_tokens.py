"""The image tokens of the demo's Fusion Prior: what is shown, where, and how large."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from brainhive_cli.core import hub, parts
from brainhive_cli.models.encoders import Encoder, EncoderConfig, resolve, source_field

if TYPE_CHECKING:
    from torch import Tensor, nn

FUSION, PROJECTION = (
    f"{part}/diffusion_pytorch_model.safetensors" for part in ("fusion_encoder", "proj")
)
WIDTH = 128
"""Of the generator's conditions."""


class Config(EncoderConfig):
    """Four tokens of 128 dimensions, of which the demo's generators make pictures."""

    image_px = 64
    licence = "Apache-2.0"
    shape = (4, WIDTH)
    source: str = source_field("demo:prior")

    def build(self) -> Encoder:
        """Prepare the encoders of demo-clip and demo-vae, and the fusion of both."""
        import torch
        from torch import nn

        from brainhive_cli.models.encoders._outputs import Tower

        # three sets of weights make the tokens, so the digest names all three
        clip = resolve("demo-clip").build()
        vae = resolve("demo-vae").build()
        folder = hub.folder(self.source)
        fusion = hub.digest(folder, (FUSION, PROJECTION))
        digest = " ".join([clip.weights["digest"], vae.weights["digest"], fusion])

        # networks are loaded when they are first used; a picture is preprocessed for
        # both: [6, H, W]
        words = (
            f"for demo-clip: {clip.preprocessing}; for demo-vae: {vae.preprocessing}"
        )

        def load() -> nn.Module:
            prior = parts.import_shelf("priors").load(self.source)
            networks = {
                "clip": clip.module,
                "vae": vae.module,
                "fusion": prior.fuser,
                "projection": prior.proj,
            }
            return Tower(nn.ModuleDict(networks), _encode)

        return Encoder(
            load,
            lambda picture: torch.cat(
                [clip.preprocess(picture), vae.preprocess(picture)]
            ),
            words,
            {**clip.weights, "digest": digest},
        )


TINY = Config()


def _encode(networks: Any, views: Tensor) -> Tensor:
    """Make image tokens [B, S, D] of pictures that are preprocessed for both encoders,
    [B, 6, H, W].
    """
    from torch import Tensor

    clip = networks["clip"](views[:, :3])
    vae = networks["vae"](views[:, 3:]).flatten(1)
    token = networks["fusion"]({"demo-clip": clip, "demo-vae": vae})
    return cast(Tensor, networks["projection"](token))
