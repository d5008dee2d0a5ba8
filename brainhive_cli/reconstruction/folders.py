"""Folders of pictures that someone else made, matched with pictures by name."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from brainhive_cli.core import home
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.datasets import PICTURES, check_unique, pictures_below

REPEAT = re.compile(r"(.+?)[_-]\d+")
"""How the name of one of several reconstructions of NAME ends."""


def pictures_in(folder: str) -> dict[str, Path]:
    """List the pictures below a folder: POSIX path below it without ending, to file.

    What is hidden is passed over: macOS leaves a `._NAME.png` beside each picture on foreign disks.

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
    """Read what must be said of pictures that lie in the folder of a finished run; nothing elsewhere."""
    for above in home.located(folder).resolve().parents:
        if (above / "recipe.yaml").is_file() and (above / FINISHED).is_file():
            found: list[str] = RunFolder(above).metrics().get("caveats", [])
            return found
    return []


def digest_of(pictures: Mapping[str, Path]) -> str:
    """Digest what pictures are called and what their files hold, wherever they lie."""
    held = [(name, hashlib.sha256(file.read_bytes()).hexdigest()) for name, file in sorted(pictures.items())]
    return hashlib.sha256(repr(held).encode()).hexdigest()


def match_repeats(names: Sequence[str], truths: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Find whose reconstructions pictures are.

    A reconstruction of `NAME` is called `NAME`, `NAME_0`, `NAME_1`, … or lies in a folder `NAME`. `NAME` is
    the true picture's path below its folder, or its file's stem where that means one picture only.

    Args:
        names: Of the reconstructions.
        truths: Of the true pictures.

    Returns:
        The names of each true picture's reconstructions, and the names that match none.
    """
    known = {**_stems(truths), **{name: name for name in truths}}
    found: dict[str, list[str]] = {}
    unmatched = []
    for name in names:
        owner = next((known[way] for way in _ways(name) if way in known), None)
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
    known = {**_stems(list(pictures)), **{name: name for name in pictures}}
    wanted = [known.get(each) or known.get(PurePosixPath(each).name) for each in image_ids]
    if None in wanted:
        absent = image_ids[wanted.index(None)]
        raise MissingData(
            f"{folder} has no picture of {absent}", "name its pictures by image id or file stem"
        )
    return [pictures[name] for name in wanted if name]


def _ways(name: str) -> Iterator[str]:
    """Yield what a reconstruction could be one of, the likeliest first."""
    path = PurePosixPath(name)
    for way in (path, *_without_number(path), path.parent):
        if way.name:
            yield way.as_posix()
            yield way.name


def _without_number(path: PurePosixPath) -> list[PurePosixPath]:
    matched = REPEAT.fullmatch(path.name)
    return [path.with_name(matched[1])] if matched else []


def _stems(names: Sequence[str]) -> dict[str, str]:
    """Map file stems to names, where a stem means one only."""
    stems = [PurePosixPath(name).name for name in names]
    count = Counter(stems)
    return {stem: name for stem, name in zip(stems, names, strict=True) if count[stem] == 1}
