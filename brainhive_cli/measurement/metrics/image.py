"""Similarity of pictures and their reconstructions, in pixels and in any encoder's
features.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.measurement.metrics import MetricPart, MetricScale

PIXELS_PX = 425
"""Size at which pixels are compared: that of NSD's stimuli (MindEye2)."""
COMMON_PX = 256
"""Size that `mindeye2` brings every picture to first."""
CROP_PX = 512
"""Size that `brainhive` brings every picture to: its generator's."""
GREY = (0.2125, 0.7154, 0.0721)
"""Weights of the colours: ITU-R BT.709, as scikit-image has them."""
RADIUS_PX, SIGMA_PX = 5, 1.5
"""Half the side of SSIM's windows less half a pixel, and the width of their Gaussian
(Wang et al. 2004).
"""
WEIGHTS = [
    math.exp(-0.5 * (offset / SIGMA_PX) ** 2)
    for offset in range(-RADIUS_PX, RADIUS_PX + 1)
]
"""Gaussian of a window along one axis, before it is scaled to the sum 1."""
STABLE = (0.01**2, 0.03**2)
"""C1 and C2 of SSIM, which keep it finite where a window is black or has one colour."""
ROWS_AND_COLUMNS, ROWS = (-2, -1), (-2,)
"""The axes that windows extend along."""
ROUNDING = 1e-6
"""Most that resizing in float32 adds to a colour: white becomes up to 1.0000005, and
varies as much.
"""


def prepare(
    images: Tensor, protocol: str = "mindeye2", crop_px: int = CROP_PX
) -> Tensor:
    """Bring pictures to the size that a protocol compares them at.

    `brainhive` resizes the short side to 512 px and crops the centre, without a step at
    256 px. It resizes as torchvision does PIL pictures, bilinear and antialiased, but
    does not round to bytes.

    Args:
        images: [N, 3, H, W] in 0..1.
        protocol: `mindeye2` or `brainhive`.
        crop_px: Side of the square that `brainhive` crops.

    Returns:
        Pictures [N, 3, 256, 256] for `mindeye2`, [N, 3, 512, 512] for `brainhive`.

    Source: MindEye2 (arXiv 2403.11207) and BrainHiVE (arXiv 2602.07495), their
    evaluation code.
    """
    if protocol == "mindeye2":
        return resize(images, COMMON_PX)

    # brainhive: the short side, then the central square
    from torchvision.transforms.v2 import functional as TF

    resized = TF.resize(images.float(), [crop_px], antialias=True)
    return TF.center_crop(resized, [crop_px])  # type: ignore[no-any-return]


def resize(images: Tensor, side_px: int) -> Tensor:
    """Resize images [N, C, H, W] to squares, bilinear, antialiased where they
    shrink.
    """
    # without a change of size pixels stay as they are
    if images.shape[-2:] == (side_px, side_px):
        return images.float()
    return F.interpolate(
        images.float(), (side_px, side_px), mode="bilinear", antialias=True
    )


def pixcorr(image: Tensor, reconstruction: Tensor, side_px: int = PIXELS_PX) -> Tensor:
    """Correlate the pixels of pictures and reconstructions, both resized.

    Args:
        image: True pictures [N, 3, H, W] in 0..1.
        reconstruction: As `image`; H and W may differ.
        side_px: Size of the comparison.

    Returns:
        Pearson correlations [N], float64; 0 where a picture has one colour only.
    """
    # standardised pixels [N, D], whose products are correlations
    true = standardise_pixels(image, side_px)
    generated = standardise_pixels(reconstruction, side_px)
    return correlation(true, generated, torch.arange(len(true)))


def ssim(
    image: Tensor,
    reconstruction: Tensor,
    side_px: int | None = PIXELS_PX,
    is_published: bool = False,
) -> Tensor:
    """Compute the structural similarity of the grey pictures, both resized.

    Args:
        image: True pictures [N, 3, H, W] in 0..1.
        reconstruction: As `image`.
        side_px: Size of the comparison; None leaves the pictures as they are.
        is_published: Take the columns of the grey pictures for channels, as the code of
            NeuroClips and of
            NEURONS does: one-dimensional windows, for comparison with what they report.

    Returns:
        SSIM [N], float64.

    Source: Wang et al. 2004, as scikit-image computes it with that paper's Gaussian
    weights.
    """
    # local moments of both, and SSIM of these
    axes = ROWS if is_published else ROWS_AND_COLUMNS
    true = local_moments(image, side_px, axes)
    generated = local_moments(reconstruction, side_px, axes)
    return structural_similarity(true, generated, torch.arange(len(true)), axes)


def two_way_identification(true: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
    """Identify pictures two-way: how often a reconstruction resembles its own more than
    another one.

    Args:
        true: Standardised features of the N true pictures, two at least, [N, D], of any
            encoder.
        generated: Standardised features of reconstructions, [B, D]: they can come in
            batches.
        rows: The row in `true` of each one's picture, [B].

    Returns:
        For each reconstruction, the share of the other pictures that it correlates less
        with than with its own; [B], float64. Chance is 0.5.
    """
    # one matrix of correlations serves all pairs; equal ones are misses
    correlation = true @ generated.T  # [picture, reconstruction]
    paired = correlation[rows, torch.arange(len(generated))]
    return (correlation < paired).double().sum(0) / (len(true) - 1)


def correlation(true: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
    """Correlate standardised features [B, D] with their pictures' in [N, D]; [B],
    float64.
    """
    return (true[rows] * generated).sum(1, dtype=torch.float64)


def correlation_distance(true: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
    """Subtract from 1 the correlation of standardised features [B, D] with their
    pictures' in [N, D]; [B].
    """
    return 1 - correlation(true, generated, rows)


def standardise(features: Tensor) -> Tensor:
    """Centre and scale features [N, ...] to [N, D]: their dot products are
    correlations, 0 for constant ones.

    Returns:
        Float64.
    """
    flat = features.detach().flatten(1).double()
    norms = flat.norm(dim=1, keepdim=True)
    if not norms.isfinite().all():
        raise BrainhiveError(
            "features or pictures are not finite", "check the reconstructions for NaN"
        )
    # a picture of one colour has a spread of rounding, which counts as none
    centred = flat - flat.mean(1, keepdim=True)
    spreads = centred.norm(dim=1, keepdim=True)
    return centred / spreads.where(spreads > ROUNDING * norms, torch.inf)


def standardise_pixels(images: Tensor, side_px: int = PIXELS_PX) -> Tensor:
    """Resize pictures [B, 3, H, W] and standardise their pixels; [B, D], float32."""
    return standardise(resize(images, side_px)).float()


def local_moments(
    images: Tensor,
    side_px: int | None = PIXELS_PX,
    axes: tuple[int, ...] = ROWS_AND_COLUMNS,
) -> Tensor:
    """Compute what SSIM needs of pictures alone, at its size.

    Args:
        images: [B, 3, H, W] in 0..1.
        side_px: Size of the comparison; None leaves the pictures as they are.
        axes: What windows extend along.

    Returns:
        [B, 3, H, W]: the grey picture, and the mean and variance in the window around
        each pixel, 0 near the border, where windows leave the picture.
    """
    # grey pictures [B, 1, H, W] at the size of the comparison
    grey = (images.detach().float() * images.new_tensor(GREY).view(3, 1, 1)).sum(
        1, keepdim=True
    )
    if side_px is not None:
        grey = resize(grey, side_px)

    # the moments are written into views of one array
    moments = F.pad(grey, (0, 0, 0, 0, 0, 2))  # [B, 3, H, W]
    mean, variance = _crop_border(moments[:, 1:], axes).unbind(1)
    mean.copy_(_average_windows(moments[:, 0], axes))
    variance.copy_(_average_windows(moments[:, 0].square(), axes) - mean.square())
    return moments


def structural_similarity(
    true: Tensor,
    generated: Tensor,
    rows: Tensor,
    axes: tuple[int, ...] = ROWS_AND_COLUMNS,
) -> Tensor:
    """Compute SSIM [B] by the local moments of pictures [B, 3, H, W] and of true ones,
    among [N, 3, H, W].
    """
    # local means, variances, and means of products, [B, H', W'] where windows are
    # inside
    product = _average_windows(true[rows, 0] * generated[:, 0], axes)
    true_mean, true_variance = _crop_border(true[rows, 1:], axes).unbind(1)
    mean, variance = _crop_border(generated[:, 1:], axes).unbind(1)

    # SSIM of each pixel
    means = true_mean * mean
    similar = (2 * means + STABLE[0]) * (2 * (product - means) + STABLE[1])
    similar /= (true_mean.square() + mean.square() + STABLE[0]) * (
        true_variance + variance + STABLE[1]
    )
    return similar.flatten(1).mean(1, dtype=torch.float64)


def _average_windows(pictures: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Average pictures [B, H, W] over the window around each pixel whose window is
    inside of them.
    """
    # a separable window: weighted shifts along one axis, then along the other
    for axis in axes:
        shifts = [
            pictures.narrow(axis, n, pictures.shape[axis] - 2 * RADIUS_PX)
            for n in range(len(WEIGHTS))
        ]
        pictures = shifts[0] * (WEIGHTS[0] / sum(WEIGHTS))
        for shifted, weight in zip(shifts[1:], WEIGHTS[1:], strict=True):
            pictures.add_(shifted, alpha=weight / sum(WEIGHTS))
    return pictures


def _crop_border(planes: Tensor, axes: tuple[int, ...]) -> Tensor:
    """View the pixels of planes [..., H, W] whose windows are inside of the picture."""
    for axis in axes:
        planes = planes.narrow(axis, RADIUS_PX, planes.shape[axis] - 2 * RADIUS_PX)
    return planes


PARTS = {
    "pixcorr": MetricPart(standardise_pixels, correlation, scale=MetricScale()),
    "ssim": MetricPart(local_moments, structural_similarity, scale=MetricScale()),
}
"""The metrics of pixels, by the name that recipes and tables use."""
