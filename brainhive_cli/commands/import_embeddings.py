"""The `import-embeddings` command: flags to recipe to pipeline."""

from typing import Annotated

import typer

from brainhive_cli.commands import options
from brainhive_cli.commands._execute import execute


def import_embeddings(
    context: typer.Context,
    overrides: options.Words = None,
    dataset: options.Dataset = None,
    encoders: options.Encoders = None,
    splits: Annotated[
        str | None,
        typer.Option("--splits", help="Splits, as in train,test.", show_default="those that have vectors"),
    ] = None,
    skip_missing: Annotated[
        bool | None,
        typer.Option("--skip-missing", help="Accept pictures without a vector.", show_default=False),
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
    """Make stores of vectors from elsewhere: parquet, .pt, .npy, thingsvision.

    Example: brainhive import-embeddings cache/things_*.parquet --encoders clip-h14,vae
    """
    flags = {"dataset": dataset, "encoders": encoders, "splits": splits, "skip_missing": skip_missing}
    execute(context, flags, words="sources")
