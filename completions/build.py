"""Writes the completions in this folder, and the names that they complete: `python
completions/build.py`.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from brainhive_cli.commands.recipes import import_recipe
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.recipes.keys import Arguments, Flag
from brainhive_cli.core.results.facts import ROOMS

BASH = """_brainhive_completion() {
    local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}" words last start
    # words as they are typed, which bash splits at = and :
    IFS=' ' read -ra words <<< "$line"
    [[ $line == *' ' ]] && words+=('')
    last="${words[${#words[@]}-1]}"
    COMPREPLY=( $( env COMP_WORDS="$line" \\
                   COMP_CWORD=$((${#words[@]}-1)) \\
                   _BRAINHIVE_COMPLETE=complete_bash $1 ) )
    # bash replaces what stands behind the last of them
    start="${last%"${last##*[$COMP_WORDBREAKS]}"}"
    COMPREPLY=( "${COMPREPLY[@]#"$start"}" )
    # a value follows a key without a space
    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2> /dev/null
    return 0
}

complete -o default -F _brainhive_completion brainhive
"""
"""The script of bash, for keys with values: Typer's own has no word with a = in it."""
SCRIPTS = {"bash": "brainhive.bash", "zsh": "_brainhive", "fish": "brainhive.fish"}
DETAIL = re.compile(r"[.;] ")
"""End of the first sentence of a description, which is the help of a flag."""
DEFAULT = re.compile(r"[.;] [Dd]efault: (.+?)(?:[.;] |$)")
"""Words for a default that depends on other keys or on files, in a description."""


def script(shell: str) -> str:
    """Ask the application for its completion script, as a shell would."""
    if shell == "bash":
        return BASH
    environment = {**os.environ, "_BRAINHIVE_COMPLETE": f"source_{shell}"}
    command = [sys.executable, "-m", "brainhive_cli"]
    script = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout
    return script.strip() + "\n"  # zsh looks for #compdef on the first line


def encoders() -> str:
    """List the encoders by name: asking their parts would take longer than a completion
    may.
    """
    from brainhive_cli.commands.embed import list_encoders

    (table,) = list_encoders().tables
    return "".join(f"{row[0]}\n" for row in table.rows)


def keys() -> str:
    """List the recipe keys of each command with their values, where these are few."""
    from brainhive_cli.core.recipes.recipe import Recipe

    common = dict(list_keys(Recipe))
    lines = [f"* {key} {values}\n" for key, values in common.items()]
    for command in ROOMS:
        for key, values in list_keys(import_recipe(command)):
            if key not in common:
                lines.append(f"{command} {key} {insert_kinds(values)}\n")
    return "".join(lines)


def commands() -> str:
    """Write the help and the flags of each command, as its Recipe declares them.

    Importing the Recipes would take longer than the help or a completion may.
    """
    described = {name: describe_command(name, import_recipe(name)) for name in ROOMS}
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def describe_command(command: str, recipe: Any) -> dict[str, Any]:
    """Describe the help, the flags, the arguments and the options of a command."""
    values = dict(list_keys(recipe))
    default_recipe = recipe.resolve(command, None, {}, [])
    arguments = {}
    flags = {}
    for key, field, mark in list_marks(recipe):
        if isinstance(mark, Arguments):
            names = insert_kinds(mark.names)
            arguments = {"key": key, "metavar": mark.metavar, "names": names}
            continue
        if mark.step:
            key = f"{key}.{mark.step}"
        flag = {
            "flag": mark.name or f"--{key.rpartition('.')[2].replace('_', '-')}",
            **describe_description(field.description or ""),
            **describe_type(field),
            "names": insert_kinds(mark.names or values.get(key, "")),
        }
        if not flag["default"]:
            flag["default"] = write_default(attrgetter(key)(default_recipe))
        if mark.step == "kind":
            kinds = flag["names"].replace(",", ", ")
            flag["description"] = f"{flag['description'].removesuffix('.')}: {kinds}."
        # `make_option` has the same defaults
        flags[key] = {
            name: value
            for name, value in flag.items()
            if value or (name == "least" and value is not None)
        }

    # keys of the section `run` come last, if they have an effect
    for key in [key for key in flags if key.startswith("run.")]:
        flag = flags.pop(key)
        if recipe.writes_run if key == "run.label" else recipe.can_share_work:
            flags[key] = flag
    options = list(recipe.switches)
    if recipe.skips_finished:
        options.append("again")
    if recipe.runs_code:
        options.append("allow_code")
    options += ["recipe", "check", "recipe_too", "json", "debug"]
    if recipe.can_share_work:
        options.append("submit")
    return {
        "section": recipe.section,
        "summary": recipe.summary,
        "example": recipe.example,
        "arguments": arguments,
        "flags": flags,
        "options": options,
    }


def insert_kinds(names: str) -> str:
    """Replace the name of a shelf behind @ by the kinds of its parts."""
    inserted = []
    for name in names.split(","):
        shelf = name.removeprefix("@")
        is_shelf = shelf != name and shelf in parts.SHELVES and shelf != "encoders"
        inserted += parts.list_kinds(shelf) if is_shelf else [name]
    return ",".join(inserted)


def list_marks(
    model: type[BaseModel], prefix: str = ""
) -> Iterator[tuple[str, FieldInfo, Flag | Arguments]]:
    """List the marks of the keys that the command line sets without a `=`."""
    for attribute, field in model.model_fields.items():
        key = f"{prefix}{field.alias or attribute}"
        for mark in field.metadata:
            if isinstance(mark, Flag | Arguments):
                yield key, field, mark
        if isinstance(field.annotation, type) and issubclass(
            field.annotation, BaseModel
        ):
            yield from list_marks(field.annotation, f"{key}.")


def describe_description(description: str) -> dict[str, str]:
    """Read the help of a flag and the words for its default from a description."""
    sentence = DETAIL.split(description)[0]
    words = DEFAULT.search(description)
    return {
        "description": f"{sentence[:1].upper()}{sentence[1:]}.",
        "default": words[1] if words else "",
    }


def describe_type(field: FieldInfo) -> dict[str, Any]:
    """Read the type of a flag's value, and its least value, from the type of a key."""
    parts_of_type = list(walk(field.annotation))
    origins = [get_origin(item) for item in parts_of_type]
    plain_type = ""
    if not {list, tuple, dict, Literal}.intersection(origins):
        for value_type in (bool, int, float):
            if value_type in parts_of_type:
                plain_type = value_type.__name__
                break

    least = None
    if plain_type == "int":
        for limit in field.metadata:
            if isinstance(limit, Ge):
                least = limit.ge
            elif isinstance(limit, Gt):
                least = limit.gt + 1
    return {"value": plain_type, "least": least, "is_list": list in origins}


def write_default(value: Any) -> str:
    """Write a default as the user would type it. Empty for no value, and for false."""
    if isinstance(value, list | tuple):
        return ",".join(map(write_default, value))
    if isinstance(value, float):
        return f"{value:g}"
    if value is None or value is False:
        return ""
    return str(value)


def list_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """List the keys of a recipe, and of its sections below their names, with values."""
    for attribute, field in model.model_fields.items():
        key = f"{prefix}{field.alias or attribute}"
        described = [*walk(field.annotation), *field.metadata]
        functions = [one.func for one in described if isinstance(one, BeforeValidator)]
        shelves = [one.args[0] for one in functions if isinstance(one, partial)]
        # entries of a mapping or list have names or numbers of their own
        is_plain = any(get_origin(one) in (dict, list, Mapping) for one in described)
        sections = [
            one
            for one in described
            if isinstance(one, type) and issubclass(one, BaseModel) and not is_plain
        ]
        if shelves:
            yield key, f"@{shelves[0]}"
            yield f"{key}.kind", f"@{shelves[0]}"
        elif attribute == "encoders":
            yield key, "@encoders"
        elif sections:
            yield from list_keys(sections[0], f"{key}.")
        else:
            words = [
                str(word)
                for one in described
                if get_origin(one) is Literal
                for word in get_args(one)
            ]
            words += ["true", "false"] if bool in described else []
            yield key, ",".join(words)


def walk(annotation: Any) -> Iterator[Any]:
    """Yield an annotation, and all that it is made of."""
    yield annotation
    yield from getattr(annotation, "__metadata__", ())
    if get_origin(annotation) is not Literal:
        for inner in get_args(annotation):
            yield from walk(inner)


if __name__ == "__main__":
    HERE = Path(__file__).parent
    (HERE / "commands.json").write_text(commands())
    (HERE / "keys.txt").write_text(keys())
    (HERE / "encoders.txt").write_text(encoders())
    for shell, name in SCRIPTS.items():
        (HERE / name).write_text(script(shell))
