"""How similar clips and their reconstructions are, frame by frame."""

from collections.abc import Callable

from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.metrics.image import pixcorr, resize, ssim
from brainhive_cli.metrics.part import MetricPart

FRAME_PX = 256
"""Size at which frames are compared: that of AnimateDiff's clips (arXiv 2307.04725, NEURONS)."""


def frames(clips: Tensor) -> Tensor:
    """Resize the frames of clips [B, F, 3, H, W] to [B, F, 3, 256, 256]."""
    return resize(clips.flatten(0, 1), FRAME_PX).unflatten(0, clips.shape[:2]).cpu()


def frame_pixcorr(clip: Tensor, reconstruction: Tensor) -> Tensor:
    """Correlate the pixels of clips [N, F, 3, H, W], frame by frame; the mean over frames, [N], float64."""
    return _over_frames(pixcorr, clip, reconstruction)


def frame_ssim(clip: Tensor, reconstruction: Tensor) -> Tensor:
    """Structural similarity of the grey frames of clips [N, F, 3, H, W]; the mean over frames, [N]."""
    return _over_frames(ssim, clip, reconstruction)


def _over_frames(metric: Callable[..., Tensor], clip: Tensor, reconstruction: Tensor) -> Tensor:
    if clip.shape[:2] != reconstruction.shape[:2]:
        raise BrainhiveError(
            f"clips of {clip.shape[1]} frames cannot be compared with clips of {reconstruction.shape[1]}",
            "bring both to one number of frames",
        )
    values = metric(clip.flatten(0, 1), reconstruction.flatten(0, 1), FRAME_PX)
    return values.unflatten(0, clip.shape[:2]).mean(1)


PARTS = {
    "frame_pixcorr": MetricPart(frames, lambda seen, made, own: frame_pixcorr(seen[own], made), "clip"),
    "frame_ssim": MetricPart(frames, lambda seen, made, own: frame_ssim(seen[own], made), "clip"),
}
"""By the name that recipes and tables use."""
