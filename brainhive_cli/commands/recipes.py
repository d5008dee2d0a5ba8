"""recipes: the recipes that come with Brainhive, and each key of one with its meaning,
default and source.
"""

import importlib
import json
import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, Field

from brainhive_cli.core import parts
from brainhive_cli.core.command import Input, Result
from brainhive_cli.core.errors import Line, RecipeError, guess
from brainhive_cli.core.facts import flatten
from brainhive_cli.core.key_types import NameList
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import (
    BaseRecipe,
    FileRecipe,
    read_recipe,
    shipped_recipes,
)
from brainhive_cli.core.tables import Table

COMMON = ("paths", "run", "digests")
"""Sections of every recipe, which are listed last."""


class Recipe(FileRecipe):
    """Recipe of recipes: the recipes that are shown."""

    names: NameList = Field(
        [], description="recipes, as demo, demo/embed or embed; none lists them all"
    )


class Shipped(NamedTuple):
    """Shipped recipe of a command.

    Attributes:
        path: Its file.
        command: Command that it is for.
        name: Name that `--recipe` takes; empty for the command's own recipe.
        line: The command line that runs it.
        about: First sentence of its first comment.
    """

    path: Path
    command: str
    name: str
    line: str
    about: str


def list_shipped() -> list[Shipped]:
    """List all recipes that come with Brainhive."""
    recipes, root = [], shipped_recipes()
    for path in sorted(root.rglob("*.yaml")):
        command = path.stem
        folder = path.parent.relative_to(root).as_posix()
        name = "" if folder == "." else folder

        # the first sentence of the comment at the top, without the command's name
        lines = takewhile(
            lambda line: line.startswith("#"), path.read_text("utf-8").splitlines()
        )
        sentence = re.split(
            r"(?<!\bal)\. ", " ".join(line[1:].strip() for line in lines)
        )[0]
        about = sentence.removesuffix(".").removeprefix(f"brainhive {command}: ")
        recipes.append(
            Shipped(path, command, name, Line(command, ("recipe", name)).plain, about)
        )
    return recipes


def tabulate_keys(shipped: Shipped) -> Table:
    """Lay out the keys of a recipe with value, source and meaning."""
    # resolve it as its command does, without flags or overrides
    module = importlib.import_module(
        f"brainhive_cli.commands.{shipped.command.replace('-', '_')}"
    )
    recipe: BaseRecipe = module.Recipe.resolve(
        shipped.command, str(shipped.path), {}, []
    )
    set_keys = flatten(read_recipe(shipped.path))
    rows = []
    for key, field, value in sorted(
        _keys(recipe), key=lambda row: row[0].startswith(COMMON)
    ):
        # the source of the value: the recipe, or the default; a default that differs is
        # named
        default = written(
            field.get_default(call_default_factory=True, validated_data={})
        )
        is_set = any(name == key or name.startswith(f"{key}.") for name in set_keys)
        shown = written(value)
        source = "recipe" if is_set else "default"
        source += (
            f", default {default}"
            if shown != default and not field.is_required()
            else ""
        )
        rows.append((key, shown, source, field.description or ""))
    return Table(
        f"{shipped.line}: {shipped.about}",
        ("key", "value", "from", "meaning"),
        rows,
        is_list=True,
    )


def _keys(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """List the keys of a section with their fields and values, those of its parts below
    the part's key.
    """
    for name, field in type(section).model_fields.items():
        key = prefix + (field.alias or name)
        value = getattr(section, name)
        # a part is listed by its kind, then key by key
        if not isinstance(value, BaseModel) or isinstance(value, parts.Config):
            yield key, field, value.kind if isinstance(value, parts.Config) else value
        if isinstance(value, BaseModel):
            yield from _keys(value, f"{key}.")


def find(names: list[str]) -> list[Shipped]:
    """Find recipes by name: a folder of them, a command's own, or one of a folder.

    Raises:
        RecipeError: if there is none of that name.
    """
    # COMMAND for a recipe without a folder, FOLDER/COMMAND for all others
    known = {
        f"{listed.name}/{listed.command}".lstrip("/"): listed
        for listed in list_shipped()
    }
    recipes = []
    for name in (name.replace("_", "-").removesuffix("/") for name in names):
        matching = [
            listed for key, listed in known.items() if name in (key, listed.name)
        ]

        # guess what an unknown name means
        if not matching:
            folders = dict.fromkeys(listed.name for listed in known.values())
            hint = guess(name, [*folders, *known]) or guess(f"papers/{name}", folders)
            raise RecipeError(
                f"no shipped recipe is called {name!r}",
                f"{hint}they are listed by: {Line('recipes')}",
            )
        recipes += matching
    return recipes


def inputs(recipe: Recipe) -> list[Input]:
    """List the recipes that are named."""
    return [Input(shipped.line) for shipped in find(recipe.names)]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Show recipes key by key, or list them all."""
    # show the recipes that are named
    root = shipped_recipes()
    if recipe.names:
        listings = find(recipe.names)
        hint = f"{listings[0].line} --check" if len(listings) == 1 else ""
        return Result(root, tuple(map(tabulate_keys, listings)), hint=hint)

    # else list all, those of one name in a row, and the commands' own apart
    named_recipes: dict[str, list[Shipped]] = {}
    for listed in list_shipped():
        named_recipes.setdefault(listed.name, []).append(listed)
    defaults = tuple(
        (listed.command, listed.about) for listed in named_recipes.pop("", [])
    )
    rows = tuple(
        # the first comment of the last file describes the recipe
        (name, ", ".join(listed.command for listed in recipes), recipes[-1].about)
        for name, recipes in named_recipes.items()
    )
    tables = (
        Table(
            "Recipes by name, for --recipe",
            ("recipe", "commands", "about"),
            rows,
            is_list=True,
        ),
        Table(
            "What each command does without --recipe",
            ("recipe", "about"),
            defaults,
            is_list=True,
        ),
    )
    return Result(root, tables, hint=Line("recipes", "demo/embed"))


def written(value: Any) -> str:
    """Write a value as a recipe would."""
    # a part becomes a mapping, or its kind if all its keys have defaults
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_defaults=True)
        value = value["kind"] if list(value) == ["kind"] else value

    # YAML of constants, mappings, lists and scalars
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{key}: {written(inner)}" for key, inner in value.items())
        return f"{{{pairs}}}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(written, value))}]"
    return str(value)
