"""runs: every run with its state, result, age and size; one of them whole; and the removal of runs."""

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from pydantic import Field

from brainhive_cli.core import console
from brainhive_cli.core.claims import Claim
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError, guess
from brainhive_cli.core.files import remove
from brainhive_cli.core.inputs import Input
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.lines import Line
from brainhive_cli.core.measurements import (
    caveats_of,
    extend_title,
    find_caveats,
    list_footnotes,
    merge_caveats,
)
from brainhive_cli.core.recipe import BaseRecipe, Names, Run
from brainhive_cli.core.results import Result
from brainhive_cli.core.runs import LARGEST_RECIPE, LOCK, RunFolder, age, showing
from brainhive_cli.core.tables import Cell, Table
from brainhive_cli.reports.paper_tables import summary_scopes
from brainhive_cli.reports.runs_shown import ShownRun, find
from brainhive_cli.reports.sentences import describe_metric, list_limits, state_finding
from brainhive_cli.reports.tables import metric_table

REMOVE, SHOW = "rm", "show"


class Recipe(BaseRecipe):
    """Recipe of runs: the runs that are listed, shown or removed."""

    computes = False

    words: Names = Field(
        [],
        description="runs or commands, none for all; `show` before one shows it (default: the newest with "
        "metrics), `rm` removes runs",
    )
    yes: bool = Field(False, description="remove without asking")
    run: Run = Run(device="cpu")


class RunOnDisk(RunFolder):
    """Run on disk, finished or not."""

    @cached_property
    def changed(self) -> float:
        """Time of the last change that its documents tell of, in seconds since 1970; they are read once."""
        return self.changed_s

    @property
    def full_name(self) -> str:
        """Its command and name."""
        return f"{self.command}/{self.name}"

    def is_called(self, name: str, exactly: bool) -> bool:
        """Tell whether a name means it: its own name or path, or its command's unless `exactly` is set."""
        # a run is called by its name, COMMAND/NAME or path
        references = {self.path.name, self.full_name, str(self.path), os.path.abspath(self.path)}
        name = name.rstrip("/")
        is_command = not exactly and name == self.path.parent.name
        return is_command or not references.isdisjoint((name, os.path.abspath(name)))

    @property
    def state(self) -> str:
        """Finished with metrics, running while a command writes it, or interrupted."""
        if self.is_in_use:
            return "running"
        return "finished" if self.is_finished else "interrupted"

    @property
    def result(self) -> str | Cell:
        """Its main metric, else its finding; for programs with the caveats in full, empty if not finished."""
        if not self.is_finished:
            return ""
        run = ShownRun(self.path.name, self)
        # a damaged run has its error in the row, and does not end the list
        try:
            with showing([self]):
                measured, name = run.measured, run.main_headline
        except BrainhiveError as error:
            return error.message

        # what several cells measured is averaged by the finding
        caveats = merge_caveats(measured.caveats, caveats_of(run.metrics.values()))
        result = describe_metric(run.metrics[name]) if name in run.metrics else state_finding(measured)
        result += f", for {measured.facts.scope}" if name in run.metrics and measured.facts.scope else ""
        return Cell(result, value=extend_title(result, caveats)) if result else ""

    @property
    def bytes(self) -> int:
        """Size of its files."""
        files = (Path(folder) / name for folder, _, names in os.walk(self.path) for name in names)
        return sum(file.lstat().st_size for file in files)

    @property
    def row(self) -> tuple[str | Cell, ...]:
        """Its line in the table; for programs with the time in ISO 8601, and the size in bytes."""
        changed_s, size = self.changed, Cell(console.size(self.bytes), value=self.bytes)
        time = datetime.fromtimestamp(changed_s, UTC).isoformat(timespec="seconds")
        return self.full_name, self.state, self.result, Cell(age(changed_s), value=time), size


def _find_shown(recipe: Recipe) -> ShownRun:
    """Find the run that is to be shown.

    Raises:
        MissingData: if there is none of the name.
        RecipeError: if several are named.
    """
    names = recipe.words[1:]
    if len(names) > 1:
        raise RecipeError(f"{len(names)} runs: {', '.join(names)}", Line("runs", SHOW, "NAME"))
    folder, variant = find(recipe.paths.under_home("runs"), names[0] if names else None)
    return ShownRun(variant or folder.name, folder, variant)


def _find_named(recipe: Recipe, removes: bool) -> list[RunOnDisk]:
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
    folders = [path for path in root.glob("*/*") if path.is_dir() and not path.name.startswith(".")]
    runs = sorted(map(RunOnDisk, folders), key=lambda run: -run.changed)

    # every name must mean a run
    for name in names:
        if not any(run.is_called(name, removes) for run in runs):
            raise MissingData(
                f"no run {name!r} under {root}",
                f"{guess(name, [run.path.name for run in runs])}they are listed by: {Line('runs')}",
            )
    return [run for run in runs if not names or any(run.is_called(name, removes) for name in names)]


def inputs(recipe: Recipe) -> list[Input]:
    """List the runs that are listed, shown or removed."""
    verb = recipe.words[0] if recipe.words else ""
    if verb == SHOW:
        return [Input(_find_shown(recipe).folder.path.name)]
    return [Input(run.full_name) for run in _find_named(recipe, verb == REMOVE)]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """List runs, show one, or remove those that are named and not in use.

    Raises:
        BrainhiveError: if one is in use, or the user does not agree.
    """
    # show, or remove
    verb = recipe.words[0] if recipe.words else ""
    root = recipe.paths.under_home("runs")
    if verb == SHOW:
        shown_run = _find_shown(recipe)
        with showing([shown_run.folder]):
            return _show(shown_run)
    runs = _find_named(recipe, verb == REMOVE)
    if verb == REMOVE:
        _remove(runs, root, recipe.yes)
        return Result(
            root, (Table("Removed runs", ("run",), tuple((run.full_name,) for run in runs), is_list=True),)
        )

    # else list; the note has the caveats of the results
    columns = ("run", "state", "result", "last changed", "size")
    rows = tuple(run.row for run in runs)
    results = [cell.value for row in rows for cell in row if isinstance(cell, Cell)]
    note = list_footnotes(caveat for result in results for caveat in find_caveats(str(result)))
    table = Table(f"Runs in {root}", columns, rows, is_list=True, note=note)
    return Result(root, (table,), hint=Line("runs", SHOW, "NAME") if runs else "")


def _show(run: ShownRun) -> Result:
    """Describe a run: its facts and files, and its metrics over everything, else of each cell."""
    # its facts and files, without empty ones
    on_disk, facts = RunOnDisk(run.folder.path), run.measured.facts
    reference = run.folder.name + (f":{run.variant}" if run.variant else "")
    about = {
        "run": reference if run.folder.is_shared else f"{run.command}/{reference}",
        "state": f"{on_disk.state}, {age(on_disk.changed)}, {console.size(on_disk.bytes)}",
        "dataset": facts.dataset,
        "mode": facts.mode,
        "verdict": facts.verdict,
        "made from": facts.run,
        "variants": ", ".join(facts.variants),
        "cells": console.summarise_names(list(facts.cells)),
        "caveats": ", ".join(run.measured.caveats),
        "warnings": "; ".join(list_limits(run.measured)),
        "files": ", ".join(sorted(path.name for path in run.folder.path.iterdir() if path.name[0] != ".")),
    }
    rows = tuple((key, value) for key, value in about.items() if value)
    tables = [Table(f"Run {run.folder.name}", ("item", "value"), rows)]

    # its metrics, scope by scope
    metrics = {scope: run.measured.scopes[scope] for scope in summary_scopes(run)}
    tables += [table for table in [metric_table("Metrics", metrics, "of")] if table.rows]
    return Result(run.folder.path, tuple(tables), run.measured, hint=Line("report", reference))


def _remove(runs: Sequence[RunOnDisk], root: Path, agreed: bool) -> None:
    """Remove runs, after showing their state and the runs whose recipes name them."""
    # a run that a command writes stays
    if busy := [run.full_name for run in runs if run.is_in_use]:
        raise BrainhiveError(f"{busy[0]} is in use by a running command", "wait for it, or stop it first")

    # read the recipes of the other runs
    removed = {run.full_name for run in runs}
    recipes = {}
    for folder in (path.parent for path in root.glob("*/*/recipe.yaml")):
        if (run := RunOnDisk(folder)).full_name not in removed:
            with suppress(OSError):  # a pipe or a large one: it is not of a run that reads another
                recipes[run.full_name] = run.read_text("recipe.yaml", LARGEST_RECIPE)

    # show each run with those that use it, and ask
    for run in runs:
        # recipes name a run in several keys, so the text is searched
        users = [name for name, text in recipes.items() if run.path.name in text]
        used = f"; used by {', '.join(users)}" if users else ""
        console.say(f"{run.full_name}: {run.state}, {console.size(run.bytes)}{used}")
    if not agreed and not console.confirm(f"remove {len(runs)} run{'s' if len(runs) > 1 else ''}?"):
        raise BrainhiveError("nothing was removed", "--yes removes without asking")

    # remove them, each under its lock
    for run in runs:
        if run.path.is_symlink():  # the link goes; what it leads to is not touched, not even by a lock
            remove(run.path)
        else:
            lock = Claim(run.path / LOCK, f"run {run.path}")
            remove(run.path)
            lock.release()
