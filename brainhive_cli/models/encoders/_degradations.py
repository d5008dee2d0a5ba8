"""Degraded pictures: a stimulus blurred, coarse or noisy, as an encoder then sees
it.
"""

import re
import zlib
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import AfterValidator

from brainhive_cli.core.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

GRAMMAR = re.compile(r"(gaussian|fovea|low-resolution|mosaic|noise)-([1-9]\d{0,2})")
FALL_OFF, SHARP_SHARE = 3, 0.5
"""Speed at which the fovea's sharpness falls, and its share in the centre (UBP, Wu et
al., CVPR 2025).
"""


def check_degradation(how: str) -> str:
    """Refuse what is no degradation, and kernels without a middle."""
    # a kernel is centred on a pixel, so its width is odd
    match = GRAMMAR.fullmatch(how)
    if match is None or (match[1] in ("gaussian", "fovea") and int(match[2]) % 2 == 0):
        raise ValueError(
            "a degradation is gaussian-K or fovea-K (an odd kernel, pixels), "
            "low-resolution-N or mosaic-N (sides divided by N), or noise-SD (of 255)"
        )
    return how


Degradation = Annotated[str, AfterValidator(check_degradation)]
"""What is done to pictures, with its strength: `gaussian-15`."""


def degrade(picture: Any, how: str, side_px: int) -> Any:
    """Degrade a picture whose short side is brought to `side_px` before, so that
    kernels count its pixels.

    Noise depends on the picture and its strength alone.

    Source: UBP (fovea), Visual Blur Perception (gaussian), NeuroBridge (gaussian,
    noise, low resolution and mosaic in one mean), whose code uses OpenCV: its
    arithmetic differs by one grey value at most.
    """
    from torchvision.transforms.v2 import functional as F

    # bring the picture to the size in which strengths are counted
    match = GRAMMAR.fullmatch(how)
    assert match
    kind, strength = match[1], int(match[2])
    resized = F.resize(picture, [side_px], F.InterpolationMode.BICUBIC)
    pixels = F.pil_to_tensor(resized)  # [3, H, W]
    sides = [*pixels.shape[1:]]
    small = [max(1, side // strength) for side in sides]

    # pixels stay bytes, as encoders take pictures
    if kind == "gaussian":
        pixels = _blur(pixels, strength)
    elif kind == "fovea":
        sharp = fovea_mask(*sides)
        pixels = (pixels * sharp + _blur(pixels, strength) * (1 - sharp)).round().byte()
    elif kind == "low-resolution":
        pixels = F.resize(F.resize(pixels, small), sides)
    elif kind == "mosaic":
        pixels = F.resize(pixels, small, antialias=False)
        pixels = F.resize(pixels, sides, F.InterpolationMode.NEAREST)
    else:
        # seeded by pixels and strength: the same noise in every epoch
        random = np.random.default_rng(
            [zlib.crc32(np.asarray(resized).tobytes()), strength]
        )
        noise = random.normal(scale=strength, size=pixels.shape)
        pixels = (pixels + noise).round().clamp(0, 255).byte()
    return F.to_pil_image(pixels)


def fovea_mask(height: int, width: int) -> "Tensor":
    """Give the share of the sharp picture at each pixel, [H, W]."""
    import torch

    y, x = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    distance = torch.hypot(y[:, None].float(), x.float())
    # in sides of even length the first row and column are farther than the last, by
    # which UBP divides
    return SHARP_SHARE * torch.exp(
        -FALL_OFF * (distance / distance[-1, -1]).clamp(max=1)
    )


def _blur(pixels: "Tensor", kernel_px: int) -> "Tensor":
    """Blur by a Gaussian of sd .3 ((K - 1) / 2 - 1) + .8, borders mirrored:
    torchvision's default too.
    """
    from torchvision.transforms.v2 import functional as F

    if kernel_px // 2 >= (side_px := min(pixels.shape[1:])):
        raise RecipeError(
            f"a kernel of {kernel_px} pixels is too large for pictures of {side_px}",
            f"{side_px} at most",
        )
    return F.gaussian_blur(pixels, [kernel_px, kernel_px])
