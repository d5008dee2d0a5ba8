"""check: data sets, stores and runs: what is there, what is missing, what is
damaged.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from brainhive_cli.core import console, parts, run_files
from brainhive_cli.core.command import Input, Result
from brainhive_cli.core.documents import read_digests
from brainhive_cli.core.errors import BrainhiveError, Line, MissingData, RecipeError
from brainhive_cli.core.files import home_folder
from brainhive_cli.core.key_types import NameList
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import FileRecipe
from brainhive_cli.core.runs import RunFolder, is_run
from brainhive_cli.core.tables import Table
from brainhive_cli.data.files.hdf5 import short_name
from brainhive_cli.data.files.subjects import Subjects
from brainhive_cli.data.stores.health import (
    COLUMNS,
    FAILED,
    PASSED,
    health_row,
    health_table,
)
from brainhive_cli.data.stores.inventory import inspect_dataset
from brainhive_cli.data.stores.signal_store import SignalStore, is_signal_store
from brainhive_cli.data.stores.store_tables import COUNTED, count_rows, describe_store
from brainhive_cli.data.stores.target_store import (
    TargetStore,
    expand_patterns,
    list_stores,
)
from brainhive_cli.data.targets.encoder_stores import holds_annotations, problem_of
from brainhive_cli.reports.signal_page import write_signal_page

KINDS = ("documents", "weights", "checkpoints", "pictures")
"""The files of a run that are counted."""


class Recipe(FileRecipe):
    """Recipe of check: data sets, stores and runs."""

    stores: NameList | None = Field(
        None,
        description="data sets (things-eeg), stores (files, folders or patterns) and "
        "runs (folders or names); default: all stores below "
        "paths.embeddings",
    )
    dataset: Any = Field(
        None,
        description="a data set with its keys, as {kind: image-folder, root: FOLDER}",
    )
    subjects: Subjects = Field(None, description="subjects of data sets; default: all")
    plots: bool = Field(
        False,
        description=(
            "draw the reliability of signal stores, also those of data sets: one page "
            "a store"
        ),
    )


Checked = tuple[Result, list[BrainhiveError]]
"""One thing: its tables, pages and details (by section and name), and what is wrong
with it.
"""


def list_checks(
    recipe: Recipe, again: bool = False
) -> list[tuple[str, Callable[[], Checked]]]:
    """Sort the names of a recipe into the checks of each, by what it is called; all
    stores if there are none.

    Raises:
        RecipeError: if plots are of nothing.
        MissingData: if a data set has no signal stores to plot.
    """
    paths = recipe.paths
    datasets = [parts.resolve("datasets", recipe.dataset)] if recipe.dataset else []

    # each word: a data set, else a run or a path
    patterns = list[str]()
    run_by_name = {path.name: path for path in paths.under_home("runs").glob("*/*")}
    for word in recipe.stores or ():
        if parts.is_kind("datasets", word):
            datasets.append(parts.resolve("datasets", word))
        else:
            patterns.append(str(run_by_name.get(word, word)))
    # sort matches into runs and stores; without names, all stores are checked
    matches = expand_patterns(patterns)
    runs = [path for path in matches if is_run(path)]
    words = (
        None
        if recipe.stores is None
        else [str(path) for path in matches if path not in runs]
    )
    stores = (
        []
        if words == [] or (words is None and recipe.dataset)
        else list_stores(words, paths)
    )

    # stores of signals; an unreadable file is checked as a target store
    signals = []
    for path in stores:
        with suppress(BrainhiveError):
            signals += [path] if is_signal_store(path) else []
    targets = [path for path in stores if path not in signals]
    # plots need a signal store, named or of a data set
    if recipe.plots:
        # and those of the data sets
        signals = list(dict.fromkeys([*signals, *_find_signals(recipe, datasets)]))
        if not signals and datasets:
            kinds = ", ".join(config.kind for config in datasets)
            raise MissingData(
                f"plots are of signal stores, and {kinds} has none", Line("prepare")
            )
        if not signals:
            raise RecipeError(
                "plots are of signal stores, and none is named",
                "name a data set, or stores below signals/",
            )

    # data sets first
    return [
        *(
            (f"data set {config.kind}", partial(_check_dataset, config, recipe, again))
            for config in datasets
        ),
        *((str(path), partial(_check_targets, path, again)) for path in targets),
        *((str(path), partial(_check_signals, path, recipe)) for path in signals),
        *((str(path), partial(_check_run, path)) for path in runs),
    ]


def _find_signals(recipe: Recipe, datasets: Sequence[Any]) -> list[Path]:
    """Find the signal stores of data sets, of the subjects that are checked."""
    # without subjects in the recipe, stores of all subjects
    names = [f"sub-{subject:02d}.h5" for subject in recipe.subjects or ()] or [
        "sub-*.h5"
    ]
    stored = []
    for config in datasets:
        with suppress(MissingData):  # its inventory reports this
            folder = (
                recipe.paths.under_home("signals")
                / config.build(recipe.paths).recorded_as
            )
            stored += [
                path for name in names for path in sorted(folder.glob(f"*/{name}"))
            ]
    return stored


def inputs(recipe: Recipe) -> list[Input]:
    """List what is checked."""
    return [Input(name) for name, _ in list_checks(recipe)]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Check everything that is named; each that fails is warned of.

    All rows of stores are verified, and all files of runs; of data sets some pictures
    and trials, or with `again` all. The health of targets is measured again with
    `again`.

    Raises:
        MissingData: if there is none.
    """
    # check all before anything is reported, so that one failure does not hide others
    results = list[Result]()
    problems = list[BrainhiveError]()
    checks = list_checks(recipe, again)
    with console.progress("checking", len(checks)) as bar:
        for name, check in checks:
            result, errors = check()
            results.append(result)
            problems += errors
            bar.advance(1, name)

    # what is wrong, each with its way out
    for problem in problems:
        console.warn(problem.message)
        if problem.hint:
            console.say(f"  try: {problem.hint}")

    # a table for each kind of thing, and the same for programs
    tables: dict[str, Table] = {}
    details: dict[str, dict[str, Any]] = {"stores": {}}
    for result in results:
        for table in result.tables:
            rows = tables[table.title].rows if table.title in tables else ()
            tables[table.title] = replace(table, rows=[*rows, *table.rows])
        for section, notes in result.details.items():
            details.setdefault(section, {}).update(notes)

    # a missing file ends with its own code, even beside another problem
    codes = {problem.exit_code for problem in problems}
    return Result(
        home_folder(),
        tuple(tables.values()),
        details=details,
        files={name: path for result in results for name, path in result.files.items()},
        exit_code=MissingData.exit_code
        if MissingData.exit_code in codes
        else max(codes, default=0),
    )


def _check_dataset(config: Any, recipe: Recipe, again: bool) -> Checked:
    """List the parts of a data set, and what is wrong with them."""
    name, note, problems, table = inspect_dataset(
        config, recipe.paths, recipe.subjects, again
    )
    return Result(home_folder(), (table,), details={"datasets": {name: note}}), [
        *problems
    ]


def _check_signals(path: Path, recipe: Recipe) -> Checked:
    """Verify all rows of a signal store; describe it, and draw its page where that is
    asked for.
    """
    dataset, name = short_name(path.absolute()).split("/", 1)
    # a store that fails has a row of dashes in the same table
    title = f"Signal stores of {dataset}"
    columns = ("store", *COUNTED, "check")
    try:
        store = SignalStore.open(path)
        store.verify()
    except BrainhiveError as error:
        row = (name, *"–" * len(COUNTED), FAILED)
        return _report_store(path, error.in_one_line, Table(title, columns, [row]))
    # what it holds by split
    note = {"problem": "", **describe_store(store)}
    if note["overlap"]:
        console.say(f"{name}: {note['overlap']}")
    files = {}
    table = Table(title, columns, [(name, *row, PASSED) for row in count_rows(note)])
    if recipe.plots:
        with console.progress(f"drawing the page of {short_name(path)}"):
            page, note["reliability"] = write_signal_page(store, path.with_suffix(""))
        files[f"page of {short_name(path)}"] = page
        files[f"maps of {short_name(path)}"] = page.parent
    return Result(
        path, (table,), files=files, details={"stores": {str(path): note}}
    ), []


def _check_targets(path: Path, again: bool) -> Checked:
    """Verify all rows of a target store, and its health; one that does not open has
    failed too.
    """
    # health is read from the store, or measured again from all rows
    try:
        store = TargetStore.open(path)
        store.verify()
        health = store.measured() if again else store.health
        problem = problem_of(store, health)
    except BrainhiveError as error:
        unknown = ["–"] * (len(COLUMNS) - 2)
        table = health_table([(path.name, *unknown, FAILED)])
        return _report_store(path, error.in_one_line, table)
    table = health_table(
        [health_row(store.path, health, bool(problem), holds_annotations(store))]
    )
    return _report_store(path, problem, table, **asdict(health))


def _report_store(path: Path, problem: str, table: Table, **note: Any) -> Checked:
    """Say why a store has failed, where it has."""
    errors = (
        [BrainhiveError(f"{path} failed its health check: {problem}")]
        if problem
        else []
    )
    return Result(
        path, (table,), details={"stores": {str(path): {**note, "problem": problem}}}
    ), errors


def _check_run(path: Path) -> Checked:
    """Read all files of a run."""
    # one row a run: number of files by kind
    counts, problems = run_files.check(path)
    has_digests = bool(read_digests(path))
    row: list[Any] = [counts.get(kind, 0) for kind in KINDS]
    row += ["yes" if has_digests else "none", FAILED if problems else PASSED]
    table = Table(
        "Files of runs",
        ("run", *KINDS, "digests", "check"),
        [(RunFolder(path).name, *row)],
    )
    note = {"counts": counts, "problems": problems, "has_digests": has_digests}
    return Result(path, (table,), details={"runs_checked": {str(path): note}}), [
        *map(BrainhiveError, problems)
    ]
