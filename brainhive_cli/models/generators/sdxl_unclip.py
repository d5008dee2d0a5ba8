"""SDXL-unCLIP, MindEye2's decoder of ViT-bigG-14 tokens: pictures, such as the keyframe of a clip.

Source: MindEye2 (arXiv 2403.11207; MIT); diffusers runs its weights as sgm does.
"""

from typing import Any, Literal

import torch
from pydantic import Field

from brainhive_cli.core import parts, weights
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.needs import Need, to_download
from brainhive_cli.models.generators import _components, _unclip_folder
from brainhive_cli.models.generators._architecture import SDXL, Architecture
from brainhive_cli.models.generators._architecture import TINY as TINY_SDXL
from brainhive_cli.models.generators._components import RANDOM
from brainhive_cli.models.generators._unclip import Knobs, UnCLIP

ARCHITECTURE: Architecture = {
    "unet": {
        **SDXL["unet"],
        "sample_size": 96,
        "cross_attention_dim": 1664,
        "projection_class_embeddings_input_dim": 1024,
    },
    "vae": SDXL["vae"],
    "scheduler": {
        "_class_name": "EulerDiscreteScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
    },
}
"""As unclip6.yaml of MindEye2 has them."""


class Config(parts.Config):
    """MindEye2's checkpoint, or what it was converted to.

    Conditions: `embeddings` [B, S, D] (encoder clip-bigg-tokens), `start` (pictures or latents), and `masks`
    [B, F, 1, H, W], whose mean over the frames weighs the tokens by their place. MindEye2 samples 768 px in
    38 steps at guidance 5.
    """

    source: str = Field(
        "hub:datasets/pscotti/mindeyev2/unclip6_epoch0_step110000.ckpt",
        description="Checkpoint, hub:[datasets/]OWNER/NAME/FILE or a path; a converted folder; or `random`.",
    )
    unconditional: Literal["noise", "zeros"] = Field(
        "noise", description="Tokens that guidance moves away from: random normal ones (MindEye2), or zeros."
    )
    offset_noise: float = Field(
        0.04, ge=0, description="Spread of a shift of each picture's noise; MindEye2: 0.04."
    )
    pixel_scale: float = Field(
        0.8,
        gt=0,
        description="A decoded pixel x in −1..1 becomes scale · x + shift; MindEye2: 0.8, plain: 0.5.",
    )
    pixel_shift: float = Field(0.2, description="The shift; MindEye2: 0.2, plain: 0.5.")
    size_px: int = Field(768, gt=0, description="Size of picture that the U-Net is given; MindEye2: 768.")
    mask_floor: float = Field(0.5, ge=0, le=1, description="Weight of tokens outside of masks; NEURONS: 0.5.")
    architecture: Architecture | None = Field(
        None,
        description="Arguments of unet, vae and scheduler for `random` and for checkpoints of another size.",
    )
    seed: int = Field(0, ge=0, description="Seed of the weights for source `random`.")

    def build(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> UnCLIP:
        """Load the generator, frozen, onto a device; at first its weights are converted and kept.

        Raises:
            MissingData: if the file, or a component of the folder, is absent or half-downloaded.
            BrainhiveError: if it is of another U-Net.
        """
        device = torch.device(device)
        if self.source == RANDOM:
            return self._drawn(device, dtype)
        folder = _unclip_folder.folder_of(self.source, self._architecture, dtype)
        with weights.reading(f"the generator {folder}"):
            return self._of(_components.load(folder, dtype, None, _unclip_folder.check_unet), device)

    def check(self) -> str:
        """Describe the generator and how much of it would be downloaded; raises as `build` does."""
        if self.source == RANDOM:
            return "random weights"
        if not _unclip_folder.is_checkpoint(self.source):
            _components.check_configs(self.source, _unclip_folder.check_unet)
        return f"{self.source}, {to_download(self.needs())}"

    def needs(self) -> list[Need]:
        """Look for the checkpoint, which is not needed once it is converted, or for the folder's weights."""
        if not _unclip_folder.is_checkpoint(self.source):
            return _components.needs(self.source, None)
        return [_unclip_folder.need(self.source)]

    def skeleton(self, dtype: torch.dtype) -> UnCLIP:
        """Make the generator as `build` would, of shapes alone, on the meta device."""
        return self._drawn(torch.device("meta"), dtype)

    @property
    def _architecture(self) -> Architecture:
        if self.source == RANDOM or _unclip_folder.is_checkpoint(self.source):
            return {**ARCHITECTURE, **(self.architecture or {})}
        return {name: _components.read_config(self.source, name) for name in ("unet", "vae", "scheduler")}

    def _drawn(self, device: torch.device, dtype: torch.dtype) -> UnCLIP:
        architecture = self._architecture
        where, hint = f"the architecture of the generator {self.source}", "compare it with unclip6.yaml"
        with weights.reading(where, hint, RecipeError, problem="cannot be built"):
            weights.check_sizes(architecture, where, hint, RecipeError)
            _unclip_folder.check_unet(architecture["unet"], "the architecture")
            return self._of(_components.draw(architecture, device, dtype, self.seed), device)

    def _of(self, components: dict[str, Any], device: torch.device) -> UnCLIP:
        named = {name: getattr(self, name) for name in Knobs._fields if name != "is_noise"}
        return UnCLIP(Knobs(is_noise=self.unconditional == "noise", **named), components, device)


TINY = Config(
    source=RANDOM,
    architecture={
        "unet": {**TINY_SDXL["unet"], "projection_class_embeddings_input_dim": 16},
        "vae": TINY_SDXL["vae"],
        "scheduler": ARCHITECTURE["scheduler"],
    },
    size_px=32,
)
"""Small enough for tests; pictures from 16 px."""
