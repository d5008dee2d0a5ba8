"""Code that is not Brainhive's and that a recipe or a file names: it runs only where the user allows it.

What the user typed on the command line is allowed by that; what stands in a file needs `--allow-code`.
"""

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from brainhive_cli.core.errors import MissingExtra, RecipeError, first_line

ALLOW = "BRAINHIVE_ALLOW_CODE"
"""Environment variable that, when it is 1, allows all code, as `--allow-code` does; for use from Python."""
OWN = frozenset({"python:brainhive_cli.encoders.python:example"})
"""Code that is Brainhive's, although it is named as a user's would be."""


class NotRun(RecipeError):
    """Code that is allowed to run, but not by `--check`."""


@dataclass
class Permission:
    """What this process may run.

    Attributes:
        names: Names of code that the user typed.
        all: Whether all code may run.
        is_check: Whether no code runs, since only the plan is printed.
    """

    names: set[str] = field(default_factory=set)
    all: bool = False
    is_check: bool = False


_permission = Permission()


@contextmanager
def permitted(all_code: bool, is_check: bool) -> Iterator[None]:
    """Set what may run during a command."""
    before = vars(_permission).copy()
    vars(_permission).update(names=set(), all=all_code, is_check=is_check)
    try:
        yield
    finally:
        vars(_permission).update(before)


def allow_typed(key: str, value: Any) -> None:
    """Allow the code that a flag or override names: each word of it, if it is no file or folder."""
    words = _words({key.rpartition(".")[2]: value})
    _permission.names.update(word for word in words if not os.path.exists(word))


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from (value, *(word.strip() for word in value.split(",")))
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from (str(key), *_words(each))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _words(each)


def require(name: str, described: str) -> None:
    """Refuse code that the user did not allow.

    Args:
        name: Of the code, as a recipe or file has it.
        described: The code in words, for the error.

    Raises:
        RecipeError: if it is not allowed.
        NotRun: if it is, under `--check`.
    """
    if name in OWN:
        return
    if not (name in _permission.names or _permission.all or os.environ.get(ALLOW) == "1"):
        raise RecipeError(
            f"{described} is code, named by a file and not on the command line",
            "--allow-code, if you trust whoever wrote it: it can do all that you can",
        )
    if _permission.is_check:
        raise NotRun(f"{described} is code, which --check does not run", "leave out --check")


def import_module(path: str, name: str, described: str) -> ModuleType:
    """Import a module that a recipe or file names, if it is allowed.

    Raises:
        RecipeError: if it is not allowed (see `require`), or does not import.
        MissingExtra: if it, or what it imports, is not installed.
    """
    require(name, described)
    if not all(part.isidentifier() for part in path.split(".")):
        raise RecipeError(f"{described}: {path!r} is no import path", "write package.module")
    try:
        return importlib.import_module(path)
    except ImportError as error:
        raise MissingExtra(f"{described}: {error}", "install the package, or set PYTHONPATH") from error
    except Exception as error:
        problem = f"{type(error).__name__}: {first_line(error)}"
        raise RecipeError(f"{described} does not import: {problem}", "fix it; --debug shows where") from error
