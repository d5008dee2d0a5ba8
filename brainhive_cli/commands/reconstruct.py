"""The `reconstruct` command: flags to recipe to pipeline."""

from typing import Annotated

import typer

from brainhive_cli.commands import options
from brainhive_cli.commands._execute import execute


def reconstruct(
    context: typer.Context,
    overrides: options.Overrides = None,
    prior: Annotated[
        str | None, typer.Option("--prior", help="A prior: hub:NAME, hub:owner/name, a folder, or identity.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            "--run", help="An align run: folder, name or SWEEP:VARIANT.", show_default="the newest that fits"
        ),
    ] = None,
    generator: Annotated[
        str | None, typer.Option("--generator", help="SDXL-type model: hub:owner/name or a folder.")
    ] = None,
    subjects: Annotated[
        str | None,
        typer.Option("--subjects", help="Subjects, as in 1,2.", show_default="the run's"),
    ] = None,
    repeats: Annotated[int | None, typer.Option("--repeats", min=1, help="Pictures of each item.")] = None,
    sources: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="brain; images (ceiling); shuffled (floor); zeroed; nearest, mean training picture.",
            show_default="brain,nearest,mean",
        ),
    ] = None,
    score: Annotated[
        str | None, typer.Option("--score", help="Score this folder of pictures; none are generated.")
    ] = None,
    truth: Annotated[
        str | None, typer.Option("--truth", help="The true pictures of --score, matched by file name.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Reconstruct runs to compare with, item by item.")
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
    """Reconstruct what was seen, from test signals, with a prior and a generator.

    Example: brainhive reconstruct --prior hub:Fusion-Prior-SynCLR_B32_VAE
    """
    flags = {"prior": prior, "align_run": run, "generator.source": generator, "subjects": subjects}
    execute(
        context,
        {**flags, "repeats": repeats, "sources": sources, "score": score, "truth": truth, "against": against},
    )
