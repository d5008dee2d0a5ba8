"""Code of users and other projects, which runs only with `--allow-code`."""

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

ALLOW_VARIABLE = "BRAINHIVE_ALLOW_CODE"
"""Environment variable that allows all code if it is 1. `--allow-code` sets it."""
PACKAGE = __name__.partition(".")[0]
"""Name of Brainhive's own package."""
OWN_CODE = frozenset({"python:brainhive_cli.models.encoders.python:example"})
"""Code of Brainhive that recipes name in the same way as a user's code."""


class ImportedCode(NamedTuple):
    """Code of a user that was imported because a recipe or file names it.

    Attributes:
        description: Description of the code, as a recipe calls it.
        contract: Module that documents what the code must provide.
    """

    description: str
    contract: str


_imported: dict[str, ImportedCode] = {}
"""Imported code of users, keyed by the name of its module."""


@contextmanager
def allow_code(is_allowed: bool) -> Iterator[None]:
    """Allow all code inside a `with` block, also in processes that the block starts.

    Args:
        is_allowed: True if the command line has `--allow-code`. False changes nothing.
    """
    initial_value = os.environ.get(ALLOW_VARIABLE)
    if is_allowed:
        os.environ[ALLOW_VARIABLE] = "1"
    try:
        yield
    finally:
        os.environ.pop(ALLOW_VARIABLE, None)
        if initial_value is not None:
            os.environ[ALLOW_VARIABLE] = initial_value


def require_permission(name: str, description: str) -> None:
    """Raise an error if the user did not allow code to run.

    Args:
        name: Name of the code in a recipe or file.
        description: Description of the code, for the error.

    Raises:
        RecipeError: if the code is not allowed.
    """
    if name not in OWN_CODE and os.environ.get(ALLOW_VARIABLE) != "1":
        raise RecipeError(
            f"{description} is code, which runs only if you allow it",
            "add --allow-code if you trust its author: the code can do everything that "
            "you can",
        )


def import_module(path: str, name: str, description: str, contract: str) -> ModuleType:
    """Import a module that a recipe or file names, if the user allows it.

    Args:
        path: Import path of the module.
        name: Name of the code in the recipe or file.
        description: Description of the code, for errors.
        contract: Module that documents what the code must provide.

    Raises:
        RecipeError: if the code is not allowed, or cannot be imported.
        MissingExtra: if the module, or a module that it imports, is not installed.
    """
    require_permission(name, description)

    # the recipe may come from anybody, so nothing but an import path is accepted
    if not all(part.isidentifier() for part in path.split(".")):
        raise RecipeError(
            f"{description}: {path!r} is not an import path", "write package.module"
        )
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{description}: {error}", "install the package, or set PYTHONPATH"
        ) from error
    except Exception as error:
        problem = f"{type(error).__name__}: {first_line(error)}"
        raise RecipeError(
            f"{description} cannot be imported: {problem}",
            "correct it; --debug shows the line",
        ) from error

    # later errors in this module are reported as errors of the user's code
    if path.partition(".")[0] != PACKAGE:
        _imported[path] = ImportedCode(description, contract)
    return module


def describe_user_error(error: BaseException) -> BrainhiveError | None:
    """Describe an error in the code of a user.

    The error names the innermost line of the user's code that ran. If no such line ran,
    the error names the nearest object of the user. That object may lack an attribute,
    may have been called wrongly, or may have failed in a method that it inherits.

    Args:
        error: Error with its traceback.

    Returns:
        An error that names the code and the line. None if no code or object of a user
        is involved.
    """
    location = ""
    objects = [error.obj] if isinstance(error, AttributeError) else []
    frames = list(walk_tb(error.__traceback__))
    frames.reverse()
    for frame, line in frames:
        module = _describe_module(frame.f_globals.get("__name__"))
        if module:
            location = f"{module}, line {line} in {frame.f_code.co_name}"
            break
        objects.append(frame.f_locals.get("self"))
        objects += frame.f_locals.values()

    # without a line of the user, find the user's object that was called wrongly
    hint = "correct it there"
    if not location:
        hint = _describe_call(error)
        for value in objects:
            location = location or _describe_object(value)
    if not location:
        return None
    message = f"{location}: {type(error).__name__}: {first_line(error)}"
    return BrainhiveError(message, f"{hint}; --debug shows how it was called")


def describe_suspected_error(error: BaseException) -> BrainhiveError | None:
    """Describe an error of a command that runs imported code.

    The imported code may have returned a value that Brainhive cannot use.

    Args:
        error: Error with its traceback.

    Returns:
        An error that names all imported code. None if no code was imported.
    """
    hint = _describe_call(error)
    if not hint:
        return None
    descriptions = dict.fromkeys(code.description for code in _imported.values())
    return BrainhiveError(
        f"{type(error).__name__}: {first_line(error)}, in a command that runs "
        f"{', '.join(descriptions)}",
        f"{hint}; --debug shows the line",
    )


def _describe_call(error: BaseException) -> str:
    """Describe the last line of Brainhive that ran before an error.

    Returns:
        The line, and the modules that document what imported code must provide. Empty
        if no code was imported.
    """
    package_calls = []
    for frame, line in walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).startswith(PACKAGE):
            package_calls.append((frame, line))
    if not package_calls or not _imported:
        return ""
    frame, line = package_calls[-1]
    code_line = linecache.getline(frame.f_code.co_filename, line).strip()
    contracts = dict.fromkeys(code.contract for code in _imported.values())
    return (
        f"the call was `{code_line}` in {frame.f_globals['__name__']}, line {line}; "
        f"see {' and '.join(contracts)} for what the code must provide"
    )


def name_object(value: Any, role: str) -> str:
    """Name an object for an error.

    Args:
        value: Object.
        role: Role of the object, such as "the encoder".

    Returns:
        For an object of a user, its code and line. For another object, its role and
        class.
    """
    return _describe_object(value) or f"{role} {type(value).__name__}"


def _describe_object(value: Any) -> str:
    """Describe a module of a user, or the class of an object of a user with its line.

    Returns:
        The description, empty if the object is not a user's.
    """
    if isinstance(value, ModuleType):
        return _describe_module(value.__name__)
    value_class = type(value)
    module = _describe_module(value_class.__module__)
    if not module:
        return ""
    with suppress(OSError, TypeError):  # the source may not be available
        _, line = inspect.getsourcelines(value_class)
        return f"{module}, {value_class.__qualname__} in line {line}"
    return f"{module}, {value_class.__qualname__}"


def _describe_module(module: Any) -> str:
    """Describe a module of a user.

    Args:
        module: Name of the module, or None.

    Returns:
        The description of the recipe. For another module of the same package, which the
        code of the user imports, its name. Empty if the module is not a user's.
    """
    if module in _imported:
        return _imported[module].description
    user_packages = {path.partition(".")[0] for path in _imported}
    package = str(module).partition(".")[0]
    return str(module) if package in user_packages else ""
