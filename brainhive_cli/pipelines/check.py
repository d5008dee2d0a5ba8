"""check: the health checks of target stores."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.recipe import Names, Run
from brainhive_cli.core.recipe import Recipe as BaseRecipe
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.data.health_checks import problem_of
from brainhive_cli.exchange.store_arguments import COLUMNS, FAILED, find, row, table
from brainhive_cli.stores.target_store import TargetStore


class Recipe(BaseRecipe):
    """Which stores."""

    stores: Names | None = Field(
        None, description="stores: files, folders or patterns; default: all below paths.embeddings"
    )
    run: Run = Run(device="cpu")  # reads files only: one process does


def plan(recipe: Recipe) -> Plan:
    """List the stores that would be checked."""
    return Plan.of({"stores": lambda: ", ".join(map(str, find(recipe.stores, recipe.paths)))})


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Show the health figures of stores (measured again with `again`); warn of each that fails.

    Raises:
        MissingData: if there is none.
    """
    rows, found = [], {}
    for path in find(recipe.stores, recipe.paths):
        shown, found[str(path)] = _check(path, again)
        rows.append(shown)
        if problem := found[str(path)]["problem"]:
            console.warn(f"{path} failed its health check: {problem}")
    has_failed = any(figures["problem"] for figures in found.values())
    return Result(
        recipe.paths.under_home("embeddings"),
        (table(rows),),
        Measurements(notes={"stores": found}),
        exit_code=BrainhiveError.exit_code * has_failed,
    )


def _check(path: Path, again: bool) -> tuple[tuple[object, ...], dict[str, Any]]:
    """Give one store's row and figures; one that does not open has failed too."""
    try:
        found = TargetStore.open(path)
        health = found.measured() if again else found.health
        problem = problem_of(found, health)
    except BrainhiveError as error:
        return (path.name, *["–"] * (len(COLUMNS) - 2), FAILED), {"problem": error.in_one_line}
    return row(found, health, bool(problem)), {**asdict(health), "problem": problem}
