"""report: runs as one self-contained page, or as tables for papers."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from brainhive_cli.core import console, home
from brainhive_cli.core.console import Table
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError, guess
from brainhive_cli.core.file_names import publish, remove
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.recipe import Names, Run
from brainhive_cli.core.recipe import Recipe as BaseRecipe
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.reports.paper_tables import WRITERS, paper_table
from brainhive_cli.reports.run_page import page_of
from brainhive_cli.reports.runs_shown import Compared, RunGroup, ShownRun

__all__ = ["Recipe", "plan", "run"]
FINGERPRINTS = re.compile(r"(-[0-9a-f]{10})+(-\d+)?$")
FOLDER = "reports"
"""Where pages and tables are put, below home."""
Format = Literal["html", "md", "csv", "tex"]


class Recipe(BaseRecipe):
    """Which runs are shown, and how."""

    runs: Names | None = Field(None, description="runs, by folder or name; default: the newest")
    labels: Names | None = Field(None, description="what each run is called, in the same order")
    format: Format = Field("html", description="html: a page; md, csv, tex: tables for papers")
    to: str | None = Field(None, description="the file; default: one below reports/, named after the runs")
    run: Run = Run(device="cpu")


def plan(recipe: Recipe) -> Plan:
    """Say which runs would be shown, and where the page would be."""
    return Plan.of(
        {
            "runs": lambda: ", ".join(str(each.folder.path) for each in opened(recipe)),
            "to": lambda: str(_target(recipe, opened(recipe))),
        }
    )


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Read the runs, compare those that measured the same, and write the page or the tables."""
    runs = opened(recipe)
    groups = grouped(runs)
    path = _target(recipe, runs)
    for reason in (reason for group in groups for reason in group.not_compared):
        console.warn(f"not compared: {reason}")
    if launch.is_main:
        write(path, recipe.format, groups)
    files = {"page" if recipe.format == "html" else "table": path}
    compared = [vars(each) for group in groups for each in group.compared]
    return Result(path.parent, _shown(groups), Measurements(notes={"comparisons": compared}), files)


def write(path: Path, format: Format, groups: Sequence[RunGroup]) -> None:
    """Write a page or tables under their final name only when complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    remove(part)
    if format == "html":
        page_of(groups).write(part)
    else:
        text = "\n".join(WRITERS[format](paper_table(group)) for group in groups)
        part.write_text(text, encoding="utf-8")
    publish(part, path)


def opened(recipe: Recipe) -> list[ShownRun]:
    """Find the runs, each with a label of its own.

    Raises:
        MissingData: if there is none, or it is not finished.
        RecipeError: if a run is named twice, or there are more or fewer labels than runs.
    """
    root = recipe.paths.under_home("runs")
    folders = [find(root, name) for name in recipe.runs] if recipe.runs else [_newest(root)]
    paths = [folder.path.resolve() for folder in folders]
    if len({*paths}) < len(paths):
        twice = next(
            folder.path for folder, path in zip(folders, paths, strict=True) if paths.count(path) > 1
        )
        raise RecipeError(f"{twice} is named twice", "name each run once")
    labels = recipe.labels or _labels([(folder.path.parent.name, folder.path.name) for folder in folders])
    if len(labels) != len(folders) or (recipe.labels and len({*labels}) < len(labels)):
        raise RecipeError(
            f"{len(folders)} runs have the labels {', '.join(labels)}", "give each run one of its own"
        )
    return [ShownRun(label, folder) for label, folder in zip(labels, folders, strict=True)]


def find(root: Path, name: str) -> RunFolder:
    """Find a finished run of any command, by folder, name, or the end of its name.

    Raises:
        MissingData: if there is none.
        RecipeError: if several have the name.
    """
    path = next((path for path in (home.located(name), root / name) if path.is_dir()), None)
    if path:
        run = RunFolder(path)
        run.measurements()  # which says what is missing
        return run
    there = {found.parent.name: found.parent for found in _finished(root)}
    matching = [path for path in _finished(root) if path.parent.name == name]
    matching = matching or [path for path in _finished(root) if path.parent.name.endswith(f"-{name}")]
    if len(matching) > 1:
        raise RecipeError(
            f"several runs are called {name!r}", ", ".join(str(found.parent) for found in matching)
        )
    if not matching:
        for begun in (path for path in root.glob("*/*") if path.name == name and path.is_dir()):
            RunFolder(begun).measurements()  # which says what is missing
        hint = guess(name, list(there)) or ("brainhive runs lists them" if there else "brainhive demo")
        raise MissingData(f"no finished run {name!r} below {root}", hint)
    return RunFolder(matching[0].parent)


def _finished(root: Path) -> list[Path]:
    return sorted(root.glob(f"*/*/{FINISHED}"), key=lambda path: -path.stat().st_mtime)


def _newest(root: Path) -> RunFolder:
    if not (found := _finished(root)):
        raise MissingData(f"no finished run below {root}", "brainhive demo")
    run = RunFolder(found[0].parent)
    console.say(f"{run.path.parent.name} run {run.path.name}, finished {run.age}")
    return run


def _labels(names: Sequence[tuple[str, str]]) -> list[str]:
    """Shorten names by their fingerprints, unless they are all that distinguishes runs of a command."""
    short = [(command, FINGERPRINTS.sub("", name)) for command, name in names]
    return [own[1] if short.count(own) == 1 else name for own, (_, name) in zip(short, names, strict=True)]


def _target(recipe: Recipe, runs: Sequence[ShownRun]) -> Path:
    """Name the file that is written.

    Raises:
        RecipeError: if it lies in the folder of a run, whose files have digests.
    """
    if recipe.to is not None:
        path = home.located(recipe.to)
        if path.is_dir() or any(path.resolve().is_relative_to(each.folder.path.resolve()) for each in runs):
            raise RecipeError(f"to: {path} is a folder, or lies in that of a run", f"to=page.{recipe.format}")
        return path
    names = "\n".join(str(each.folder.path) for each in runs)
    digest = (
        ""
        if len(runs) == 1
        else f"-and-{len(runs) - 1}-more-{hashlib.sha256(names.encode()).hexdigest()[:6]}"
    )
    return home.root() / FOLDER / f"{runs[0].folder.path.name}{digest}.{recipe.format}"


def grouped(runs: Sequence[ShownRun]) -> list[RunGroup]:
    """Group runs of the same kind, in the order in which they were named, and compare them item by item."""
    kinds: dict[str, list[ShownRun]] = {}
    for each in runs:
        kinds.setdefault(each.command, []).append(each)
    return [_compared(some) if len(some) > 1 else RunGroup(some) for some in kinds.values()]


def _compared(runs: Sequence[ShownRun]) -> RunGroup:
    """Compare the first run with each other one that can be."""
    first, *others = runs
    compare = next((compare for note, compare in COMPARE.items() if note in first.found.notes), None)
    if compare is None or not first.found.items:
        return RunGroup(runs, not_compared=[f"{first.label} has no values item by item"])
    paired, reasons = {}, []
    for other in others:
        try:
            compare(first, {other.label: other})
            paired[other.label] = other
        except BrainhiveError as error:
            reasons.append(error.message)
        except LookupError:
            reasons.append(f"{first.label} and {other.label} did not measure the same")
    found = compare(first, paired) if paired else []  # all at once, for the adjustment of p
    return RunGroup(runs, found, reasons)


def _by_rank(first: ShownRun, others: Mapping[str, ShownRun]) -> list[Compared]:
    from brainhive_cli.retrieval.comparisons import compare_with

    found = compare_with(first.found, [other.found for other in others.values()])
    return [
        _of("top1", each, first.label, label, each["p_value_adjusted"])
        for label, each in zip(others, found, strict=True)
    ]


def _by_value(first: ShownRun, others: Mapping[str, ShownRun]) -> list[Compared]:
    from brainhive_cli.reconstruction.paired_tests import with_runs

    found = with_runs(first.found, first.label, {label: other.found for label, other in others.items()})
    return [
        _of(metric, {**values, "notes": each["notes"]}, first.label, each["with"], values["p_adjusted"])
        for each in found
        for metric, values in each["metrics"].items()
    ]


def _of(metric: str, found: Mapping[str, Any], first: str, second: str, p: float | None) -> Compared:
    ends = (found["difference"], found["low"], found["high"])
    return Compared(first, second, metric, *ends, found["n"], p, found["test"], tuple(found["notes"]))


COMPARE: dict[str, Callable[[ShownRun, Mapping[str, ShownRun]], list[Compared]]] = {
    "gallery": _by_rank,
    "sources": _by_value,
}
"""How two runs are paired, by the note that says what they measured: ranks, or values of items."""


def _shown(groups: Sequence[RunGroup]) -> tuple[Table, ...]:
    """Lay out the tables for papers, for a terminal."""
    shown = []
    for group in groups:
        table = paper_table(group)
        rows = tuple(
            (label, *("–" if each is None else each.text + each.mark for each in values))
            for label, values in table.rows
        )
        shown.append(Table(table.caption, ("", *table.columns), rows))
    return tuple(shown)
