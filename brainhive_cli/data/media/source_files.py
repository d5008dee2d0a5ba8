"""Files that a store was made from: what each is known by, and how those of then differ from those now."""

import hashlib
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any

from brainhive_cli.core import home
from brainhive_cli.core.plain_files import read_regular

Known = Mapping[str, Mapping[str, Any]]
"""Name of a file to its bytes, and of tables and small files the SHA-256, too."""
TABLES = (".csv", ".tsv", ".txt")
SMALL_BYTES = 2**20
"""Of a file, below which it is known by its content, as tables are; others are known by their size."""


def known(paths: Iterable[Path]) -> Known:
    """Say what files are known by."""
    return {home.portable(str(path)): _known_by(path) for path in paths}


def _known_by(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if path.suffix.lower() not in TABLES and size >= SMALL_BYTES:
        return {"bytes": size}
    return {"bytes": size, "sha256": hashlib.sha256(read_regular(path)).hexdigest()}


def difference(old: Known, new: Known) -> str:
    """Say how a store's files differ from others, as `from ...` or `without ...`; empty if they do not."""
    old, new = _below_their_folder(old), _below_their_folder(new)
    name = next((name for name in {**old, **new} if old.get(name) != new.get(name)), None)
    if name is None:
        return ""
    if name not in old:
        return f"without {name}"
    if name not in new:
        return f"from {name}, which is not among the files now"
    sizes = [each[name]["bytes"] for each in (old, new)]
    return f"from {name} of " + ("other content" if len({*sizes}) == 1 else "{} bytes, not {}".format(*sizes))


def _below_their_folder(files: Known) -> Known:
    """Name files from the folder that holds all, as raw data may be moved."""
    parts_of = {PurePath(name).parts: each for name, each in files.items()}
    folders = zip(*(names[:-1] for names in parts_of), strict=False)
    shared = len([*takewhile(lambda names: len({*names}) == 1, folders)])
    return {"/".join(names[shared:]): each for names, each in parts_of.items()}
