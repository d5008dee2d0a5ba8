"""Archives that were downloaded and not unpacked."""

import os
import shlex
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ZIP = ".zip"
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def unpacking(root: Path, wanted: Sequence[str]) -> str:
    """Write the line that unpacks what is missing; empty where no archive below `root` may hold it.

    Args:
        root: The folder of the data set.
        wanted: Parts of paths, one of which the missing files have.
    """
    return " && ".join(_line(path, wanted) for path in sorted(_archives(root)) if _may_hold(path, wanted))


def _archives(root: Path) -> Iterator[Path]:
    for here, _, files in os.walk(root, followlinks=True):
        yield from (Path(here, file) for file in files if file.endswith((ZIP, *TAR)))


def _may_hold(path: Path, wanted: Sequence[str]) -> bool:
    """Look into a zip file's list; a tar file, which has none, is unpacked if its first file is there."""
    if path.suffix == ZIP:
        names = _members(path)
        return not names or any(part in name for name in names for part in wanted)
    try:
        with tarfile.open(path) as archive:
            first = next((member.name for member in archive if member.isfile()), "")
    except (tarfile.TarError, OSError, EOFError):
        return True
    return not (path.parent / first).exists()


def _members(path: Path) -> list[str]:
    """List a zip file; nothing for one that is damaged, of which unzip says more."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return []


def _line(path: Path, wanted: Sequence[str]) -> str:
    """Unpack beside the archive; into a folder of its name where the missing files lie at its top."""
    is_top = path.suffix == ZIP and any(name.startswith(tuple(wanted)) for name in _members(path))
    into = path.with_suffix("") if is_top else path.parent
    if path.suffix == ZIP:
        return shlex.join(["unzip", "-nq", str(path), "-d", str(into)])
    return shlex.join(["tar", "-xf", str(path), "-C", str(into)])
