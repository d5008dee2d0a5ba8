"""Folders of pictures or clips that someone else made, matched with the true ones by
name.

Clips are videos, animated pictures, folders of frames, or columns of a clip that shows
truth and result.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from brainhive_cli.core import console, documents
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.facts import ReconstructionFacts
from brainhive_cli.core.files import locate
from brainhive_cli.core.measurements import extend_protocol
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.data.datasets import (
    PICTURES,
    Clip,
    check_unique,
    decode,
    pictures_below,
)
from brainhive_cli.data.media import media_files
from brainhive_cli.data.media.media_files import ANIMATED, VIDEOS, is_animated
from brainhive_cli.evaluation.reconstruction.generation import derange
from brainhive_cli.evaluation.reconstruction.scoring import GeneratedSet, Stimuli
from brainhive_cli.measurement.metrics import Medium
from brainhive_cli.measurement.units import Alike, AlikeBy

REPEAT = re.compile(r"(.+?)[_-]\d+")
"""End of the name of one of several reconstructions of NAME."""
LEFT = "left"
"""Instead of a folder of true clips: they are the left half of the clips that are
scored.
"""
MAX_NAMED = 5
"""Names that a warning lists; the metrics file holds all."""
BORDER_PX = 2
"""Around and between the columns of NEURONS' GIFs: torchvision's make_grid."""


def match_folders(
    score: str, truth: str | None, medium: Medium | None = None
) -> tuple[GeneratedSet, Stimuli, Medium, dict[str, str], ReconstructionFacts]:
    """Match reconstructions with true pictures or clips by name, and warn of what is
    left over.

    Args:
        score: The folder of reconstructions.
        truth: That of what was seen; `left` where each clip that is scored shows it in
            its left half.
        medium: What they hold; None for clips where one of them holds a video or an
            animated picture.

    Returns:
        The reconstructions of each true picture that has some, the true ones, what both
        folders hold, digests of their content by what the user calls them, and what is
        left over.

    Raises:
        RecipeError: if there is no folder of true pictures.
        MissingData: if a folder is not there or no name matches.
    """
    if truth is None:
        raise RecipeError("pictures to score need the true ones", "--truth FOLDER")

    # media of both folders, and which belong together by name
    folders = [score] if truth == LEFT else [score, truth]
    if medium is None:
        visible = (
            file for folder in folders for file in _visible_files(folder, "clip")
        )
        medium = "clip" if truth == LEFT or any(map(_is_clip, visible)) else "picture"
    reconstructions, truths = list_media(score, medium), list_media(folders[-1], medium)
    names_of, unmatched = match_repeats(list(reconstructions), list(truths))
    if not names_of:
        raise MissingData(
            f"no {medium} below {score} is named after one below {truth}: "
            f"{unmatched[0]!r} and {next(iter(truths))!r}",
            (
                "call reconstructions of NAME: NAME.png, NAME_0.png, NAME_1.png, or "
                "NAME/0.png"
            ),
        )

    # what is left over on either side
    without = [name for name in truths if name not in names_of]
    for names, problem in (
        (unmatched, f"reconstructions match no true {medium}"),
        (without, f"true {medium}s have no reconstruction"),
    ):
        if names:
            # the metrics file lists all names
            console.warn(f"{len(names)} {problem}: {', '.join(names[:MAX_NAMED])}")
    files = {
        name: [reconstructions[repeat] for repeat in repeats]
        for name, repeats in names_of.items()
    }

    # how files are opened
    open_true: Callable[[Path], Any] = (
        open_clip if medium == "clip" else media_files.read
    )
    open_generated = open_true
    if truth == LEFT:
        open_true, open_generated = (
            partial(open_column, column=column) for column in (0, 1)
        )

    # how many there are of each, in words that travel with their metrics
    counts = {len(repeats) for repeats in files.values()}
    shown_count = "–".join(map(str, sorted({min(counts), max(counts)})))
    repeats_in_words = f"{shown_count} {'repeat' if counts == {1} else 'repeats'}"
    described = extend_protocol(repeats_in_words, read_caveats_around(score))

    # reconstructions and stimuli; clips are in the order of their film
    name = locate(score).name
    generated = GeneratedSet(
        "scored", name, (), files, described=described, open=open_generated
    )
    alike_by: AlikeBy = "neighbours" if medium == "clip" else "concept"
    stimuli = Stimuli(
        lambda name: open_true(truths[name]),
        lambda name: PurePosixPath(name).name,
        alike=Alike(alike_by, {name: name for name in sorted(truths)}, medium),
    )
    digests = {folders[-1]: digest_media(truths), score: digest_media(reconstructions)}
    facts = ReconstructionFacts(score=score, unmatched=unmatched, without=without)
    return generated, stimuli, medium, digests, facts


def shuffle(generated: GeneratedSet) -> GeneratedSet:
    """Give every item another item's reconstructions: what any of them scores, the
    floor.
    """
    # a fixed seed, so that the floor is the same in every call
    ids = list(generated.files)
    rows = derange(len(ids), 0)
    return replace(
        generated,
        source="shuffled",
        name=f"shuffled/{generated.name}",
        files={
            image_id: generated.files[ids[row]]
            for image_id, row in zip(ids, rows, strict=True)
        },
        described=f"other items' reconstructions, {generated.described}",
    )


def list_media(folder: str, medium: Medium = "picture") -> dict[str, Path]:
    """List the pictures or clips below a folder: POSIX path below it without ending, to
    file.

    Hidden files are left out: macOS leaves a `._NAME.png` next to each picture on
    foreign disks. Of clips, a picture of one frame is a frame of the clip that its
    folder is.

    Raises:
        MissingData: if there is no such folder, or no picture or clip in it.
        BadPicture: naming a damaged file among clips.
        BrainhiveError: if two files differ in their endings only, or a frame lies among
            clips.
    """
    # clips are videos, animated pictures, and folders of frames
    root, paths = locate(folder), _visible_files(folder, medium)
    way = f"pictures end in {', '.join(sorted(PICTURES))}"
    if medium == "clip":
        clips = set()
        for file in paths:
            is_clip = _is_clip(file)
            if not is_clip and file.parent == root:
                decode(str(file), file)  # or a damaged clip would be called a picture
                raise BrainhiveError(
                    f"{file} is a picture among clips",
                    "put the frames of each clip into a folder of their own",
                )
            clips.add(file if is_clip else file.parent)
        # neighbours in a film stay neighbours
        paths = media_files.sorted_by_number(clips)
        way = (
            f"clips end in {', '.join(sorted(VIDEOS | ANIMATED))}, or are folders of "
            "frames"
        )
    if not paths:
        raise MissingData(f"no {medium}s below {folder}", way)

    # no name may be twice
    names = [
        (path.with_suffix("") if path.is_file() else path).relative_to(root).as_posix()
        for path in paths
    ]
    check_unique(names, paths.__getitem__)
    return dict(zip(names, paths, strict=True))


def _is_clip(file: Path) -> bool:
    return file.suffix.lower() in VIDEOS or is_animated(file)


def _visible_files(folder: str, medium: Medium) -> list[Path]:
    """List the pictures below a folder, or also the videos; hidden ones are left
    out.
    """
    root = locate(folder)
    if not root.is_dir():
        raise MissingData(
            f"no folder {folder!r}", f"give a folder of {medium}s that exists"
        )
    endings = PICTURES if medium == "picture" else VIDEOS | PICTURES
    return [root / path for path in pictures_below(root, "", None, endings)]


def read_caveats_around(folder: str) -> list[str]:
    """Read the caveats of pictures that lie in the folder of a finished run; none
    elsewhere.
    """
    # the folder may be any below the run's, as that of a source or cell
    for above in locate(folder).resolve().parents:
        if (above / "recipe.yaml").is_file() and (above / FINISHED).is_file():
            return RunFolder(above).measurements().caveats
    return []


def digest_media(media: Mapping[str, Path]) -> str:
    """Digest the names and contents of pictures and clips, wherever they lie."""
    contents = []
    for name, path in sorted(media.items()):
        # a clip may be a folder of frames
        files = (
            sorted(file for file in path.iterdir() if file.is_file())
            if path.is_dir()
            else [path]
        )
        contents.append((name, *(documents.digest_file(file) for file in files)))
    return documents.digest_text(repr(contents))


def match_repeats(
    names: Sequence[str], truths: Sequence[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Match reconstructions with true pictures.

    A reconstruction of `NAME` is called `NAME`, `NAME_0`, `NAME_1`, … or lies in a
    folder `NAME`. `NAME` is the true picture's path below its folder, or its file's
    stem where only one picture has it.

    Returns:
        The names of each true picture's reconstructions, and the names that match none.
    """
    # a stem that several names have is ambiguous
    stems = {name: PurePosixPath(name).name for name in truths}
    count = Counter(stems.values())
    known = {stem: name for name, stem in stems.items() if count[stem] == 1} | {
        name: name for name in truths
    }
    repeats_of: dict[str, list[str]] = {}
    unmatched = []
    for name in names:
        # names of true pictures that it could be a reconstruction of, the likeliest
        # first
        path = PurePosixPath(name)
        numbered = REPEAT.fullmatch(path.name)
        paths = [
            path,
            *([path.with_name(numbered[1])] if numbered else []),
            path.parent,
        ]
        candidates = [
            candidate
            for path in paths
            if path.name
            for candidate in (path.as_posix(), path.name)
        ]

        # the first of them that there is
        truth = next(
            (known[candidate] for candidate in candidates if candidate in known), None
        )
        if truth is None:
            unmatched.append(name)
        else:
            repeats_of.setdefault(truth, []).append(name)
    return {
        truth: repeats_of[truth] for truth in truths if truth in repeats_of
    }, unmatched


def open_clip(path: Path) -> Clip:
    """Read a clip; a picture of one frame is a clip of one."""
    return media_files.to_clip(media_files.read(path))


def open_column(path: Path, column: int) -> Clip:
    """Read one column of a clip that shows the truth (0) and the result (1) next to
    each other.

    Columns are squares, with NEURONS' border around and between them or without one.
    Cutting in the middle, as NEURONS' metrics do, would put them a column apart where
    there is a border.

    Raises:
        BrainhiveError: if it is no two squares.
    """
    # two squares with a border around and between them, or without
    clip = open_clip(path)
    height, width = clip.frames.shape[1:3]
    for border in (BORDER_PX, 0):
        # px; columns share the border between them
        side = height - 2 * border
        if side > 0 and width == 2 * side + 3 * border:
            left = border + column * (side + border)
            frames = clip.frames[:, border : border + side, left : left + side]
            return Clip(np.ascontiguousarray(frames), clip.rate_hz)
    raise BrainhiveError(
        (
            f"{path} is {width} × {height} px: not two squares next to each other, "
            "with or without a border"
        ),
        "give the true clips in a folder of their own: --truth FOLDER",
    )
