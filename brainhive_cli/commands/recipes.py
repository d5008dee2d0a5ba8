"""The command `recipes`: a list of the shipped recipes, or the keys of named recipes.

A recipe is a YAML file with keys and sections. A part is a section for an exchangeable
component, such as the backbone. The key `kind` of a part selects the implementation.
"""

import importlib
import json
import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

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

COMMON_SECTIONS = ("paths", "run", "digests")
"""Sections that every recipe has. Their keys are listed last."""


class Recipe(FileRecipe):
    """Recipe of `recipes`: the names of the recipes to show."""

    names: NameList = Field(
        [],
        description="recipes, such as demo, demo/embed or embed; without a name, all "
        "recipes are listed",
    )


class ShippedRecipe(NamedTuple):
    """A recipe file that comes with Brainhive.

    Attributes:
        path: Path of the YAML file.
        command: Name of the command that takes the recipe.
        name: Value of `--recipe` that selects the recipe. Empty for the recipe that the
            command uses without `--recipe`.
        command_line: Command line that runs the recipe.
        description: First sentence of the comment at the top of the file.
    """

    path: Path
    command: str
    name: str
    command_line: str
    description: str

    @property
    def key(self) -> str:
        """Unique name: COMMAND for a default recipe, NAME/COMMAND for the others."""
        return f"{self.name}/{self.command}".lstrip("/")


def list_shipped() -> list[ShippedRecipe]:
    """List all recipes that come with Brainhive, sorted by path.

    The name of a recipe is the name of its subfolder. A recipe outside a subfolder is
    the default recipe of a command, and its name is empty.

    Returns:
        The path, command, name, command line and description of each recipe.
    """
    root = shipped_recipes()
    recipes = []
    for path in sorted(root.rglob("*.yaml")):
        # the file has the name of the command
        command = path.stem
        folder = path.parent.relative_to(root).as_posix()
        name = "" if folder == "." else folder
        recipes.append(
            ShippedRecipe(
                path=path,
                command=command,
                name=name,
                command_line=Line(command, ("recipe", name)).base_text,
                description=_describe(path),
            )
        )
    return recipes


def _describe(path: Path) -> str:
    """Return the first sentence of the comment at the top of a recipe file.

    The sentence is returned without the command line with which it begins.
    """
    lines = path.read_text("utf-8").splitlines()
    comment_lines = takewhile(lambda line: line.startswith("#"), lines)
    comment = " ".join(line[1:].strip() for line in comment_lines)

    # a full stop after "et al" does not end the sentence
    sentence = re.split(r"(?<!\bal)\. ", comment)[0]
    return sentence.removesuffix(".").removeprefix(f"brainhive {path.stem}: ")


def tabulate_keys(shipped: ShippedRecipe) -> Table:
    """Return a table of the keys of a recipe, with their values and meanings.

    Args:
        shipped: Recipe file that comes with Brainhive.

    Returns:
        A table with a row for each key: the name, the value, the source and the meaning
        of the key. The source is "recipe" if the file sets the key, else "default". If
        the value differs from the default value, the source also states the default
        value. The sections that all recipes share come last.
    """
    # read and validate the recipe like its command does, without flags or overrides
    module = importlib.import_module(
        f"brainhive_cli.commands.{shipped.command.replace('-', '_')}"
    )
    recipe: BaseRecipe = module.Recipe.resolve(
        shipped.command, str(shipped.path), {}, []
    )
    file_keys = flatten(read_recipe(shipped.path))
    rows = []
    for key, field, value in _list_keys(recipe):
        value_text = format_value(value)
        default_text = format_value(
            field.get_default(call_default_factory=True, validated_data={})
        )

        # a key such as `backbone` is also set by a file that sets `backbone.dropout`
        is_set = any(name == key or name.startswith(f"{key}.") for name in file_keys)
        source = "recipe" if is_set else "default"
        if value_text != default_text and not field.is_required():
            source += f", default {default_text}"
        rows.append((key, value_text, source, field.description or ""))

    # move the common sections to the end; the sort is stable
    rows.sort(key=lambda row: row[0].startswith(COMMON_SECTIONS))
    return Table(
        f"{shipped.command_line}: {shipped.description}",
        ("key", "value", "from", "meaning"),
        rows,
        is_list=True,
    )


def _list_keys(
    section: BaseModel, prefix: str = ""
) -> Iterator[tuple[str, FieldInfo, Any]]:
    """List the keys of a section of a recipe, and the keys of its inner sections.

    A part is a section that selects an implementation by its key `kind`, such as the
    backbone of a model.

    Args:
        section: Recipe, section or part.
        prefix: Key of the section, followed by a dot. Empty for the whole recipe.

    Yields:
        Three values for each key: the full key such as `backbone.dropout`, the pydantic
        field of the key, and the value. The value of a part is its kind.
    """
    for name, field in type(section).model_fields.items():
        key = prefix + (field.alias or name)
        value = getattr(section, name)

        # a plain section has no row of its own, only rows for its keys
        if isinstance(value, parts.Config):
            yield key, field, value.kind
        elif not isinstance(value, BaseModel):
            yield key, field, value

        # list the keys of a part or section
        if isinstance(value, BaseModel):
            yield from _list_keys(value, f"{key}.")


def find(names: list[str]) -> list[ShippedRecipe]:
    """Find recipes that come with Brainhive by their names.

    Args:
        names: Names that the user has typed. A name is a folder of recipes ("demo"), a
            command ("embed"), or a folder and a command ("demo/embed").

    Returns:
        The recipes, in the order of the names. A folder stands for all its recipes, and
        a command stands for its default recipe.

    Raises:
        RecipeError: if there is no recipe for a name.
    """
    shipped = list_shipped()
    recipes = []
    for name_as_typed in names:
        name = name_as_typed.replace("_", "-").removesuffix("/")
        matches = [recipe for recipe in shipped if name in (recipe.key, recipe.name)]
        if not matches:
            # suggest a similar name, also a name that lacks the folder papers/
            folders = list(dict.fromkeys(recipe.name for recipe in shipped))
            keys = [recipe.key for recipe in shipped]
            hint = guess(name, folders + keys) or guess(f"papers/{name}", folders)
            raise RecipeError(
                f"no shipped recipe is called {name!r}",
                f"{hint}list all recipes: {Line('recipes')}",
            )
        recipes += matches
    return recipes


def inputs(recipe: Recipe) -> list[Input]:
    """List the command line of each named recipe as an input."""
    return [Input(shipped.command_line) for shipped in find(recipe.names)]


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Show the keys of the named recipes. Without names, list all recipes."""
    root = shipped_recipes()
    if not recipe.names:
        return Result(root, _tabulate_recipes(), hint=Line("recipes", "demo/embed"))
    selected_recipes = find(recipe.names)
    hint = ""
    if len(selected_recipes) == 1:
        hint = f"{selected_recipes[0].command_line} --check"
    return Result(root, tuple(map(tabulate_keys, selected_recipes)), hint=hint)


def _tabulate_recipes() -> tuple[Table, Table]:
    """Return two tables of all recipes that come with Brainhive.

    Returns:
        A table of the named recipes, and a table of the default recipe of each command.
        A named recipe has a single row, even if it has files for several commands.
    """
    # group the files by the name of their recipe
    recipes_by_name: dict[str, list[ShippedRecipe]] = {}
    for shipped in list_shipped():
        recipes_by_name.setdefault(shipped.name, []).append(shipped)

    # list the default recipes, whose name is empty, by their commands
    default_rows = []
    for shipped in recipes_by_name.pop("", []):
        default_rows.append((shipped.command, shipped.description))

    # list the named recipes. The last file of a recipe has its description.
    named_rows = []
    for name, recipes in recipes_by_name.items():
        commands = ", ".join(shipped.command for shipped in recipes)
        named_rows.append((name, commands, recipes[-1].description))
    return (
        Table(
            "Recipes by name, for --recipe",
            ("recipe", "commands", "about"),
            named_rows,
            is_list=True,
        ),
        Table(
            "Default recipe of each command, used without --recipe",
            ("recipe", "about"),
            default_rows,
            is_list=True,
        ),
    )


def format_value(value: Any) -> str:
    """Return a value of a recipe as YAML, on a single line.

    Args:
        value: Scalar, list, mapping or section of a recipe. Keys of a section that have
            their default values are left out, except `kind`.
    """
    # turn a section into a mapping. If only its key `kind` remains, take its value.
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_defaults=True)
        if list(value) == ["kind"]:
            value = value["kind"]

    # write None, True and False as YAML, and mappings and lists item by item
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, Mapping):
        pairs = [f"{key}: {format_value(inner)}" for key, inner in value.items()]
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(format_value, value))}]"
    return str(value)
