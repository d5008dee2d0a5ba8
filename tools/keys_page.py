"""Writes docs/keys.md, the page of every recipe key: `python -m tools.keys_page`."""

import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from brainhive_cli.cli.table import COMMANDS
from brainhive_cli.commands.recipes import list_shipped, written
from brainhive_cli.core import parts
from brainhive_cli.core.recipe import Recipe

PAGE = Path(__file__).parents[1] / "docs" / "keys.md"
HEAD = """# Recipe keys

Every key of every recipe, from the models themselves: `python -m tools.keys_page`
writes this page, and a test compares it. `brainhive recipes NAME` shows the same of one
recipe, with its values. A part is a `kind:` and its keys
(`backbone: {kind: nice, dropout: 0.5}`, or `backbone.kind=nice backbone.dropout=0.5`);
[Recipes](recipes.md) says how files, flags and overrides meet.
"""


@dataclass(frozen=True)
class Key:
    """Key of a recipe.

    Attributes:
        path: Its dotted name.
        meaning: Its description, with its unit.
        default: Its default, as a recipe would write it.
    """

    path: str
    meaning: str
    default: str


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """List the keys of a recipe or of a part, those of sections below the section's
    name.
    """
    for attribute, field in model.model_fields.items():
        name = field.alias or attribute
        default = written(
            field.get_default(call_default_factory=True, validated_data={})
        )
        inner = section_of(field.annotation)
        if inner is None or field.default is None or issubclass(inner, parts.Config):
            yield Key(
                prefix + name,
                field.description or "",
                "required" if field.is_required() else default,
            )
        if inner is not None and not issubclass(inner, parts.Config):
            yield from keys_of(inner, f"{prefix}{name}.")


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Find the model of a section: the annotation, or the first model in a union or
    list of it.
    """
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(section_of, get_args(annotation))), None)


def page() -> str:
    """Write the page."""
    blocks = [HEAD.strip(), "## Of every command", _table(keys_of(Recipe))]
    common = {key.path for key in keys_of(Recipe)}
    for command in COMMANDS:
        model = importlib.import_module(
            f"brainhive_cli.commands.{command.name.replace('-', '_')}"
        ).Recipe
        own = [key for key in keys_of(model) if key.path not in common]
        if own:
            blocks += [f"## {command.name}", command.text, _table(own)]
    for shelf, name in parts.SHELVES.items():
        blocks.append(f"## Parts: {name}")
        for kind in parts.kinds(shelf):
            part = parts.load(shelf, kind)
            blocks += [f"### `{kind}`", _about(part.__doc__, part.Config.__doc__)]
            keys, row = list(keys_of(part.Config)), parts.rows(shelf).get(kind)
            if row and "." not in row.family:
                known = set(keys_of(parts.load(shelf, row.family).Config))
                keys = [key for key in keys if key not in known]
                blocks.append(
                    "The keys of "
                    f"`{row.family}`{', with defaults of its own:' if keys else '.'}"
                )
            if keys:
                blocks.append(_table(keys))
    return "\n\n".join([*blocks, "## Shipped recipes", _recipes()]) + "\n"


def _table(keys: Iterable[Key]) -> str:
    rows = [
        f"| `{key.path}` | {_cell(key.meaning)} | {_code(key.default)} |"
        for key in keys
    ]
    return "\n".join(["| key | meaning | default |", "|---|---|---|", *rows])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(value: str) -> str:
    return f"`{_cell(value)}`" if value else ""


def _about(*docstrings: str | None) -> str:
    """Take what a part is, and where it comes from, of its docstrings."""
    texts = [*dict.fromkeys(text for text in docstrings if text)]
    sources = re.findall(r"Source: (.*?)(?:\n\s*\n|$)", "\n\n".join(texts), re.DOTALL)
    first = " ".join(texts[0].partition("\n\n")[0].split())
    return "\n\n".join(
        [
            first,
            *(
                f"Source: {' '.join(source.split())}"
                for source in dict.fromkeys(sources)
            ),
        ]
    )


def _recipes() -> str:
    rows = [
        f"| `{each.line}` | {_cell(each.about)} |"
        for each in list_shipped()
        if each.name
    ]
    return "\n".join(["| line | what it takes its values from |", "|---|---|", *rows])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
