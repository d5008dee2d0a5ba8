"""Any image autoencoder of diffusers, by its latent."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from brainhive_cli.core.errors import MissingData
from brainhive_cli.models import encoders
from brainhive_cli.models.encoders import EMBEDDING, Encoder, EncoderConfig, ModelConfig
from brainhive_cli.models.encoders._weights import (
    build_untrained,
    fetch_weights,
    list_weight_files,
)
from brainhive_cli.models.foreign_weights import load_network
from brainhive_cli.models.heads import name_latent_space

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
    """An autoencoder's latent, shifted and scaled as its diffusion model sees it."""

    cites = ("rombach2022",)
    encodes_latents = True
    config_files = ("config.json",)
    weight_files = ("diffusion_pytorch_model.safetensors",)
    flattens: ClassVar[bool] = True
    """Whether `embedding` is the latent as a vector."""
    resizes: ClassVar[Literal["bytes", "floats"]] = "bytes"
    """Whether pixels are rounded to bytes once they are resized, as pictures of PIL
    are.
    """

    source: str = Field(
        "", description="hub:owner/name[/subfolder], a folder, or `random`"
    )
    resolution_px: int = Field(
        128,
        gt=0,
        le=16_384,
        description="short side and centre crop, pixels (BrainHiVE: 128)",
    )
    posterior: Literal["mode", "sample"] = Field(
        "mode", description="mode is repeatable; BrainHiVE samples"
    )
    seed: int = Field(
        0,
        ge=0,
        description=(
            "seed of `sample`; the noise of a picture depends on it and the picture "
            "alone"
        ),
    )
    output: VaeOutput | list[VaeOutput] = Field(
        "embedding",
        # stores name it only where it is chosen
        exclude_if=lambda output: output == EMBEDDING,
        description=(
            "embedding (flattened, [D]), latent [C, h, w]; both as a list: a store "
            "each, one forward"
        ),
    )
    architecture: dict[str, Any] = Field(
        {}, description="AutoencoderKL arguments of `random` weights"
    )

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        """Shape of a target, by the default source; a latent's sides are in proportion
        to the picture's.
        """
        # `shape` is that of the default resolution, with which keys are compared
        default = type(self).model_fields["resolution_px"].default
        usual = (
            self.model_copy(update={"resolution_px": default}) if self.shape else self
        )
        known = super(Config, usual).static_shape
        if known is None or self.shape is None:
            return known
        return (known[0], *(side * self.resolution_px // default for side in known[1:]))

    def build(self) -> Encoder:
        """Prepare the autoencoder, in float32."""
        from brainhive_cli.models.encoders._outputs import Tower

        load, weights = self._prepare_network()

        def preprocess(image: Any) -> Tensor:
            from torchvision.transforms import v2

            # resize before or after pixels become floats
            side = self.resolution_px
            resizes_floats = self.resizes == "floats"
            resize = v2.Compose([v2.Resize(side, antialias=True), v2.CenterCrop(side)])
            pixels = v2.functional.pil_to_tensor(
                image if resizes_floats else resize(image)
            ).float()
            # [3, H, W] in -1..1
            return (resize(pixels) if resizes_floats else pixels).div(127.5).sub_(1)

        def network() -> nn.Module:
            vae = load()
            tower: Any = Tower(vae, partial(_encode, self))
            tower.latent_space = name_latent_space(vae)  # which stores state
            return tower

        # the words tell stores of different preprocessing apart
        words = (
            f"resize short side {self.resolution_px} bilinear, centre crop, -1..1, "
            f"{self.posterior}"
        )
        words += ", in floats" if self.resizes == "floats" else ""
        return Encoder(network, preprocess, words, weights)

    def _prepare_network(self) -> tuple[Callable[[], nn.Module], dict[str, str]]:
        import diffusers
        import torch

        # random weights for tests; otherwise the class that the config names
        if self.source == "random":
            draw = partial(diffusers.AutoencoderKL, **self.architecture)
            return partial(build_untrained, draw), {"source": "random"}
        folder, weights = fetch_weights(self)
        kind = ModelConfig.read(folder).class_name
        if kind not in AUTOENCODER_CLASSES:
            raise MissingData(
                f"{folder} holds a {kind or 'model without a class name'}",
                f"known: {', '.join(AUTOENCODER_CLASSES)}",
            )
        files = list_weight_files(self, folder)
        model = getattr(diffusers, kind)
        return partial(
            load_network, model, folder, files=files, torch_dtype=torch.float32
        ), weights


TINY = Config(
    source="random",
    resolution_px=16,
    architecture=encoders.TINY_ARCHITECTURES["diffusers-vae"],
)


def _encode(config: Config, vae: Any, images: Tensor) -> Tensor | list[Tensor]:
    """Encode pictures [B, 3, H, W] in -1..1 as what the recipe names: latents [B, C, h,
    w], or vectors.
    """
    import torch

    # mode of the posterior, or a sample by each picture's own noise
    encoded = vae.encode(images)
    # AutoencoderTiny and others have no posterior
    if not hasattr(encoded, "latent_dist"):
        (latents,) = encoded.to_tuple()
    elif config.posterior == "mode":
        latents = encoded.latent_dist.mode()
    else:
        mean = encoded.latent_dist.mean
        noises = []
        for image in images:
            picture = zlib.crc32(image.cpu().numpy().tobytes())
            generator = torch.Generator().manual_seed(picture ^ config.seed)
            noises.append(torch.randn(mean[0].shape, generator=generator).to(mean))
        latents = mean + encoded.latent_dist.std * torch.stack(noises)

    # shift and scale as the diffusion model sees latents
    shift = vae.config.get("shift_factor") or 0.0
    latents = (latents - shift) * vae.config.scaling_factor  # [B, C, h, w]
    outputs = {
        EMBEDDING: latents.flatten(1) if config.flattens else latents,
        "latent": latents,
    }
    if isinstance(config.output, str):
        return outputs[config.output]
    return [outputs[name] for name in config.output]
