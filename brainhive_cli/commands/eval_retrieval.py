"""The `eval-retrieval` command: flags to recipe to pipeline."""

from typing import Annotated

import typer

from brainhive_cli.commands import options
from brainhive_cli.commands._execute import execute


def eval_retrieval(
    context: typer.Context,
    overrides: options.Overrides = None,
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            help="Align run, by folder or name, or SWEEP:VARIANT (A,B: averaged); or model folder.",
            show_default="the newest",
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Align runs to compare with, item by item.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="A data set to test on, zero-shot.", show_default="the run's"),
    ] = None,
    subjects: Annotated[
        str | None,
        typer.Option("--subjects", help="Subjects tested on, as in 1,2.", show_default="the run's"),
    ] = None,
    gallery: Annotated[
        str | None,
        typer.Option(
            "--gallery", help="Splits whose pictures are searched, as in train+test.", show_default="test"
        ),
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
    """Retrieve test pictures from test signals, with statistics.

    Example: brainhive eval-retrieval --run runs/train-align/NAME
    """
    flags = {"align_run": run, "against": against, "dataset": dataset, "subjects": subjects}
    execute(context, {**flags, "gallery": gallery})
