"""Code that is not Brainhive's and that a recipe, file or command line names:
`--allow-code` lets it run.
"""

import importlib
import inspect
import linecache
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from traceback import walk_tb
from types import ModuleType
from typing import Any, NamedTuple

from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingExtra,
    RecipeError,
    first_line,
)

ALLOW = "BRAINHIVE_ALLOW_CODE"
"""Environment variable that allows all code when it is 1; `--allow-code` sets it."""
OURS = __name__.partition(".")[0]
"""The package."""
OWN = frozenset({"python:brainhive_cli.models.encoders.python:example"})
"""Code that is Brainhive's, although it is named as a user's would be."""


class ImportedCode(NamedTuple):
    """Code that a recipe or file names, and that was imported.

    Attributes:
        described: The code in words, as a recipe calls it.
        contract: Module that says what the code has to offer, and how it is called.
    """

    described: str
    contract: str


_imported: dict[str, ImportedCode] = {}
"""Imported code by its module; errors in it are its author's."""


@contextmanager
def permitted(is_allowed: bool) -> Iterator[None]:
    """Let all code run during a command whose line has `--allow-code`, and in processes
    that it starts.
    """
    before = os.environ.get(ALLOW)
    if is_allowed:
        os.environ[ALLOW] = "1"
    try:
        yield
    finally:
        os.environ.pop(ALLOW, None)
        if before is not None:
            os.environ[ALLOW] = before


def require(name: str, described: str) -> None:
    """Refuse code that the user did not allow.

    Args:
        name: Of the code, as a recipe or file has it.
        described: The code in words, for the error.

    Raises:
        RecipeError: if it is not allowed.
    """
    if name not in OWN and os.environ.get(ALLOW) != "1":
        raise RecipeError(
            f"{described} is code, which runs only if it is allowed",
            "--allow-code, if you trust whoever wrote it: it can do all that you can",
        )


def import_module(path: str, name: str, described: str, contract: str) -> ModuleType:
    """Import a module that a recipe or file names, if it is allowed.

    Args:
        path: Its import path.
        name: Of the code, as a recipe or file has it.
        described: The code in words, for errors.
        contract: Module that says what the code has to offer.

    Raises:
        RecipeError: if it is not allowed (see `require`), or does not import.
        MissingExtra: if it, or what it imports, is not installed.
    """
    require(name, described)

    # an import path and nothing else, as a recipe of a stranger may hold anything
    if not all(part.isidentifier() for part in path.split(".")):
        raise RecipeError(
            f"{described}: {path!r} is no import path", "write package.module"
        )
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{described}: {error}", "install the package, or set PYTHONPATH"
        ) from error
    except Exception as error:
        problem = f"{type(error).__name__}: {first_line(error)}"
        raise RecipeError(
            f"{described} does not import: {problem}", "fix it; --debug shows where"
        ) from error

    # errors in it are then described as its author's
    if path.partition(".")[0] != OURS:
        _imported[path] = ImportedCode(described, contract)
    return module


def mistake(error: BaseException) -> BrainhiveError | None:
    """Describe an error that was made in a user's code by part and line; None if it was
    not made there.

    That is the innermost line of it that ran. Where none ran, it is an object of
    theirs: one that lacks an attribute, or the nearest one, as its method was called
    wrongly, or failed in what it inherits.
    """
    # the innermost line of the code
    where = ""
    objects = [error.obj] if isinstance(error, AttributeError) else []
    for frame, line in list(walk_tb(error.__traceback__))[::-1]:
        if part := _part_of(frame.f_globals.get("__name__")):
            where = f"{part}, line {line} in {frame.f_code.co_name}"
            break
        objects += [frame.f_locals.get("self"), *frame.f_locals.values()]

    # else the nearest object of theirs, which was called wrongly
    way = "correct it there"
    if not where:
        where = next(filter(None, map(_locate, objects)), "")
        way = _describe_call(error)
    if not where:
        return None
    problem = f"{where}: {type(error).__name__}: {first_line(error)}"
    return BrainhiveError(problem, f"{way}; --debug shows how it was called")


def suspect(error: BaseException) -> BrainhiveError | None:
    """Describe an error in a command that runs imported code, which may have returned
    something that Brainhive cannot call; None where no code was imported.
    """
    way = _describe_call(error)
    if not way:
        return None
    problem = f"{type(error).__name__}: {first_line(error)}"
    names = dict.fromkeys(code.described for code in _imported.values())
    return BrainhiveError(
        f"{problem}, in a command that runs {', '.join(names)}",
        f"{way}; --debug shows where",
    )


def _describe_call(error: BaseException) -> str:
    """Say which line of ours was running, and what says how imported code is called;
    empty where no code was imported.
    """
    calls = [
        (frame, line)
        for frame, line in walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).startswith(OURS)
    ]
    if not (calls and _imported):
        return ""
    frame, line = calls[-1]
    text = linecache.getline(frame.f_code.co_filename, line).strip()
    contracts = dict.fromkeys(code.contract for code in _imported.values())
    return (
        f"the call was `{text}` in {frame.f_globals['__name__']}, line {line}; "
        f"{' and '.join(contracts)} says what it has to offer"
    )


def name_of(value: Any, what: str) -> str:
    """Name an object for an error: a user's by its part and line, another by `what` it
    is and its class.
    """
    return _locate(value) or f"{what} {type(value).__name__}"


def _locate(value: Any) -> str:
    """Name a user's module, or the class of a user's object with its line; empty of
    anything else.
    """
    if isinstance(value, ModuleType):
        return _part_of(value.__name__)
    kind = type(value)
    if not (part := _part_of(kind.__module__)):
        return ""
    with suppress(OSError, TypeError):  # of code that has no source
        return f"{part}, {kind.__qualname__} in line {inspect.getsourcelines(kind)[1]}"
    return f"{part}, {kind.__qualname__}"


def _part_of(module: Any) -> str:
    """Say what a recipe calls the code of a module; a module that such code imports
    goes by its own name.
    """
    if module in _imported:
        return _imported[module].described

    # modules of the same package are of the same author
    is_users = str(module).partition(".")[0] in {
        path.partition(".")[0] for path in _imported
    }
    return str(module) if is_users else ""
