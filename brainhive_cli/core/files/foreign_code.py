"""Code of users and of other projects, which runs only with `--allow-code`.

A recipe or a file names such code by the import path of a Python module.
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

from brainhive_cli.core.base import (
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
"""Code of Brainhive that recipes name like the code of a user. It needs no permission.
"""


class ImportedCode(NamedTuple):
    """Code of a user that was imported because a recipe or file names it.

    Attributes:
        description: Description of the code for errors, with its name in the recipe.
        contract: Module of Brainhive that documents the functions which the code needs.
    """

    description: str
    contract: str


_imported: dict[str, ImportedCode] = {}
"""Imported code of users, keyed by the name of its module."""


@contextmanager
def allow_code(is_allowed: bool) -> Iterator[None]:
    """Allow the code of users inside a `with` block, also in processes that it starts.

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
        name: Name of the code, such as `python:module:function`. `OWN_CODE` may run.
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
        path: Import path of the module, such as `package.module`.
        name: Name of the code in the recipe or file, such as `python:module:function`.
        description: Description of the code, for errors.
        contract: Module of Brainhive that documents the functions which the code needs.

    Raises:
        RecipeError: if the code is not allowed, or cannot be imported.
        MissingExtra: if the module, or a module that it imports, is not installed.
    """
    require_permission(name, description)

    if not all(component.isidentifier() for component in path.split(".")):
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

    # remember the module, to recognise its later errors
    if path.partition(".")[0] != PACKAGE:
        _imported[path] = ImportedCode(description, contract)
    return module


def describe_user_error(error: BaseException) -> BrainhiveError | None:
    """Describe an error in the code of a user.

    Args:
        error: Error with its traceback.

    Returns:
        An error that names the innermost line of the user's code in the traceback, or
        else an object that this code defines, or None.
    """
    # find the innermost line of the user's code, and collect objects on the way
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

    # without such a line, describe the first object of a user's class
    hint = "correct it there"
    if not location:
        hint = _describe_call(error)
        for value in objects:
            location = _describe_object(value)
            if location:
                break
    if not location:
        return None
    message = f"{location}: {type(error).__name__}: {first_line(error)}"
    return BrainhiveError(message, f"{hint}; --debug shows how it was called")


def describe_suspected_error(error: BaseException) -> BrainhiveError | None:
    """Describe an error that may come from a value which a user's code returned.

    Args:
        error: Error whose traceback contains no code of the user.

    Returns:
        An error that names all imported code of users, or None if there is none, or if
        no line of Brainhive is in the traceback.
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
    """Describe the innermost line of Brainhive's own code in the traceback of an error.

    Returns:
        A sentence. Empty if no user's code was imported, or if the traceback has no
        line of Brainhive.
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
    """Name an object in the message of an error.

    Args:
        value: Object.
        role: Role of the object, such as "the encoder".

    Returns:
        The code and line of the class if a user wrote it, or the role and the class.
    """
    return _describe_object(value) or f"{role} {type(value).__name__}"


def _describe_object(value: Any) -> str:
    """Describe a user's module, or an object whose class a user wrote, or return ""."""
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
        module: Name of the module, or None for code without a module.

    Returns:
        Description of imported code, name of a module in its package, or "".
    """
    if module in _imported:
        return _imported[module].description
    user_packages = {path.partition(".")[0] for path in _imported}
    package = str(module).partition(".")[0]
    return str(module) if package in user_packages else ""
