"""A low-level brain model as MindEye1 has it: voxels of one region to an autoencoder's latent, and maps.

Source: Voxel2StableDiffusionModel of MindEye1 (arXiv 2305.18274, MIT), which HAVIR follows.
"""

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.core.heads import Heads
from brainhive_cli.core.signal_spec import SignalSpec


class Config(parts.Config):
    """Sizes inside; those of signals and heads follow from both."""

    takes_spec: ClassVar[bool] = True

    region: str = Field("", description="region whose voxels are taken; all where empty")
    hidden: int = Field(4096, description="width of the residual MLPs")
    blocks: int = Field(4, description="residual MLPs")
    features: int = Field(64, description="feature maps that are upsampled")
    channels: tuple[int, ...] = Field((64, 128, 256), description="of the decoder's blocks, from the output")
    layers: int = Field(1, description="layers a block of the decoder")
    groups: int = Field(32, description="groups of the decoder's normalisations")

    def build(self, spec: SignalSpec, heads: Heads) -> "Structural":
        """Make the model; its heads are `latent` [C, H, W] and, where training wants them, `maps` [S, D]."""
        return Structural(self, spec, heads)


TINY = Config(hidden=8, blocks=1, features=8, channels=(8, 8), groups=4)


class Structural(nn.Module):
    """A linear map for each subject, residual MLPs, and a decoder that upsamples."""

    def __init__(self, config: Config, spec: SignalSpec, heads: Heads) -> None:
        from diffusers.models.autoencoders.vae import Decoder

        super().__init__()
        self.spec, self.region, hidden = spec, config.region, config.hidden
        latent_channels, height, _ = heads["latent"].shape
        self.side = height // 2 ** (len(config.channels) - 1)
        self.lin0 = nn.ModuleDict(
            {str(subject): _mlp(len(self._voxels(n)), hidden, 0.5) for n, subject in enumerate(spec.subjects)}
        )
        self.mlp = nn.ModuleList(_mlp(hidden, hidden, 0.25) for _ in range(config.blocks))
        self.lin1 = nn.Linear(hidden, config.features * self.side**2, bias=False)
        self.norm = nn.GroupNorm(1, config.features)
        self.upsampler = Decoder(
            config.features,
            latent_channels,
            ["UpDecoderBlock2D"] * len(config.channels),
            config.channels,
            config.layers,
            config.groups,
        )
        self.maps_projector = None
        if "maps" in heads:
            width = heads["maps"].shape[-1]
            self.maps_projector = nn.Sequential(
                *(nn.Conv2d(config.features, width, 1, bias=False), nn.GroupNorm(1, width), nn.ReLU()),
                *(nn.Conv2d(width, width, 1, bias=False), nn.GroupNorm(1, width), nn.ReLU()),
                nn.Conv2d(width, width, 1),
            )

    def forward(self, signal: Tensor, subject_index: Tensor) -> dict[str, Tensor]:
        """Predict the heads from voxels [B, V, 1] of one subject."""
        place = int(subject_index[0])
        voxels = signal[:, self._voxels(place), 0]
        x = self.lin0[str(self.spec.subjects[place])](voxels)  # [B, H]
        for block in self.mlp:
            x = x + block(x)
        maps = self.norm(self.lin1(x).unflatten(1, (-1, self.side, self.side)))  # [B, F, side, side]
        found = {"latent": self.upsampler(maps)}
        if self.maps_projector is not None:
            found["maps"] = self.maps_projector(maps).flatten(2).transpose(1, 2)  # [B, S, D]
        return found

    def _voxels(self, place: int) -> list[int]:
        if not self.region:
            return list(range(self.spec.widths[place]))
        return list(self.spec.regions[self.region][place])


def _mlp(width: int, hidden: int, dropout: float) -> nn.Sequential:
    layers = (nn.Linear(width, hidden, bias=False), nn.LayerNorm(hidden), nn.SiLU(), nn.Dropout(dropout))
    return nn.Sequential(*layers)
