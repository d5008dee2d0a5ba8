"""Writes the completions in this folder, and the names that they complete: `python
completions/build.py`.
"""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator

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
    """List the recipe keys of each command with their values, where these are few: a
    shelf behind @, or words.
    """
    from brainhive_cli.cli.table import COMMANDS
    from brainhive_cli.core.recipe import Recipe

    common = dict(list_keys(Recipe))
    lines = [f"* {key} {values}\n" for key, values in common.items()]
    for command in COMMANDS:
        name = f"brainhive_cli.commands.{command.name.replace('-', '_')}"
        for key, values in list_keys(importlib.import_module(name).Recipe):
            if key not in common:
                lines.append(f"{command.name} {key} {values}\n")
    return "".join(lines)


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
    for shell, name in SCRIPTS.items():
        Path(__file__).with_name(name).write_text(script(shell))
    Path(__file__).with_name("encoders.txt").write_text(encoders())
    Path(__file__).with_name("keys.txt").write_text(keys())
