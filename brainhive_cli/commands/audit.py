"""audit: other people's retrieval results, recomputed; the size of each finding."""

from pydantic import Field

from brainhive_cli.core.command import Input, Result, collect
from brainhive_cli.core.files import locate
from brainhive_cli.core.key_types import OneRun
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import FileRecipe
from brainhive_cli.core.tables import Table

FOUND = 6
"""Exit code where there are findings."""


class Recipe(FileRecipe):
    """Recipe of audit: the folder of results."""

    folder: OneRun = Field(
        None,
        description="folder with similarities or embeddings, ids, training log and "
        "claims; default: the working directory",
    )


def inputs(recipe: Recipe) -> list[Input]:
    """List the folder, whose files are read."""
    from brainhive_cli.data.exchange.foreign_results import open_result

    def look() -> list[Input]:
        folder = locate(recipe.folder or ".")
        open_result(folder)
        return [Input(str(folder))]

    return collect(look)


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Read the folder and do every check."""
    from brainhive_cli.data.exchange.foreign_results import open_result
    from brainhive_cli.measurement.audit import FINDING, audit

    folder = locate(recipe.folder or ".")
    result = open_result(folder)
    rows = audit(result)
    columns = ("check", "state", "size (points)", "evidence")
    count = sum(row[1] == FINDING for row in rows)
    signals, width = result.similarities.shape
    note = (
        f"{signals} signals, {width} candidates; findings: {count}. Points are "
        "percentage points of top-1, or of the top-k that is claimed. A finding is a "
        "fact about the files, not about intentions."
    )
    table = Table(f"Audit of {folder.name}", columns, rows, note=note)
    names = ("check", "state", "points", "evidence")
    return Result(
        folder,
        (table,),
        exit_code=FOUND if count else 0,
        details={"audit": [dict(zip(names, row, strict=True)) for row in rows]},
    )
