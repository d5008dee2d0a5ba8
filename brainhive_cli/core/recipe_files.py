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
    """Set a dotted key; naming another `kind` drops the knobs of the part before."""
    *path, last = key.split(".")
    for step in path:
        below = fields.get(step)
        if isinstance(below, str):  # a part named by its kind alone
            below = {"kind": below}
        fields[step] = fields = below if isinstance(below, dict) else {}
    if last == "kind" and str(fields.get("kind")).replace("-", "_") != str(value).replace("-", "_"):
        fields.clear()
    fields[last] = value


def to_yaml(fields: Mapping[str, Any]) -> str:
    """Write a recipe's fields as YAML, in their order."""
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
