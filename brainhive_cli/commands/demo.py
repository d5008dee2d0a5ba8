"""The `demo` command: flags to recipe to pipeline."""

import typer

from brainhive_cli.commands import options
from brainhive_cli.commands._execute import execute


def demo(
    context: typer.Context,
    overrides: options.Overrides = None,
    recipe: options.RecipeName = None,
    check: options.Check = False,
    json: options.Json = False,
    again: options.Again = False,
    debug: options.Debug = False,
    processes: options.Processes = None,
    machines: options.Machines = None,
    mixed_precision: options.MixedPrecision = None,
) -> None:
    """Go from a simulated brain recording to pictures, on data shipped with Brainhive.

    Example: brainhive demo
    """
    execute(context, {})
