"""Similarity of clips and their reconstructions, frame by frame and in their motion."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core.arrays import Float32, UInt8
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.measurement.metrics import MetricPart, MetricScale
from brainhive_cli.measurement.metrics.image import pixcorr, resize, ssim

FRAME_PX = 256
"""Size at which frames are compared: that of AnimateDiff's clips (arXiv 2307.04725,
NEURONS).
"""
FLOW_PX = 512
"""Size at which motion is compared, and the unit of its error (Mind-Animator)."""
FARNEBACK = (0.5, 3, 15, 3, 5, 1.2, 0)
"""Pyramid scale, levels, window, iterations, neighbourhood, its sigma, flags
(Mind-Animator).
"""
COARSE_PX, TINY_SLOPE = 16, 1e-8
"""Side of the frames whose displacement is estimated; what keeps the equations of even
ones solvable.
"""
ROUNDING_ERROR = 1 / (12 * 255**2)
"""Mean squared error of rounding to bytes: frames that differ by less are equal, at
58.9 dB.
"""


def frames(clips: Tensor) -> Tensor:
    """Resize the frames of clips [B, F, 3, H, W] to [B, F, 3, 256, 256], in bytes, as
    files hold them.
    """
    sized = resize(clips.flatten(0, 1), FRAME_PX).unflatten(0, clips.shape[:2])
    return sized.clamp(0, 1).mul(255).round().byte()


def over_frames(
    metric: Callable[..., Tensor],
    seen: Tensor,
    generated: Tensor,
    rows: Tensor,
    **options: Any,
) -> Tensor:
    """Compare the frames of clips [B, F, 3, H, W] with their own clips' in [N, F, 3, H,
    W]; the mean, [B].
    """
    # frames are pictures, whose values are averaged over the clip: [B, F]
    clips = seen[rows]
    # [B · F]
    values = metric(
        *(media.flatten(0, 1) / 255 for media in (clips, generated)), **options
    )
    return values.unflatten(0, clips.shape[:2]).mean(1)


def psnr(image: Tensor, reconstruction: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio of pictures [N, 3, H, W] in 0..1: [N] in
    dB, 58.9 at most.
    """
    # equal frames have an error of 0, and no finite ratio
    error = (image.double() - reconstruction.double()).square().flatten(1).mean(1)
    return -10 * error.clamp(min=ROUNDING_ERROR).log10()


def end_point_error(
    seen: Tensor, generated: Tensor, rows: Tensor, side_px: int = FLOW_PX
) -> Tensor:
    """Average the distance of the motion of clips to that of their own: the end-point
    error of optical flow.

    Args:
        seen: Frames of the true clips as bytes, [N, F, 3, H, W].
        generated: Those of reconstructions, [B, F, 3, H, W].
        rows: The row of each one's clip in `seen`, [B].
        side_px: Frames are resized to squares of this side, whose pixels are the unit.

    Returns:
        [B], float64: pixels from one frame to the next, the mean over pixels and pairs
        of frames.

    Raises:
        BrainhiveError: if clips have one frame.

    Source: Mind-Animator (arXiv 2405.03280), Evaluation_Metrics/EPE.py: Farnebäck's
    flow by OpenCV.
    """
    if generated.shape[1] < 2:
        raise BrainhiveError("clips of one frame have no motion", "leave out epe")

    # mean over pixels and pairs of frames, clip by clip
    errors = []
    for true, false in zip(
        seen[rows].cpu().numpy(), generated.cpu().numpy(), strict=True
    ):
        flows = [_flow(clip, side_px) for clip in (true, false)]  # [F - 1, H, W, 2]
        errors.append(float(np.linalg.norm(flows[0] - flows[1], axis=-1).mean()))
    return torch.tensor(errors, dtype=torch.float64)


def _flow(clip: UInt8, side_px: int) -> Float32:
    """Compute the optical flow of a clip [F, 3, H, W] from each frame to the next, [F -
    1, side, side, 2].
    """
    import cv2

    library: Any = cv2
    # grey frames in the size of the comparison
    greys = [
        library.cvtColor(
            library.resize(
                np.ascontiguousarray(frame.transpose(1, 2, 0)), (side_px, side_px)
            ),
            library.COLOR_RGB2GRAY,
        )
        for frame in clip
    ]
    return np.stack(
        [
            library.calcOpticalFlowFarneback(*pair, None, *FARNEBACK)
            for pair in pairwise(greys)
        ]
    )


def displacement(clips: Tensor) -> Tensor:
    """Estimate how the contents of clips [B, F, 3, H, W] are displaced on the whole: x
    and y, [B, 2].

    The least-squares solution of ∇I · v = −∂I/∂t over all pixels and pairs of frames,
    at a coarse size; what stands still makes it smaller, and does not turn it.

    Source: Lucas and Kanade 1981, with one window.
    """
    # slopes of the mean of two frames, and the change from one to the other
    small = F.adaptive_avg_pool2d(clips.double().mean(2), COARSE_PX)  # [B, F, h, w]
    middle = (small[:, 1:] + small[:, :-1]) / 2
    slope_y, slope_x = torch.gradient(middle, dim=(-2, -1))
    slopes = torch.stack([slope_x, slope_y], -1).flatten(1, 3)  # [B, pixels, 2]
    change = -small.diff(dim=1).flatten(1)[..., None]

    # normal equations of least squares
    square = slopes.transpose(1, 2) @ slopes + TINY_SLOPE * torch.eye(2).to(slopes)
    return torch.linalg.solve(square, slopes.transpose(1, 2) @ change)[..., 0]


def direction(seen: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
    """Compute the cosine of displacements [B, 2] with those of their own clips in [N,
    2]; 0 if one is 0.
    """
    return F.cosine_similarity(seen[rows], generated, eps=1e-6)


def n_way(
    seen: Tensor, generated: Tensor, rows: Tensor, *, ways: int, labels: int
) -> Tensor:
    """Score reconstructions by a classifier: the expected share of trials in which a
    right class wins.

    A trial draws `ways` - 1 other classes. It is a hit if any right class, of the
    `labels` that the classifier finds likeliest in the stimulus, scores above all of
    them in the reconstruction; ties are misses. Of the m other classes below the best
    right one, C(m, ways - 1) of all draws hit, so nothing has to be drawn.

    Args:
        seen: A classifier's logits of the N stimuli, [N, K].
        generated: The same of reconstructions, [B, K].
        rows: The row of each one's stimulus in `seen`, [B].
        ways: Classes of a trial, where one is right.
        labels: Right classes of a stimulus: 3 in the field's definition, 1 in the
            strict one.

    Returns:
        [B], float64. Chance is labels / (labels + ways - 1).

    Source: MinD-Video (arXiv 2305.11675), its evaluation code, which NEURONS and
    NeuroClips use; it draws 100 trials.
    """
    true_classes = seen[rows].topk(min(labels, seen.shape[1]), dim=1).indices  # [B, L]
    return expected_hits(generated, true_classes, ways)


def expected_hits(scores: Tensor, true_classes: Tensor, ways: int) -> Tensor:
    """Compute the share of all draws of `ways` - 1 other classes that the best right
    class beats.

    Args:
        scores: [B, K].
        true_classes: Right classes, [B, L].
        ways: Classes of a trial, where one is right.

    Returns:
        [B], float64.
    """
    # C(m, ways - 1) of C(wrong, ways - 1) draws, as a product
    wrong = scores.shape[1] - true_classes.shape[1]
    best = scores.gather(1, true_classes).amax(1, keepdim=True)
    below = (scores < best).scatter(1, true_classes, False).sum(1).double()  # m
    drawn = torch.arange(ways - 1, dtype=torch.float64, device=scores.device)
    return ((below[:, None] - drawn).clamp(min=0) / (wrong - drawn)).prod(1)


def n_way_of_frames(
    seen: Tensor, generated: Tensor, rows: Tensor, *, ways: int, labels: int
) -> Tensor:
    """Score clips by a classifier of pictures, [N, F, K] and [B, F, K], frame by frame;
    the mean, [B].
    """
    # logits of clips as rows of frames: row of the clip times F, plus frame
    frames = generated.shape[1]
    frame_rows = (rows[:, None] * frames + torch.arange(frames)).flatten()
    shares = n_way(
        seen.flatten(0, 1),
        generated.flatten(0, 1),
        frame_rows,
        ways=ways,
        labels=labels,
    )
    return shares.unflatten(0, (-1, frames)).mean(1)


def n_way_chance(ways: int, labels: int) -> float:
    """Compute the value of random scores: the best of all labels + ways - 1 classes is
    a right one.
    """
    return labels / (labels + ways - 1)


def consistency(
    seen: Tensor, generated: Tensor, rows: Tensor, is_of_neighbours: bool = False
) -> Tensor:
    """Average the cosine of the frames of clips with each other: CLIP-pcc.

    Nothing is compared with the stimulus, and a still picture has the highest value, 1.

    Args:
        seen: Not used.
        generated: Features of unit length, [B, F, D].
        rows: Not used.
        is_of_neighbours: Whether pairs are one frame apart (Mind-Animator), or all
            (NEURONS).

    Returns:
        [B], float64; 1 for clips of one frame.
    """
    # pairs of frames, all or neighbouring ones
    count = generated.shape[1]
    if count < 2:
        return torch.ones(len(generated), dtype=torch.float64)
    cosines = generated.double() @ generated.double().transpose(1, 2)  # [B, F, F]
    if is_of_neighbours:
        return cosines.diagonal(1, 1, 2).mean(1)
    first, second = torch.triu_indices(count, count, 1)
    return cosines[:, first, second].mean(1)


def frame_similarity(seen: Tensor, generated: Tensor, rows: Tensor) -> Tensor:
    """Average the cosine of frames [B, F, D] with those of their own clips in [N, F,
    D]; [B].
    """
    return (seen[rows].double() * generated.double()).sum(-1).mean(1)


PARTS = {
    "frame_pixcorr": MetricPart(
        frames, partial(over_frames, pixcorr, side_px=FRAME_PX), "clip", MetricScale()
    ),
    "frame_ssim": MetricPart(
        frames, partial(over_frames, ssim, side_px=None), "clip", MetricScale()
    ),
    "frame_ssim_published": MetricPart(
        frames,
        partial(over_frames, ssim, side_px=None, is_published=True),
        "clip",
        MetricScale(ranks=False),
    ),
    "frame_psnr": MetricPart(
        frames, partial(over_frames, psnr), "clip", MetricScale(0.0, None)
    ),
    "epe": MetricPart(frames, end_point_error, "clip", MetricScale(0.0, None)),
    "motion_direction": MetricPart(displacement, direction, "clip", MetricScale()),
}
"""Metrics without a network, by the name that recipes and tables use."""
