"""Folders of weights that are converted once from what a publisher has, and kept below home."""

from collections.abc import Callable
from pathlib import Path

import torch

from brainhive_cli.core import console, home
from brainhive_cli.core.file_lock import FileLock
from brainhive_cli.core.files import atomic_write

MODELS = "models"
"""Where converted weights are kept, below home."""


def folder_of(name: str, dtype: torch.dtype) -> Path:
    """Name the folder of what was converted to a dtype."""
    return home.root() / MODELS / f"{name}-{str(dtype).removeprefix('torch.')}"


def any_of(name: str) -> bool:
    """Whether it was converted to any dtype."""
    return any((home.root() / MODELS).glob(f"{name}-*"))


def once(name: str, dtype: torch.dtype, described: str, convert: Callable[[Path], None]) -> Path:
    """Find a folder of converted weights, or let `convert` fill it; interrupted, none has this name."""
    kept = folder_of(name, dtype)
    lock = FileLock.for_path(kept, wait=True)
    try:
        if not kept.is_dir():
            console.say(f"{described} is converted once, into {kept}")
            with atomic_write(kept) as part:
                part.mkdir()
                convert(part)
    finally:
        lock.release()
    return kept
