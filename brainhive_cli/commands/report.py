"""report: runs as one self-contained page, as tables for papers, or as one table for pandas."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.files import atomic_write, home_folder, locate
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.recipe import Names, Run
from brainhive_cli.core.recipe import Recipe as BaseRecipe
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.runs import RunFolder, newest
from brainhive_cli.measurement.comparison import compare_ranks, compare_runs
from brainhive_cli.reports.paper_tables import WRITERS, comma_separated, paper_table
from brainhive_cli.reports.run_page import page_of
from brainhive_cli.reports.runs_shown import Compared, RunGroup, ShownRun, find

__all__ = ["Recipe", "plan", "run"]
FINGERPRINTS = re.compile(r"(-[0-9a-f]{10})+(-\d+)?$")
FOLDER = "reports"
"""Where pages and tables are put, below home."""
Format = Literal["html", "md", "csv", "tex"]


class Recipe(BaseRecipe):
    """Which runs are shown, and how."""

    runs: Names | None = Field(
        None,
        description="runs, by folder, name, RUN:VARIANT, or a command for its newest; default: the newest "
        "with metrics",
    )
    labels: Names | None = Field(None, description="what each run is called, in the same order")
    format: Format = Field(
        "html",
        description="html: a page; md, tex: tables for papers; csv: a row for each metric of each scope",
    )
    csv: bool = Field(False, description="short for format: csv")
    to: str | None = Field(None, description="the file; default: one below reports/, named after the runs")
    run: Run = Run(device="cpu")

    @model_validator(mode="after")
    def _has_one_format(self) -> Self:
        if self.csv and self.format not in ("html", "csv"):
            raise RecipeError(f"csv is set, but format is {self.format}", "leave one of them out")
        return self

    @property
    def written_as(self) -> Format:
        """The format of the file."""
        return "csv" if self.csv else self.format


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
        write(path, recipe.written_as, groups)
    files = {"page" if recipe.written_as == "html" else "table": path}
    compared = [vars(each) for group in groups for each in group.compared]
    return Result(
        path.parent, tuple(map(paper_table, groups)), Measurements(notes={"comparisons": compared}), files
    )


def write(path: Path, format: Format, groups: Sequence[RunGroup]) -> None:
    """Write a page or tables under their final name only when complete."""
    with atomic_write(path) as part:
        if format == "html":
            page_of(groups).write(part)
        elif format == "csv":
            part.write_text(comma_separated(groups), encoding="utf-8")
        else:
            text = "\n".join(WRITERS[format](paper_table(group)) for group in groups)
            part.write_text(text, encoding="utf-8")


def opened(recipe: Recipe) -> list[ShownRun]:
    """Find the runs, each with a label of its own.

    Raises:
        MissingData: if there is none, or it is not finished.
        RecipeError: if a run is named twice, or there are more or fewer labels than runs.
    """
    root = recipe.paths.under_home("runs")
    chosen = [find(root, name) for name in recipe.runs] if recipe.runs else [find(root)]
    folders = [folder for folder, _ in chosen]
    places = [(folder.path.resolve(), variant) for folder, variant in chosen]
    if len({*places}) < len(places):
        twice = next(path for path, variant in places if places.count((path, variant)) > 1)
        raise RecipeError(f"{twice} is named twice", "name each run once")
    names = [(folder.path.parent.name, folder.path.name, variant) for folder, variant in chosen]
    labels = recipe.labels or _labels(names)
    if len(labels) != len(folders) or (recipe.labels and len({*labels}) < len(labels)):
        raise RecipeError(
            f"{len(folders)} runs have the labels {', '.join(labels)}", "give each run one of its own"
        )
    return [ShownRun(label, *each) for label, each in zip(labels, chosen, strict=True)]


def newest_two(root: Path) -> list[str]:
    """Name the newest run that has values item by item, and the newest that can be compared with it.

    Raises:
        MissingData: if there are no two.
    """

    def lacks(run: RunFolder) -> str:
        return "" if run.measurements().items else "no values item by item"

    two = "runs that measured the same, item by item"
    first = newest(root, None, lacks, needed=two, choose="", hint="brainhive eval-retrieval")
    shown = ShownRun("", first)

    def differs(run: RunFolder) -> str:
        is_first = run.path == first.path
        return "the first" if is_first else "; ".join(_compared([shown, ShownRun("", run)]).not_compared)

    second = newest(root, first.path.parent.name, differs, needed=f"another of {two}", choose="")
    return [str(run.path) for run in (first, second)]


def _labels(names: Sequence[tuple[str, str, str]]) -> list[str]:
    """Shorten names by their fingerprints, unless they are all that distinguishes runs of a command.

    Variants of one sweep are called by their own names.
    """
    short = [(command, variant or FINGERPRINTS.sub("", name)) for command, name, variant in names]
    whole = [f"{name}:{variant}" if variant else name for _, name, variant in names]
    return [own[1] if short.count(own) == 1 else name for own, name in zip(short, whole, strict=True)]


def _target(recipe: Recipe, runs: Sequence[ShownRun]) -> Path:
    """Name the file that is written.

    Raises:
        RecipeError: if it lies in the folder of a run, whose files have digests.
    """
    if recipe.to is not None:
        path = locate(recipe.to)
        if path.is_dir() or any(path.resolve().is_relative_to(each.folder.path.resolve()) for each in runs):
            raise RecipeError(
                f"to: {path} is a folder, or lies in that of a run", f"to=page.{recipe.written_as}"
            )
        return path
    names = "\n".join(str(each.folder.path) for each in runs)
    digest = (
        ""
        if len(runs) == 1
        else f"-and-{len(runs) - 1}-more-{hashlib.sha256(names.encode()).hexdigest()[:6]}"
    )
    return home_folder() / FOLDER / f"{runs[0].folder.path.name}{digest}.{recipe.written_as}"


def grouped(runs: Sequence[ShownRun]) -> list[RunGroup]:
    """Group runs of the same kind, in the order in which they were named, and compare them item by item."""
    kinds: dict[str, list[ShownRun]] = {}
    for each in runs:
        kinds.setdefault(each.command, []).append(each)
    return [_compared(some) if len(some) > 1 else RunGroup(some) for some in kinds.values()]


def _compared(runs: Sequence[ShownRun]) -> RunGroup:
    """Compare the first run with each other one that can be."""
    first, *others = runs
    compare = next((compare for note, compare in COMPARE.items() if note in first.measured.notes), None)
    if compare is None or not first.measured.items:
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
    found = compare_ranks(first.measured, [other.measured for other in others.values()])
    return [
        _of("top1", each, first.label, label, each["p_value_adjusted"])
        for label, each in zip(others, found, strict=True)
    ]


def _by_value(first: ShownRun, others: Mapping[str, ShownRun]) -> list[Compared]:
    found = compare_runs(
        first.measured, first.label, {label: other.measured for label, other in others.items()}
    )
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
