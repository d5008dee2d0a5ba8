"""The `embed` command: flags to recipe to pipeline."""

from typing import Annotated

import typer

from brainhive_cli.commands import options
from brainhive_cli.commands._execute import execute


def embed(
    context: typer.Context,
    overrides: options.Overrides = None,
    dataset: options.Dataset = None,
    encoders: options.Encoders = None,
    splits: Annotated[
        str | None, typer.Option("--splits", help="Splits, as in train,test.", show_default="all")
    ] = None,
    skip_bad: Annotated[
        bool | None,
        typer.Option("--skip-bad", help="Accept pictures that cannot be decoded.", show_default=False),
    ] = None,
    list_encoders: Annotated[
        bool, typer.Option("--list", help="Show all encoders, and which are on this machine; stop.")
    ] = False,
    recipe: options.RecipeName = None,
    check: options.Check = False,
    json: options.Json = False,
    again: options.Again = False,
    debug: options.Debug = False,
    processes: options.Processes = None,
    machines: options.Machines = None,
    mixed_precision: options.MixedPrecision = None,
) -> None:
    """Embed every picture of a data set with frozen encoders.

    Example: brainhive embed --encoders clip-h14,vae --dataset things-eeg
    """
    execute(context, {"dataset": dataset, "encoders": encoders, "splits": splits, "skip_bad": skip_bad})
