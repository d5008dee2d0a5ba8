"""report: runs as one self-contained page, as tables for papers, or as one table for
pandas.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from brainhive_cli.core import console, documents
from brainhive_cli.core.command import Input, Result
from brainhive_cli.core.errors import Line, RecipeError
from brainhive_cli.core.facts import CITES, RetrievalFacts, say
from brainhive_cli.core.files import atomic_write, home_folder, locate
from brainhive_cli.core.key_types import NameList
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import FileRecipe
from brainhive_cli.core.runs import RunFolder, newest
from brainhive_cli.core.tables import Table
from brainhive_cli.reports.paper_tables import comma_separated, paper_table, write_table
from brainhive_cli.reports.runs_shown import RunGroup, ShownRun, find

# endings of the names of runs: digests of recipes, and a number
FINGERPRINTS = re.compile(r"(-[0-9a-f]{10})+(-\d+)?$")
FOLDER = "reports"
"""Folder of pages and tables, below home."""
ReportFormat = Literal["html", "md", "csv", "tex"]
MAX_NAMED_KEYS = 3
"""Keys of a set-up that the label of a run names."""


class Recipe(FileRecipe):
    """Recipe of report: the runs that are shown, and the format."""

    runs: NameList | None = Field(
        None,
        description="runs, by folder, name, RUN:VARIANT, or a command for its newest; "
        "default: the newest with metrics",
    )
    labels: NameList | None = Field(
        None, description="what each run is called, in the same order"
    )
    format: ReportFormat = Field(
        "html",
        description=(
            "html: a page; md, tex: tables for papers; csv: a row for each metric of "
            "each scope"
        ),
    )
    to: str | None = Field(
        None, description="the file; default: one below reports/, named after the runs"
    )
    table: bool | str = Field(
        False,
        description="a row a method, of the retrievals of a workflow: results first, "
        "what is none below with the reason; a row's name compares the others with it",
    )
    figures: str | None = Field(
        None,
        description=(
            "a folder for every figure, as SVG, PNG and PDF, as wide as a journal's "
            "column"
        ),
    )


def inputs(recipe: Recipe) -> list[Input]:
    """List the runs that are shown."""
    runs = opened(recipe)
    written = [
        _target(recipe, runs),
        *([locate(recipe.figures)] if recipe.figures else []),
    ]
    read = [Input(str(shown_run.folder.path)) for shown_run in runs]
    return read + [Input(str(path), note="to be written") for path in written]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Read the runs, compare those that measured the same, and write the page or the
    tables.
    """
    runs = opened(recipe)
    # choose the files, and compare runs command by command
    path = _target(recipe, runs)
    groups = group_runs(runs)
    for group in groups:
        for reason in group.not_compared:
            console.warn(f"not compared: {reason}")
    tables = [*map(paper_table, groups)]
    if recipe.table:
        from brainhive_cli.reports import method_tables

        tables = method_tables.tabulate_methods(
            runs, "" if recipe.table is True else recipe.table
        )

    # the page or the tables, and the figures, each in a file of its own
    launch.once(partial(_write, recipe, groups, tables, path))
    files = {"page" if recipe.format == "html" else "table": path}
    if recipe.figures:
        from brainhive_cli.reports.run_page import save_figures

        files["figures"] = figures = locate(recipe.figures)
        with console.progress("drawing the figures"):
            saved = launch.once(partial(save_figures, groups, figures))
        console.say(f"{len(saved)} files of figures in {figures}")

    # the same tables in the terminal, and the comparisons for programs
    compared = [pair.model_dump() for group in groups for pair in group.compared]
    return Result(
        path.parent, tuple(tables), files=files, details={"comparisons": compared}
    )


def _write(
    recipe: Recipe, groups: Sequence[RunGroup], tables: Sequence[Table], path: Path
) -> None:
    """Write the page or the tables."""
    with atomic_write(path) as part:
        if recipe.format == "html":
            # draws by matplotlib
            from brainhive_cli.reports.page import PageSection
            from brainhive_cli.reports.run_page import page_of

            first = [PageSection("Methods side by side", [("", tables)])]
            with console.progress("drawing the page"):
                page_of(groups, first=first * bool(recipe.table)).write(part)
            return
        if recipe.format != "csv":
            texts = [write_table(table, recipe.format) for table in tables]
            text = "\n".join(texts)
        elif recipe.table:
            from brainhive_cli.reports import method_tables

            text = method_tables.join_tables(tables)
        else:
            text = comma_separated(groups)
        part.write_text(text, encoding="utf-8")


def group_runs(runs: Sequence[ShownRun]) -> list[RunGroup]:
    """Group runs by command, in their order, and compare those of a group."""
    # only runs of one command can have measured the same
    command_runs = [
        [run for run in runs if run.command == command]
        for command in dict.fromkeys(run.command for run in runs)
    ]
    return [
        _compare(group) if len(group) > 1 else RunGroup(group) for group in command_runs
    ]


def opened(recipe: Recipe) -> list[ShownRun]:
    """Find the runs, each with a label of its own.

    Raises:
        MissingData: if there is none, or it is not finished.
        RecipeError: if a run is named twice, or there are more or fewer labels than
            runs.
    """
    # find the runs, and refuse one that is named twice
    root = recipe.paths.under_home("runs")
    chosen = [find(root, name) for name in recipe.runs] if recipe.runs else [find(root)]
    paths = [(folder.path.resolve(), variant) for folder, variant in chosen]
    for path in paths:
        if paths.count(path) > 1:
            raise RecipeError(
                f"{RunFolder(path[0]).reference} is named twice", "name each run once"
            )

    # names without fingerprints, unless only these distinguish runs of a command;
    # variants by their own names
    short = [
        (folder.command, variant or FINGERPRINTS.sub("", folder.label))
        for folder, variant in chosen
    ]
    full = [
        f"{folder.label}:{variant}" if variant else folder.label
        for folder, variant in chosen
    ]
    labels = recipe.labels or [
        key[1] if short.count(key) == 1 else name
        for key, name in zip(short, full, strict=True)
    ]
    # every run needs a label, and labels of the user must differ
    if len(labels) != len(chosen) or (recipe.labels and len({*labels}) < len(labels)):
        raise RecipeError(
            f"{len(chosen)} runs have the labels {', '.join(labels)}",
            "give each run one of its own",
        )
    runs = [ShownRun(label, *run) for label, run in zip(labels, chosen, strict=True)]
    if not recipe.labels and len(runs) > 1:
        for shown_run, label in zip(runs, name_by_differences(runs), strict=True):
            shown_run.label = label
    return runs


def name_by_differences(runs: Sequence[ShownRun]) -> list[str]:
    """Name runs of one command by the values in which their set-ups differ; else by
    their labels.
    """
    labels = [run.label for run in runs]
    set_ups = [run.measured.facts.set_up for run in runs]
    if len({run.command for run in runs}) > 1 or not all(set_ups):
        return labels

    # the first keys that tell more of the runs apart, kinds of parts before their other
    # keys
    keys = dict.fromkeys(
        key for set_up in set_ups for key in set_up if not key.startswith(CITES)
    )
    names = [""] * len(runs)
    for key in sorted(keys, key=lambda key: not key.endswith(".kind")):
        word = key.rpartition(".")[2]
        # the name of a part says what it is
        called = "" if word == "kind" else f"{word} "
        values = [say(key, set_up.get(key)) for set_up in set_ups]
        # a key stays only if it tells more runs apart
        longer = [
            f"{name}, {called}{value}"
            for name, value in zip(names, values, strict=True)
        ]
        if len({*longer}) > len({*names}):
            names = longer
    if (
        len({*names}) < len(runs)
        or max(name.count(", ") for name in names) > MAX_NAMED_KEYS
    ):
        return labels
    return [name.removeprefix(", ") for name in names]


def newest_two(root: Path) -> list[str]:
    """Name the newest run with values item by item, and the newest that can be compared
    with it.

    Raises:
        MissingData: if there are no two.
    """
    # the newest run with values of items
    two = "runs that measured the same, item by item"
    first = newest(
        root,
        None,
        lambda run: "" if run.measurements().items else "no values item by item",
        needed=two,
        hint=Line("eval-retrieval"),
    )
    shown = ShownRun("", first)

    # the newest other run of its command that measured the same
    def differs(run: RunFolder) -> str:
        return "; ".join(_compare([shown, ShownRun("", run)]).not_compared)

    second = newest(
        root, first.command, differs, needed=f"another of {two}", apart_from=first
    )
    return [str(run.path) for run in (first, second)]


def _target(recipe: Recipe, runs: Sequence[ShownRun]) -> Path:
    """Choose the path of the file that is written."""
    if recipe.to is not None:
        return locate(recipe.to)

    # a file named after the first run; a digest of all tells pages of several runs
    # apart
    name = runs[0].folder.label + ("-methods" if recipe.table else "")
    if len(runs) > 1:
        folders = "\n".join(str(shown_run.folder.path) for shown_run in runs)
        digest = documents.digest_text(folders)[:6]
        name += f"-and-{len(runs) - 1}-more-{digest}"
    return home_folder() / FOLDER / f"{name}.{recipe.format}"


def _kind_of_items(run: ShownRun) -> str:
    """Say what values a run has item by item: ranks of a gallery, or metrics of
    pictures; empty for none.
    """
    facts = run.measured.facts
    if isinstance(facts, RetrievalFacts) and facts.gallery:
        return "ranks"
    return "metrics" if facts.sources else ""


def _compare(runs: Sequence[ShownRun]) -> RunGroup:
    """Compare the first run with all comparable ones at once, as the adjustment of p
    needs.
    """
    first, *following = runs

    # the first run needs values of items
    kind = _kind_of_items(first)
    if not kind or not first.measured.items:
        return RunGroup(
            runs, not_compared=[f"{first.label} has no values item by item"]
        )

    # compare runs of the same kind of values: ranks of a gallery, or values of items
    measurements = {
        run.label: run.measured
        for run in following
        if _kind_of_items(run) == kind and run.measured.items
    }
    if kind == "ranks":
        # one run alone needs no numpy
        from brainhive_cli.measurement.comparison import compare_ranks

        pairs = {
            (first.label, label): (first.measured, run)
            for label, run in measurements.items()
        }
        compared, errors = compare_ranks(pairs)
    else:
        from brainhive_cli.measurement.comparison import compare_runs

        compared, errors = compare_runs(first.measured, first.label, measurements)

    # runs with other values, or without any, are named with the reason
    reasons = [
        f"{first.label} and {run.label} did not measure the same"
        for run in following
        if run.label not in measurements
    ]
    return RunGroup(runs, compared, [*reasons, *(error.message for error in errors)])
