"""Folders of clips that someone else made: videos, animated pictures, folders of frames, or in columns."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from brainhive_cli.core import console, home
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.data.datasets import Clip, check_unique, decode
from brainhive_cli.data.media import media_files
from brainhive_cli.data.media.media_files import ANIMATED, VIDEOS, is_animated
from brainhive_cli.data.stores.ids import PICTURES

BORDER_PX = 2
"""Around and between the columns of NEURONS' GIFs: torchvision's make_grid."""
SAME_RATE = 0.05
"""By how much rates may differ: GIF's hundredths of a second make 3.03 Hz of 3 Hz, 7.7 or 8.3 of 8."""


def holds_clips(folder: str) -> bool:
    """Whether a folder holds a video or an animated picture."""
    files = _files(folder)
    if any(each.suffix.lower() in VIDEOS for each in files):
        return True
    return any(is_animated(each) for each in files)


def clips_in(folder: str) -> dict[str, Path]:
    """List the clips below a folder: POSIX path below it without ending, to a file or a folder of frames.

    A picture of one frame is a frame of the clip that its folder is.

    Raises:
        MissingData: if there is no such folder, or no clip in it.
        BadPicture: naming a damaged file among the clips.
        BrainhiveError: if two files differ in their endings only, or a frame lies among the clips.
    """
    root, found = home.located(folder), set()
    for file in _files(folder):
        is_clip = file.suffix.lower() in VIDEOS or is_animated(file)
        if not is_clip and file.parent == root:
            decode(str(file), file)  # or a damaged clip would be called a picture
            raise BrainhiveError(
                f"{file} is a picture among clips", "put the frames of each clip into a folder of their own"
            )
        found.add(file if is_clip else file.parent)
    if not found:
        endings = ", ".join(sorted(VIDEOS | ANIMATED))
        raise MissingData(f"no clips below {folder}", f"clips end in {endings}, or are folders of frames")
    paths = media_files.sorted_by_number(found)  # neighbours in a film are then neighbours here
    names = [
        path.relative_to(root).with_suffix("").as_posix()
        if path.is_file()
        else path.relative_to(root).as_posix()
        for path in paths
    ]
    check_unique(names, paths.__getitem__)
    return dict(zip(names, paths, strict=True))


def _files(folder: str) -> list[Path]:
    """List the videos and pictures below a folder, hidden ones left out."""
    root = home.located(folder)
    if not root.is_dir():
        raise MissingData(f"no folder {folder!r}", "give a folder of clips that exists")
    below = (PurePosixPath(each.relative_to(root)) for each in sorted(root.rglob("*")))
    return [
        root / each
        for each in below
        if each.suffix.lower() in VIDEOS | PICTURES and not any(part.startswith(".") for part in each.parts)
    ]


def open_clip(path: Path) -> Clip:
    """Read a clip; a picture of one frame is a clip of one."""
    return media_files.to_clip(media_files.read(path))


Open = Callable[[Path], Clip]


def columns() -> tuple[Open, Open]:
    """Functions that open the left and the right column of a clip; see `open_column`."""
    return partial(open_column, column=0), partial(open_column, column=1)


def check_pairs(
    truths: Mapping[str, Path],
    made: Mapping[str, Sequence[Path]],
    opens: tuple[Open, Open] = (open_clip, open_clip),
) -> None:
    """Refuse clips of another number of frames, or another rate, than the true one's.

    Args:
        truths: Name to true clip.
        made: Name to its reconstructions.
        opens: What opens a true clip, and a reconstruction.

    Raises:
        BrainhiveError: naming the first two that differ.
    """
    with console.progress("clips checked", len(made)) as bar:
        for name, files in made.items():
            true = opens[0](truths[name])
            for file in files:
                _check_pair(true, truths[name], opens[1](file), file)
            bar.advance(1)


def _check_pair(true: Clip, true_path: Path, made: Clip, made_path: Path) -> None:
    counts = [len(each.frames) for each in (made, true)]
    if counts[0] != counts[1]:
        raise BrainhiveError(
            f"{made_path} has {counts[0]} frames, and {true_path} has {counts[1]}",
            "bring both to the same frames",
        )
    rates = [each.rate_hz for each in (made, true)]
    if rates[0] and rates[1] and abs(rates[0] / rates[1] - 1) > SAME_RATE:
        raise BrainhiveError(
            f"{made_path} is of {rates[0]:.3g} Hz, and {true_path} of {rates[1]:.3g} Hz",
            "write both with the rate at which they were shown",
        )


def open_column(path: Path, column: int) -> Clip:
    """Read one column of a clip that shows the truth (0) and the result (1) next to each other.

    Columns are squares, with NEURONS' border around and between them or without one. Cutting in the middle,
    as NEURONS' metrics do, would put them a column apart where there is a border.

    Raises:
        BrainhiveError: if it is no two squares.
    """
    clip = open_clip(path)
    height, width = clip.frames.shape[1:3]
    for border in (BORDER_PX, 0):
        side = height - 2 * border
        if side > 0 and width == 2 * side + 3 * border:
            left = border + column * (side + border)
            frames = clip.frames[:, border : border + side, left : left + side]
            return Clip(np.ascontiguousarray(frames), clip.rate_hz)
    raise BrainhiveError(
        f"{path} is {width} × {height} px: not two squares next to each other, with or without a border",
        "give the true clips in a folder of their own: --truth FOLDER",
    )
