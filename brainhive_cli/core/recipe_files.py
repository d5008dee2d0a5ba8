"""Recipe files: shipped or a user's, from YAML to plain keys and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from brainhive_cli.core import documents, home
from brainhive_cli.core.errors import RecipeError, guess


def shipped() -> Path:
    """Return the folder of the shipped recipes."""
    return home.shipped("recipes")


def find(command: str, name: str | None) -> Path:
    """Find a recipe: a file, a shipped recipe, or the command's recipe in a shipped folder."""
    if name is None:
        return shipped() / f"{command}.yaml"
    spelt = name.replace("_", "-")
    for candidate in (Path(name), shipped() / spelt / f"{command}.yaml", shipped() / f"{spelt}.yaml"):
        if candidate.is_file():
            return candidate
    own = sorted(shipped().rglob(f"{command}.yaml"))
    known = [file.parent.relative_to(shipped()).as_posix() for file in own if file.parent != shipped()]
    raise RecipeError(
        f"no recipe {name!r}: neither a file nor a shipped recipe",
        f"{guess(name, known)}shipped for {command}: {', '.join(known) or 'none'}",
    )


def read(path: Path) -> dict[str, Any]:
    """Read a YAML recipe into a plain dict.

    Raises:
        RecipeError: if it is no YAML, no mapping, or has a key twice.
    """
    kind = TypeAdapter(dict[str, Any] | None)
    return documents.read(path, kind, "fix the file", RecipeError, is_yaml=True) or {}


def parse(text: str, override: str) -> Any:
    """Read the value of an override as YAML.

    Raises:
        RecipeError: if it is not.
    """
    where = f"the value of {documents.shown(override)}"
    return documents.parse(text, where, Any, "quote it for the shell", RecipeError, is_yaml=True)


def put(fields: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, a number in it a place in a list; another `kind` drops the knobs of the part before.

    Raises:
        RecipeError: if the list has no such place.
    """
    *path, last = key.split(".")
    section: Any = fields
    for step in path:
        place = _place(section, step, key)
        below = section[place] if isinstance(section, list) else section.get(place)
        if isinstance(below, str):  # a part named by its kind alone
            below = {"kind": below}
        section[place] = section = below if isinstance(below, dict | list) else {}
    is_kind = last == "kind" and isinstance(section, dict)
    if is_kind and str(section.get("kind")).replace("-", "_") != str(value).replace("-", "_"):
        section.clear()
    section[_place(section, last, key)] = value


def _place(section: dict[str, Any] | list[Any], step: str, key: str) -> Any:
    """Take a step of a dotted key as a place in a list, where there is one."""
    if isinstance(section, dict):
        return step
    if step.isdecimal() and int(step) < len(section):
        return int(step)
    raise RecipeError(
        f"{key}: {step!r} is no place in a list of {len(section)}",
        f"a number from 0 to {len(section) - 1}" if section else "set the whole list",
    )


def to_yaml(fields: Mapping[str, Any]) -> str:
    """Write a recipe's fields as YAML, in their order."""
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
