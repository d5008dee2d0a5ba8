"""The `export-embeddings` command: flags to recipe to pipeline."""

from typing import Annotated

import typer

from brainhive_cli.commands import options
from brainhive_cli.commands._execute import execute


def export_embeddings(
    context: typer.Context,
    overrides: options.Words = None,
    to: Annotated[str | None, typer.Option("--to", help="Folder for the files.")] = None,
    format: Annotated[
        str | None, typer.Option("--format", help="parquet or npy.", show_default="parquet")
    ] = None,
    recipe: options.RecipeName = None,
    check: options.Check = False,
    json: options.Json = False,
    again: options.Again = False,
    debug: options.Debug = False,
    processes: options.Processes = None,
    machines: options.Machines = None,
    mixed_precision: options.MixedPrecision = None,
) -> None:
    """Write stores as parquet or NumPy files, which import-embeddings reads back.

    Example: brainhive export-embeddings embeddings/things-eeg --format npy
    """
    execute(context, {"to": to, "format": format}, words="stores")
