"""Recipe files: shipped or a user's, from YAML to plain keys and back."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, TypeAdapter

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
        if os.path.isfile(candidate):  # to a Path, a name that is too long is an error
            return candidate
    of_command = sorted(shipped().rglob(f"{command}.yaml"))
    known = [file.parent.relative_to(shipped()).as_posix() for file in of_command if file.parent != shipped()]
    raise RecipeError(
        f"no recipe {documents.show_value(name)}: neither a file nor a shipped recipe",
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
    where = f"the value of {documents.show_value(override)}"
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
    if last == "kind" and isinstance(section, dict) and not is_same_kind(section.get("kind"), value):
        section.clear()
    section[_place(section, last, key)] = value


def lay_over(default: Any, value: Any) -> Any:
    """Lay a part or section, some of whose keys are set, over its default; another kind stands alone.

    Args:
        default: What is there if nothing is set: a model, or `{kind: …, knob: …}`; any other is replaced.
        value: What is set: a mapping, a kind alone, or what no part and no section is.
    """
    if isinstance(default, BaseModel):
        default = default.model_dump(mode="json", exclude_defaults=True)
    elif not (isinstance(default, Mapping) and "kind" in default):
        return value
    if isinstance(value, str) and "kind" in default:
        value = {"kind": value}
    if not isinstance(value, Mapping) or not is_same_kind(
        value.get("kind", default.get("kind")), default.get("kind")
    ):
        return value
    return {**default, **{key: lay_over(default.get(key), below) for key, below in value.items()}}


def is_same_kind(one: Any, other: Any) -> bool:
    """Whether two kinds are one, however they are written: `my-net` or `my_net`."""
    return str(one).replace("-", "_") == str(other).replace("-", "_")


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
