"""check: are these embedding stores sound."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field

from brainhive_cli.core import console, recipe
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.data.health_checks import illness
from brainhive_cli.exchange import store_arguments as _stores
from brainhive_cli.stores.target_store import TargetStore


class Recipe(recipe.Recipe):
    """Which stores."""

    stores: recipe.Names | None = Field(
        None, description="stores: files, folders or patterns; default: all below paths.embeddings"
    )
    run: recipe.Run = recipe.Run(device="cpu")  # reads files only: one process does


def plan(what: Recipe) -> Plan:
    """List the stores that would be looked at."""
    return Plan.of({"stores": lambda: ", ".join(map(str, _stores.find(what.stores, what.paths)))})


def run(what: Recipe, launch: Launch, again: bool = False) -> Result:
    """Show the health figures that stores carry (measured anew with `again`); warn of each ill one.

    Raises:
        MissingData: if there is none.
    """
    rows, metrics = [], {}
    for path in _stores.find(what.stores, what.paths):
        row, metrics[str(path)] = _look(path, again)
        rows.append(row)
        if problem := metrics[str(path)]["problem"]:
            console.warn(f"{path} is ill: {problem}")
    is_ill = any(figures["problem"] for figures in metrics.values())
    folder = what.paths.under_home("embeddings")
    return Result(folder, (_stores.table(rows),), metrics, exit_code=BrainhiveError.exit_code * is_ill)


def _look(path: Path, again: bool) -> tuple[tuple[object, ...], dict[str, Any]]:
    """Read one store's row and figures; one that does not open is ill too."""
    try:
        found = TargetStore.open(path)
        health = found.measured() if again else found.health
        problem = illness(found, health)
    except BrainhiveError as error:
        gaps = ("–",) * (len(_stores.COLUMNS) - 2)
        return (path.name, *gaps, "ill"), {"problem": error.in_one_line}
    return _stores.row(found, health, bool(problem)), {**asdict(health), "problem": problem}
