"""Code that is not Brainhive's and that a recipe or a file names: it runs only where the user allows it.

What the user typed on the command line is allowed by that; what stands in a file needs `--allow-code`.
"""

import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import reduce
from traceback import walk_tb
from types import ModuleType
from typing import Any

from brainhive_cli.core.errors import BrainhiveError, MissingExtra, RecipeError, first_line

ALLOW = "BRAINHIVE_ALLOW_CODE"
"""Environment variable that, when it is 1, allows all code, as `--allow-code` does; for use from Python."""
OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")
"""Beginning of `key.path=value`, which no path has (`./a=b` is one)."""
OWN = frozenset({"python:brainhive_cli.models.encoders.python:example"})
"""Code that is Brainhive's, although it is named as a user's would be."""
CALL = re.compile(r"([\w.]+)\(\) (?:takes|missing|got) ")
"""Message of Python about a function, by its qualified name, that was called with wrong arguments."""


class NotRun(RecipeError):
    """Code that is allowed to run, but not by `--check`."""


@dataclass
class Permission:
    """Code that this process may run.

    Attributes:
        names: Names of code that the user typed.
        all: Whether all code may run.
        is_check: Whether no code runs, since only the plan is printed.
        ran: Names of code that was run.
    """

    names: set[str] = field(default_factory=set)
    all: bool = False
    is_check: bool = False
    ran: set[str] = field(default_factory=set)


_permission = Permission()
_imported: dict[str, str] = {}
"""Imported code of that kind: a module, and its name in a recipe; errors in it are its author's."""


@contextmanager
def permitted(
    all_code: bool, is_check: bool, flags: Mapping[str, Any], overrides: Iterable[str]
) -> Iterator[None]:
    """Set what may run during a command: what its command line names, or all code.

    Args:
        all_code: Whether all code may run.
        is_check: Whether only the plan is printed: then a name on the command line does not allow code.
        flags: Recipe keys and values as typed.
        overrides: `key.path=value` as typed; those of a recipe's steps are not.
    """
    # words that are typed name code, unless they are files or folders
    before = vars(_permission).copy()
    set_flags = {key: value for key, value in flags.items() if value is not None}
    words = [*_words(set_flags), *(word for override in overrides for word in _words_of(override))]
    names = {word for word in words if not os.path.exists(word)}  # the others are files or folders
    vars(_permission).update(names=names, all=all_code, is_check=is_check, ran=set())
    try:
        yield
    finally:
        vars(_permission).update(before)


def _words_of(override: str, may_nest: bool = True) -> Iterator[str]:
    """List the words of `key.path=value`; none of what no override is, which resolving the recipe reports."""
    from brainhive_cli.core import recipe

    key, _, text = override.partition("=")
    with suppress(RecipeError):
        yield from _words({key: recipe.parse_value(text, override)}, may_nest)


def ran() -> frozenset[str]:
    """Name the code that ran during the command, but under `--check`; the next one may need it too."""
    return frozenset(_permission.ran)


def _words(value: Any, may_nest: bool = True) -> Iterator[str]:
    if isinstance(value, str):
        yield from (value, *(word.strip() for word in value.split(",")))
        if may_nest and OVERRIDE.match(value):  # of a step, as in steps.embed.overrides=[…]
            yield from _words_of(value, may_nest=False)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (str(key).rpartition(".")[2], *_words(inner, may_nest))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _words(inner, may_nest)


def require(name: str, described: str) -> None:
    """Refuse code that the user did not allow.

    Args:
        name: Of the code, as a recipe or file has it.
        described: The code in words, for the error.

    Raises:
        RecipeError: if it is not allowed.
        NotRun: if it is allowed by its name alone, under `--check`.
    """
    if name in OWN:
        return

    # by its name on the command line, or with everything
    allows_all = _permission.all or os.environ.get(ALLOW) == "1"
    if not (allows_all or name in _permission.names):
        raise RecipeError(
            f"{described} is code, named by a file and not on the command line",
            "--allow-code, if you trust whoever wrote it: it can do all that you can",
        )
    _permission.ran.add(name)
    if _permission.is_check and not allows_all:
        raise NotRun(f"{described} is code, which --check does not run", "--check --allow-code runs it")


def import_module(path: str, name: str, described: str) -> ModuleType:
    """Import a module that a recipe or file names, if it is allowed.

    Raises:
        RecipeError: if it is not allowed (see `require`), or does not import.
        MissingExtra: if it, or what it imports, is not installed.
    """
    require(name, described)

    # an import path and nothing else, as a recipe of a stranger may hold anything
    if not all(part.isidentifier() for part in path.split(".")):
        raise RecipeError(f"{described}: {path!r} is no import path", "write package.module")
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        raise MissingExtra(f"{described}: {error}", "install the package, or set PYTHONPATH") from error
    except Exception as error:
        problem = f"{type(error).__name__}: {first_line(error)}"
        raise RecipeError(f"{described} does not import: {problem}", "fix it; --debug shows where") from error

    # errors in it are then described as its author's
    if path.partition(".")[0] != __name__.partition(".")[0]:
        _imported[path] = described
    return module


def mistake(error: BaseException) -> BrainhiveError | None:
    """Describe an error that was made in a user's code by part and line; None if it was not made there."""
    if not (where := _place_of_error(error)):
        return None
    return BrainhiveError(
        f"{where}: {type(error).__name__}: {first_line(error)}",
        "correct it there; --debug shows how it was called",
    )


def _place_of_error(error: BaseException) -> str:
    """Say where in a user's code an error was made: part, line and function; empty if it was not made there.

    That is the innermost line of it that ran. Where none ran, it is what was called with other arguments than
    it has, what lacks an attribute, or the object whose method, inherited from a library, failed.
    """
    # the innermost line of the code
    frames = list(walk_tb(error.__traceback__))[::-1]
    for frame, line in frames:
        if part := _part_of(frame.f_globals.get("__name__")):
            return f"{part}, line {line} in {frame.f_code.co_name}"

    # a function of theirs, called with other arguments than it has
    if isinstance(error, TypeError) and (call := CALL.match(str(error))):
        # parts have functions of the same name: it is that of an object in the innermost frames
        held = [type(value).__module__ for frame, _ in frames for value in frame.f_locals.values()]
        for path in (*(module for module in held if module in _imported), *_imported):
            function = reduce(
                lambda a, name: getattr(a, name, None), call[1].split("."), sys.modules.get(path)
            )
            if function is not None:
                return _place(function, call[1])

    # an object that lacks an attribute, or whose inherited method failed
    lacking = [error.obj] if isinstance(error, AttributeError) else []
    for value in (*lacking, *(frame.f_locals.get("self") for frame, _ in frames)):
        if isinstance(value, ModuleType):
            where = _part_of(value.__name__)
        else:
            where = _place(type(value), type(value).__qualname__)
        if where:
            return where
    return ""


def name_of(value: Any, what: str) -> str:
    """Name an object for an error: a user's by its part and line, another by `what` it is and its class."""
    return _place(type(value), type(value).__qualname__) or f"{what} {type(value).__name__}"


def _place(code: Any, name: str) -> str:
    """Name a function or class of a user, with its part and line; empty if it is not a user's."""
    if part := _part_of(getattr(code, "__module__", None)):
        with suppress(OSError, TypeError):  # of code that has no source, as a dataclass's __init__
            return f"{part}, {name} in line {inspect.getsourcelines(code)[1]}"
        return f"{part}, {name}"
    return ""


def _part_of(module: Any) -> str:
    """Say what a recipe calls the code of a module; a module that such code imports goes by its own name."""
    if module in _imported:
        return _imported[module]

    # modules of the same package are of the same author
    is_users = str(module).partition(".")[0] in {path.partition(".")[0] for path in _imported}
    return str(module) if is_users else ""
