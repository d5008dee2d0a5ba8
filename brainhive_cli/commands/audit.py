"""audit: other people's retrieval results, recomputed; the size of each finding."""

from pydantic import Field

from brainhive_cli.core.command import Input, Result
from brainhive_cli.core.files import atomic_write, home_folder, locate
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import FileRecipe, OneRun
from brainhive_cli.core.tables import Cell, Table

FOUND = 6
"""Exit code where there are findings."""
FOLDER = "reports"
"""Folder of the page, below home."""


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

    folder = locate(recipe.folder or ".")
    return [Input.of(str(folder), lambda: open_result(folder))]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Read the folder, do every check, and write the page."""
    from brainhive_cli.data.exchange.foreign_results import open_result
    from brainhive_cli.measurement.audit import FINDING, audit
    from brainhive_cli.reports.page import Page, Section

    folder = locate(recipe.folder or ".")
    result = open_result(folder)
    rows = audit(result)

    # size of a finding, and what would settle it
    shown = []
    for check, state, points, evidence, way in rows:
        size = "not decidable" if state == FINDING else "–"
        cell = Cell(size if points is None else f"{points:+.1f}", value=points)
        settled = f"needed: {way}" if way and points is None else way
        shown.append((check, state, cell, evidence or "–", settled or "–"))
    columns = ("check", "state", "size (points)", "evidence", "to settle")
    count = sum(row[1] == FINDING for row in rows)
    signals, width = result.similarities.shape
    note = (
        f"{signals} signals, {width} candidates, {count} "
        f"finding{'' if count == 1 else 's'}. Points are percentage points of "
        f"top-{result.k}. A finding is a fact about the files, not about intentions."
    )
    table = Table(f"Audit of {folder.name}", columns, shown, note=note)
    page = home_folder() / FOLDER / f"audit-{folder.resolve().name}.html"
    with atomic_write(page) as part:
        section = Section("Checks", [("", [table])])
        Page(table.title, sections=[section]).write(part)
    names = ("check", "state", "points", "evidence", "settled_by")
    return Result(
        folder,
        (table,),
        files={"page": page},
        exit_code=FOUND if count else 0,
        details={"audit": [dict(zip(names, row, strict=True)) for row in rows]},
    )
