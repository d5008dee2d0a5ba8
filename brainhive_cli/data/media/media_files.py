"""Media in files: ours, a picture as PNG and a clip as an animated PNG without loss,
and those of others.
"""

import importlib.util
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from brainhive_cli.core.arrays import Bool, UInt8
from brainhive_cli.core.damage import DAMAGE_EXCEPTIONS
from brainhive_cli.core.errors import BrainhiveError, MissingExtra, install_line
from brainhive_cli.core.files import open_regular, require_regular
from brainhive_cli.data.files.bids_labels import natural_key
from brainhive_cli.data.files.ids import PICTURES
from brainhive_cli.data.media.pictures import decode, report_bad_picture, turn_upright
from brainhive_cli.data.media.stimuli import Clip

RATE_HZ = 8.0
"""Of a clip whose own rate nothing says: how fast browsers show it."""
PNG_LEVEL = 1
"""PNG compression: of photographs higher levels save a few percent, and take several
times as long.
"""
VIDEOS = frozenset(
    ".mp4 .m4v .mov .qt .mkv .webm .avi .mpg .mpeg .wmv .flv .ogv .3gp".split()
)
"""Endings of video files."""
ANIMATED = frozenset(".gif .png .apng .webp .avif .avifs".split())
"""Endings of pictures that may have several frames."""
MAX_SPREAD_MS = 10
"""GIF counts time in hundredths of a second, so that equal durations may differ by
one.
"""
OUTLINE = (255, 64, 64)
"""Colour of the outlines of masks."""
CRF, SMALL_CRF = 18, 28
"""Of H.264: one that looks like the original (x264's guide), and one of half its size,
for pages.
"""


def to_bytes(media: Tensor) -> UInt8:
    """Round media [B, 3, H, W] or [B, F, 3, H, W] in 0..1 to bytes, channels last, on
    the CPU.
    """
    return media.mul(255).round().byte().movedim(-3, -1).cpu().numpy()


def save(pixels: UInt8, path: Path, rate_hz: float | None = None) -> None:
    """Write one picture [H, W, 3] or clip [F, H, W, 3]; of a clip the frames a
    second.
    """
    # one picture; a clip is several frames of one file
    if pixels.ndim == 3:
        Image.fromarray(pixels).save(path, compress_level=PNG_LEVEL)
        return
    first, *rest = map(Image.fromarray, pixels)
    # PIL would merge equal frames of one blend mode
    blend = [frame % 2 for frame in range(len(pixels))]
    shown_ms = 1000 / (rate_hz or RATE_HZ)
    options: dict[str, Any] = {
        "duration": shown_ms,
        "blend": blend,
        "compress_level": PNG_LEVEL,
    }
    first.save(path, save_all=True, append_images=rest, **options)


def read(path: Path) -> Image.Image | Clip:
    """Read a picture, a video, an animated picture or a folder of frames.

    Raises:
        BadPicture: naming the file, if it cannot be decoded.
        MissingExtra: if it is a video and PyAV is not installed.
        BrainhiveError: if frames differ in size, or in how long they are shown.
    """
    # videos are known by their ending; a picture tells by itself whether it has several
    # frames
    if path.is_dir():
        return read_frame_folder(path)
    if path.suffix.lower() in VIDEOS:
        return read_video(path)
    picture = decode(str(path), path)
    return read_animation(path) if is_animated(path) else picture


def to_media(opened: Image.Image | Clip) -> Tensor:
    """Turn a picture into [3, H, W], a clip into [F, 3, H, W]; float32 in 0..1."""
    pixels = np.array(opened) if isinstance(opened, Image.Image) else opened.frames
    return torch.from_numpy(pixels).movedim(-1, -3) / 255


def crop_square(picture: Image.Image, side_px: int) -> Image.Image:
    """Resize the short side (bilinear) and crop the centre, to the bit as torchvision,
    which loads slowly.
    """
    # torchvision truncates the long side, and rounds the offset
    size = [int(side_px * length / min(picture.size)) for length in picture.size]
    left, top = (round((length - side_px) / 2) for length in size)
    resized = picture.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + side_px, top + side_px))


def to_clip(opened: Image.Image | Clip) -> Clip:
    """Take a picture for a clip of one frame; a clip is given as it is."""
    return opened if isinstance(opened, Clip) else Clip(np.asarray(opened)[None], None)


def get_first_frame(opened: Image.Image | Clip) -> Image.Image:
    """Give the picture itself, or the first frame of a clip."""
    return opened if isinstance(opened, Image.Image) else opened.to_pictures()[0]


def is_animated(path: Path) -> bool:
    """Whether a file of pictures has several frames; reads its head only. False if it
    is damaged.
    """
    if path.suffix.lower() not in ANIMATED:
        return False
    try:
        with open_regular(path) as content, Image.open(content) as file:
            return bool(getattr(file, "is_animated", False))
    except (*DAMAGE_EXCEPTIONS, Image.DecompressionBombError):
        return False


def read_frame_folder(folder: Path) -> Clip:
    """Read a folder of frames, in the order of the numbers in their names; nothing says
    their rate.

    Raises:
        BrainhiveError: if it has no pictures, or they differ in size.
        BadPicture: naming a picture that cannot be decoded.
    """
    # frames in the order of their numbers, of one size
    # not macOS's ._ files
    shown = (file for file in folder.iterdir() if not file.name.startswith("."))
    files = sort_by_number(file for file in shown if file.suffix.lower() in PICTURES)
    if not files:
        raise BrainhiveError(
            f"{folder} has no frames", f"frames end in {', '.join(sorted(PICTURES))}"
        )
    frames = [np.asarray(decode(str(file), file)) for file in files]
    if len(sizes := sorted({frame.shape[:2] for frame in frames})) > 1:
        raise BrainhiveError(
            f"the frames in {folder} differ in size: {sizes}", "bring them to one size"
        )
    return Clip(np.stack(frames), None)


def sort_by_number(files: Iterable[Path]) -> list[Path]:
    """Sort files as people count: `frame_2.png` before `frame_10.png`."""
    return sorted(files, key=lambda file: natural_key(file.as_posix()))


def read_animation(path: Path) -> Clip:
    """Read a picture of several frames; a frame that is shown longer counts as several
    equal ones.

    Writers of GIF and animated PNG merge equal frames into one that is shown longer.

    Raises:
        BadPicture: naming the file, if it cannot be decoded.
        BrainhiveError: if its frames are shown for durations that are no multiples of
            the shortest.
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
            # which a WebP has once it is decoded
            durations.append(float(frame.info.get("duration", 0)))
        frames = np.stack(pictures)

    # frames [F, H, W, 3] that are shown for a multiple of the shortest duration are
    # repeated
    shown_ms = np.array(durations)
    if shown_ms.min() <= 0:
        return Clip(frames, None)
    times = (shown_ms / shown_ms.min()).round().astype(int)
    frame_ms = shown_ms / times
    if np.ptp(frame_ms) > MAX_SPREAD_MS:
        listed = ", ".join(f"{duration:g}" for duration in np.unique(shown_ms))
        raise BrainhiveError(
            f"the frames of {path} are shown for {listed} ms",
            "write the clip at one rate",
        )
    return Clip(np.repeat(frames, times, 0), float(1000 / frame_ms.mean()))


def read_video(path: Path) -> Clip:
    """Read a video.

    Raises:
        MissingExtra: if PyAV is not installed.
        BadPicture: naming the file, if it cannot be decoded.
    """
    with report_bad_picture(path):  # PyAV's errors are among those that it knows
        library = _library(path)
        # a pipe or a device would block PyAV
        require_regular(path)
        with library.open(str(path)) as video:
            rate = video.streams.video[0].average_rate
            # a phone stores its clips lying, with the angle at which they are seen
            pictures = [
                np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                for frame in video.decode(video=0)
            ]
        frames = np.stack(pictures)
    return Clip(frames, float(rate) if rate else None)


def has_pyav() -> bool:
    """Whether videos can be read and written."""
    return importlib.util.find_spec("av") is not None


def write_video(frames: UInt8, path: Path, rate_hz: float, crf: int = CRF) -> None:
    """Write frames [F, H, W, 3] as H.264 in MP4, which every browser plays; odd sides
    get one more pixel.

    Raises:
        MissingExtra: if PyAV is not installed.
    """
    height, width = frames.shape[1:3]
    # yuv420p halves the colour planes, so sides must be even
    padded = np.pad(
        frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge"
    )
    library = _library(path)
    quality = {"crf": str(crf), "preset": "veryfast"}
    # faststart puts the index first, so that a browser plays before all is loaded
    with library.open(
        str(path), "w", format="mp4", options={"movflags": "faststart"}
    ) as video:
        stream = video.add_stream(
            "libx264", rate=Fraction(rate_hz).limit_denominator(1000), options=quality
        )
        stream.height, stream.width = padded.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # encode frame by frame, and flush those that the encoder holds back
        for frame in padded:
            video.mux(
                stream.encode(library.VideoFrame.from_ndarray(frame, format="rgb24"))
            )
        video.mux(stream.encode(None))


def write_animation(frames: UInt8, path: Path, rate_hz: float) -> None:
    """Write frames [F, H, W, 3] as animated WebP, which every browser shows, without
    PyAV.
    """
    # lossy; loop=0 repeats for ever
    first, *rest = map(Image.fromarray, frames)
    shown_ms = round(1000 / rate_hz)
    first.save(
        path,
        "WEBP",
        save_all=True,
        append_images=rest,
        duration=shown_ms,
        loop=0,
        quality=85,
    )


def _library(path: Path) -> Any:
    if not has_pyav():
        raise MissingExtra(
            f"{path} is a video, which needs PyAV", install_line("video")
        )
    import av

    return av


def outline_masks(frames: UInt8, masks: Bool | None, side_px: int) -> UInt8:
    """Bring frames [F, H, W, 3] to squares, and draw the outlines of masks [F, h, w]
    into them.
    """
    # [F, side_px, side_px, 3]
    size = (side_px, side_px)
    sized = np.stack(
        [np.asarray(Image.fromarray(frame).resize(size)) for frame in frames]
    )
    if masks is None or len(masks) != len(frames):
        return sized
    from scipy.ndimage import binary_erosion

    # the outline is the mask without its erosion by two pixels
    for frame, mask in zip(sized, masks, strict=True):
        resized = np.asarray(
            Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
        )
        frame[resized & ~binary_erosion(resized, iterations=2, border_value=1)] = (
            OUTLINE
        )
    return sized
