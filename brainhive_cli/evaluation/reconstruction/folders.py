"""Folders of media that someone else made, matched with the true ones by name."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np

from brainhive_cli.core import console, home
from brainhive_cli.core.caveats import extend_protocol
from brainhive_cli.core.errors import MissingData, RecipeError
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.data.datasets import PICTURES, check_unique, pictures_below
from brainhive_cli.data.media import media_files
from brainhive_cli.evaluation.reconstruction import clip_folders
from brainhive_cli.evaluation.reconstruction.generated import GeneratedSet
from brainhive_cli.measurement.metrics import Medium

REPEAT = re.compile(r"(.+?)[_-]\d+")
"""How the name of one of several reconstructions of NAME ends."""
LEFT = "left"
"""In the place of a folder of true clips: they are the left half of the clips that are scored."""
NAMED = 5
"""Names that a warning lists; the metrics file holds all."""


@dataclass(frozen=True)
class MatchedFolders:
    """Reconstructions matched with true pictures or clips by name.

    Attributes:
        generated: The reconstructions of each true picture that has some.
        truths: Name to file of the true pictures.
        unmatched: Names of reconstructions of no true picture.
        without: Names of true pictures that have no reconstruction.
        digests: Digests of the content of both folders, by what the user calls them.
        medium: What both folders hold.
        open_true: Opens a true picture or clip.
    """

    generated: GeneratedSet
    truths: Mapping[str, Path]
    unmatched: list[str]
    without: list[str]
    digests: Mapping[str, str]
    medium: Medium = "picture"
    open_true: Callable[[Path], Any] = media_files.read

    def shuffled(self) -> GeneratedSet:
        """Give every item another item's reconstructions: what any of them scores, the floor."""
        generated = self.generated
        ids = list(generated.files)
        order = np.random.default_rng(0).permutation(len(ids))
        files = {
            ids[place]: generated.files[ids[giver]]
            for place, giver in zip(order, np.roll(order, 1), strict=True)
        }
        in_order = {image_id: files[image_id] for image_id in ids}
        described = f"other items' reconstructions, {generated.described}"
        return replace(
            generated,
            source="shuffled",
            name=f"shuffled/{generated.name}",
            files=in_order,
            described=described,
        )

    @classmethod
    def match(cls, score: str, truth: str | None, medium: Medium | None = None) -> Self:
        """Match two folders, and warn of what is left over.

        Args:
            score: The folder of reconstructions.
            truth: That of what was seen; `left` where each clip that is scored shows it in its left half.
            medium: What they hold; None for clips where one of them holds a video or an animated picture.

        Raises:
            RecipeError: if there is no folder of true pictures.
            MissingData: if a folder is not there or no name matches.
            BrainhiveError: if clips differ in their frames or rates.
        """
        if truth is None:
            raise RecipeError("pictures to score need the true ones", "--truth FOLDER")
        folders = [score] if truth == LEFT else [score, truth]
        if medium is None:
            medium = "clip" if truth == LEFT or any(map(clip_folders.holds_clips, folders)) else "picture"
        list_media = clip_folders.clips_in if medium == "clip" else pictures_in
        made, truths = list_media(score), list_media(folders[-1])
        found, unmatched = match_repeats(list(made), list(truths))
        if not found:
            raise MissingData(
                f"no {medium} below {score} is named after one below {truth}: {unmatched[0]!r} and "
                f"{next(iter(truths))!r}",
                "call reconstructions of NAME: NAME.png, NAME_0.png, NAME_1.png, or NAME/0.png",
            )
        without = [name for name in truths if name not in found]
        _warn_of(unmatched, f"reconstructions match no true {medium}")
        _warn_of(without, f"true {medium}s have no reconstruction")
        digests = {folders[-1]: digest_of(truths), score: digest_of(made)}
        files = {name: [made[each] for each in names] for name, names in found.items()}
        opens = _openers(truth, medium)
        if medium == "clip":
            clip_folders.check_pairs(truths, files, opens)
        described = extend_protocol(_repeats(files.values()), caveats_around(score))
        name = home.located(score).name
        generated = GeneratedSet("scored", name, (), files, described=described, open=opens[1])
        return cls(generated, truths, unmatched, without, digests, medium, opens[0])


def _openers(truth: str, medium: Medium) -> tuple[Callable[[Path], Any], Callable[[Path], Any]]:
    if truth == LEFT:
        return clip_folders.columns()
    opens = clip_folders.open_clip if medium == "clip" else media_files.read
    return opens, opens


def pictures_in(folder: str) -> dict[str, Path]:
    """List the pictures below a folder: POSIX path below it without ending, to file.

    Hidden files are left out: macOS leaves a `._NAME.png` next to each picture on foreign disks.

    Raises:
        MissingData: if there is no such folder, or no picture in it.
        BrainhiveError: if two files differ in their endings only.
    """
    root = home.located(folder)
    if not root.is_dir():
        raise MissingData(f"no folder {folder!r}", "give a folder of pictures that exists")
    below = [PurePosixPath(path) for path in pictures_below(root)]
    files = [root / path for path in below if not any(part.startswith(".") for part in path.parts)]
    if not files:
        raise MissingData(f"no pictures below {folder}", f"pictures end in {', '.join(sorted(PICTURES))}")
    names = [file.relative_to(root).with_suffix("").as_posix() for file in files]
    check_unique(names, files.__getitem__)
    return dict(zip(names, files, strict=True))


def caveats_around(folder: str) -> list[str]:
    """Read the caveats of pictures that lie in the folder of a finished run; none elsewhere."""
    for above in home.located(folder).resolve().parents:
        if (above / "recipe.yaml").is_file() and (above / FINISHED).is_file():
            return RunFolder(above).measurements().caveats
    return []


def digest_of(pictures: Mapping[str, Path]) -> str:
    """Digest the names and contents of pictures and clips, wherever they lie."""
    contents = [
        (name, *(hashlib.sha256(each.read_bytes()).hexdigest() for each in _files_of(file)))
        for name, file in sorted(pictures.items())
    ]
    return hashlib.sha256(repr(contents).encode()).hexdigest()


def _files_of(path: Path) -> list[Path]:
    return sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]


def match_repeats(names: Sequence[str], truths: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Match reconstructions with true pictures.

    A reconstruction of `NAME` is called `NAME`, `NAME_0`, `NAME_1`, … or lies in a folder `NAME`. `NAME` is
    the true picture's path below its folder, or its file's stem where only one picture has it.

    Returns:
        The names of each true picture's reconstructions, and the names that match none.
    """
    known = _known(truths)
    found: dict[str, list[str]] = {}
    unmatched = []
    for name in names:
        owner = next((known[candidate] for candidate in _candidates(name) if candidate in known), None)
        if owner is None:
            unmatched.append(name)
        else:
            found.setdefault(owner, []).append(name)
    return {truth: found[truth] for truth in truths if truth in found}, unmatched


def find_by_name(folder: str, pictures: Mapping[str, Path], image_ids: Sequence[str]) -> list[Path]:
    """Find one picture for each image id, by the id or by the file's stem.

    Raises:
        MissingData: naming an id that has none.
    """
    known = _known(list(pictures))
    names = [known.get(each) or known.get(PurePosixPath(each).name) for each in image_ids]
    if None in names:
        absent = image_ids[names.index(None)]
        raise MissingData(
            f"{folder} has no picture of {absent}", "name its pictures by image id or file stem"
        )
    return [pictures[name] for name in names if name]


def _candidates(name: str) -> Iterator[str]:
    """Yield the names of true pictures that a reconstruction could be of, the likeliest first."""
    path = PurePosixPath(name)
    numbered = REPEAT.fullmatch(path.name)
    for candidate in (path, *([path.with_name(numbered[1])] if numbered else []), path.parent):
        if candidate.name:
            yield candidate.as_posix()
            yield candidate.name


def _known(names: Sequence[str]) -> dict[str, str]:
    """Map names to themselves, and file stems to names where only one name has the stem."""
    stems = {name: PurePosixPath(name).name for name in names}
    count = Counter(stems.values())
    unique = {stem: name for name, stem in stems.items() if count[stem] == 1}
    return unique | {name: name for name in names}


def _warn_of(names: Sequence[str], problem: str) -> None:
    if names:
        more = " …" if len(names) > NAMED else ""
        console.warn(f"{len(names)} {problem}: {', '.join(names[:NAMED])}{more}")


def _repeats(files: Iterable[Sequence[Path]]) -> str:
    """Say how many reconstructions an item has."""
    counts = sorted({len(some) for some in files})
    shown = "–".join(map(str, (counts[0], counts[-1])[: len(counts)]))
    return f"{shown} {'repeat' if counts == [1] else 'repeats'}"
