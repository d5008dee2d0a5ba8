"""Any image autoencoder of diffusers (AutoencoderKL, AutoencoderTiny), by its flattened latent."""

import json
import zlib
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli import hub
from brainhive_cli.encoders import Encoder, EncoderConfig, weights_of
from brainhive_cli.encoders.transformers_clip import require
from brainhive_cli.errors import MissingData

KINDS = ("AutoencoderKL", "AutoencoderTiny")


class Config(EncoderConfig):
    """An autoencoder's latent × scaling factor, flattened."""

    files: ClassVar[tuple[str, ...]] = ("*.json", "diffusion_pytorch_model.safetensors")  # not the fp16 copy
    source: str = Field("", description="hub:owner/name[/subfolder], a folder, or `random`")
    resolution_px: int = Field(128, gt=0, description="short side and centre crop, pixels (BrainHiVE: 128)")
    posterior: Literal["mode", "sample"] = Field("mode", description="mode is repeatable; BrainHiVE samples")
    seed: int = Field(
        0, description="seed of `sample`; the noise of a picture depends on it and the picture alone"
    )
    architecture: dict[str, Any] = Field({}, description="AutoencoderKL arguments of `random` weights")

    def build(self) -> Encoder:
        """Load the autoencoder in float32."""
        vae, weights = self._load()

        def preprocess(image: Any) -> Tensor:
            from torchvision.transforms import v2

            steps = [v2.Resize(self.resolution_px), v2.CenterCrop(self.resolution_px), v2.PILToTensor()]
            pixels: Tensor = v2.Compose(steps)(image)
            return pixels.float().div(127.5).sub(1)  # [3, H, W] in -1..1

        words = f"resize short side {self.resolution_px} bilinear, centre crop, -1..1, {self.posterior}"
        return Encoder(_FlatLatent(vae, self.posterior, self.seed), preprocess, words, weights)

    def _load(self) -> tuple[nn.Module, dict[str, str]]:
        import diffusers

        if self.source == "random":
            torch.manual_seed(0)
            return diffusers.AutoencoderKL(**self.architecture), {"source": "random"}
        folder = hub.folder(self.source, allow=self.files)
        require(folder, "config.json")
        kind = class_name(folder)
        if kind not in KINDS:
            raise MissingData(
                f"{folder} holds a {kind or 'model without a class name'}", f"known: {', '.join(KINDS)}"
            )
        vae = getattr(diffusers, kind).from_pretrained(folder, torch_dtype=torch.float32)
        return vae, weights_of(self.source, folder)


TINY = Config(
    source="random",
    resolution_px=16,
    architecture={"block_out_channels": [8], "norm_num_groups": 4, "sample_size": 16},
)


def class_name(folder: Path) -> str:
    """Read the diffusers class that a folder's config names."""
    name: str = json.loads((folder / "config.json").read_text()).get("_class_name", "")
    return name


class _FlatLatent(nn.Module):
    def __init__(self, vae: Any, posterior: str, seed: int) -> None:
        super().__init__()
        self.vae, self.posterior, self.seed = vae, posterior, seed

    def forward(self, images: Tensor) -> Tensor:
        encoded = self.vae.encode(images)
        if not hasattr(encoded, "latent_dist"):  # AutoencoderTiny has no posterior
            latents = encoded.latents
        elif self.posterior == "mode":
            latents = encoded.latent_dist.mode()
        else:
            noise = torch.stack([self._noise(image, encoded.latent_dist.mean[0]) for image in images])
            latents = encoded.latent_dist.mean + encoded.latent_dist.std * noise
        return (latents * self.vae.config.scaling_factor).flatten(1)  # [B, D]

    def _noise(self, image: Tensor, like: Tensor) -> Tensor:
        picture = zlib.crc32(image.cpu().numpy().tobytes())
        generator = torch.Generator().manual_seed(picture ^ self.seed)
        return torch.randn(like.shape, generator=generator).to(like)
