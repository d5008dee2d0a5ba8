"""Listings of packed files, kept so that these are read through once and not by every command."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core import home

FOLDER = ".listings"
"""Where listings are kept, below the embeddings."""
Listed = tuple[list[str], list[str], NDArray[np.int64]]
"""Names and labels of pictures, and [N, 3] where each lies: file, byte offset and size."""


def kept(folder: Path, files: Sequence[Path], read: Callable[[Sequence[Path]], Listed]) -> Listed:
    """Return what `read` lists of files, from the last time if none has changed its size or time since.

    Args:
        folder: Where listings are kept; one that cannot be written to is done without.
        files: What is listed, in order.
        read: Reads them through.
    """
    here = [str(home.portable(str(file.absolute()))) for file in files]
    name = hashlib.sha256(_joined(here).tobytes()).hexdigest()
    path = folder / f"{name}.npz"
    stamp = [(state.st_size, state.st_mtime_ns) for state in map(os.stat, files)]
    with suppress(OSError, EOFError, KeyError, ValueError, BadZipFile), np.load(path) as found:
        if np.array_equal(found["stamp"], stamp):
            return _split(found["names"]), _split(found["labels"]), found["places"]
    names, labels, places = read(files)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as own:  # of this writer alone
            made = Path(own, path.name)
            np.savez(made, stamp=stamp, names=_joined(names), labels=_joined(labels), places=places)
            os.replace(made, path)
    return names, labels, places


def _joined(texts: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer("".join(f"{text}\0" for text in texts).encode(errors="surrogateescape"), np.uint8)


def _split(joined: NDArray[np.uint8]) -> list[str]:
    return joined.tobytes().decode(errors="surrogateescape").split("\0")[:-1]
