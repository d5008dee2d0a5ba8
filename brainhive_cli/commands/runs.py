"""runs: every run with its state, result, age and size; one of them whole; a cell
trained again; and the removal of runs.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field

from brainhive_cli.core import console
from brainhive_cli.core.cells import LOCK, is_in_use
from brainhive_cli.core.claims import Claim
from brainhive_cli.core.command import Input, Result
from brainhive_cli.core.errors import (
    BrainhiveError,
    Line,
    MissingData,
    RecipeError,
    guess,
)
from brainhive_cli.core.files import remove
from brainhive_cli.core.launch import Launch, start
from brainhive_cli.core.measurements import (
    caveats_of,
    extend_title,
    find_caveats,
    list_footnotes,
    merge_caveats,
)
from brainhive_cli.core.recipe import FileRecipe, Names, Run
from brainhive_cli.core.runs import RunFolder, age
from brainhive_cli.core.tables import Cell, Table
from brainhive_cli.reports.paper_tables import summary_scopes
from brainhive_cli.reports.runs_shown import ShownRun, find
from brainhive_cli.reports.sentences import list_limits, state_finding
from brainhive_cli.reports.tables import describe_metric, metric_table

REMOVE, SHOW, VERIFY = "rm", "show", "verify"


class Recipe(FileRecipe):
    """Recipe of runs: the runs that are listed, shown, verified or removed."""

    words: Names = Field(
        [],
        description="runs or commands, none for all; `show` before one shows it "
        "(default: the newest with metrics), `verify` trains a cell of it again, `rm` "
        "removes runs",
    )
    yes: bool = Field(False, description="remove without asking")
    cell: str = Field(
        "",
        description="the cell that `verify` trains again; default: the first of those "
        "with the fewest subjects",
    )
    tolerance: float = Field(
        0.0,
        ge=0,
        description="difference of a weight or prediction, relative to the largest "
        "value of its tensor, that `verify` accepts; 0: equal to the bit",
    )


def _name(run: RunFolder) -> str:
    """Name a run by its command and name."""
    return f"{run.command}/{run.name}"


def _is_called(run: RunFolder, name: str, exactly: bool) -> bool:
    """Tell whether a name means a run: its own name or path, or its command's unless
    `exactly` is set.
    """
    # a run is called by its name, COMMAND/NAME or path
    references = {run.path.name, _name(run), str(run.path), os.path.abspath(run.path)}
    name = name.rstrip("/")
    is_command = not exactly and name == run.path.parent.name
    return is_command or not references.isdisjoint((name, os.path.abspath(name)))


def _describe_state(run: RunFolder) -> str:
    """Say whether it is finished with metrics, running while a command writes it, or
    interrupted.
    """
    if is_in_use(run):
        return "running"
    return "finished" if run.is_finished else "interrupted"


def _describe_result(run: RunFolder) -> str | Cell:
    """Write its main metric, else its finding, for programs with all caveats; empty if
    not finished.
    """
    if not run.is_finished:
        return ""

    # a damaged run has its error in the row, and does not end the list
    try:
        shown = ShownRun(run.path.name, run)
    except BrainhiveError as error:
        return error.message

    # what several cells measured is averaged by the finding
    measured, name = shown.measured, shown.main_headline
    caveats = merge_caveats(measured.caveats, caveats_of(shown.metrics.values()))
    result = (
        describe_metric(shown.metrics[name])
        if name in shown.metrics
        else state_finding(measured)
    )
    result += (
        f", for {measured.facts.scope}"
        if name in shown.metrics and measured.facts.scope
        else ""
    )
    return Cell(result, value=extend_title(result, caveats)) if result else ""


def _count_bytes(run: RunFolder) -> int:
    files = (
        Path(folder) / name for folder, _, names in os.walk(run.path) for name in names
    )
    return sum(file.lstat().st_size for file in files)


def _get_name(recipe: Recipe) -> str | None:
    """Get the only run that is named; None for none, RecipeError for several."""
    verb, *names = recipe.words
    if len(names) > 1:
        raise RecipeError(
            f"{len(names)} runs: {', '.join(names)}", Line("runs", verb, "NAME")
        )
    return names[0] if names else None


def _find_shown(recipe: Recipe) -> ShownRun:
    """Find the run that is to be shown.

    Raises:
        MissingData: if there is none of the name.
        RecipeError: if several are named.
    """
    name = _get_name(recipe)
    folder, variant = find(recipe.paths.under_home("runs"), name)
    return ShownRun(variant or folder.name, folder, variant)


def _find_named(recipe: Recipe, removes: bool) -> list[RunFolder]:
    """Find the runs that are named, the newest first.

    Raises:
        MissingData: if there is none of a name.
        RecipeError: if none is named that could be removed.
    """
    # nothing is removed without a name
    names = recipe.words[1:] if removes else recipe.words
    if removes and not names:
        raise RecipeError("no run to remove is named", Line("runs", REMOVE, "NAME"))

    # all runs, the newest first
    root = recipe.paths.under_home("runs")
    folders = [
        path
        for path in root.glob("*/*")
        if path.is_dir() and not path.name.startswith(".")
    ]
    runs = sorted(map(RunFolder, folders), key=lambda run: -run.changed_s)

    # every name must mean a run
    for name in names:
        if not any(_is_called(run, name, removes) for run in runs):
            raise MissingData(
                f"no run {name!r} under {root}",
                (
                    f"{guess(name, [run.path.name for run in runs])}they are listed "
                    f"by: {Line('runs')}"
                ),
            )
    return [
        run
        for run in runs
        if not names or any(_is_called(run, name, removes) for name in names)
    ]


def inputs(recipe: Recipe) -> list[Input]:
    """List the runs that are listed, shown, verified or removed."""
    verb = recipe.words[0] if recipe.words else ""
    if verb == SHOW:
        return [Input(_find_shown(recipe).folder.path.name)]
    if verb == VERIFY:
        return [Input(_get_name(recipe) or "the newest run of train-align")]
    return [Input(_name(run)) for run in _find_named(recipe, verb == REMOVE)]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """List runs, show or verify one, or remove those that are named and not in use.

    Raises:
        BrainhiveError: if one is in use, or the user does not agree.
    """
    # show, or remove
    verb = recipe.words[0] if recipe.words else ""
    root = recipe.paths.under_home("runs")
    if verb == SHOW:
        shown_run = _find_shown(recipe)
        return _show(shown_run)
    if verb == VERIFY:
        from brainhive_cli.commands.train_align import train_again
        from brainhive_cli.evaluation.retrieval.verification import verify

        # it trains, unlike all else here: on a GPU unless the user names a device
        here = start(recipe.run if "run" in recipe.model_fields_set else Run())
        name, cell = _get_name(recipe), recipe.cell
        return verify(name, recipe.paths, here, cell, recipe.tolerance, train_again)
    runs = _find_named(recipe, verb == REMOVE)
    if verb == REMOVE:
        _remove(runs, root, recipe.yes)
        return Result(
            root,
            (
                Table(
                    "Removed runs",
                    ("run",),
                    tuple((_name(run),) for run in runs),
                    is_list=True,
                ),
            ),
        )

    # else list; the note has the caveats of the results
    columns = ("run", "state", "result", "last changed", "size")
    rows = []
    for run in runs:
        # for programs, the time is in ISO 8601, and the size in bytes
        size, changed_s = _count_bytes(run), run.changed_s
        time = datetime.fromtimestamp(changed_s, UTC).isoformat(timespec="seconds")
        cells = Cell(age(changed_s), value=time), Cell(console.size(size), value=size)
        rows.append((_name(run), _describe_state(run), _describe_result(run), *cells))
    results = [cell.value for row in rows for cell in row if isinstance(cell, Cell)]
    note = list_footnotes(
        caveat for result in results for caveat in find_caveats(str(result))
    )
    table = Table(f"Runs in {root}", columns, rows, is_list=True, note=note)
    return Result(root, (table,), hint=Line("runs", SHOW, "NAME") if runs else "")


def _show(run: ShownRun) -> Result:
    """Describe a run: its facts and files, and its metrics over everything, else of
    each cell.
    """
    # its facts and files, without empty ones
    facts, size = run.measured.facts, console.size(_count_bytes(run.folder))
    reference = run.folder.name + (f":{run.variant}" if run.variant else "")
    about = {
        "run": reference if run.folder.is_shared else f"{run.command}/{reference}",
        "state": f"{_describe_state(run.folder)}, {age(run.folder.changed_s)}, {size}",
        "dataset": facts.dataset,
        "mode": facts.mode,
        "verdict": facts.verdict,
        "made from": facts.run,
        "variants": ", ".join(facts.variants),
        "cells": console.summarise_names(list(facts.cells)),
        "caveats": ", ".join(run.measured.caveats),
        "warnings": "; ".join(list_limits(run.measured)),
        "files": ", ".join(
            sorted(
                path.name for path in run.folder.path.iterdir() if path.name[0] != "."
            )
        ),
    }
    rows = tuple((key, value) for key, value in about.items() if value)
    tables = [Table(f"Run {run.folder.name}", ("item", "value"), rows)]

    # its metrics, scope by scope
    metrics = {scope: run.measured.scopes[scope] for scope in summary_scopes(run)}
    tables += [
        table for table in [metric_table("Metrics", metrics, "of")] if table.rows
    ]
    return Result(
        run.folder.path, tuple(tables), run.measured, hint=Line("report", reference)
    )


def _remove(runs: Sequence[RunFolder], root: Path, agreed: bool) -> None:
    """Remove runs, after showing their state."""
    # a run that a command writes stays
    if busy := [_name(run) for run in runs if is_in_use(run)]:
        raise BrainhiveError(
            f"{busy[0]} is in use by a running command", "wait for it, or stop it first"
        )

    # show each run, and ask
    for run in runs:
        console.say(
            f"{_name(run)}: {_describe_state(run)}, {console.size(_count_bytes(run))}"
        )
    if not agreed and not console.confirm(
        f"remove {len(runs)} run{'s' if len(runs) > 1 else ''}?"
    ):
        raise BrainhiveError("nothing was removed", "--yes removes without asking")

    # remove them, each under its lock
    for run in runs:
        # the link goes; what it leads to is not touched, not even by a lock
        if run.path.is_symlink():
            remove(run.path)
        else:
            lock = Claim(run.path / LOCK, f"run {run.path}")
            remove(run.path)
            lock.release()
