"""The `train-prior` command: flags to recipe to pipeline."""

from typing import Annotated

import typer

from brainhive_cli.commands import options
from brainhive_cli.commands._execute import execute


def train_prior(
    context: typer.Context,
    overrides: options.Overrides = None,
    dataset: options.Dataset = None,
    encoders: options.Encoders = None,
    generator: Annotated[
        str | None, typer.Option("--generator", help="SDXL-type model: hub:owner/name or a folder.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Training steps.")] = None,
    embed_missing: Annotated[
        bool, typer.Option("--embed-missing", help="Compute embeddings that no store holds, at every step.")
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
    """Train a Fusion Prior: fusion encoder, projection and attention adapter on a frozen SDXL.

    Example: brainhive train-prior --dataset demo --recipe demo
    """
    execute(
        context,
        {
            "dataset": dataset,
            "encoders": encoders,
            "generator.source": generator,
            "train.steps": steps,
            "embed_missing": embed_missing or None,
        },
    )
