"""Hints as the user would type them: with the flags of the command, and the recipe that was named."""

import os
import re
import shlex
from collections.abc import Collection, Iterable

from brainhive_cli.cli.table import COMMANDS

EXAMPLE = re.compile(r"(?<= )([\w.]+)=(?!\[|\{)")
"""The key of an example in a hint."""
WITHOUT_CODE = {"check", "compare", "doctor", "fetch", "recipes", "report", "runs"}
"""Commands that run no code of others."""
PARTS = {"dataset", "encoders", "prior", "from"}
"""Keys that a recipe of the same name gives each of its commands."""


def with_flags(command: str, hint: str) -> str:
    """Write the keys of an example (`as in key=value`) as the flags of the command that set them."""
    flags = next(each.flags for each in COMMANDS if each.name == command)
    names = {
        key: each.default.param_decls[0] for key, each in flags.items() if each.annotation != bool | None
    }
    if not hint.startswith("as in "):
        return hint
    return EXAMPLE.sub(lambda found: f"{names[found[1]]} " if found[1] in names else found[0], hint)


def as_typed(hint: str, recipe: str | None, given: Collection[str], is_allowed: bool) -> str:
    """Write a hint with what the user's own line had: the recipe, and `--allow-code`."""
    hint = with_recipe(hint, recipe, given)
    return with_permission(hint, ["--allow-code"] if is_allowed else [])


def with_permission(hint: str, code: Collection[str]) -> str:
    """Add `--allow-code` to the lines of a hint that may meet code, unless they name it themselves."""
    if not code or not hint.startswith("brainhive "):
        return hint
    hint, rest, other = hint.partition(", or ")
    lines = []
    for line in hint.split(" && "):
        command = line.split()[1]
        is_allowed = "--allow-code" in line or all(name in line for name in code)
        lines.append(line if command in WITHOUT_CODE or is_allowed else f"{line} --allow-code")
    return " && ".join(lines) + rest + other


def with_recipe(hint: str, recipe: str | None, given: Collection[str]) -> str:
    """Name the recipe in every line of a hint whose command it has one for.

    Args:
        hint: A hint; command lines in it are joined by ` && `.
        recipe: What `--recipe` was, as `demo`.
        given: Keys that flags and overrides set, which the next command needs too.
    """
    from brainhive_cli.core.recipe_files import shipped

    folder = shipped() / recipe.replace("_", "-") if recipe else None
    if folder is None or not os.path.isdir(folder) or not hint.startswith("brainhive "):
        return hint
    hint, rest, other = hint.partition(", or ")
    lines = []
    for line in hint.split(" && "):
        _, command, *words = shlex.split(line)
        if "--recipe" not in words and (folder / f"{command}.yaml").is_file():
            words = ["--recipe", folder.relative_to(shipped()).as_posix(), *_kept(words, given)]
        lines.append(shlex.join(["brainhive", command, *words]))
    return " && ".join(lines) + rest + other


def _kept(words: Iterable[str], given: Collection[str]) -> list[str]:
    """Leave out the words that set what the recipe sets, unless the user did."""
    kept, words = [], iter(words)
    for word in words:
        key = word.partition("=")[0].removeprefix("--")
        pair = [word, next(words, "")] if word.startswith("--") and "=" not in word else [word]
        if key not in PARTS or key in given:
            kept += pair
    return kept
