"""The `doctor` command: flags to recipe to pipeline."""

import typer

from brainhive_cli.commands import options
from brainhive_cli.commands._execute import execute


def doctor(
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
    """Report what this machine has for Brainhive: versions, devices, folders, weights.

    Example: brainhive doctor
    """
    execute(context, {})
