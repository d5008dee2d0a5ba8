"""How similar clips and their reconstructions are, frame by frame and in their motion."""

import importlib.util
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError, MissingExtra
from brainhive_cli.measurement.metrics import MetricPart, Scale
from brainhive_cli.measurement.metrics.image import pixcorr, resize, ssim

FRAME_PX = 256
"""Size at which frames are compared: that of AnimateDiff's clips (arXiv 2307.04725, NEURONS)."""
FLOW_PX = 512
"""Size at which motion is compared, and the unit of its error (Mind-Animator)."""
FARNEBACK = (0.5, 3, 15, 3, 5, 1.2, 0)
"""Pyramid scale, levels, window, iterations, neighbourhood, its sigma, flags (Mind-Animator)."""
COARSE_PX, TINY_SLOPE = 16, 1e-8
"""Side of the frames whose displacement is estimated; what keeps the equations of even ones solvable."""
ROUNDED = 1 / (12 * 255**2)
"""Mean squared error of rounding to bytes: frames that differ by less are equal, at 58.9 dB."""


def frames(clips: Tensor) -> Tensor:
    """Resize the frames of clips [B, F, 3, H, W] to [B, F, 3, 256, 256], in bytes, as files hold them."""
    sized = resize(clips.flatten(0, 1), FRAME_PX).unflatten(0, clips.shape[:2])
    return sized.clamp(0, 1).mul(255).round().byte().cpu()


def over_frames(
    metric: Callable[[Tensor, Tensor], Tensor], seen: Tensor, made: Tensor, own: Tensor
) -> Tensor:
    """Compare the frames of clips [B, F, 3, H, W] with their own clips' in [N, F, 3, H, W]; the mean, [B]."""
    clips = _of_one_length(seen[own], made)
    values = metric(*(each.flatten(0, 1) / 255 for each in (clips, made)))
    return values.unflatten(0, clips.shape[:2]).mean(1)


def psnr(image: Tensor, reconstruction: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of pictures [N, 3, H, W] in 0..1; [N] in dB, float64, 58.9 at most."""
    error = (image.double() - reconstruction.double()).square().flatten(1).mean(1)
    return -10 * error.clamp(min=ROUNDED).log10()


def end_point_error(seen: Tensor, made: Tensor, own: Tensor, side_px: int = FLOW_PX) -> Tensor:
    """Mean distance of the motion of clips to that of their own: the end-point error of optical flow.

    Args:
        seen: Frames of the true clips as bytes, [N, F, 3, H, W].
        made: Those of reconstructions, [B, F, 3, H, W].
        own: The row of each one's own clip, [B].
        side_px: Frames are resized to squares of this side, whose pixels are the unit.

    Returns:
        [B], float64: pixels from one frame to the next, the mean over pixels and pairs of frames.

    Raises:
        MissingExtra: if OpenCV is not installed.
        BrainhiveError: if clips have one frame, or differ in their number.

    Source: Mind-Animator (arXiv 2405.03280), Evaluation_Metrics/EPE.py: Farnebäck's flow by OpenCV.
    """
    if not has_opencv():
        raise no_opencv()
    clips = _of_one_length(seen[own], made)
    if made.shape[1] < 2:
        raise BrainhiveError("clips of one frame have no motion", "leave out epe")
    errors = []
    for true, false in zip(clips.numpy(), made.numpy(), strict=True):
        flows = [_flow(each, side_px) for each in (true, false)]  # [F - 1, H, W, 2]
        errors.append(float(np.linalg.norm(flows[0] - flows[1], axis=-1).mean()))
    return torch.tensor(errors, dtype=torch.float64)


def has_opencv() -> bool:
    """Whether OpenCV is installed, by which motion is measured."""
    return importlib.util.find_spec("cv2") is not None


def no_opencv() -> MissingExtra:
    """Say how to install OpenCV."""
    return MissingExtra("epe needs OpenCV", "pip install 'brainhive[video]'")


def _flow(clip: NDArray[np.uint8], side_px: int) -> NDArray[np.float32]:
    """Compute the optical flow of a clip [F, 3, H, W] from each frame to the next, [F - 1, side, side, 2]."""
    import cv2

    library: Any = cv2
    greys = [
        library.cvtColor(
            library.resize(np.ascontiguousarray(frame.transpose(1, 2, 0)), (side_px, side_px)),
            library.COLOR_RGB2GRAY,
        )
        for frame in clip
    ]
    return np.stack([library.calcOpticalFlowFarneback(*pair, None, *FARNEBACK) for pair in pairwise(greys)])


def _of_one_length(seen: Tensor, made: Tensor) -> Tensor:
    if seen.shape[:2] != made.shape[:2]:
        raise BrainhiveError(
            f"clips of {seen.shape[1]} frames cannot be compared with clips of {made.shape[1]}",
            "bring both to one number of frames",
        )
    return seen


def _of_frames(metric: Callable[..., Tensor], **options: Any) -> MetricPart:
    return MetricPart(frames, partial(over_frames, partial(metric, **options)), "clip")


def displacement(clips: Tensor) -> Tensor:
    """Estimate how the contents of clips [B, F, 3, H, W] are displaced on the whole: x and y, [B, 2].

    The least-squares solution of ∇I · v = −∂I/∂t over all pixels and pairs of frames, at a coarse size; what
    stands still makes it smaller, and does not turn it.

    Source: Lucas and Kanade 1981, with one window.
    """
    small = F.adaptive_avg_pool2d(clips.double().mean(2), COARSE_PX).cpu()  # [B, F, h, w]
    middle = (small[:, 1:] + small[:, :-1]) / 2
    down, right = torch.gradient(middle, dim=(-2, -1))
    slopes = torch.stack([right, down], -1).flatten(1, 3)  # [B, pixels, 2]
    change = -small.diff(dim=1).flatten(1)[..., None]
    square = slopes.transpose(1, 2) @ slopes + TINY_SLOPE * torch.eye(2, dtype=slopes.dtype)
    solution: Tensor = torch.linalg.solve(square, slopes.transpose(1, 2) @ change)[..., 0]
    return solution


def direction(seen: Tensor, made: Tensor, own: Tensor) -> Tensor:
    """Cosine of the displacements [B, 2] of made clips with their own clips' in [N, 2]; 0 if one is none."""
    return F.cosine_similarity(seen[own], made, eps=1e-6)


PARTS = {
    "frame_pixcorr": _of_frames(pixcorr, side_px=FRAME_PX),
    "frame_ssim": _of_frames(ssim, side_px=None),
    "frame_ssim_published": _of_frames(ssim, side_px=None, is_published=True),
    "frame_psnr": _of_frames(psnr),
    "epe": MetricPart(frames, end_point_error, "clip"),
    "motion_direction": MetricPart(displacement, direction, "clip"),
}
"""Metrics without a network, by the name that recipes and tables use."""
SCALES = {
    "frame_pixcorr": Scale(short="PixCorr"),
    "frame_ssim": Scale(short="SSIM"),
    "frame_ssim_published": Scale(short="SSIM pub.", ranks=False),
    "frame_psnr": Scale(0.0, None, short="PSNR"),
    "epe": Scale(0.0, None, lower_is_better=True, short="EPE"),
    "motion_direction": Scale(short="direction"),
}
