"""The command `recipes`: the shipped recipes, or the keys of named recipes."""

import importlib
import json
import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from brainhive_cli.core.base import Line, RecipeError, Table, guess
from brainhive_cli.core.files import Input
from brainhive_cli.core.recipes import (
    START,
    Arguments,
    BaseRecipe,
    FileRecipe,
    NameList,
    describe_recipe,
    flag_field,
    parts,
    read_recipe,
    shipped_recipes,
)
from brainhive_cli.core.results import flatten
from brainhive_cli.core.runs import Launch, Result


class Recipe(FileRecipe):
    """Recipe of `recipes`: the names of the recipes to show."""

    section = START
    summary = (
        "List the shipped recipes, or show each setting of a recipe with its value, "
        "default and meaning."
    )
    example = "demo/train-align"

    names: Annotated[NameList, Arguments(names="@recipes")] = Field(
        [],
        description="recipes, such as demo, demo/embed or embed; without a name, all "
        "recipes are listed",
    )
    as_schema: bool = flag_field(
        False, "print the JSON Schema of a recipe, for editors", flag="--schema"
    )


class ShippedRecipe(NamedTuple):
    """Recipe file that comes with Brainhive.

    Attributes:
        path: Path of the YAML file.
        command: Name of the command that takes the recipe.
        name: Value of `--recipe`, or "" for the default recipe of the command.
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
    """List all recipes that come with Brainhive, sorted by path."""
    root = shipped_recipes()
    recipes = []
    for path in sorted(root.rglob("*.yaml")):
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
    """Return the first sentence of a file's first comment, without the command."""
    # the first line is for editors
    lines = path.read_text("utf-8").splitlines()[1:]
    comment_lines = takewhile(lambda line: line.startswith("#"), lines)
    comment = " ".join(line[1:].strip() for line in comment_lines)

    # a full stop after "et al" does not end the sentence
    sentence = re.split(r"(?<!\bal)\. ", comment)[0]
    return sentence.removesuffix(".").removeprefix(f"brainhive {path.stem}: ")


def import_recipe(command: str) -> type[BaseRecipe]:
    """Import the class of the recipe of a command."""
    name = command.replace("-", "_")
    module = importlib.import_module(f"brainhive_cli.commands.{name}")
    model: type[BaseRecipe] = module.Recipe
    return model


def tabulate_keys(shipped: ShippedRecipe) -> Table:
    """Make a table of the keys of a recipe.

    Args:
        shipped: Recipe file that comes with Brainhive.

    Returns:
        Name, value, source (`recipe` or `default`, and another default value) and
        meaning of each key. The sections that all recipes share come last.
    """
    model = import_recipe(shipped.command)
    recipe = model.resolve(shipped.command, str(shipped.path), {}, [])
    file_keys = flatten(read_recipe(shipped.path))
    rows = []
    for key, field, value in _list_keys(recipe):
        value_text = format_value(value)
        default_text = format_value(
            field.get_default(call_default_factory=True, validated_data={})
        )

        # a file with `backbone.dropout` also sets `backbone`
        is_set = any(name == key or name.startswith(f"{key}.") for name in file_keys)
        source = "recipe" if is_set else "default"
        if value_text != default_text and not field.is_required():
            source += f", default {default_text}"
        rows.append((key, value_text, source, field.description or ""))

    # Sections that every recipe has. Their keys are listed last.
    common_sections = ("paths", "run", "digests")
    # move the common sections to the end
    rows.sort(key=lambda row: row[0].startswith(common_sections))
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

    Args:
        section: Recipe, or section of a recipe.
        prefix: Key of the section with a dot, such as `backbone.`, or "" for a recipe.

    Yields:
        Key such as `backbone.dropout`, its field, and its value. The value of a section
        with a `kind`, such as `backbone`, is the kind.
    """
    for name, field in type(section).model_fields.items():
        key = prefix + (field.alias or name)
        value = getattr(section, name)

        # a section without a kind is not listed, but its keys are
        if isinstance(value, parts.Config):
            yield key, field, value.kind
        elif not isinstance(value, BaseModel):
            yield key, field, value

        if isinstance(value, BaseModel):
            yield from _list_keys(value, f"{key}.")


def find(names: list[str]) -> list[ShippedRecipe]:
    """Find recipes that come with Brainhive by their names.

    Args:
        names: Folders of recipes ("demo"), commands for their default recipe ("embed"),
            or folders with a command ("demo/embed").

    Returns:
        The recipes, in the order of the names.

    Raises:
        RecipeError: if there is no recipe for a name.
    """
    shipped = list_shipped()
    recipes = []
    for name_as_typed in names:
        name = name_as_typed.replace("_", "-").removesuffix("/")
        matches = [recipe for recipe in shipped if name in (recipe.key, recipe.name)]
        if not matches:
            # suggest a similar name, with or without the folder papers/
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
    selected_recipes = find(recipe.names)
    if recipe.as_schema:
        commands = {shipped.command for shipped in selected_recipes}
        if len(commands) != 1:
            raise RecipeError(
                f"a schema describes the recipe of one command, not of {len(commands)}",
                Line("recipes", "train-align", "--schema"),
            )
        schema = describe_recipe(import_recipe(commands.pop()))
        return Result(root, document=schema)
    if not recipe.names:
        return Result(root, _tabulate_recipes(), hint=Line("recipes", "demo/embed"))
    hint = ""
    if len(selected_recipes) == 1:
        hint = f"{selected_recipes[0].command_line} --check"
    return Result(root, tuple(map(tabulate_keys, selected_recipes)), hint=hint)


def _tabulate_recipes() -> tuple[Table, Table]:
    """Return a table of the named recipes, and a table of the default recipes."""
    default_rows = []
    recipes_by_name: dict[str, list[ShippedRecipe]] = {}
    for shipped in list_shipped():
        if shipped.name:
            recipes_by_name.setdefault(shipped.name, []).append(shipped)
        else:
            default_rows.append((shipped.command, shipped.description))

    # the last file of a named recipe describes all its files
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
        value: Scalar, list, mapping, or section, of which default values are left out.
    """
    if isinstance(value, BaseModel):
        keys = value.model_dump(mode="json", exclude_defaults=True)
        return format_value(keys["kind"] if list(keys) == ["kind"] else keys)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, Mapping):
        pairs = [f"{key}: {format_value(inner)}" for key, inner in value.items()]
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(format_value, value))}]"
    return str(value)
