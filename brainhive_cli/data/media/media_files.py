"""Files of pictures and clips: our lossless PNGs, and other formats."""

import importlib.util
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from brainhive_cli.core.base import (
    Bool,
    BrainhiveError,
    MissingExtra,
    UInt8,
    install_line,
)
from brainhive_cli.core.files import DAMAGE_EXCEPTIONS, open_regular, require_regular
from brainhive_cli.data.files import PICTURES, natural_key
from brainhive_cli.data.media.pictures import decode, report_bad_picture, turn_upright
from brainhive_cli.data.media.stimuli import Clip

RATE_HZ = 8.0
"""Frame rate at which a clip of unknown rate is saved and shown."""
VIDEOS = frozenset(
    ".mp4 .m4v .mov .qt .mkv .webm .avi .mpg .mpeg .wmv .flv .ogv .3gp".split()
)
"""Extensions of video files."""
ANIMATED = frozenset(".gif .png .apng .webp .avif .avifs".split())
"""Extensions of picture formats that allow several frames."""
OUTLINE = (255, 64, 64)
"""RGB colour of mask outlines."""
CRF = 18
"""Quality of H.264 that looks like the original (x264's guide)."""
SMALL_CRF = 28
"""Quality of H.264 for web pages, at about half the size."""


def to_bytes(media: Tensor) -> UInt8:
    """Convert media in 0..1 to bytes on the CPU, with the channels last.

    Args:
        media: Pictures [B, 3, H, W] or clips [B, F, 3, H, W].
    """
    return media.mul(255).round().byte().movedim(-3, -1).cpu().numpy()


def to_media(stimulus: Image.Image | Clip) -> Tensor:
    """Convert a picture to [3, H, W] or a clip to [F, 3, H, W], as float32 in 0..1."""
    pixels = (
        np.array(stimulus) if isinstance(stimulus, Image.Image) else stimulus.frames
    )
    return torch.from_numpy(pixels).movedim(-1, -3) / 255


def to_clip(stimulus: Image.Image | Clip) -> Clip:
    """Convert a picture to a clip of one frame. A clip is returned unchanged."""
    return (
        stimulus
        if isinstance(stimulus, Clip)
        else Clip(np.asarray(stimulus)[None], None)
    )


def get_first_frame(stimulus: Image.Image | Clip) -> Image.Image:
    """Return a picture itself, or the first frame of a clip."""
    return stimulus if isinstance(stimulus, Image.Image) else stimulus.to_pictures()[0]


def crop_square(picture: Image.Image, side_px: int) -> Image.Image:
    """Resize the short side (bilinear) and crop the centre.

    torchvision, whose import is slow, makes equal pixels.
    """
    # torchvision truncates the long side, and rounds the offset
    width, height = picture.size
    short_side = min(picture.size)
    width = int(side_px * width / short_side)
    height = int(side_px * height / short_side)
    left = round((width - side_px) / 2)
    top = round((height - side_px) / 2)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + side_px, top + side_px))


def sort_by_number(files: Iterable[Path]) -> list[Path]:
    """Sort files as people count: `frame_2.png` before `frame_10.png`."""
    return sorted(files, key=lambda file: natural_key(file.as_posix()))


def is_animated(path: Path) -> bool:
    """Return True if the header of a picture file says that it has several frames.

    Damaged files count as not animated.
    """
    if path.suffix.lower() not in ANIMATED:
        return False
    try:
        with open_regular(path) as content, Image.open(content) as file:
            return bool(getattr(file, "is_animated", False))
    except (*DAMAGE_EXCEPTIONS, Image.DecompressionBombError):
        return False


def read(path: Path) -> Image.Image | Clip:
    """Read a picture, a video, an animated picture or a folder of frames.

    Raises:
        BadPicture: if a file cannot be decoded.
        MissingExtra: if it is a video and PyAV is not installed.
        BrainhiveError: if frames differ in size, or have no common rate.
    """
    if path.is_dir():
        return read_frame_folder(path)
    if path.suffix.lower() in VIDEOS:
        return read_video(path)
    picture = decode(str(path), path)
    return read_animation(path) if is_animated(path) else picture


def read_frame_folder(folder: Path) -> Clip:
    """Read a folder of frames in the order of their numbers, as a clip without a rate.

    Raises:
        BrainhiveError: if it has no pictures, or they differ in size.
        BadPicture: if a picture cannot be decoded.
    """
    paths = []
    for path in folder.iterdir():
        # macOS writes hidden files such as ._0.png
        if path.suffix.lower() in PICTURES and not path.name.startswith("."):
            paths.append(path)
    if not paths:
        raise BrainhiveError(
            f"{folder} has no frames", f"frames end in {', '.join(sorted(PICTURES))}"
        )
    frames = [np.asarray(decode(str(path), path)) for path in sort_by_number(paths)]
    sizes = sorted({frame.shape[:2] for frame in frames})
    if len(sizes) > 1:
        raise BrainhiveError(
            f"the frames in {folder} differ in size: {sizes}",
            "resize them to the same size",
        )
    return Clip(np.stack(frames), None)


def read_animation(path: Path) -> Clip:
    """Read an animated picture as a clip at one rate.

    Writers of GIF and animated PNG merge equal frames into a frame of longer duration,
    which is repeated here.

    Raises:
        BadPicture: if it cannot be decoded.
        BrainhiveError: if the durations are not multiples of the shortest.
    """
    pictures = []
    durations = []
    with (
        report_bad_picture(path),
        open_regular(path) as content,
        Image.open(content) as file,
    ):
        for frame in ImageSequence.Iterator(file):
            pictures.append(np.asarray(turn_upright(frame.convert("RGB"))))
            # a WebP frame has its duration only after it was decoded
            durations.append(float(frame.info.get("duration", 0)))
        frames = np.stack(pictures)  # [F, H, W, 3]

    durations_ms = np.array(durations)
    if durations_ms.min() <= 0:
        return Clip(frames, None)
    repeats = (durations_ms / durations_ms.min()).round().astype(int)
    frame_ms = durations_ms / repeats
    # Largest difference between equal frame durations. GIF rounds to 10 ms.
    if np.ptp(frame_ms) > 10:
        texts = ", ".join(f"{duration:g}" for duration in np.unique(durations_ms))
        raise BrainhiveError(
            f"the frames of {path} last {texts} ms",
            "write the clip at one frame rate",
        )
    return Clip(np.repeat(frames, repeats, 0), float(1000 / frame_ms.mean()))


def read_video(path: Path) -> Clip:
    """Read a video, and turn its frames upright.

    Raises:
        MissingExtra: if PyAV is not installed.
        BadPicture: if it cannot be decoded.
    """
    with report_bad_picture(path):
        with _open_video(path) as video:
            rate = video.streams.video[0].average_rate
            pictures = []
            for frame in video.decode(video=0):
                # phones store an angle by which the frames are to be turned
                pixels = frame.to_ndarray(format="rgb24")
                pictures.append(np.rot90(pixels, frame.rotation // 90))
        frames = np.stack(pictures)
    return Clip(frames, float(rate) if rate else None)


def count_frames(path: Path) -> int:
    """Return the number of frames that the header of a video states."""
    with report_bad_picture(path), _open_video(path) as video:
        return int(video.streams.video[0].frames)


def read_frames(path: Path, numbers: Sequence[int]) -> UInt8:
    """Read a few frames of a long video, from the last key frame before them on.

    Args:
        path: Video of a constant frame rate.
        numbers: Numbers [F] of the frames, ascending from 0.

    Returns:
        Frames [F, H, W, 3].
    """
    with report_bad_picture(f"frame {numbers[0]} of {path}"):
        pictures = {}
        with _open_video(path) as video:
            stream = video.streams.video[0]
            start = stream.start_time or 0
            frame_ticks = 1 / (stream.average_rate * stream.time_base)
            video.seek(start + int(numbers[0] * frame_ticks), stream=stream)
            for frame in video.decode(stream):
                number = round((frame.pts - start) / frame_ticks)
                if number in numbers:
                    pictures[number] = frame.to_ndarray(format="rgb24")
                if number >= numbers[-1]:
                    break
        return np.stack([pictures[number] for number in numbers])


def has_pyav() -> bool:
    """Return True if PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def _open_video(path: Path) -> Any:
    """Open a video with PyAV, or raise MissingExtra. A playlist is refused."""
    av = _import_pyav(path)
    # a pipe or a device would block PyAV
    require_regular(path)
    # Option of PyAV with the containers of these files. FFmpeg would also open
    # playlists, whatever their extension, and read the files that they name.
    containers = {
        "format_whitelist": "mov,matroska,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg"
    }
    return av.open(str(path), container_options=containers)


def _import_pyav(path: Path) -> Any:
    """Import PyAV, or raise MissingExtra, naming the video."""
    if not has_pyav():
        raise MissingExtra(
            f"{path} is a video, which needs PyAV", install_line("video")
        )
    import av

    return av


def save(pixels: UInt8, path: Path, rate_hz: float | None = None) -> None:
    """Write a picture as PNG, or a clip as animated PNG.

    Args:
        pixels: Picture [H, W, 3] or clip [F, H, W, 3].
        path: File to write.
        rate_hz: Frame rate of a clip, by default `RATE_HZ`.
    """
    # PNG compression. Higher levels save a few percent on photographs, and take several
    # times as long.
    png_level = 1
    if pixels.ndim == 3:
        Image.fromarray(pixels).save(path, compress_level=png_level)
        return
    pictures = [Image.fromarray(frame) for frame in pixels]
    pictures[0].save(
        path,
        save_all=True,
        append_images=pictures[1:],
        duration=1000 / (rate_hz or RATE_HZ),
        # PIL merges equal frames unless their blend mode differs
        blend=[index % 2 for index in range(len(pictures))],
        compress_level=png_level,
    )


def write_video(frames: UInt8, path: Path, rate_hz: float, crf: int = CRF) -> None:
    """Write frames [F, H, W, 3] as H.264 in MP4, which every browser plays.

    A side of an odd number of pixels is extended by a pixel.

    Raises:
        MissingExtra: if PyAV is not installed.
    """
    # yuv420p halves the colour planes, so sides must be even
    height, width = frames.shape[1:3]
    padding = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    padded = np.pad(frames, padding, mode="edge")
    av = _import_pyav(path)
    # faststart writes the index first, so that a browser plays while it loads
    options = {"movflags": "faststart"}
    with av.open(str(path), "w", format="mp4", options=options) as video:
        stream = video.add_stream(
            "libx264",
            rate=Fraction(rate_hz).limit_denominator(1000),
            options={"crf": str(crf), "preset": "veryfast"},
        )
        stream.height, stream.width = padded.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for pixels in padded:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            video.mux(stream.encode(frame))
        # flush the frames that the encoder holds back
        video.mux(stream.encode(None))


def write_animation(frames: UInt8, path: Path, rate_hz: float) -> None:
    """Write frames [F, H, W, 3] as animated WebP, which needs no PyAV."""
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(
        path,
        "WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / rate_hz),
        loop=0,  # repeat forever
        quality=85,
    )


def outline_masks(frames: UInt8, masks: Bool | None, side_px: int) -> UInt8:
    """Resize frames to squares, and draw the outlines of masks on them.

    Args:
        frames: Frames [F, H, W, 3].
        masks: Masks [F, h, w]. Without a mask for each frame, no outline is drawn.
        side_px: Side of the squares.

    Returns:
        Frames [F, side_px, side_px, 3].
    """
    size = (side_px, side_px)
    squares = np.stack(
        [np.asarray(Image.fromarray(frame).resize(size)) for frame in frames]
    )
    if masks is None or len(masks) != len(frames):
        return squares
    from scipy.ndimage import binary_erosion

    # erosion by two pixels leaves the inside, without the outline
    for square, mask in zip(squares, masks, strict=True):
        resized = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
        is_object = np.asarray(resized)
        is_inside = binary_erosion(is_object, iterations=2, border_value=1)
        square[is_object & ~is_inside] = OUTLINE
    return squares
