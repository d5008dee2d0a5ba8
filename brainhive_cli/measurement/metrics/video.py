"""Similarity of clips and their reconstructions, frame by frame and in their motion."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core.base import BrainhiveError, Float32, UInt8
from brainhive_cli.measurement.metrics import MetricPart, MetricScale
from brainhive_cli.measurement.metrics.image import pixcorr, resize, ssim

FRAME_PX = 256
"""Side of the squares in which frames are compared. AnimateDiff's clips have this size
(arXiv 2307.04725, NEURONS).
"""
FLOW_PX = 512
"""Side of the squares in which motion is compared (Mind-Animator)."""


def frames(clips: Tensor) -> Tensor:
    """Resize the frames of clips and round them to bytes, as in video files.

    Args:
        clips: Clips [B, F, 3, H, W] with values in 0..1.

    Returns:
        Clips [B, F, 3, 256, 256] of bytes.
    """
    pictures = resize(clips.flatten(0, 1), FRAME_PX)
    resized = pictures.unflatten(0, clips.shape[:2])
    return resized.clamp(0, 1).mul(255).round().byte()


def average_over_frames(
    metric: Callable[..., Tensor],
    stimuli: Tensor,
    generated: Tensor,
    rows: Tensor,
    **options: Any,
) -> Tensor:
    """Average a metric of pictures over the frames of each clip.

    Args:
        metric: Function that computes values [n] of pictures [n, 3, H, W] and
            reconstructions [n, 3, H, W] with values in 0..1.
        stimuli: Bytes [N, F, 3, H, W] of the seen clips.
        generated: Bytes [B, F, 3, H, W] of the reconstructions.
        rows: Row [B] in `stimuli` of each reconstruction's clip.
        options: Further arguments of the metric.

    Returns:
        Means [B] over frames.
    """
    seen_clips = stimuli[rows]
    seen_frames = seen_clips.flatten(0, 1) / 255  # [B · F, 3, H, W]
    generated_frames = generated.flatten(0, 1) / 255
    values = metric(seen_frames, generated_frames, **options)
    return values.unflatten(0, seen_clips.shape[:2]).mean(1)


def psnr(image: Tensor, reconstruction: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio of reconstructions.

    Args:
        image: Pictures [N, 3, H, W] with values in 0..1.
        reconstruction: Reconstructions [N, 3, H, W] with values in 0..1.

    Returns:
        Ratios [N] in dB, at most 58.9.
    """
    # the lower limit of the error keeps the ratio of equal pictures finite
    error = (image.double() - reconstruction.double()).square().flatten(1).mean(1)
    # Mean squared error of rounding to bytes, which gives a ratio of 58.9 dB.
    rounding_error = 1 / (12 * 255**2)
    return -10 * error.clamp(min=rounding_error).log10()


def end_point_error(
    stimuli: Tensor, generated: Tensor, rows: Tensor, side_px: int = FLOW_PX
) -> Tensor:
    """Compute the distance between the optical flows of stimuli and reconstructions.

    Args:
        stimuli: Bytes [N, F, 3, H, W] of the seen clips.
        generated: Bytes [B, F, 3, H, W] of the reconstructions.
        rows: Row [B] in `stimuli` of each reconstruction's clip.
        side_px: Side of the squares to which frames are resized.

    Returns:
        Mean errors [B] over pixels and frame pairs, in pixels of the resized frames.

    Raises:
        BrainhiveError: if the clips have only one frame.

    Source: Mind-Animator (arXiv 2405.03280), Evaluation_Metrics/EPE.py.
    """
    if generated.shape[1] < 2:
        raise BrainhiveError("clips of one frame have no motion", "leave out epe")

    errors = []
    clips = zip(stimuli[rows].cpu().numpy(), generated.cpu().numpy(), strict=True)
    for seen_clip, generated_clip in clips:
        seen_flow = _compute_flow(seen_clip, side_px)
        generated_flow = _compute_flow(generated_clip, side_px)
        distances = np.linalg.norm(seen_flow - generated_flow, axis=-1)
        errors.append(float(distances.mean()))
    return torch.tensor(errors, dtype=torch.float64)


def _compute_flow(clip: UInt8, side_px: int) -> Float32:
    """Compute the optical flow from each frame of a clip [F, 3, H, W] to the next.

    Returns:
        Motion [F - 1, side_px, side_px, 2] of each pixel of the resized frames.
    """
    import cv2

    # resize the frames [H, W, 3] and make them grey
    library: Any = cv2  # the types of cv2 are incomplete
    grey_frames = []
    for frame in clip:
        picture = np.ascontiguousarray(frame.transpose(1, 2, 0))
        resized = library.resize(picture, (side_px, side_px))
        grey_frames.append(library.cvtColor(resized, library.COLOR_RGB2GRAY))

    flows = []
    # Options of Farnebäck's optical flow in OpenCV (Mind-Animator).
    farneback_options = {
        "pyr_scale": 0.5,
        "levels": 3,
        "winsize": 15,
        "iterations": 3,
        "poly_n": 5,
        "poly_sigma": 1.2,
        "flags": 0,
    }
    for frame, next_frame in pairwise(grey_frames):
        flow = library.calcOpticalFlowFarneback(
            prev=frame, next=next_frame, flow=None, **farneback_options
        )
        flows.append(flow)
    return np.stack(flows)


def displacement(clips: Tensor) -> Tensor:
    """Estimate the mean motion of the contents of clips.

    The displacement v is the least-squares solution of ∇I · v = −∂I/∂t over all pixels
    and pairs of successive frames, for brightness I. A still background shortens v
    without turning it.

    Args:
        clips: Clips [B, F, 3, H, W].

    Returns:
        Displacements [B, 2] along x and y from a frame to the next, in pixels of frames
        that are reduced to 16.

    Source: Lucas and Kanade 1981, with a single window.
    """
    # Side of the squares in which the displacement of a clip is estimated.
    coarse_px = 16
    # slopes ∇I of the mean of two successive frames, and the change −∂I/∂t
    small = F.adaptive_avg_pool2d(clips.double().mean(2), coarse_px)  # [B, F, h, w]
    middle = (small[:, 1:] + small[:, :-1]) / 2
    slope_y, slope_x = torch.gradient(middle, dim=(-2, -1))
    slopes = torch.stack([slope_x, slope_y], -1).flatten(1, 3)  # [B, pixels, 2]
    change = -small.diff(dim=1).flatten(1)[..., None]  # [B, pixels, 1]

    # solve the normal equations of least squares
    transposed = slopes.transpose(1, 2)
    # Number added to squares of slopes, so that frames of one colour have a solution.
    squares = transposed @ slopes + 1e-8 * torch.eye(2).to(slopes)
    return torch.linalg.solve(squares, transposed @ change)[..., 0]


def direction(stimuli: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
    """Compute the cosine of the angle between displacements of clips.

    Args:
        stimuli: Displacements [N, 2] of the seen clips.
        generated: Displacements [B, 2] of the reconstructions.
        rows: Row [B] in `stimuli` of each reconstruction's clip.

    Returns:
        Cosines [B]. 0 if a displacement is 0.
    """
    return F.cosine_similarity(stimuli[rows], generated, eps=1e-6)


def n_way(
    stimuli: Tensor, generated: Tensor, rows: Tensor, *, n_ways: int, n_labels: int
) -> Tensor:
    """Score reconstructions by n-way classification.

    A trial is a hit if the reconstruction has a larger logit for one of the right
    classes than for `n_ways` - 1 random wrong classes.

    Args:
        stimuli: Logits [N, K] of a classifier for the stimuli.
        generated: Logits [B, K] of the same classifier for the reconstructions.
        rows: Row [B] in `stimuli` of each reconstruction's stimulus.
        n_ways: Number of random classes in a trial, plus 1 for the right classes.
        n_labels: Number of right classes: the largest logits of the stimulus.

    Returns:
        Expected share [B] of hits.

    Source: MinD-Video (arXiv 2305.11675), whose code draws 100 trials instead.
    """
    n_right = min(n_labels, stimuli.shape[1])
    right_classes = stimuli[rows].topk(n_right, dim=1).indices  # [B, L]
    return expected_hits(generated, right_classes, n_ways)


def expected_hits(scores: Tensor, right_classes: Tensor, n_ways: int) -> Tensor:
    """Compute the expected share of hits in n-way classification.

    A trial draws k = `n_ways` - 1 of W wrong classes. It is a hit if all of them score
    lower than the best right class. If m wrong classes have lower scores, the expected
    share is C(m, k) / C(W, k).

    Args:
        scores: Scores [B, K] of K classes for B reconstructions.
        right_classes: Numbers [B, L] of the right classes of each reconstruction.
        n_ways: Number of random wrong classes in a trial, plus 1.

    Returns:
        Expected share [B] of hits.
    """
    n_wrong = scores.shape[1] - right_classes.shape[1]
    best = scores.gather(1, right_classes).amax(1, keepdim=True)
    is_below = (scores < best).scatter(1, right_classes, False)
    n_below = is_below.sum(1).double()

    # C(m, k) / C(W, k) is the product of (m - n) / (W - n) for n = 0 … k - 1
    n_drawn = torch.arange(n_ways - 1, dtype=torch.float64, device=scores.device)
    factors = (n_below[:, None] - n_drawn).clamp(min=0) / (n_wrong - n_drawn)
    return factors.prod(1)


def n_way_of_frames(
    stimuli: Tensor, generated: Tensor, rows: Tensor, *, n_ways: int, n_labels: int
) -> Tensor:
    """Average n-way classification over the frames of clips.

    Args:
        stimuli: Logits [N, F, K] of a picture classifier for the seen clips.
        generated: Logits [B, F, K] of the same classifier for the reconstructions.
        rows: Row [B] in `stimuli` of each reconstruction's clip.
        n_ways: Number of random classes in a trial, plus 1 for the right classes.
        n_labels: Number of right classes of a frame.

    Returns:
        Expected share [B] of hits, averaged over frames.
    """
    # frame f of clip n is row n * F + f of the flattened logits
    n_frames = generated.shape[1]
    frame_rows = rows[:, None] * n_frames + torch.arange(n_frames)
    shares = n_way(
        stimuli.flatten(0, 1),
        generated.flatten(0, 1),
        frame_rows.flatten(),
        n_ways=n_ways,
        n_labels=n_labels,
    )
    return shares.unflatten(0, (-1, n_frames)).mean(1)


def n_way_chance(n_ways: int, n_labels: int) -> float:
    """Compute the expected share of hits in n-way classification of random scores.

    Args:
        n_ways: Number of random wrong classes in a trial, plus 1.
        n_labels: Number of right classes.
    """
    return n_labels / (n_labels + n_ways - 1)


def consistency(
    stimuli: Tensor, generated: Tensor, rows: Tensor, neighbours_only: bool = False
) -> Tensor:
    """Average the cosine similarity between the frames of each clip (CLIP-pcc).

    Args:
        stimuli: Not used.
        generated: Features [B, F, D] of the reconstructions, of unit length.
        rows: Not used.
        neighbours_only: True for successive frames (Mind-Animator), False for all pairs
            of frames (NEURONS).

    Returns:
        Mean cosines [B]. 1 for clips with one frame.
    """
    n_frames = generated.shape[1]
    if n_frames < 2:
        return torch.ones(len(generated), dtype=torch.float64)
    features = generated.double()
    cosines = features @ features.transpose(1, 2)  # [B, F, F]
    if neighbours_only:
        return cosines.diagonal(1, 1, 2).mean(1)
    first, second = torch.triu_indices(n_frames, n_frames, 1)
    return cosines[:, first, second].mean(1)


def frame_similarity(stimuli: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
    """Average the cosine between frames of a reconstruction and of its stimulus.

    Args:
        stimuli: Features [N, F, D] of the seen clips, of unit length.
        generated: Features [B, F, D] of the reconstructions, of unit length.
        rows: Row [B] in `stimuli` of each reconstruction's clip.

    Returns:
        Mean cosines [B] over frames.
    """
    return (stimuli[rows].double() * generated.double()).sum(-1).mean(1)


PARTS = {
    "frame_pixcorr": MetricPart(
        frames,
        partial(average_over_frames, pixcorr, side_px=FRAME_PX),
        "clip",
        MetricScale(),
    ),
    "frame_ssim": MetricPart(
        frames, partial(average_over_frames, ssim, side_px=None), "clip", MetricScale()
    ),
    "frame_ssim_published": MetricPart(
        frames,
        partial(average_over_frames, ssim, side_px=None, is_published=True),
        "clip",
        MetricScale(sorts_items=False),
    ),
    "frame_psnr": MetricPart(
        frames, partial(average_over_frames, psnr), "clip", MetricScale(0.0, None)
    ),
    "epe": MetricPart(frames, end_point_error, "clip", MetricScale(0.0, None)),
    "motion_direction": MetricPart(displacement, direction, "clip", MetricScale()),
}
"""Metrics of clips without a network, keyed by their name in recipes and tables."""
