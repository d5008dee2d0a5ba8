"""HAVIR's Structural Generator: a hidden vector to an autoencoder's latent, and maps of features.

Source: Voxel2StableDiffusionModel of MindEye1 (arXiv 2305.18274, MIT), as HAVIR (arXiv 2510.03122) has it.
"""

from typing import Any

from torch import Tensor, nn

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.backbones._layers import dense_layers
from brainhive_cli.models.heads import Heads

LATENT, MAPS = "latent", "maps"
"""Names of its heads."""


class StructuralGenerator(nn.Module):
    """Residual MLPs, a map to feature maps, and a decoder that upsamples them.

    Args:
        heads: `latent` [C, H, W], and `maps` [S, D] where training wants them; S is the area of the features.
        hidden: H, width of the residual MLPs.
        blocks: How many of them.
        dropout: Probability of dropping a unit in them.
        features: F, feature maps that are upsampled.
        channels: Of the decoder's blocks, from the output; all but one double height and width.
        depth: Layers a block of the decoder.
        groups: Groups of the decoder's normalisations.

    Raises:
        BrainhiveError: if the decoder cannot make a latent of that size, or as many maps.
    """

    def __init__(
        self,
        heads: Heads,
        hidden: int,
        blocks: int,
        dropout: float,
        features: int,
        channels: tuple[int, ...],
        depth: int,
        groups: int,
    ) -> None:
        super().__init__()
        self.size = map_size(heads, LATENT, 2 ** (len(channels) - 1))
        self.mlp = nn.ModuleList(
            nn.Sequential(*dense_layers(hidden, hidden, nn.SiLU(), dropout, bias=False))
            for _ in range(blocks)
        )
        self.lin1 = nn.Linear(hidden, features * self.size[0] * self.size[1], bias=False)
        self.norm = nn.GroupNorm(1, features)
        self.upsampler = upsampler(features, heads[LATENT].shape[0], channels, depth, groups)
        self.maps_projector = None
        if MAPS in heads:
            width = heads[MAPS].shape[-1]
            self.maps_projector = maps_projector(features, width, width, width)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map [B, H] to the heads."""
        for block in self.mlp:
            x = x + block(x)
        features = self.norm(self.lin1(x).unflatten(1, (-1, *self.size)))  # [B, F, h, w]
        outputs = {LATENT: self.upsampler(features)}
        if self.maps_projector is not None:
            outputs[MAPS] = self.maps_projector(features).flatten(2).transpose(1, 2)  # [B, S, D]
        return outputs


def map_size(heads: Heads, latent: str, scale: int) -> tuple[int, int]:
    """Return height and width of the feature maps that a decoder upsamples to the head of a latent.

    Args:
        heads: That head [C, H, W], and perhaps `maps` [S, D].
        latent: Its name.
        scale: How many times the decoder enlarges.

    Raises:
        BrainhiveError: if the decoder cannot make a latent of that size, or as many maps.
    """
    shape = heads[latent].shape
    if len(shape) != 3 or shape[1] % scale or shape[2] % scale:
        raise BrainhiveError(
            f"the head {latent} is {list(shape)}, the decoder makes [C, H, W] of multiples of {scale}",
            "the latent of an autoencoder at another size, or another number of decoder channels",
        )
    size = shape[1] // scale, shape[2] // scale
    if MAPS in heads and heads[MAPS].shape[:-1] != (size[0] * size[1],):
        raise BrainhiveError(
            f"the head {MAPS} is {list(heads[MAPS].shape)}, the decoder starts from {size[0]}×{size[1]} maps",
            f"maps of [{size[0] * size[1]}, D], or another number of decoder channels",
        )
    return size


def upsampler(
    features: int, latents: int, channels: tuple[int, ...], depth: int = 1, groups: int = 32
) -> Any:
    """Make diffusers' decoder of feature maps to a latent, without attention in its blocks."""
    from diffusers.models.autoencoders.vae import Decoder

    kinds = ("UpDecoderBlock2D",) * len(channels)
    return Decoder(features, latents, kinds, channels, depth, groups)


def maps_projector(features: int, first: int, second: int, last: int) -> nn.Sequential:
    """Make the layers from feature maps [B, F, h, w] to maps of other channels, [B, D, h, w]."""
    return nn.Sequential(
        *(nn.Conv2d(features, first, 1, bias=False), nn.GroupNorm(1, first), nn.ReLU()),
        *(nn.Conv2d(first, second, 1, bias=False), nn.GroupNorm(1, second), nn.ReLU()),
        nn.Conv2d(second, last, 1),
    )
