"""The options that every command has, declared once."""

import pkgutil
from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Override any recipe key.", show_default=False),
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PATH]... [KEY.PATH=VALUE]...",
        help="Files, folders or patterns; and overrides of any recipe key.",
        show_default=False,
    ),
]
"""What commands on files take in place of `Overrides`."""
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe", help="A YAML file or a shipped recipe's name.", show_default="the command's own"
    ),
]
Check = Annotated[
    bool, typer.Option("--check", help="Print the resolved recipe, the plan and what is missing; stop.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Again = Annotated[bool, typer.Option("--again", help="Start a new run even if the same one is finished.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

Processes = Annotated[
    int | None,
    typer.Option("--processes", min=1, help="Processes in all.", show_default="one a GPU"),
]
Machines = Annotated[int | None, typer.Option("--machines", min=1, help="Machines that run this command.")]
MixedPrecision = Annotated[str | None, typer.Option("--mixed-precision", help="no or bf16.")]

Dataset = Annotated[
    str | None, typer.Option("--dataset", help="A data set: things-eeg, image-folder, demo …")
]
Encoders = Annotated[
    str | None, typer.Option("--encoders", help="Encoders, by name or reference, separated by commas.")
]
Subjects = Annotated[
    str | None, typer.Option("--subjects", help="Subjects, as in 1,2,5.", show_default="all")
]
"""Flags that several commands share; each is a short name for the recipe key of the same name."""


def kinds(shelf: str) -> str:
    """List the parts of a shelf; nothing is imported, so that help stays quick."""
    modules = pkgutil.iter_modules([str(Path(__file__).parents[1] / shelf)])
    return ", ".join(module.name for module in modules if not module.name.startswith("_"))
