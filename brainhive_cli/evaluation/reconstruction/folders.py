"""Folders of pictures or clips from other programs, matched with the true ones.

A clip is a video, an animated picture, a folder of frames, or a column of a clip that
shows the truth and the result next to each other.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from brainhive_cli.core.base import BrainhiveError, MissingData, RecipeError, console
from brainhive_cli.core.files import documents, locate
from brainhive_cli.core.runs import METRICS_FILE, RunFolder
from brainhive_cli.data.files import PICTURES
from brainhive_cli.data.media import (
    ANIMATED,
    VIDEOS,
    Clip,
    decode,
    find_pictures,
    is_animated,
    media_files,
    require_unique_ids,
)
from brainhive_cli.evaluation.reconstruction.facts import ReconstructionFacts
from brainhive_cli.evaluation.reconstruction.scoring import (
    GeneratedSet,
    Stimuli,
    find_originals_and_blanks,
)
from brainhive_cli.measurement import GroupingCriterion, StimulusGrouping
from brainhive_cli.measurement.metrics import Medium

LEFT_COLUMN = "left"
"""Value of `truth` for clips that show the true clip in their left column."""
MAX_LISTED_NAMES = 5
"""Largest number of names in a warning. The metrics file lists all names."""


def match_folders(
    score: str, truth: str | None, medium: Medium | None
) -> tuple[GeneratedSet, Stimuli, Medium, dict[str, str], ReconstructionFacts]:
    """Match reconstructions with true pictures or clips by name.

    Names without a match are left out with a warning.

    Args:
        score: Folder of reconstructions.
        truth: Folder of true pictures or clips, or `left` if the left column of each
            clip to score shows the true clip.
        medium: Medium of both folders. None chooses clips if a folder holds a video or
            an animated picture, or if `truth` is `left`.

    Returns:
        The reconstructions, the stimuli, the medium, a digest of each folder, and facts
        with the names without a match.

    Raises:
        RecipeError: if `truth` is None.
        MissingData: if a folder does not exist, or no name matches.
    """
    if truth is None:
        raise RecipeError("pictures to score need the true ones", "--truth FOLDER")

    # list the media of both folders
    truth_folder = score if truth == LEFT_COLUMN else truth
    if medium is None:
        # the first clip decides, so no further folder is listed
        is_clips = truth == LEFT_COLUMN
        for folder in (score, truth_folder):
            is_clips = is_clips or any(
                map(_is_clip, _list_visible_files(folder, "clip"))
            )
        medium = "clip" if is_clips else "picture"
    reconstructions = list_media(score, medium)
    truths = list_media(truth_folder, medium)

    # match them by name
    names_of, unmatched = match_repeats(list(reconstructions), list(truths))
    if not names_of:
        raise MissingData(
            f"no {medium} below {score} is named after one below {truth}: "
            f"{unmatched[0]!r} and {next(iter(truths))!r}",
            "call reconstructions of NAME: NAME.png, NAME_0.png, NAME_1.png, or "
            "NAME/0.png",
        )
    without = [name for name in truths if name not in names_of]
    _warn_of_names(unmatched, f"reconstructions match no true {medium}")
    _warn_of_names(without, f"true {medium}s have no reconstruction")
    files = {}
    for name, repeats in names_of.items():
        files[name] = [reconstructions[repeat] for repeat in repeats]

    # functions that open the files
    open_true: Callable[[Path], Any]
    open_generated: Callable[[Path], Any]
    if truth == LEFT_COLUMN:
        open_true = partial(open_column, column=0)
        open_generated = partial(open_column, column=1)
    else:
        open_true = open_clip if medium == "clip" else media_files.read
        open_generated = open_true

    generated = GeneratedSet(
        "scored",
        locate(score).name,
        seeds=(),
        files=files,
        description=_describe_repeats(files),
        caveats=read_run_caveats(score),
        open=open_generated,
    )
    # clips with neighbouring names are neighbours in a film
    criterion: GroupingCriterion = "neighbours" if medium == "clip" else "concept"
    name_of_name = {name: name for name in sorted(truths)}
    stimuli = Stimuli(
        open=lambda name: open_true(truths[name]),
        get_label=lambda name: PurePosixPath(name).name,
        grouping=StimulusGrouping(criterion, name_of_name, medium),
    )
    digests = {
        truth_folder: digest_media(truths),
        score: digest_media(reconstructions),
    }
    facts = ReconstructionFacts(score=score, unmatched=unmatched, without=without)
    return generated, stimuli, medium, digests, facts


def _warn_of_names(names: Sequence[str], problem: str) -> None:
    """Warn of a problem of these names, if there are any."""
    if names:
        examples = ", ".join(names[:MAX_LISTED_NAMES])
        console.warn(f"{len(names)} {problem}: {examples}")


def _describe_repeats(files: Mapping[str, Sequence[Path]]) -> str:
    """Describe the number of reconstructions per item."""
    counts = set(map(len, files.values()))
    numbers = "–".join(map(str, sorted({min(counts), max(counts)})))
    return f"{numbers} {'repeat' if counts == {1} else 'repeats'}"


def leave_out_originals(
    generated: GeneratedSet,
    stimuli: Stimuli,
    facts: ReconstructionFacts,
    truth: str | None,
) -> tuple[GeneratedSet, ReconstructionFacts]:
    """Leave out copies of the true media, which some public code writes to its results.

    Copies are found by their content. Clips that show truth and result next to each
    other have no copies.

    Returns:
        The remaining reconstructions, and the facts with the names of the copies.

    Raises:
        BrainhiveError: if nothing remains.
    """
    if truth == LEFT_COLUMN:
        return generated, facts
    originals, _ = find_originals_and_blanks(generated, stimuli)
    if not originals:
        return generated, facts

    # the remaining files of each item
    files: dict[str, list[Path]] = {}
    for image_id, file in generated.media:
        if file not in originals:
            files.setdefault(image_id, []).append(file)
    names = [str(path.relative_to(locate(facts.score))) for path in originals]
    problem = (
        f"{len(names)} true pictures are among those that are scored: "
        f"{', '.join(names[:MAX_LISTED_NAMES])}"
    )
    if not files:
        raise BrainhiveError(
            f"{problem}, and there is nothing else",
            "--score FOLDER of the reconstructions, --truth FOLDER of what was seen",
        )
    console.warn(f"{problem}; they are left out")
    description = _describe_repeats(files)
    without = facts.without + [name for name in generated.files if name not in files]
    new_facts = facts.model_copy(update={"originals": names, "without": without})
    return replace(generated, files=files, description=description), new_facts


def list_media(folder: str, medium: Medium = "picture") -> dict[str, Path]:
    """List the pictures or clips below a folder, without hidden files.

    Hidden files are for example `._NAME.png`, which macOS writes next to pictures. If
    `medium` is clip, a folder of still pictures is a clip.

    Returns:
        Files by their POSIX paths below the folder, without endings. Clips are in the
        order of their numbers.

    Raises:
        MissingData: if the folder does not exist, or has no picture or clip.
        BadPicture: if a file among clips is damaged.
        BrainhiveError: if two files differ only in their endings, or a still picture
            lies next to clips.
    """
    root = locate(folder)
    paths = _list_visible_files(folder, medium)
    advice = f"pictures end in {', '.join(sorted(PICTURES))}"
    if medium == "clip":
        clips = set()
        for file in paths:
            is_clip = _is_clip(file)
            if not is_clip and file.parent == root:
                decode(str(file), file)  # reports a damaged clip as damaged
                raise BrainhiveError(
                    f"{file} is a picture among clips",
                    "put the frames of each clip into a folder of their own",
                )
            clips.add(file if is_clip else file.parent)
        paths = media_files.sort_by_number(clips)
        endings = ", ".join(sorted(VIDEOS | ANIMATED))
        advice = f"clips end in {endings}, or are folders of frames"
    if not paths:
        raise MissingData(f"no {medium}s below {folder}", advice)

    names = []
    for path in paths:
        stem = path.with_suffix("") if path.is_file() else path
        names.append(stem.relative_to(root).as_posix())
    require_unique_ids(names, paths.__getitem__)
    return dict(zip(names, paths, strict=True))


def _is_clip(file: Path) -> bool:
    """Return True for a video or an animated picture."""
    return file.suffix.lower() in VIDEOS or is_animated(file)


def _list_visible_files(folder: str, medium: Medium) -> list[Path]:
    """List the pictures below a folder, and for clips also the videos.

    Raises:
        MissingData: if the folder does not exist.
    """
    root = locate(folder)
    if not root.is_dir():
        raise MissingData(
            f"no folder {folder!r}", f"give a folder of {medium}s that exists"
        )
    endings = PICTURES if medium == "picture" else VIDEOS | PICTURES
    return list(map(root.joinpath, find_pictures(root, "", None, endings)))


def read_run_caveats(folder: str) -> list[str]:
    """Read the caveats of the finished run that contains a folder.

    The folder of the run may be any parent. Elsewhere the list is empty.
    """
    for parent in locate(folder).resolve().parents:
        if (parent / "recipe.yaml").is_file() and (parent / METRICS_FILE).is_file():
            return RunFolder(parent).measurements().caveats
    return []


def digest_media(media: Mapping[str, Path]) -> str:
    """Compute a digest of the names and contents of pictures and clips.

    The digest does not depend on the folder in which they lie.
    """
    contents = []
    for name, path in sorted(media.items()):
        files = [path]
        if path.is_dir():  # the frames of a clip
            files = sorted(filter(Path.is_file, path.iterdir()))
        contents.append((name, *map(documents.digest_file, files)))
    return documents.digest_text(repr(contents))


def match_repeats(
    names: Sequence[str], truths: Sequence[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Match reconstructions with true pictures by name.

    A reconstruction of `NAME` is called `NAME`, `NAME_0`, `NAME_1`, … or lies in a
    folder `NAME`. `NAME` is the path of the true picture below its folder, or the stem
    of its file if no other picture has that stem.

    Returns:
        The names of the reconstructions of each true picture, and the names that match
        none.
    """
    # names by which a true picture can be called
    stems = {name: PurePosixPath(name).name for name in truths}
    n_pictures = Counter(stems.values())
    truth_of = {stem: name for name, stem in stems.items() if n_pictures[stem] == 1}
    for name in truths:
        truth_of[name] = name

    repeats_of: dict[str, list[str]] = {}
    unmatched = []
    for name in names:
        # the most likely match first
        path = PurePosixPath(name)
        paths = [path]
        # Name with a number, such as `NAME_0`, of one of several
        # reconstructions of NAME.
        numbered = re.fullmatch(r"(.+?)[_-]\d+", path.name)
        if numbered:
            paths.append(path.with_name(numbered[1]))
        paths.append(path.parent)
        candidates = []
        for candidate_path in paths:
            if candidate_path.name:
                candidates += [candidate_path.as_posix(), candidate_path.name]

        matches = [truth_of[key] for key in candidates if key in truth_of]
        if matches:
            repeats_of.setdefault(matches[0], []).append(name)
        else:
            unmatched.append(name)
    ordered = {truth: repeats_of[truth] for truth in truths if truth in repeats_of}
    return ordered, unmatched


def open_clip(path: Path) -> Clip:
    """Read a clip. A picture becomes a clip of a single frame."""
    return media_files.to_clip(media_files.read(path))


def open_column(path: Path, column: int) -> Clip:
    """Read a column of a clip that shows truth and result next to each other.

    Columns are squares, with NEURONS' border around and between them or without a
    border. NEURONS' metrics cut clips in the middle instead, which moves the columns by
    a pixel against each other if there is a border.

    Args:
        path: Path of the clip.
        column: 0 for the truth, 1 for the result.

    Raises:
        BrainhiveError: if the clip is not made of two squares.
    """
    clip = open_clip(path)
    height, width = clip.frames.shape[1:3]
    # Border around and between the columns of NEURONS' GIFs. Source:
    # make_grid of torchvision.
    border_px = 2
    for border in (border_px, 0):
        # the columns share the border between them
        side = height - 2 * border
        if side > 0 and width == 2 * side + 3 * border:
            left = border + column * (side + border)
            frames = clip.frames[:, border : border + side, left : left + side]
            return Clip(np.ascontiguousarray(frames), clip.rate_hz)
    raise BrainhiveError(
        f"{path} is {width} × {height} px: not two squares next to each other, with or "
        "without a border",
        "give the true clips in a folder of their own: --truth FOLDER",
    )
