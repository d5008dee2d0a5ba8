"""runs: every run with its state, result, age and size; one of them whole; and the removal of runs."""

import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from statistics import fmean

from pydantic import Field

from brainhive_cli.core import console
from brainhive_cli.core.caveats import extend_tables
from brainhive_cli.core.console import few
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError, guess
from brainhive_cli.core.file_lock import FileLock, is_held
from brainhive_cli.core.files import remove
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Names, Run
from brainhive_cli.core.recipe import Recipe as BaseRecipe
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.runs import CLAIM, LARGEST_RECIPE, RunFolder, age
from brainhive_cli.core.tables import Cell, Table
from brainhive_cli.measurement.metric_names import headlines, shown
from brainhive_cli.reports.paper_tables import summary_scopes
from brainhive_cli.reports.runs_shown import ShownRun, find

REMOVE, SHOW = "rm", "show"
BRAIN = "brain"
"""The scope of what was reconstructed from signals."""


class Recipe(BaseRecipe):
    """Which runs are listed or removed."""

    words: Names = Field(
        [],
        description="runs or commands, none for all; `show` before one shows it (default: the newest with "
        "metrics), `rm` removes runs",
    )
    yes: bool = Field(False, description="remove without asking")
    run: Run = Run(device="cpu")

    @property
    def removes(self) -> bool:
        """Whether the runs are to be removed."""
        return self.words[:1] == [REMOVE]

    @property
    def shows(self) -> bool:
        """Whether one run is to be shown."""
        return self.words[:1] == [SHOW]

    @property
    def shown(self) -> ShownRun:
        """The run that is to be shown.

        Raises:
            MissingData: if there is none of the name.
            RecipeError: if several are named.
        """
        names = self.words[1:]
        if len(names) > 1:
            raise RecipeError(f"{len(names)} runs: {', '.join(names)}", "brainhive runs show NAME")
        folder, variant = find(self.paths.under_home("runs"), names[0] if names else None)
        return ShownRun(variant or folder.path.name, folder, variant)

    @property
    def found(self) -> list["Found"]:
        """The runs that are named, the newest first.

        Raises:
            MissingData: if there is none of a name.
            RecipeError: if none is named that could be removed.
        """
        names = self.words[1:] if self.removes else self.words
        if self.removes and not names:
            raise RecipeError("no run to remove is named", "brainhive runs rm NAME")
        root = self.paths.under_home("runs")
        folders = [path for path in root.glob("*/*") if path.is_dir() and not path.name.startswith(".")]
        every = sorted((Found(path) for path in folders), key=lambda each: -each.changed)
        if not names:
            return every
        for name in names:
            if not any(each.is_called(name, self.removes) for each in every):
                known = [each.path.name for each in every]
                hint = f"{guess(name, known)}brainhive runs lists them"
                raise MissingData(f"no run {name!r} under {root}", hint)
        return [each for each in every if any(each.is_called(name, self.removes) for name in names)]


@dataclass(frozen=True)
class Found:
    """One run on disk."""

    path: Path

    @property
    def name(self) -> str:
        """Its command and name."""
        return f"{self.path.parent.name}/{self.path.name}"

    def is_called(self, name: str, exactly: bool) -> bool:
        """Whether it is meant by its name or path; where not only itself is, also by its command."""
        own = {self.path.name, self.name, str(self.path), os.path.abspath(self.path)}
        name = name.rstrip("/")
        return name in own or os.path.abspath(name) in own or (not exactly and name == self.path.parent.name)

    @cached_property
    def changed(self) -> float:
        """When something was last put into it."""
        return max(path.stat().st_mtime for path in (self.path, *self.path.glob("*.json*")))

    @property
    def is_in_use(self) -> bool:
        """Whether a command is writing it."""
        return is_held(self.path / CLAIM)

    @property
    def state(self) -> str:
        """Finished, running, or interrupted."""
        is_finished = RunFolder(self.path).is_finished
        return "running" if self.is_in_use else "finished" if is_finished else "interrupted"

    @property
    def headline(self) -> str:
        """What it came to, in a few words; empty if it is not finished."""
        if not RunFolder(self.path).is_finished:
            return ""
        try:
            found = RunFolder(self.path).measurements()
        except BrainhiveError as error:
            return error.message
        overall = found.overall or found.scopes.get(BRAIN)
        scopes = [overall] if overall else list(found.scopes.values())
        name = next(iter(headlines(list(dict.fromkeys(name for each in scopes for name in each)))), "")
        values = [each[name] for each in scopes if name in each]
        if len(values) == 1:
            interval = "" if values[0].low is None else f" ({values[0].interval_text()})"
            return f"{shown(name)} {values[0].value:.3f}{interval}"
        if values:
            return f"{shown(name)} {fmean(each.value for each in values):.3f}, the mean of {len(values)}"
        return ""

    @property
    def bytes(self) -> int:
        """Size of its files."""
        files = (Path(folder) / name for folder, _, names in os.walk(self.path) for name in names)
        return sum(file.lstat().st_size for file in files)

    @property
    def row(self) -> tuple[str | Cell, ...]:
        """Its line in the table; for programs with the time in ISO 8601, and the size in bytes."""
        changed = datetime.fromtimestamp(self.changed, UTC).isoformat(timespec="seconds")
        size = Cell(console.size(self.bytes), value=self.bytes)
        return self.name, self.state, self.headline, Cell(age(self.changed), value=changed), size


def plan(recipe: Recipe) -> Plan:
    """Name the runs that would be listed or removed."""
    if recipe.shows:
        return Plan.of({"shown": lambda: Found(recipe.shown.folder.path).name})
    what = "removed" if recipe.removes else "listed"
    return Plan.of({what: lambda: ", ".join(each.name for each in recipe.found) or "none"})


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """List runs, or remove those that are named and not in use.

    Raises:
        BrainhiveError: if one is in use, or the user does not agree.
    """
    if recipe.shows:
        return _show(recipe.shown)
    found, root = recipe.found, recipe.paths.under_home("runs")
    if recipe.removes:
        _remove(found, recipe, _users(found, root))
    title = "Removed runs" if recipe.removes else f"Runs in {root}"
    rows = tuple(each.row for each in found) if not recipe.removes else tuple((each.name,) for each in found)
    columns = ("run", "state", "result", "last changed", "size") if not recipe.removes else ("run",)
    hint = "" if recipe.removes or not found else "brainhive runs show NAME"
    return Result(root, (Table(title, columns, rows, is_list=True),), hint=hint)


def _show(run: ShownRun) -> Result:
    """Say what a run is, what it measured of everything together or else of each cell, and its files."""
    on_disk, notes = Found(run.folder.path), run.found.notes
    about = {
        "run": on_disk.name + (f":{run.variant}" if run.variant else ""),
        "state": f"{on_disk.state}, {age(on_disk.changed)}, {console.size(on_disk.bytes)}",
        **{key: notes.get(key, "") for key in ("dataset", "mode", "verdict")},
        "made from": notes.get("run", ""),
        "variants": ", ".join(notes.get("variants", ())),
        "cells": few(list(notes.get("cells", ()))),
        "caveats": ", ".join(run.found.caveats),
        "warnings": "; ".join(notes.get("warnings", ())),
        "files": ", ".join(sorted(path.name for path in run.folder.path.iterdir() if path.name[0] != ".")),
    }
    title = f"Run {on_disk.path.name}"
    rows = tuple((key, value) for key, value in about.items() if value)
    of_all = summary_scopes(run)
    metrics = tuple(
        (
            name,
            shown(metric.name),
            metric.value,
            metric.interval_text(),
            metric.n,
            "–" if metric.chance is None else metric.chance,
        )
        for name in of_all
        for metric in run.found.scopes[name].values()
    )
    columns = ("of", "metric", "value", "95 % CI", "n", "chance")
    laid_out = [
        Table(title, ("item", "value"), rows),
        *([Table("Metrics", columns, metrics)] if metrics else []),
    ]
    hint = shlex.join(["brainhive", "report", on_disk.path.name + (f":{run.variant}" if run.variant else "")])
    return Result(run.folder.path, extend_tables(laid_out, run.found.caveats), run.found, hint=hint)


def _users(found: Sequence[Found], root: Path) -> dict[str, list[str]]:
    """Find the other runs whose recipes name one of these."""
    texts = {
        f"{path.parts[-3]}/{path.parts[-2]}": _recipe_text(path.parent)
        for path in root.glob("*/*/recipe.yaml")
    }
    removed = {each.name for each in found}
    return {
        each.name: [name for name, text in texts.items() if name not in removed and each.path.name in text]
        for each in found
    }


def _recipe_text(folder: Path) -> str:
    with suppress(OSError):  # a pipe or a large one: it is not of a run that reads another
        return RunFolder(folder).read_text("recipe.yaml", LARGEST_RECIPE)
    return ""


def _remove(found: Sequence[Found], recipe: Recipe, users: dict[str, list[str]]) -> None:
    if held := [each.name for each in found if each.is_in_use]:
        raise BrainhiveError(f"{held[0]} is in use by a running command", "wait for it, or stop it first")
    for each in found:
        used = f"; used by {', '.join(users[each.name])}" if users[each.name] else ""
        console.say(f"{each.name}: {each.state}, {console.size(each.bytes)}{used}")
    if not recipe.yes and not console.confirm(f"remove {len(found)} run{'s' if len(found) > 1 else ''}?"):
        raise BrainhiveError("nothing was removed", "--yes removes without asking")
    for each in found:
        if each.path.is_symlink():  # the link goes; what it leads to is not touched, not even by a lock
            remove(each.path)
            continue
        lock = FileLock(each.path / CLAIM, f"run {each.path}")
        remove(each.path)
        lock.release()
