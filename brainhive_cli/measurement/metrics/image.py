"""How similar pictures and their reconstructions are, in pixels and in any encoder's features."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.measurement.metrics import MetricPart, Scale

PIXELS_PX = 425
"""Size at which pixels are compared: that of NSD's stimuli (MindEye2)."""
COMMON_PX = 256
"""Size that `mindeye2` brings every picture to first."""
CROP_PX = 512
"""Size that `brainhive` brings every picture to: its generator's."""
PROTOCOLS = ("mindeye2", "brainhive")
ROUNDING = 1e-6
"""What resizing in float32 may add to a colour: white becomes up to 1.0000005, and varies as much."""


def prepare(images: Tensor, protocol: str = "mindeye2", crop_px: int = CROP_PX) -> Tensor:
    """Bring pictures to the size that a protocol compares them at.

    `brainhive` resizes the short side to 512 px and crops the centre, without a step at 256 px. It resizes as
    torchvision does PIL pictures, bilinear and antialiased, but does not round to bytes.

    Args:
        images: [N, 3, H, W] in 0..1.
        protocol: `mindeye2` or `brainhive`.
        crop_px: Side of the square that `brainhive` crops.

    Returns:
        Pictures [N, 3, 256, 256] for `mindeye2`, [N, 3, 512, 512] for `brainhive`.

    Raises:
        BrainhiveError: if there is no such protocol.

    Source: MindEye2 (arXiv 2403.11207) and BrainHiVE (arXiv 2602.07495), their evaluation code.
    """
    if protocol not in PROTOCOLS:
        raise BrainhiveError(f"no image protocol called {protocol!r}", f"there are: {', '.join(PROTOCOLS)}")
    if protocol == "mindeye2":
        return resize(images, COMMON_PX)
    from torchvision.transforms.v2 import functional as TF

    resized = TF.resize(images.float(), [crop_px], antialias=True)
    return TF.center_crop(resized, [crop_px])  # type: ignore[no-any-return]


def resize(images: Tensor, side_px: int) -> Tensor:
    """Resize images [N, 3, H, W] to squares, bilinear, antialiased where they shrink."""
    return F.interpolate(images.float(), (side_px, side_px), mode="bilinear", antialias=True)


def pixcorr(image: Tensor, reconstruction: Tensor, side_px: int = PIXELS_PX) -> Tensor:
    """Correlate the pixels of pictures and reconstructions, both resized.

    Args:
        image: True pictures [N, 3, H, W] in 0..1.
        reconstruction: As `image`; H and W may differ.
        side_px: Size of the comparison.

    Returns:
        Pearson correlations [N], float64; 0 where a picture has one colour only.
    """
    _check_pictures(image, reconstruction)
    true, generated = (standardised(resize(x, side_px)) for x in (image, reconstruction))
    return 1 - correlation_distance(true, generated, torch.arange(len(true)))


def ssim(
    image: Tensor, reconstruction: Tensor, side_px: int | None = PIXELS_PX, is_published: bool = False
) -> Tensor:
    """Structural similarity of the grey pictures, both resized.

    Args:
        image: True pictures [N, 3, H, W] in 0..1.
        reconstruction: As `image`.
        side_px: Size of the comparison; None leaves the pictures as they are.
        is_published: Take the columns of the grey pictures for channels, as the code of NeuroClips and of
            NEURONS does: one-dimensional windows, for comparison with what they report.

    Returns:
        SSIM [N], float64.

    Source: Wang et al. 2004, by scikit-image with that paper's Gaussian weights.
    """
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity

    _check_pictures(image, reconstruction)
    if side_px is not None:
        image, reconstruction = resize(image, side_px), resize(reconstruction, side_px)
    greys = (rgb2gray(x.detach().cpu().permute(0, 2, 3, 1).numpy()) for x in (image, reconstruction))
    paper = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    channels = {"channel_axis": -1 if is_published else None}
    with ThreadPoolExecutor() as threads:  # its filters let go of Python's lock
        scores = list(threads.map(partial(structural_similarity, **paper, **channels), *greys))
    return torch.from_numpy(np.array(scores, dtype=np.float64))


def identified(true: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
    """Two-way identification: how often a reconstruction resembles its picture more than another one.

    Args:
        true: Standardised features of the N true pictures, [N, D], of any encoder.
        generated: Standardised features of reconstructions, [B, D]: they can come in batches.
        rows: The row in `true` of each one's picture, [B].

    Returns:
        For each reconstruction, the share of the other pictures that it correlates less with than with its
        own; [B], float64. Chance is 0.5.
    """
    if len(true) < 2:
        raise BrainhiveError("two-way identification needs at least two pictures", "reconstruct more")
    correlation = true @ generated.T  # [picture, reconstruction]
    paired = correlation[rows, torch.arange(len(generated))]
    return (correlation < paired).double().sum(0) / (len(true) - 1)


def correlation_distance(true: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
    """One minus the correlation of standardised features [B, D] with their pictures' in [N, D]; [B]."""
    return 1 - (true[rows] * generated).sum(1)


def standardised(features: Tensor) -> Tensor:
    """Centre and scale features [N, ...] to [N, D]: their dot products are correlations, 0 for constant ones.

    Returns:
        Float64 on the CPU: it is not on every device.
    """
    flat = features.detach().cpu().flatten(1).double()
    if not flat.isfinite().all():
        raise BrainhiveError("features or pictures are not finite", "check the reconstructions for NaN")
    centred = flat - flat.mean(1, keepdim=True)
    varies = centred.norm(dim=1, keepdim=True) > ROUNDING * flat.norm(dim=1, keepdim=True)
    return F.normalize(centred * varies, dim=1)


def pixels(images: Tensor) -> Tensor:
    """Resize pictures [B, 3, H, W] to the size at which pixels are compared, [B, 3, 425, 425]."""
    return resize(images, PIXELS_PX).cpu()


def _check_pictures(image: Tensor, reconstruction: Tensor) -> None:
    count = len(image) if image.ndim == 4 else "N"
    for name, x in {"image": image, "reconstruction": reconstruction}.items():
        if x.ndim != 4 or x.shape[1] != 3 or len(x) != count or not len(x):
            raise BrainhiveError(
                f"{name} must be [{count or 'N'}, 3, H, W], got {list(x.shape)}",
                "pair the pictures item by item",
            )
        if not (x.is_floating_point() and x.min() >= -ROUNDING and x.max() <= 1 + ROUNDING):  # NaN fails too
            raise BrainhiveError(f"{name} must be in 0..1", "divide bytes by 255")


PARTS = {
    "pixcorr": MetricPart(
        pixels, lambda seen, generated, rows: pixcorr(seen[rows], generated), scale=Scale(short="PixCorr")
    ),
    "ssim": MetricPart(
        pixels, lambda seen, generated, rows: ssim(seen[rows], generated), scale=Scale(short="SSIM")
    ),
}
"""The metrics of pixels, by the name that recipes and tables use."""
