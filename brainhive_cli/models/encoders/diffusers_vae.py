"""Encoder part of any image autoencoder of diffusers."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from brainhive_cli.core.base import MissingData
from brainhive_cli.models import encoders, load_network, name_latent_space
from brainhive_cli.models.encoders import EMBEDDING, Encoder, EncoderConfig, ModelConfig
from brainhive_cli.models.encoders._weights import (
    build_untrained,
    fetch_weights,
    list_weight_files,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

VaeOutput = Literal["embedding", "latent"]
AUTOENCODER_CLASSES = (
    "AutoencoderKL",
    "AutoencoderTiny",
    "AsymmetricAutoencoderKL",
    "AutoencoderDC",
    "VQModel",
)


class Config(EncoderConfig):
    """Latent of an autoencoder, shifted and scaled as for its diffusion model."""

    cites = ("rombach2022",)
    encodes_latents = True
    config_files = ("config.json",)
    weight_files = ("diffusion_pytorch_model.safetensors",)
    flattens: ClassVar[bool] = True
    """If True, the output `embedding` is the latent as a vector."""
    resizes: ClassVar[Literal["bytes", "floats"]] = "bytes"
    """Type of the pixels during resizing. Bytes are rounded, as in PIL."""

    source: str = Field(
        "", description="hub:owner/name[/subfolder], a folder, or `random`"
    )
    resolution_px: int = Field(
        128,
        gt=0,
        le=16_384,
        description="side of the centre crop, to which the short side is resized, in "
        "pixels (BrainHiVE: 128)",
    )
    posterior: Literal["mode", "sample"] = Field(
        "mode",
        description="mode: the most likely latent; sample: a random one (BrainHiVE)",
    )
    seed: int = Field(
        0,
        ge=0,
        description=(
            "seed of `sample`; the noise depends only on the seed and the picture"
        ),
    )
    output: VaeOutput | list[VaeOutput] = Field(
        "embedding",
        # stores name the key only if it is set
        exclude_if=lambda output: output == EMBEDDING,
        description=(
            "embedding (flattened, [D]) or latent [C, h, w]; a list makes a store for "
            "each in one forward pass"
        ),
    )
    architecture: dict[str, Any] = Field(
        {}, description="AutoencoderKL arguments of `random` weights"
    )

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        """Shape of a target, without loading the network.

        The sides of a latent are proportional to the resolution.
        """
        if self.shape is None:
            return super().static_shape
        # `shape` holds for the default resolution
        default = type(self).model_fields["resolution_px"].default
        config = self.model_copy(update={"resolution_px": default})
        default_shape = super(Config, config).static_shape
        if default_shape is None:
            return None
        sides = [side * self.resolution_px // default for side in default_shape[1:]]
        return (default_shape[0], *sides)

    def build(self) -> Encoder:
        """Prepare the autoencoder, in float32.

        Raises:
            MissingData: if the folder lacks files, or holds another kind of model.
        """
        from brainhive_cli.models.encoders._outputs import Tower

        load, weights = self._prepare_network()

        def preprocess(image: Any) -> Tensor:
            """Resize and crop a picture to [3, H, W] in -1..1."""
            from torchvision.transforms import v2

            side_px = self.resolution_px
            resize = v2.Compose(
                [v2.Resize(side_px, antialias=True), v2.CenterCrop(side_px)]
            )
            if self.resizes == "floats":
                pixels = resize(v2.functional.pil_to_tensor(image).float())
            else:
                pixels = v2.functional.pil_to_tensor(resize(image)).float()
            return pixels.div(127.5).sub_(1)

        def load_tower() -> nn.Module:
            vae = load()
            tower: Any = Tower(vae, partial(_encode, self))
            tower.latent_space = name_latent_space(vae)  # an attribute of stores
            return tower

        preprocessing = (
            f"resize short side {self.resolution_px} bilinear, centre crop, -1..1, "
            f"{self.posterior}"
        )
        if self.resizes == "floats":
            preprocessing += ", in floats"
        return Encoder(load_tower, preprocess, preprocessing, weights)

    def _prepare_network(self) -> tuple[Callable[[], nn.Module], dict[str, str]]:
        """Return a function that loads the autoencoder, and describe its weights."""
        import diffusers
        import torch

        if self.source == "random":
            draw = partial(diffusers.AutoencoderKL, **self.architecture)
            return partial(build_untrained, draw), {"source": "random"}
        folder, weights = fetch_weights(self)
        class_name = ModelConfig.read(folder).class_name
        if class_name not in AUTOENCODER_CLASSES:
            raise MissingData(
                f"{folder} holds a {class_name or 'model without a class name'}",
                f"known: {', '.join(AUTOENCODER_CLASSES)}",
            )
        load = partial(
            load_network,
            getattr(diffusers, class_name),
            folder,
            files=list_weight_files(self, folder),
            torch_dtype=torch.float32,
        )
        return load, weights


TINY = Config(
    source="random",
    resolution_px=16,
    architecture=encoders.TINY_ARCHITECTURES["diffusers-vae"],
)


def _encode(config: Config, vae: Any, images: Tensor) -> Tensor | list[Tensor]:
    """Encode pictures [B, 3, H, W] in -1..1 as latents [B, C, h, w], or vectors [B, D].

    Args:
        config: Config of the encoder.
        vae: Autoencoder of diffusers.
        images: Pictures.

    Returns:
        The output of the Config, or a list if the Config lists outputs.
    """
    import torch

    encoded = vae.encode(images)
    # AutoencoderTiny and others have no posterior
    if not hasattr(encoded, "latent_dist"):
        (latents,) = encoded.to_tuple()
    elif config.posterior == "mode":
        latents = encoded.latent_dist.mode()
    else:
        # a picture always has the same noise
        mean = encoded.latent_dist.mean
        noise = []
        for image in images:
            checksum = zlib.crc32(image.cpu().numpy().tobytes())
            generator = torch.Generator().manual_seed(checksum ^ config.seed)
            noise.append(torch.randn(mean[0].shape, generator=generator).to(mean))
        latents = mean + encoded.latent_dist.std * torch.stack(noise)

    # shift and scale as for the diffusion model
    shift = vae.config.get("shift_factor") or 0.0
    latents = (latents - shift) * vae.config.scaling_factor  # [B, C, h, w]
    outputs = {
        EMBEDDING: latents.flatten(1) if config.flattens else latents,
        "latent": latents,
    }
    if isinstance(config.output, str):
        return outputs[config.output]
    return [outputs[name] for name in config.output]
