"""The `train-align` command: flags to recipe to pipeline."""

from typing import Annotated

import typer

from brainhive_cli.commands import options
from brainhive_cli.commands._execute import execute


def train_align(
    context: typer.Context,
    overrides: options.Overrides = None,
    mode: Annotated[
        str | None, typer.Option("--mode", help="intra, inter (leave one subject out), joint or finetune.")
    ] = None,
    dataset: options.Dataset = None,
    encoders: options.Encoders = None,
    subjects: options.Subjects = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="Seeds, one cell each, as in 2025,2026.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help=f"Brain encoder: {options.kinds('backbones')}.")
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option("--prior", help="Train for the frozen fusion encoder of this prior, on its encoders."),
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
    """Train a brain encoder for each cell (subjects × seed) to hit the visual token.

    Example: brainhive train-align --mode inter
    """
    execute(
        context,
        {
            "mode": mode,
            "dataset": dataset,
            "encoders": encoders,
            "subjects": subjects,
            "seeds": seeds,
            "backbone.kind": backbone,
            "prior": prior,
        },
    )
