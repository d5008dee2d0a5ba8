"""A model of primary visual cortex without weights: Gabor energy, luminance and colour.

Complex cells are pairs of Gabor filters in quadrature (Adelson & Bergen 1985) at
several scales, as in the first encoding model that identified natural pictures (Kay et
al. 2008). Each is divided by the energy of all orientations at its place (Heeger 1992),
so that contrast alone does not decide.
"""

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, conv2d, pad
from torchvision.transforms import v2

from brainhive_cli.models.encoders import Encoder, EncoderConfig

SIDE_PX = 128
WAVELENGTH_PX, SIGMA_PX, FILTER_PX = 4.0, 2.2, 13
"""Of the filters; a bandwidth of one octave, as of cells of V1 (De Valois 1982)."""
SCALES = 4
"""The picture is halved between scales: 32, 16, 8 and 4 cycles a picture."""
SATURATION = 0.1
"""Energy of all orientations at which responses are half of their largest."""
OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (0.5, -0.5, 0.0), (-0.25, -0.25, 0.5))
"""Luminance, red against green, and blue against yellow, of RGB."""


class Config(EncoderConfig):
    """Energy of Gabor filters, luminance and opponent colours over the picture."""

    cites = ("adelson1985", "heeger1992", "kay2008")
    image_px = SIDE_PX
    licence = "no weights"
    weight_files = ()

    orientations: int = Field(8, gt=1, le=64, description="of the filters")
    grid: int = Field(
        8, gt=0, le=8, description="rows and columns over which responses are averaged"
    )

    def build(self) -> Encoder:
        """Prepare the filters."""
        steps = [
            v2.Resize(SIDE_PX, v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(SIDE_PX),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
        ]
        return Encoder(
            GaborPyramid(self.orientations, self.grid),
            v2.Compose(steps),
            f"short side {SIDE_PX} bicubic, centre {SIDE_PX}, 0..1",
            {"source": "gabor"},
        )


TINY = Config(orientations=2, grid=2)


class GaborPyramid(nn.Module):
    """Complex cells at several scales, and means of luminance and opponent colours."""

    filters: Tensor
    opponent: Tensor

    def __init__(self, orientations: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("filters", build_filter_pairs(orientations))
        self.register_buffer("opponent", torch.tensor(OPPONENT)[..., None, None])

    def forward(self, pictures: Tensor) -> Tensor:
        """Map pictures [B, 3, H, W] in 0..1 to [B, (scales · orientations + 3) ·
        grid²].
        """
        colours = conv2d(pictures, self.opponent)
        maps = [colours]
        luminance = colours[:, :1]
        for _ in range(SCALES):
            # energy of each orientation, divided by that of all of them; edges of the
            # picture are none of its contents, so it goes on mirrored
            mirrored = pad(luminance, (FILTER_PX // 2,) * 4, mode="reflect")
            even, odd = conv2d(mirrored, self.filters).chunk(2, 1)
            energy = even.square() + odd.square()
            maps.append((energy / (SATURATION**2 + energy.sum(1, keepdim=True))).sqrt())
            luminance = avg_pool2d(luminance, 2)
        cells = [adaptive_avg_pool2d(each, self.grid).flatten(1) for each in maps]
        return torch.cat(cells, 1)


def build_filter_pairs(orientations: int) -> Tensor:
    """Draw Gabor filters in cosine phase, then in sine phase: [2 · orientations, 1, H,
    W].
    """
    x = torch.arange(FILTER_PX) - FILTER_PX // 2
    angle = torch.arange(orientations)[:, None, None] * math.pi / orientations
    across = x * angle.cos() + x[:, None] * angle.sin()
    window = torch.exp(-(x**2 + x[:, None] ** 2) / (2 * SIGMA_PX**2))
    phase = 2 * math.pi * across / WAVELENGTH_PX

    # without a mean, so that an even surface has no energy
    even = window * phase.cos()
    even -= window * even.sum((1, 2), keepdim=True) / window.sum()
    pairs = torch.cat([even, window * phase.sin()])
    return (pairs / pairs.abs().sum((1, 2), keepdim=True))[:, None]
