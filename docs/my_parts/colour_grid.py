"""my_parts/colour_grid.py: a picture of the colours that a token predicts."""

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import interpolate

from brainhive_cli import api


class Config(api.Config):
    """No keys, and no weights."""

    def build(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "ColourGrid":
        """Load the generator onto a device."""
        return ColourGrid()

    def check(self) -> None:
        """Raise MissingData if weights are missing; this one has none."""


TINY = Config()


class ColourGrid:
    """Generator of condition tokens [B, 1, 12]; only train-prior needs `encode` and
    `loss`.
    """

    networks: tuple[torch.nn.Module, ...] = ()
    latent_space = "none"  # of latents that sampling may start from

    def check_size(self, size_px: int) -> None:
        """Refuse sizes that it cannot draw; here none."""

    def spare_memory(
        self, offload_to: torch.device | None = None, tile: bool = False
    ) -> None:
        """Need less memory, and take more time."""

    def generate(
        self,
        conditioning: api.Conditioning,
        seeds: Sequence[int],
        size_px: int,
        sampling: api.Sampling,
        null: api.Conditioning | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> torch.Tensor:
        """Draw [B, 3, H, W] in 0..1; each picture depends on its row and seed alone."""
        colours = conditioning.embeddings.view(len(seeds), 3, 2, 2).clamp(0, 1)
        return interpolate(colours.float(), size=(size_px, size_px))
