"""Options of a command line: those of every command, and those that several share."""

from inspect import Parameter
from typing import Any

import typer

from brainhive_cli.cli.completion import Complete, datasets, encoders, one, recipes, several


def option(flag: str, text: str, value: type = str, default: str | bool = False, **limits: Any) -> Parameter:
    """Declare a flag that may be left out.

    Args:
        flag: As it is typed.
        text: Its help.
        value: The type of its value; bool for a switch.
        default: What the help shows as its default.
        limits: Of the value, as `typer.Option` takes them.
    """
    info = typer.Option(None, flag, help=text, show_default=default, **limits)
    return Parameter("_", Parameter.KEYWORD_ONLY, default=info, annotation=value | None)


def words(metavar: str, text: str, complete: Complete | None = None) -> Parameter:
    """Declare the words of a command line that are no options."""
    info = typer.Argument(None, metavar=metavar, help=text, show_default=False, autocompletion=complete)
    return Parameter("_", Parameter.KEYWORD_ONLY, default=info, annotation=list[str] | None)


OVERRIDES = words("[KEY.PATH=VALUE]...", "Override any recipe key.")
COMMON = {
    "recipe": option(
        "--recipe",
        "A YAML file or a shipped recipe's name.",
        default="the command's own",
        autocompletion=one(recipes),
    ),
    "check": option("--check", "Print the resolved recipe, the plan and what is missing; stop.", bool),
    "json": option("--json", "Print the result as one JSON document.", bool),
    "again": option("--again", "Start a new run even if the same one is finished.", bool),
    "allow_code": option("--allow-code", "Run code that a file names: python: encoders, modules.", bool),
    "debug": option("--debug", "Show the traceback of an error.", bool),
    "processes": option("--processes", "Processes in all.", int, "one a GPU", min=1),
    "machines": option("--machines", "Machines that run this command.", int, min=1),
    "mixed_precision": option("--mixed-precision", "no or bf16."),
}
"""The options of every command, by name."""
DATASET = option("--dataset", "A data set: things-eeg, image-folder, demo …", autocompletion=one(datasets))
ENCODERS = option(
    "--encoders", "Encoders, by name or reference, separated by commas.", autocompletion=several(encoders)
)
GENERATOR = option("--generator", "SDXL-type model: hub:owner/name or a folder.")
