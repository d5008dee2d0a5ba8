"""Model of primary visual cortex without learned weights.

Complex cells are pairs of Gabor filters in quadrature (Adelson & Bergen 1985) at
several scales, as in the first encoding model that identified natural pictures (Kay et
al. 2008). Each is divided by the energy of all orientations at the same position
(Heeger 1992), which reduces the effect of contrast.
"""

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, conv2d, pad
from torchvision.transforms import v2

from brainhive_cli.models.encoders import Encoder, EncoderConfig

SIDE_PX = 128
FILTER_PX = 13


class Config(EncoderConfig):
    """Energy of Gabor filters, luminance and opponent colours on a grid."""

    cites = ("adelson1985", "heeger1992", "kay2008")
    image_px = SIDE_PX
    weight_files = ()

    orientations: int = Field(
        8, gt=1, le=64, description="number of orientations of the filters"
    )
    grid: int = Field(
        8,
        gt=0,
        le=8,
        description="rows and columns of cells in which responses are averaged",
    )

    def build(self) -> Encoder:
        """Prepare the filters."""
        transforms = [
            v2.Resize(SIDE_PX, v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(SIDE_PX),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
        ]
        return Encoder(
            network=GaborPyramid(self.orientations, self.grid),
            preprocess=v2.Compose(transforms),
            preprocessing=f"short side {SIDE_PX} bicubic, centre {SIDE_PX}, 0..1",
            weights={"source": "gabor"},
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
        # Weights of RGB in luminance, red-green and blue-yellow.
        opponent_weights = (
            (1 / 3, 1 / 3, 1 / 3),
            (0.5, -0.5, 0.0),
            (-0.25, -0.25, 0.5),
        )
        self.register_buffer(
            "opponent", torch.tensor(opponent_weights)[..., None, None]
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Compute the responses to pictures.

        Args:
            pictures: Pictures [B, 3, H, W] in 0..1.

        Returns:
            Responses [B, (scales · orientations + 3) · grid²].
        """
        colours = conv2d(pictures, self.opponent)
        maps = [colours]
        luminance = colours[:, :1]
        # Energy of all orientations at which a response is half of the maximum.
        saturation = 0.1
        # Number of scales. Pictures are halved between scales: 32, 16, 8 and 4
        # cycles per picture.
        for _ in range(4):
            # mirror the borders, so that they are not edges
            mirrored = pad(luminance, (FILTER_PX // 2,) * 4, mode="reflect")
            cosine, sine = conv2d(mirrored, self.filters).chunk(2, 1)
            energy = cosine.square() + sine.square()
            # divide by the energy of all orientations
            maps.append((energy / (saturation**2 + energy.sum(1, keepdim=True))).sqrt())
            luminance = avg_pool2d(luminance, 2)
        responses = []
        for response_map in maps:
            responses.append(adaptive_avg_pool2d(response_map, self.grid).flatten(1))
        return torch.cat(responses, 1)


def build_filter_pairs(orientations: int) -> Tensor:
    """Build Gabor filters in cosine phase, then in sine phase.

    Args:
        orientations: Number of orientations.

    Returns:
        Filters [2 · orientations, 1, H, W].
    """
    x = torch.arange(FILTER_PX) - FILTER_PX // 2
    angle = torch.arange(orientations)[:, None, None] * math.pi / orientations
    across = x * angle.cos() + x[:, None] * angle.sin()
    # Standard deviation of the Gaussian window. The bandwidth is then an octave, as in
    # cells of V1 (De Valois 1982).
    sigma_px = 2.2
    window = torch.exp(-(x**2 + x[:, None] ** 2) / (2 * sigma_px**2))
    wavelength_px = 4.0
    phase = 2 * math.pi * across / wavelength_px

    # remove the mean, so that a uniform surface has no energy
    cosine = window * phase.cos()
    cosine -= window * cosine.sum((1, 2), keepdim=True) / window.sum()
    pairs = torch.cat([cosine, window * phase.sin()])
    return (pairs / pairs.abs().sum((1, 2), keepdim=True))[:, None]
