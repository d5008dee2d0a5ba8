"""Commands with their options, help texts and shell completion.

The Recipes declare them. Help and completion read them from `commands.json`, which
`completions/build.py` writes, because importing a Recipe takes seconds.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

import typer

from brainhive_cli.core.files import home_folder, shipped_folder

Complete = Callable[[Any, str], list[str]]
"""Function that completes an incomplete argument, and returns all continuations."""


def list_encoders() -> list[str]:
    """List the names of encoders, to complete a command line.

    Returns:
        Names of the encoders of Brainhive, then of the user's models with vectors in
        the folder `embeddings` of the home folder.
    """
    file = shipped_folder("completions") / "encoders.txt"
    shipped_names = file.read_text("utf-8").split()

    # files with these prefixes belong to variants of shipped encoders
    variant_prefixes = []
    for name in shipped_names:
        variant_prefixes += [f"{name}-", f"{name}+"]
    own_names = set()
    for path in home_folder().glob("embeddings/*/*/*.h5"):
        name = path.stem
        # two hyphens mark vectors of an encoder that the user named by a reference
        is_reference = "--" in name
        if not is_reference and not name.startswith(tuple(variant_prefixes)):
            own_names.add(name)
    return shipped_names + sorted(own_names.difference(shipped_names))


def list_recipes() -> list[str]:
    """List the folders of shipped recipes, which `--recipe` takes."""
    # the files directly in this folder are the default recipes of the commands
    root = shipped_folder("recipes")
    files = root.glob("*/**/*.yaml")
    return sorted({file.parent.relative_to(root).as_posix() for file in files})


def list_runs(command: str) -> list[str]:
    """List the names of finished runs, the newest first.

    Args:
        command: Command that made the runs, or a pattern such as `train-*`.
    """
    # a finished run has the file metrics.json
    files = sorted(
        home_folder().glob(f"runs/{command}/*/metrics.json"),
        key=lambda file: -file.stat().st_mtime,
    )
    return [file.parent.name for file in files]


def list_names(names: str) -> list[str]:
    """List the names that complete a value.

    Args:
        names: Names, separated by commas. `@recipes`, `@encoders` and `@runs/COMMAND`
            stand for the shipped recipes, the encoders and the finished runs.
    """
    listed_names: list[str] = []
    for name in names.split(","):
        # @ stands before the name of a list that is made at completion.
        list_name = name.removeprefix("@")
        if list_name == name:
            listed_names.append(name)
        elif list_name == "recipes":
            listed_names += list_recipes()
        elif list_name == "encoders":
            listed_names += list_encoders()
        else:
            listed_names += list_runs(list_name.removeprefix("runs/"))
    return listed_names


def make_completer(names: str, is_list: bool = False) -> Complete:
    """Make a function that completes the value of a command-line option.

    Args:
        names: Valid names, as `list_names` takes them.
        is_list: True if the value is a list of names, separated by commas.

    Returns:
        A function from the typed text to the values that begin with it.
    """

    def complete(ctx: Any, incomplete: str) -> list[str]:
        # the names before the last comma stay as they are
        finished_names, comma, last_name = "", "", incomplete
        if is_list:
            finished_names, comma, last_name = incomplete.rpartition(",")
        matches = []
        for name in list_names(names):
            if name and name.startswith(last_name):
                matches.append(f"{finished_names}{comma}{name}")
        return matches

    return complete


def list_key_values(command: str) -> dict[str, list[str]]:
    """List the recipe keys (settings) of a command with their allowed values.

    Args:
        command: Name of the command.

    Returns:
        Allowed values by dotted key, such as `train.lr`. The list of a key that takes
        any value is `[""]`.
    """
    lines = (shipped_folder("completions") / "keys.txt").read_text("utf-8").splitlines()
    values_by_key = {}
    for line in lines:
        name, key, values = line.split(" ")
        # the name * stands for all commands
        if name not in (command, "*"):
            continue
        values_by_key[key] = list_names(values)
    return values_by_key


def complete_key(ctx: Any, incomplete: str) -> list[str]:
    """Complete an argument `key=value`, which sets a recipe key of a command.

    Args:
        ctx: Context of Click for the command that the user has typed.
        incomplete: Part of the argument that the user has typed so far.

    Returns:
        Suggestions `key=`, or suggestions `key=value` if only one key can be meant.
    """
    values_by_key = list_key_values(ctx.command.name)
    key, equals, _ = incomplete.partition("=")
    if equals:
        matching_keys = [key] if key in values_by_key else []
    else:
        matching_keys = [name for name in values_by_key if name.startswith(key)]

    if len(matching_keys) == 1:
        matching_key = matching_keys[0]
        return [f"{matching_key}={value}" for value in values_by_key[matching_key]]
    return [f"{name}=" for name in matching_keys]


def make_option(
    flag: str,
    description: str,
    default: str = "",
    names: str = "",
    is_list: bool = False,
    value: str = "str",
    least: int | None = None,
) -> Parameter:
    """Make an optional flag of a command, as a parameter of the command's function.

    Args:
        flag: Flag as the user types it, such as "--encoders".
        description: Help text.
        default: Text that the help shows as the default. An unset parameter is None.
        names: Names that complete the value, as `list_names` takes them.
        is_list: True if the value is a list of names, separated by commas.
        value: Name of the type of the value, which is bool for a flag without a value.
        least: Smallest value of a number, or None.

    Returns:
        An `inspect.Parameter` with the placeholder "_" as its name.
    """
    info = typer.Option(
        None,
        flag,
        help=description,
        show_default=default or False,
        autocompletion=make_completer(names, is_list) if names else None,
        min=least,
    )
    # Types of the values of options, by name.
    types = {"str": str, "int": int, "float": float, "bool": bool}
    return Parameter(
        "_", Parameter.KEYWORD_ONLY, default=info, annotation=types[value] | None
    )


def make_switch(flag: str, description: str) -> Parameter:
    """Make a flag without a value, with its help text."""
    return make_option(flag, description, value="bool")


def make_arguments(metavar: str, description: str, names: str = "") -> Parameter:
    """Make the parameter for all arguments of a command that follow no flag.

    Args:
        metavar: Placeholder in the help, such as `[NAME]... [KEY.PATH=VALUE]...`.
        description: Help text.
        names: Names that complete the arguments besides recipe keys, as `list_names`
            takes them.

    Returns:
        An `inspect.Parameter` with the placeholder "_" as its name.
    """

    complete_name = make_completer(names)

    def complete_argument(ctx: Any, incomplete: str) -> list[str]:
        matches = complete_name(ctx, incomplete)
        # before the first letter, suggest no keys, because a command has many
        if matches and not incomplete:
            return matches
        return matches + complete_key(ctx, incomplete)

    info = typer.Argument(
        None,
        metavar=metavar,
        help=description,
        show_default=False,
        autocompletion=complete_argument,
    )
    return Parameter(
        "_", Parameter.KEYWORD_ONLY, default=info, annotation=list[str] | None
    )


OVERRIDES = make_arguments(
    "[KEY.PATH=VALUE]...", "Values of recipe keys, which override the recipe."
)
OPTIONS = {
    "open": make_switch("--open", "Open the page in a browser."),
    "list_encoders": make_switch(
        "--list", "List all encoders and whether they are on this machine, and stop."
    ),
    "again": make_switch(
        "--again", "Do the work again even if the same run or store is finished."
    ),
    "allow_code": make_switch(
        "--allow-code",
        "Allow code from outside Brainhive, such as encoders, parts and scripts.",
    ),
    "recipe": make_option(
        "--recipe",
        "YAML file, or name of a shipped recipe.",
        default="the recipe of the command",
        names="@recipes",
    ),
    "check": make_switch(
        "--check", "Print the plan with inputs, time and missing files, and stop."
    ),
    "recipe_too": make_switch(
        "--recipe-too",
        "With --check, also print the resolved recipe (save it with > FILE.yaml).",
    ),
    "json": make_switch("--json", "Print the result as a JSON document."),
    "debug": make_switch("--debug", "Show the traceback of an error."),
    "submit": make_switch(
        "--submit", "Run on a cluster, in tasks of the scheduler that share the work."
    ),
}
"""Options of commands that set no recipe key, by name."""


@dataclass(frozen=True)
class Command:
    """Command with its help texts and parameters, as its Recipe declares them.

    Attributes:
        name: Name of the command, of its module in `commands` and of its recipe.
        section: Section of the help that lists the command.
        summary: Help text, a sentence.
        example: Arguments of an example, which the help shows.
        arguments: Recipe key (`key`), placeholder (`metavar`) and completing names
            (`names`) of arguments that are not overrides, or empty.
        flags: Arguments of `make_option` by recipe key.
        options: Names in `OPTIONS`.
    """

    name: str
    section: str
    summary: str
    example: str
    arguments: dict[str, str]
    flags: dict[str, dict[str, Any]]
    options: list[str]

    @property
    def positional_key(self) -> str:
        """Recipe key of the arguments that are not overrides, or "" if none."""
        return self.arguments.get("key", "")

    def make_parameters(self) -> dict[str, Parameter]:
        """Make the parameters of the command's function, by name."""
        parameters = {"overrides": OVERRIDES}
        if self.arguments:
            metavar = self.arguments["metavar"]
            # Description of the arguments of a command, by their placeholder
            # in the help.
            metavars = {"PATH": "Files, folders or patterns", "NAME": "Names"}
            parameters["overrides"] = make_arguments(
                f"[{metavar}]... [KEY.PATH=VALUE]...",
                f"{metavars[metavar]}, and overrides of recipe keys.",
                self.arguments["names"],
            )
        # the name of a parameter has no dot, so `train.steps` becomes `train_steps`
        for key, flag in self.flags.items():
            parameters[key.replace(".", "_")] = make_option(**flag)
        for name in self.options:
            parameters[name] = OPTIONS[name]
        return parameters


_descriptions = (shipped_folder("completions") / "commands.json").read_text("utf-8")
COMMANDS = tuple(
    Command(name, **description)
    for name, description in json.loads(_descriptions).items()
)
"""All commands, in the order of the help."""
