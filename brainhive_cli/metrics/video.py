"""How similar clips and their reconstructions are, frame by frame."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.metrics.image import pixcorr, resize, ssim
from brainhive_cli.metrics.part import MetricPart

FRAME_PX = 256
"""Size at which frames are compared: that of AnimateDiff's clips (arXiv 2307.04725, NEURONS)."""


def frames(clips: Tensor) -> Tensor:
    """Resize the frames of clips [B, F, 3, H, W] to [B, F, 3, 256, 256]."""
    return resize(clips.flatten(0, 1), FRAME_PX).unflatten(0, clips.shape[:2]).cpu()


def over_frames(
    metric: Callable[[Tensor, Tensor, int], Tensor], seen: Tensor, made: Tensor, own: Tensor
) -> Tensor:
    """Compare the frames of clips [B, F, 3, H, W] with their own clips' in [N, F, 3, H, W]; the mean, [B]."""
    clips = seen[own]
    if clips.shape[:2] != made.shape[:2]:
        raise BrainhiveError(
            f"clips of {clips.shape[1]} frames cannot be compared with clips of {made.shape[1]}",
            "bring both to one number of frames",
        )
    values = metric(clips.flatten(0, 1), made.flatten(0, 1), FRAME_PX)
    return values.unflatten(0, clips.shape[:2]).mean(1)


PARTS = {
    "frame_pixcorr": MetricPart(frames, partial(over_frames, pixcorr), "clip"),
    "frame_ssim": MetricPart(frames, partial(over_frames, ssim), "clip"),
}
"""By the name that recipes and tables use."""
