"""The `eval-retrieval` command: flags to recipe to pipeline."""

from typing import Annotated

import typer

from brainhive_cli.commands import options
from brainhive_cli.commands._execute import execute


def eval_retrieval(
    context: typer.Context,
    overrides: options.Overrides = None,
    run: Annotated[
        str | None, typer.Option("--run", help="An align run: folder or name.", show_default="the newest")
    ] = None,
    gallery: Annotated[
        str | None, typer.Option("--gallery", help="Split whose pictures are searched.", show_default="test")
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
    execute(context, {"align_run": run, "gallery": gallery})
