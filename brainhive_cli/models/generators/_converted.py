"""Folders of weights that are converted once from what a publisher has, and kept below home."""

import os
from collections.abc import Callable
from pathlib import Path

import torch

from brainhive_cli.core import console, home
from brainhive_cli.core.file_lock import FileLock

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
            part = kept.with_name(f".{kept.name}.part")
            part.mkdir(exist_ok=True)
            convert(part)
            os.replace(part, kept)
    finally:
        lock.release()
    return kept
