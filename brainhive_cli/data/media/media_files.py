"""Media in files: ours, a picture as PNG and a clip as an animated PNG without loss, and those of others."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from brainhive_cli.data.datasets import Clip, decode
from brainhive_cli.data.media.clip_files import (
    VIDEOS,
    is_animated,
    read_animation,
    read_frames_of,
    read_video,
)
from brainhive_cli.measurement.metrics.part import Medium

Pixels = NDArray[np.uint8]
RATE_HZ = 8.0
"""Of a clip whose own rate nothing says: how fast browsers show it."""
FAST = 1
"""PNG compression: of photographs higher levels save a few percent, and take several times as long."""


def to_bytes(media: Tensor) -> Pixels:
    """Round media [B, 3, H, W] or [B, F, 3, H, W] in 0..1 to bytes, channels last, on the CPU."""
    return media.mul(255).round().byte().movedim(-3, -1).cpu().numpy()


def save(pixels: Pixels, path: Path, rate_hz: float | None = None) -> None:
    """Write one picture [H, W, 3] or clip [F, H, W, 3]; of a clip the frames a second."""
    if pixels.ndim == 3:
        Image.fromarray(pixels).save(path, compress_level=FAST)
        return
    first, *others = map(Image.fromarray, pixels)
    blend = [place % 2 for place in range(len(pixels))]  # PIL would merge equal frames of one blend mode
    shown_ms = 1000 / (rate_hz or RATE_HZ)
    first.save(path, save_all=True, append_images=others, duration=shown_ms, blend=blend, compress_level=FAST)


def read(path: Path) -> Image.Image | Clip:
    """Read a picture, a video, an animated picture or a folder of frames.

    Raises:
        BadPicture: naming the file, if it cannot be decoded.
        MissingExtra: if it is a video and PyAV is not installed.
        BrainhiveError: if frames differ in size, or in how long they are shown.
    """
    if path.is_dir():
        return read_frames_of(path)
    if path.suffix.lower() in VIDEOS:
        return read_video(path)
    picture = decode(str(path), path)
    return read_animation(path) if is_animated(path) else picture


def to_media(opened: Image.Image | Clip) -> Tensor:
    """Turn a picture into [3, H, W], a clip into [F, 3, H, W]; float32 in 0..1."""
    if isinstance(opened, Image.Image):
        return pil_to_tensor(opened) / 255
    return torch.from_numpy(opened.frames).permute(0, 3, 1, 2) / 255


def to_clip(opened: Image.Image | Clip) -> Clip:
    """Take a picture for a clip of one frame; a clip is given as it is."""
    return opened if isinstance(opened, Clip) else Clip(np.asarray(opened)[None], None)


def medium_of(opened: Image.Image | Clip) -> Medium:
    """Tell a picture from a clip."""
    return "picture" if isinstance(opened, Image.Image) else "clip"


def first_frame(opened: Image.Image | Clip) -> Image.Image:
    """Give the picture itself, or the first frame of a clip."""
    return opened if isinstance(opened, Image.Image) else opened.pictures[0]
