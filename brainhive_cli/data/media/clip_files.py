"""Clips in files of any kind: videos, animated pictures, folders of frames."""

import importlib.util
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from brainhive_cli.core.errors import BrainhiveError, MissingExtra
from brainhive_cli.core.plain_files import open_regular, require_regular
from brainhive_cli.data.datasets import Clip, bad_picture, decode
from brainhive_cli.data.stores.damage import RAISED
from brainhive_cli.data.stores.matching import PICTURES

Frames = NDArray[np.uint8]
VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})
"""Endings of video files."""
ANIMATED = frozenset({".gif", ".png", ".webp"})
"""Endings of pictures that may have several frames."""
LARGEST_BYTES, MOST_FRAMES = 2**31, 2**15
"""Of the frames of a clip (18 minutes at 30 Hz): a film is no clip."""
HUNDREDTH_MS = 10
"""GIF counts time in hundredths of a second, so that equal durations may differ by one."""
EVEN = 0.1
"""By how much the duration of merged frames may differ from a multiple of the shortest one."""
QUALITY = {"crf": "18", "preset": "veryfast"}
"""H.264 that looks like the original (x264's guide)."""


def is_animated(path: Path) -> bool:
    """Whether a file of pictures has several frames; reads its head only. False if it is damaged."""
    if path.suffix.lower() not in ANIMATED:
        return False
    try:
        with open_regular(path) as content, Image.open(content) as file:
            return bool(getattr(file, "is_animated", False))
    except (*RAISED, Image.DecompressionBombError):
        return False


def read_frames_of(folder: Path) -> Clip:
    """Read a folder of frames, in the order of the numbers in their names; nothing says their rate.

    Raises:
        BrainhiveError: if it has no pictures, or they differ in size.
        BadPicture: naming a picture that cannot be decoded.
    """
    files = sorted_by_number([each for each in folder.iterdir() if each.suffix.lower() in PICTURES])
    if not files:
        raise BrainhiveError(f"{folder} has no frames", f"frames end in {', '.join(sorted(PICTURES))}")
    frames = _collected((np.asarray(decode(str(file), file)) for file in files), folder)
    if len(sizes := sorted({frame.shape[:2] for frame in frames})) > 1:
        raise BrainhiveError(f"the frames in {folder} differ in size: {sizes}", "bring them to one size")
    return Clip(np.stack(frames), None)


def sorted_by_number(files: Iterable[Path]) -> list[Path]:
    """Sort files as people count: `frame_2.png` before `frame_10.png`."""

    def key(file: Path) -> list[tuple[int, str]]:
        pieces = re.split(r"(\d+)", file.as_posix())
        return [(int(piece), "") if piece.isdigit() else (0, piece) for piece in pieces]

    return sorted(files, key=key)


def read_animation(path: Path) -> Clip:
    """Read a picture of several frames; a frame that is shown longer counts as several equal ones.

    Writers of GIF and animated PNG merge equal frames into one that is shown longer.

    Raises:
        BadPicture: naming the file, if it cannot be decoded.
        BrainhiveError: if it is too long for a clip, or its frames are shown for durations that are no
            multiples of the shortest.
    """
    shown_ms: list[float] = []

    def decoded(file: Image.Image) -> Iterator[Frames]:
        for frame in ImageSequence.Iterator(file):
            pixels = np.asarray(frame.convert("RGB"))
            shown_ms.append(float(frame.info.get("duration", 0)))  # which a WebP has once it is decoded
            yield pixels

    try:
        with open_regular(path) as content, Image.open(content) as file:
            frames = np.stack(_collected(decoded(file), path))
    except (*RAISED, Image.DecompressionBombError) as error:
        raise bad_picture(path, error) from error
    return _at_one_rate(path, frames, np.array(shown_ms))


def _at_one_rate(path: Path, frames: Frames, shown_ms: NDArray[np.float64]) -> Clip:
    """Repeat frames [F, H, W, 3] that are shown for a multiple of the shortest duration."""
    if shown_ms.min() <= 0:
        return Clip(frames, None)
    if np.ptp(shown_ms) <= HUNDREDTH_MS:
        return Clip(frames, float(1000 / shown_ms.mean()))
    times = shown_ms / shown_ms.min()
    if (np.abs(times - times.round()) > EVEN).any():
        durations = ", ".join(f"{each:g}" for each in np.unique(shown_ms))
        raise BrainhiveError(
            f"the frames of {path} are shown for {durations} ms", "write the clip at one rate"
        )
    _refuse_long(path, times.sum(), frames[0].nbytes * times.sum())
    return Clip(np.repeat(frames, times.round().astype(int), axis=0), float(1000 / shown_ms.min()))


def read_video(path: Path) -> Clip:
    """Read a video.

    Raises:
        MissingExtra: if PyAV is not installed.
        BadPicture: naming the file, if it cannot be decoded.
        BrainhiveError: if it is too long for a clip.
    """
    try:
        library = _library(path)
        require_regular(path)
        with library.open(str(path)) as video:
            rate = video.streams.video[0].average_rate
            pixels = (frame.to_ndarray(format="rgb24") for frame in video.decode(video=0))
            frames = np.stack(_collected(pixels, path))
    except RAISED as error:  # PyAV's errors are among them
        raise bad_picture(path, error) from error
    return Clip(frames, float(rate) if rate else None)


def _collected(frames: Iterable[Frames], path: Path) -> list[Frames]:
    """List the frames [H, W, 3] of a clip as they are decoded, until they are too many for one."""
    found: list[Frames] = []
    total = 0
    for frame in frames:
        total += frame.nbytes
        _refuse_long(path, len(found) + 1, total)
        found.append(frame)
    return found


def _refuse_long(path: Path, count: float, size: float) -> None:
    if count > MOST_FRAMES or size > LARGEST_BYTES:
        raise BrainhiveError(
            f"{path} is too long for a clip: {count:.3g} frames of {size:.3g} bytes or more, "
            f"at most {MOST_FRAMES:,} of {LARGEST_BYTES:,}",
            "cut it into clips of some seconds",
        )


def has_pyav() -> bool:
    """Whether videos can be read and written."""
    return importlib.util.find_spec("av") is not None


def write_video(frames: Frames, path: Path, rate_hz: float) -> None:
    """Write frames [F, H, W, 3] as H.264 in MP4, which every browser plays; odd sides get one more pixel.

    Raises:
        MissingExtra: if PyAV is not installed.
    """
    height, width = frames.shape[1:3]
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    library = _library(path)
    with library.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as video:
        stream = video.add_stream("libx264", rate=Fraction(rate_hz).limit_denominator(1000), options=QUALITY)
        stream.height, stream.width = padded.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in padded:
            video.mux(stream.encode(library.VideoFrame.from_ndarray(frame, format="rgb24")))
        video.mux(stream.encode(None))


def write_animation(frames: Frames, path: Path, rate_hz: float) -> None:
    """Write frames [F, H, W, 3] as animated WebP, which every browser shows, without PyAV."""
    first, *others = map(Image.fromarray, frames)
    shown_ms = round(1000 / rate_hz)
    first.save(path, "WEBP", save_all=True, append_images=others, duration=shown_ms, loop=0, quality=85)


def _library(path: Path) -> Any:
    if not has_pyav():
        raise MissingExtra(f"{path} is a video, which needs PyAV", "pip install 'brainhive[video]'")
    import av

    return av
