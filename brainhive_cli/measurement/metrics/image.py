"""Similarity of pictures and their reconstructions, by pixels or by features."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.measurement.metrics import MetricPart, MetricScale

PIXELS_PX = 425
"""Side of the square in which pixels are compared. NSD's stimuli have it (MindEye2)."""
CROP_PX = 512
"""Side of the square that the protocol `brainhive` crops."""
RADIUS_PX = 5
"""Radius of SSIM's windows, without the central pixel (Wang et al. 2004)."""
WEIGHTS = [
    # Standard deviation of the Gaussian in SSIM's windows (Wang et al. 2004).
    math.exp(-0.5 * (offset / 1.5) ** 2)
    for offset in range(-RADIUS_PX, RADIUS_PX + 1)
]
"""Gaussian of a window along one axis, not scaled to the sum 1."""
C1, C2 = 0.01**2, 0.03**2
"""Constants that keep SSIM finite if a window has a single colour."""
ROWS_AND_COLUMNS = (-2, -1)
"""Axes of two-dimensional windows."""


def prepare(
    images: Tensor, protocol: str = "mindeye2", crop_px: int = CROP_PX
) -> Tensor:
    """Resize pictures to the size in which an evaluation protocol compares them.

    Args:
        images: Pictures [N, 3, H, W] with values in 0..1.
        protocol: Name of the evaluation protocol:

            - `mindeye2` resizes to squares of 256.
            - `brainhive` resizes the short side to `crop_px`, and crops the centre.
        crop_px: Side of the square that `brainhive` crops.

    Returns:
        Pictures [N, 3, H', H'] with the side of the protocol.

    Source: Evaluation code of MindEye2 (arXiv 2403.11207) and BrainHiVE (arXiv
    2602.07495).
    """
    if protocol == "mindeye2":
        # Side of the square to which the protocol `mindeye2` resizes pictures.
        common_px = 256
        return resize(images, common_px)

    from torchvision.transforms.v2 import functional as TF

    resized = TF.resize(images.float(), [crop_px], antialias=True)
    return TF.center_crop(resized, [crop_px])  # type: ignore[no-any-return]


def resize(images: Tensor, side_px: int) -> Tensor:
    """Resize images to squares, by bilinear interpolation with antialiasing.

    Args:
        images: Images [N, C, H, W].
        side_px: Side of the squares.

    Returns:
        Images [N, C, side_px, side_px] in float32.
    """
    if images.shape[-2:] == (side_px, side_px):
        return images.float()
    return F.interpolate(
        images.float(), (side_px, side_px), mode="bilinear", antialias=True
    )


def pixcorr(image: Tensor, reconstruction: Tensor, side_px: int = PIXELS_PX) -> Tensor:
    """Correlate the pixels of pictures with the pixels of their reconstructions.

    Args:
        image: Pictures [N, 3, H, W] that were seen, with values in 0..1.
        reconstruction: Reconstructions [N, 3, H', W'] with values in 0..1.
        side_px: Side of the squares to which both are resized.

    Returns:
        Pearson correlations [N]. 0 if a picture has a single colour.
    """
    seen_pixels = standardise_pixels(image, side_px)
    generated_pixels = standardise_pixels(reconstruction, side_px)
    rows = torch.arange(len(seen_pixels))
    return correlation(seen_pixels, generated_pixels, rows)


def ssim(
    image: Tensor,
    reconstruction: Tensor,
    side_px: int | None = PIXELS_PX,
    is_published: bool = False,
) -> Tensor:
    """Compute the structural similarity (SSIM) of pictures in grey.

    Args:
        image: Pictures [N, 3, H, W] that were seen, with values in 0..1.
        reconstruction: Reconstructions [N, 3, H', W'] with values in 0..1.
        side_px: Side of the squares to which both are resized. None keeps their sizes.
        is_published: True for windows along the axis -2 only. The code of NeuroClips
            and NEURONS takes columns of grey pictures for channels.

    Returns:
        SSIM [N].

    Source: Wang et al. 2004. The Gaussian weights are as in scikit-image.
    """
    # Axis of one-dimensional windows.
    axes = (-2,) if is_published else ROWS_AND_COLUMNS
    seen_moments = local_moments(image, side_px, axes)
    generated_moments = local_moments(reconstruction, side_px, axes)
    rows = torch.arange(len(seen_moments))
    return structural_similarity(seen_moments, generated_moments, rows, axes)


def two_way_identification(stimuli: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
    """Compute how often a reconstruction is identified among two pictures.

    The reconstruction must correlate more with the right picture, which it
    reconstructs, than with another picture. Each of the N - 1 others is tried.

    Args:
        stimuli: Standardised features [N, D] of N pictures, at least two.
        generated: Standardised features [B, D] of reconstructions.
        rows: Row [B] in `stimuli` of each reconstruction's right picture.

    Returns:
        Share [B] of identifications. Chance is 0.5, and ties are misses.
    """
    correlations = stimuli @ generated.T  # [N, B]
    paired_correlations = correlations[rows, torch.arange(len(generated))]
    n_lower = (correlations < paired_correlations).double().sum(0)
    return n_lower / (len(stimuli) - 1)


def correlation(stimuli: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
    """Correlate the features of reconstructions with the features of their pictures.

    Args:
        stimuli: Standardised features [N, D] of the pictures.
        generated: Standardised features [B, D] of the reconstructions.
        rows: Row [B] in `stimuli` of each reconstruction's picture.

    Returns:
        Correlations [B].
    """
    return (stimuli[rows] * generated).sum(1, dtype=torch.float64)


def correlation_distance(stimuli: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
    """Compute 1 - `correlation` [B], from the same arguments."""
    return 1 - correlation(stimuli, generated, rows)


def standardise(features: Tensor) -> Tensor:
    """Centre the features of each item and scale them to unit length.

    Args:
        features: Features [N, ...] of N items.

    Returns:
        Standardised features [N, D] in float64. A row is 0 if all features are equal,
        except for rounding errors.

    Raises:
        BrainhiveError: if a feature is not finite.
    """
    flat = features.detach().flatten(1).double()
    norms = flat.norm(dim=1, keepdim=True)
    if not norms.isfinite().all():
        raise BrainhiveError(
            "features or pictures are not finite", "check the reconstructions for NaN"
        )

    # features that vary only by rounding errors become 0, as in a white picture
    centred = flat - flat.mean(1, keepdim=True)
    spreads = centred.norm(dim=1, keepdim=True)
    # Largest rounding error of resizing in float32, as a share of the colours.
    # White becomes up to 1.0000005, so a white picture gets a standard deviation
    # of that order.
    is_constant = spreads <= 1e-6 * norms
    return (centred / spreads).masked_fill_(is_constant, 0)


def standardise_pixels(images: Tensor, side_px: int = PIXELS_PX) -> Tensor:
    """Resize pictures and standardise their pixels.

    Args:
        images: Pictures [B, 3, H, W] with values in 0..1.
        side_px: Side of the squares to which pictures are resized.

    Returns:
        Standardised pixels [B, D] in float32.
    """
    return standardise(resize(images, side_px)).float()


def local_moments(
    images: Tensor,
    side_px: int | None = PIXELS_PX,
    axes: tuple[int, ...] = ROWS_AND_COLUMNS,
) -> Tensor:
    """Compute the local means and variances that SSIM compares.

    Args:
        images: Pictures [B, 3, H, W] with values in 0..1.
        side_px: Side of the squares to which pictures are resized. None keeps their
            size.
        axes: Axes along which the Gaussian windows extend.

    Returns:
        Array [B, 3, H', W']: the grey picture, and the weighted mean and variance in
        the window around each pixel. They are 0 if the window would leave the picture.
    """
    # Weights of red, green and blue in grey pictures: ITU-R BT.709, as in scikit-image.
    weights = images.new_tensor((0.2125, 0.7154, 0.0721)).view(3, 1, 1)
    grey = (images.detach().float() * weights).sum(1, keepdim=True)
    if side_px is not None:
        grey = resize(grey, side_px)

    # add two planes of zeros, and fill them except for the border
    moments = F.pad(grey, (0, 0, 0, 0, 0, 2))  # [B, 3, H, W]
    mean = _average_windows(moments[:, 0], axes)
    inside = _crop_border(moments[:, 1:], axes)
    inside[:, 0] = mean
    inside[:, 1] = _average_windows(moments[:, 0].square(), axes) - mean.square()
    return moments


def structural_similarity(
    stimuli: Tensor,
    generated: Tensor,
    rows: Tensor,
    axes: tuple[int, ...] = ROWS_AND_COLUMNS,
) -> Tensor:
    """Compute SSIM from the local moments of pictures and reconstructions.

    Args:
        stimuli: Results [N, 3, H, W] of `local_moments` for the pictures.
        generated: Results [B, 3, H, W] of `local_moments` for the reconstructions.
        rows: Row [B] in `stimuli` of each reconstruction's picture.
        axes: Axes along which windows extended in `local_moments`.

    Returns:
        SSIM [B], averaged over pixels whose windows lie inside the picture.
    """
    # local means and variances [B, H', W'], without the border
    mean_product = _average_windows(stimuli[rows, 0] * generated[:, 0], axes)
    seen_mean, seen_variance = _crop_border(stimuli[rows, 1:], axes).unbind(1)
    mean, variance = _crop_border(generated[:, 1:], axes).unbind(1)

    # SSIM of each pixel
    product_of_means = seen_mean * mean
    covariance = mean_product - product_of_means
    similarity = (2 * product_of_means + C1) * (2 * covariance + C2)
    squares = seen_mean.square() + mean.square() + C1
    similarity /= squares * (seen_variance + variance + C2)
    return similarity.flatten(1).mean(1, dtype=torch.float64)


def _average_windows(pictures: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Average pictures [B, H, W] over Gaussian windows along `axes`.

    Returns:
        Weighted averages [B, H', W'] for the pixels whose windows lie inside the
        picture.
    """
    # a Gaussian window is separable, so average along each axis in turn
    total_weight = sum(WEIGHTS)
    for axis in axes:
        length = pictures.shape[axis] - 2 * RADIUS_PX
        averages = pictures.narrow(axis, 0, length) * (WEIGHTS[0] / total_weight)
        for offset, weight in enumerate(WEIGHTS[1:], 1):
            shifted = pictures.narrow(axis, offset, length)
            averages.add_(shifted, alpha=weight / total_weight)
        pictures = averages
    return pictures


def _crop_border(planes: Tensor, axes: tuple[int, ...]) -> Tensor:
    """View the pixels of planes [..., H, W] whose windows are inside the picture."""
    for axis in axes:
        planes = planes.narrow(axis, RADIUS_PX, planes.shape[axis] - 2 * RADIUS_PX)
    return planes


PARTS = {
    "pixcorr": MetricPart(standardise_pixels, correlation, scale=MetricScale()),
    "ssim": MetricPart(local_moments, structural_similarity, scale=MetricScale()),
}
"""Metrics of pixels, keyed by their name in recipes and tables."""
