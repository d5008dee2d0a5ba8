"""The `check` command: flags to recipe to pipeline."""

import typer

from brainhive_cli.commands import options
from brainhive_cli.commands._execute import execute


def check(
    context: typer.Context,
    overrides: options.Words = None,
    recipe: options.RecipeName = None,
    check: options.Check = False,
    json: options.Json = False,
    again: options.Again = False,
    debug: options.Debug = False,
    processes: options.Processes = None,
    machines: options.Machines = None,
    mixed_precision: options.MixedPrecision = None,
) -> None:
    """Check the health of target stores; --again measures them anew.

    Example: brainhive check embeddings/things-eeg
    """
    execute(context, {}, words="stores")
