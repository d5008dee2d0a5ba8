"""Home, the folder of a user's files; paths below it are stored relative to it, so that it can be moved."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def root() -> Path:
    """Return home: BRAINHIVE_HOME, or the working directory."""
    return Path(os.environ.get("BRAINHIVE_HOME", "."))


def shipped(name: str) -> Path:
    """Return a folder that comes with Brainhive: in the wheel, or next to the package in a checkout."""
    package = Path(__file__).parents[1]
    return next(path for path in (package / name, package.parent / name) if path.is_dir())


def located(path: str | Path) -> Path:
    """Resolve a path of a user or a recipe: as it is given, or else below home."""
    named = Path(path)
    below = root() / named  # os.path: to a Path, a name that is too long is an error
    return below if not os.path.exists(named) and os.path.exists(below) else named


def stored(path: str) -> str:
    """Resolve a stored path: below home if it exists there, else as it was given."""
    below = root() / path
    return str(below) if below.exists() else path


def portable(value: Any) -> Any:
    """Write paths below home relative to it, in a value as JSON has them; all else stays as it was given."""
    if isinstance(value, Mapping):
        return {portable(key): portable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [portable(each) for each in value]
    if isinstance(value, str | Path) and os.path.isabs(value):
        path = os.path.normpath(value)
        for home in (os.path.abspath(root()), os.path.realpath(root())):
            if path.startswith(f"{home.rstrip(os.sep)}{os.sep}"):
                return Path(os.path.relpath(path, home)).as_posix()
    return value
