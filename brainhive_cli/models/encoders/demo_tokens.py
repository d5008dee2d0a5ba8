"""Image tokens of the demo's Fusion Prior: content and layout of a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from brainhive_cli.core.files import hub
from brainhive_cli.core.recipes import parts
from brainhive_cli.models.encoders import Encoder, EncoderConfig, resolve, source_field

if TYPE_CHECKING:
    from torch import Tensor, nn


class Config(EncoderConfig):
    """Four tokens [4, 128], from which the demo's generators make pictures."""

    image_px = 64
    licence = "Apache-2.0"
    # Width of the generator's condition tokens.
    shape = (4, 128)
    source: str = source_field("demo:prior")

    def build(self) -> Encoder:
        """Prepare the encoders demo-clip and demo-vae, and their fusion."""
        import torch
        from torch import nn

        from brainhive_cli.models.encoders._outputs import Tower

        # the tokens depend on three sets of weights
        clip = resolve("demo-clip").build()
        vae = resolve("demo-vae").build()
        folder = hub.folder(self.source)
        fusion = hub.digest(
            folder,
            (
                "fusion_encoder/diffusion_pytorch_model.safetensors",
                "proj/diffusion_pytorch_model.safetensors",
            ),
        )
        digest = " ".join([clip.weights["digest"], vae.weights["digest"], fusion])

        def preprocess(picture: Any) -> Tensor:
            """Preprocess a picture for both encoders, as [6, H, W]."""
            return torch.cat([clip.preprocess(picture), vae.preprocess(picture)])

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
            network=load,
            preprocess=preprocess,
            preprocessing=(
                f"for demo-clip: {clip.preprocessing}; for demo-vae: "
                f"{vae.preprocessing}"
            ),
            weights={**clip.weights, "digest": digest},
        )


TINY = Config()


def _encode(networks: Any, pictures: Tensor) -> Tensor:
    """Compute image tokens [B, S, D].

    Args:
        networks: ModuleDict of `clip`, `vae`, `fusion` and `projection`.
        pictures: Pictures [B, 6, H, W], preprocessed for `clip` and for `vae`.
    """
    from torch import Tensor

    clip = networks["clip"](pictures[:, :3])
    vae = networks["vae"](pictures[:, 3:]).flatten(1)
    token = networks["fusion"]({"demo-clip": clip, "demo-vae": vae})
    return cast(Tensor, networks["projection"](token))
