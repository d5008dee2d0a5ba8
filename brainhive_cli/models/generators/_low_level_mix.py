"""Pictures averaged with a blurry one that is decoded from the brain's latent: MindEye2's last step."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from brainhive_cli.core import hub, weights
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.recipe import Section
from brainhive_cli.core.results import Need, to_download
from brainhive_cli.models import single_file
from brainhive_cli.models.generators import Media, _components
from brainhive_cli.models.generators._latent_diffusion import decode_pictures
from brainhive_cli.models.heads import Decoded

SIDE_PX = 256
"""Of the mean: the size at which MindEye2 averages, and its protocol compares."""
PUBLISHED = {**_components.VAE}
"""The autoencoder of `sd_image_var_autoenc.pth`; source: MindEye2's recon_inference.ipynb (MIT)."""


class LowLevelMix(Section):
    """The mean of each picture and the blurry one of a head, at 256 px: better in pixels by construction."""

    head: str = Field("blurry", description="Head of the latent that is decoded to the blurry picture.")
    share: float = Field(0.25, gt=0, le=1, description="Of the blurry picture in the mean; MindEye2: 0.25.")
    autoencoder: str = Field(
        "hub:stable-diffusion-v1-5/stable-diffusion-v1-5/vae",
        description="Whose latent it is: a folder of diffusers; for MindEye2's published weights "
        "hub:datasets/pscotti/mindeyev2/sd_image_var_autoenc.pth.",
    )

    def build(self, device: torch.device | str, dtype: torch.dtype) -> "LowLevelMixer":
        """Load the autoencoder onto a device.

        Raises:
            MissingData: if it is absent or half-downloaded.
            BrainhiveError: if a file is of another autoencoder.
        """
        import diffusers

        if self._is_file:
            file, network = single_file.find(self.autoencoder), diffusers.AutoencoderKL(**PUBLISHED)
            weights.fill(network, weights.read(file), file, "give sd_image_var_autoenc.pth, or a folder")
        else:
            network = _components.load_network_folder(diffusers.AutoencoderKL, self.autoencoder, dtype)
        return LowLevelMixer(self, _components.cast(network, dtype), torch.device(device))

    def check(self) -> str:
        """Describe it, and how much would be downloaded; raises as `build` does."""
        return f"blurry pictures by {self.autoencoder}, {to_download(self.needs())}"

    def needs(self) -> list[Need]:
        """Look for the autoencoder's weights."""
        if self._is_file:
            return [single_file.need(self.autoencoder)]
        return _components.list_needs(self.autoencoder, None, [_components.WEIGHTS])

    def skeleton(self, dtype: torch.dtype) -> "LowLevelMixer":
        """Make the autoencoder of shapes alone."""
        import diffusers

        architecture = PUBLISHED
        if not self._is_file:
            architecture = _components.read_config(hub.folder(self.autoencoder, allow=["config.json"]), "")
        with weights.reading(f"the autoencoder {self.autoencoder}"), torch.device("meta"):
            network: Any = diffusers.AutoencoderKL.from_config(architecture)
        return LowLevelMixer(self, _components.cast(network, dtype), torch.device("meta"))

    @property
    def _is_file(self) -> bool:
        return Path(self.autoencoder.partition("@")[0]).suffix in (".pth", ".pt", ".safetensors")


class LowLevelMixer:
    """An autoencoder, and the mean of what it decodes with pictures.

    Args:
        config: Head and share.
        model: The autoencoder of the head's latents.
        device: Where it runs.
    """

    def __init__(self, config: LowLevelMix, model: Any, device: torch.device) -> None:
        self.config, self.model = config, model
        self.placement = _components.Placement((model,), device)

    def mix(self, pictures: Media, decoded: Decoded | None) -> Media:
        """Average pictures [B, 3, H, W] in 0..1 with the blurry ones: [B, 3, 256, 256].

        Raises:
            BrainhiveError: if there is no such head of latents, or the media are clips.
        """
        latents = None if decoded is None else decoded.tensors.get(self.config.head)
        if latents is None or latents.ndim != 4 or pictures.ndim != 4:
            raise BrainhiveError(
                f"low_level_mix averages pictures with the latent of the head {self.config.head}, and there "
                f"is no {'such picture' if pictures.ndim != 4 else 'such head'}",
                "decode with a brain model that has it (papers/mindeye2-blurry), or leave low_level_mix out",
            )
        self.placement.use(self.model)
        blurry = decode_pictures(self.model, latents, self.placement.device)
        self.placement.use()
        share = self.config.share
        return (1 - share) * _resize(pictures) + share * _resize(blurry).to(pictures.device)


def _resize(pictures: Tensor) -> Tensor:
    sides = (SIDE_PX, SIDE_PX)
    return F.interpolate(pictures.float(), sides, mode="bilinear", antialias=True).clamp(0, 1)
