"""The one opener of files that may be anyone's: it opens plain files only, and waits for nothing.

A pipe would be waited on for ever, a device read without end; a link in a stranger's run may lead anywhere.
"""

import errno
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from brainhive_cli.core.errors import BrainhiveError, MissingData

TEXT_BYTES = 1 << 28
"""Bytes of the largest table or list that is read whole; NSD's has 73,000 lines in 10 MB."""
TRACKERS = ("tensorboard", "wandb", "swan", "run-")
"""First letters of what trackers keep in a run's own folder, links too, and which is no part of the run."""


class UnfitFile(BrainhiveError, OSError):
    """A file that is not opened, since it is no plain file, too large, or a link where none belongs."""

    def __init__(self, number: int, problem: str, path: str | os.PathLike[str], way: str) -> None:
        OSError.__init__(self, number, problem, os.fspath(path))
        self.message, self.hint = f"{self.filename} is {problem}", way

    def __reduce__(self) -> tuple[type["UnfitFile"], tuple[int | None, str | None, str, str]]:
        """Pickle it, as processes that decode pictures do with their errors."""
        return type(self), (self.errno, self.strerror, self.filename, self.hint)


def open_regular(
    path: str | os.PathLike[str], max_bytes: int | None = None, within: Path | None = None
) -> BufferedReader:
    """Open a plain file for reading.

    Args:
        path: The file; a link to one is as good, as those of data sets and of the hub's cache are.
        max_bytes: The largest that is opened; None for any.
        within: A folder below which nothing on the way to the file, and not the file itself, may be a link.

    Raises:
        UnfitFile: if it is no plain file, too large, or a link below `within`.
        OSError: if there is none, or the system refuses.
    """
    if within is not None:
        refuse_link(Path(path), within)
    return open(open_plain(path, os.O_RDONLY, follow=within is None, max_bytes=max_bytes), "rb")


def read_regular(
    path: str | os.PathLike[str], max_bytes: int = TEXT_BYTES, within: Path | None = None
) -> bytes:
    """Read a plain file whole; see `open_regular`."""
    with open_regular(path, max_bytes, within) as file:
        return file.read(max_bytes)


def open_plain(
    path: str | os.PathLike[str], flags: int, follow: bool = True, max_bytes: int | None = None
) -> int:
    """Open the descriptor of a plain file, or make one; see `open_regular`."""
    number = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW), 0o666)
    try:
        _refuse_unfit(os.fstat(number), path, max_bytes)
    except BaseException:
        os.close(number)
        raise
    return number


def open_no_link(path: str, flags: int) -> int:
    """Open a file, as an `opener` of `open`, unless its name is a link, which may lead anywhere."""
    return open_plain(path, flags, follow=False)


def require_regular(path: str | os.PathLike[str], max_bytes: int | None = None) -> None:
    """Refuse, as `open_regular` does, a path that a library is to open by itself."""
    _refuse_unfit(os.stat(path), path, max_bytes)


def require_regular_siblings(path: Path, root: Path) -> None:
    """Refuse a recording next to which, or in a folder above up to `root`, lies what is no plain file.

    Libraries open the parts of a recording, and what describes it, by names of their own.
    """
    folders = [each for each in (path, *path.parents) if each.is_dir() and each.is_relative_to(root)]
    inside = [Path(folder) for folder, _, _ in os.walk(path)]  # of a recording that is a folder
    for folder in {*folders, *inside}:
        for entry in os.scandir(folder):
            if entry.is_dir() or not os.path.exists(entry):  # a link to what was not fetched
                continue
            require_regular(entry)


def is_file(path: Path) -> bool:
    """Whether there is a file that may be absent.

    Raises:
        MissingData: for a link to nowhere, as datalad leaves where a file was not fetched.
    """
    if path.is_symlink() and not path.exists():
        raise MissingData(f"{path} is a link to a file that is not here", f"datalad get {path}, or remove it")
    return path.is_file()


def files_called(name: str, root: Path) -> list[Path]:
    """Find the files of a name at any depth, in order; see `is_file`."""
    found = sorted(Path(folder, name) for folder, _, files in os.walk(root) if name in files)
    return [path for path in found if is_file(path)]


def refuse_link(path: Path, folder: Path) -> None:
    """Refuse a path on which something below a folder is a link; the folder itself may be one."""
    for step in (path, *path.parents):
        if step == folder:
            return
        if step.is_symlink():
            way = "put what it leads to in its place, or remove it"
            raise UnfitFile(errno.ELOOP, "a link, and inside a run none is followed", step, way)


def refuse_links(folder: Path) -> None:
    """Refuse a run in which anything is a link, but for what trackers keep there."""
    for path in _entries(folder, is_top=True):
        refuse_link(path, folder)


def _entries(folder: Path, is_top: bool = False) -> Iterator[Path]:
    for entry in os.scandir(folder):
        if is_top and entry.name.startswith(TRACKERS):
            continue
        if entry.is_symlink():
            yield Path(entry)
        elif entry.is_dir():
            yield from _entries(Path(entry))


def _refuse_unfit(about: os.stat_result, path: str | os.PathLike[str], max_bytes: int | None) -> None:
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(about.st_mode):
        raise UnfitFile(errno.EINVAL, "a pipe, socket or device, and no plain file", path, "put a file there")
    if max_bytes is not None and about.st_size > max_bytes:
        problem = f"too large: {about.st_size:,} bytes, at most {max_bytes:,} are read"
        raise UnfitFile(errno.EFBIG, problem, path, "check that it is the file that is meant")
