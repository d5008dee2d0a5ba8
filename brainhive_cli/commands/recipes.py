"""recipes: the recipes that come with Brainhive, and each key of one with its meaning, default and source."""

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, Field

from brainhive_cli.core import parts, recipe_files
from brainhive_cli.core.errors import RecipeError, guess
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Names, Run
from brainhive_cli.core.recipe import Recipe as BaseRecipe
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.tables import Table

COMMON = ("paths", "run", "digests")
"""Sections of every recipe, which are listed last."""


class Recipe(BaseRecipe):
    """Which recipes are shown."""

    names: Names = Field([], description="recipes, as demo, demo/embed or embed; none lists them all")
    run: Run = Run(device="cpu")


@dataclass(frozen=True)
class Shipped:
    """One recipe of one command."""

    path: Path

    @property
    def command(self) -> str:
        """Whose it is."""
        return self.path.stem

    @property
    def name(self) -> str:
        """What `--recipe` takes; empty for the command's own."""
        below = self.path.parent.relative_to(recipe_files.shipped()).as_posix()
        return "" if below == "." else below

    @property
    def line(self) -> str:
        """The command line that runs it."""
        return f"brainhive {self.command}" + (f" --recipe {self.name}" if self.name else "")

    @property
    def about(self) -> str:
        """What its first comment says."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        comment = " ".join(line[1:].strip() for line in lines[: _comments(lines)])
        return (
            re.split(r"(?<!\bal)\. ", comment)[0]
            .removesuffix(".")
            .removeprefix(f"brainhive {self.command}: ")
        )

    @cached_property
    def recipe(self) -> BaseRecipe:
        """The recipe, resolved."""
        module = importlib.import_module(f"brainhive_cli.commands.{self.command.replace('-', '_')}")
        resolved: BaseRecipe = module.Recipe.resolve(self.command, str(self.path), {}, [])
        return resolved

    @property
    def table(self) -> Table:
        """Every key with its value, where that comes from, and what it means."""
        given, rows = dict(leaves(recipe_files.read(self.path))), []
        for key, field, value in sorted(_keys(self.recipe), key=lambda each: each[0].startswith(COMMON)):
            default = written(field.get_default(call_default_factory=True, validated_data={}))
            is_given = any(each == key or each.startswith(f"{key}.") for each in given)
            shown, source = written(value), "recipe" if is_given else "default"
            source += f", default {default}" if shown != default and not field.is_required() else ""
            rows.append((key, shown, source, field.description or ""))
        title = f"{self.line}: {self.about}"
        return Table(title, ("key", "value", "from", "meaning"), tuple(rows), is_list=True)


def _comments(lines: list[str]) -> int:
    return next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))


def _keys(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """List the keys of a section with their fields and values; those of its parts stand under the part's."""
    for name, field in type(section).model_fields.items():
        key, value = prefix + (field.alias or name), getattr(section, name)
        if not isinstance(value, BaseModel) or isinstance(value, parts.Config):
            yield key, field, value.kind if isinstance(value, parts.Config) else value
        if isinstance(value, BaseModel):
            yield from _keys(value, f"{key}.")


def find(names: list[str]) -> list[Shipped]:
    """Find recipes by name: a folder of them, a command's own, or one of a folder.

    Raises:
        RecipeError: if there is none of that name.
    """
    root = recipe_files.shipped()
    known = {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}
    found = []
    for name in (name.replace("_", "-").removesuffix("/") for name in names):
        some = [path for each, path in known.items() if each == name or each.rpartition("/")[0] == name]
        if not some:
            folders = dict.fromkeys(each.rpartition("/")[0] for each in known)
            hint = guess(name, [*folders, *known]) or guess(f"papers/{name}", folders)
            raise RecipeError(f"no shipped recipe is called {name!r}", f"{hint}brainhive recipes lists them")
        found += some
    return [Shipped(path) for path in found]


def plan(recipe: Recipe) -> Plan:
    """Name the recipes that would be shown."""
    return Plan.of({"recipes": lambda: ", ".join(each.line for each in find(recipe.names)) or "all"})


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Show recipes key by key, or list them all."""
    root = recipe_files.shipped()
    if recipe.names:
        found = find(recipe.names)
        hint = f"{found[0].line} --check" if len(found) == 1 else ""
        return Result(root, tuple(each.table for each in found), hint=hint)
    by_name: dict[str, list[Shipped]] = {}
    for each in map(Shipped, sorted(root.rglob("*.yaml"))):
        by_name.setdefault(each.name, []).append(each)
    own = tuple((each.command, each.about) for each in by_name.pop("", []))
    rows = tuple(
        (name, ", ".join(each.command for each in some), some[-1].about) for name, some in by_name.items()
    )
    tables = (
        Table("Recipes by name, for --recipe", ("recipe", "commands", "about"), rows, is_list=True),
        Table("What each command does without --recipe", ("recipe", "about"), own, is_list=True),
    )
    return Result(root, tables, hint="brainhive recipes NAME, as in brainhive recipes demo/embed")


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        path: Its dotted name.
        meaning: What it sets, with its unit.
        default: Its default, as a recipe would write it.
    """

    path: str
    meaning: str
    default: str


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """List the keys of a recipe or of a part; those of sections stand under the section's name."""
    for own, field in model.model_fields.items():
        name = field.alias or own
        default = written(field.get_default(call_default_factory=True, validated_data={}))
        inner = section_of(field.annotation)
        if inner is None or field.default is None or issubclass(inner, parts.Config):
            yield Key(prefix + name, field.description or "", "required" if field.is_required() else default)
        if inner is not None and not issubclass(inner, parts.Config):
            yield from keys_of(inner, f"{prefix}{name}.")


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Find the model of a section: the annotation, or what a union or a list of it holds."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(section_of, get_args(annotation))), None)


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List the values of nested mappings by their dotted keys."""
    if isinstance(value, Mapping) and value:
        for name, each in value.items():
            yield from leaves(each, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, value


def written(value: Any) -> str:
    """Write a value as a recipe would."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_defaults=True)
        value = value["kind"] if list(value) == ["kind"] else value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {written(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(written, value))}]"
    return str(value)
