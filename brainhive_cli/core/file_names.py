"""Paths made from words that come from a recipe or a file, which must not lead out of their folder."""

import os
import re
import shutil
from pathlib import Path

from brainhive_cli.core.errors import BrainhiveError

LONGEST_BYTES = 255
"""Of one part of a path, on the usual file systems (NAME_MAX)."""
SHOWN = 80
"""Characters of a refused name that its error shows."""
REFUSED = {
    "is empty": re.compile(r"\A\Z"),
    "is an absolute path": re.compile(r"[/\\]|[A-Za-z]:[/\\]"),
    "leads out of its folder": re.compile(r"(?:.*[/\\])?\.\.(?:[/\\]|\Z)", re.DOTALL),
    "has an empty part": re.compile(r"(?:.*[/\\])?\.?(?:[/\\]|\Z)", re.DOTALL),
    "has a control character": re.compile(r".*[\x00-\x1f\x7f-\x9f]", re.DOTALL),
    "is not UTF-8": re.compile(r".*[\ud800-\udfff]", re.DOTALL),
}
"""Why a word is no path below a folder; a backslash counts as a slash, as on Windows."""


def below(folder: Path, *names: str, source: str, error: type[BrainhiveError] = BrainhiveError) -> Path:
    """Return the path of `names` below a folder.

    Args:
        folder: A folder that is trusted.
        names: Each a file name, or several with slashes in between, as stimulus ids are.
        source: Where the names come from, in words for the error.
        error: What is raised.

    Raises:
        BrainhiveError: for a name that is empty, absolute, leads out of the folder, or that no file can have.
    """
    for name in names:
        if reason := _why_not(name):
            shown = repr(name)
            shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"
            raise error(f"{source} {shown} {reason}", "use a name, or names with / in between, without ..")
    return folder.joinpath(*names)


def within(folder: Path, name: str, source: str) -> Path:
    """Return the path of a file below a folder, as `below`, in which no link leads to another folder.

    Raises:
        BrainhiveError: naming a folder on the way that is a link.
    """
    path = below(folder, name, source=source)
    for above in list(path.relative_to(folder).parents)[:-1]:
        if (folder / above).is_symlink():
            raise BrainhiveError(
                f"{folder / above} is a link, through which nothing is written",
                "put the folder that it leads to in its place, or remove it",
            )
    return path


def publish(part: Path, final: Path) -> None:
    """Give a complete file, or a folder of files, its final name; its bytes are on the disk before.

    Else a power cut could leave the name, and nothing in it.

    Raises:
        OSError: if the disk is full or fails; nothing is renamed then.
    """
    for path in part.rglob("*") if part.is_dir() else (part,):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file)
    os.replace(part, final)


def remove(path: Path) -> None:
    """Remove whatever lies where a file or folder is to be written: a link itself, not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _why_not(name: str) -> str:
    """Say why a word is no path below a folder; empty if it is one."""
    if not isinstance(name, str):  # as attributes of files may be
        return f"is a {type(name).__name__}, not a name"
    found = next((reason for reason, pattern in REFUSED.items() if pattern.match(name)), "")
    is_long = not found and any(len(part.encode()) > LONGEST_BYTES for part in name.split("/"))
    return f"has a part of more than {LONGEST_BYTES} bytes" if is_long else found
