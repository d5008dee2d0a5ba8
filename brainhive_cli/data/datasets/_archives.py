"""Archives that were downloaded and not unpacked."""

import os
import shlex
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from brainhive_cli.core.archives import TAR, TAR_OPENERS, ZIP, tar_members
from brainhive_cli.core.damage import RAISED

FIRST = 10_000
"""Members of a tar that are searched for its first file."""


def unpacking(root: Path, needed: Sequence[str]) -> str:
    """Write the line that unpacks what is missing; empty where no archive below `root` may hold it.

    Args:
        root: The folder of the data set.
        needed: Parts of paths, one of which the missing files have.
    """
    found = (Path(here, file) for here, _, files in os.walk(root, followlinks=True) for file in files)
    return " && ".join(filter(None, (_line(path, root, needed) for path in sorted(found))))


def _line(path: Path, root: Path, needed: Sequence[str]) -> str:
    """Unpack next to the archive; one of root with such files at its top, into a folder of its name."""
    is_zip, ending = path.suffix == ZIP, next((e for e in (ZIP, *TAR) if path.name.endswith(e)), "")
    names = (_members if is_zip else _first_file)(path) if ending else []
    tops = tuple(part.partition("/")[0].rstrip("0123456789") for part in needed)  # of any subject
    is_top = path.parent == root and any(name.startswith(tops) for name in names)
    into = path.with_name(path.name.removesuffix(ending)) if is_top else path.parent
    if is_zip and any(part in name for name in names for part in needed):
        return shlex.join(["unzip", "-nq", str(path), "-d", str(into)])
    if not is_zip and names and not (into / names[0]).exists():
        make = f"{shlex.join(['mkdir', '-p', str(into)])} && " if is_top else ""
        return make + shlex.join(["tar", "-xf", str(path), "-C", str(into)])
    return ""


def _members(path: Path) -> list[str]:
    """List a zip file; nothing for one that is damaged."""
    with suppress(*RAISED), zipfile.ZipFile(path) as archive:
        return archive.namelist()
    return []


def _first_file(path: Path) -> list[str]:
    """Name the first file of a tar file, which has no list: it is unpacked if that is there."""
    with suppress(*RAISED), TAR_OPENERS.get(path.suffix, open)(path, "rb") as file:
        found = (name for name, _, _ in islice(tar_members(file), FIRST) if name)
        return [name.removeprefix("./") for name in islice(found, 1) if "\0" not in name]
    return []
