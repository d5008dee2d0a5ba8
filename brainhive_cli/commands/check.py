"""check: search for missing and damaged files of data sets, stores and runs.

A signal store is an HDF5 file with the trials of a subject. A target store is an HDF5
file with the embeddings of the pictures of a split.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from brainhive_cli.core.base import (
    BrainhiveError,
    Line,
    MissingData,
    RecipeError,
    Table,
    choose_exit_code,
    console,
)
from brainhive_cli.core.files import Input, home_folder, read_digests
from brainhive_cli.core.recipes import (
    STORES,
    Arguments,
    FileRecipe,
    NameList,
    flag_field,
    parts,
)
from brainhive_cli.core.runs import (
    Launch,
    Result,
    RunFolder,
    find_labelled,
    is_run,
    require_single,
    run_files,
)
from brainhive_cli.data.files import Subjects, shorten_store_path
from brainhive_cli.data.stores import (
    COUNT_COLUMNS,
    FAILED,
    HEALTH_COLUMNS,
    PASSED,
    SignalStore,
    TargetStore,
    describe_store,
    expand_patterns,
    inspect_dataset,
    is_signal_store,
    list_stores,
    make_count_rows,
    make_health_row,
    make_health_table,
)
from brainhive_cli.data.targets import describe_health_problem, holds_annotations
from brainhive_cli.reports.pages.signal_page import write_signal_page


class Recipe(FileRecipe):
    """Recipe of check, with the data sets, stores and runs to check."""

    skips_finished = True
    section = STORES
    summary = (
        "Check whether data sets, embeddings and runs are complete, damaged or missing."
    )
    example = "things-eeg"

    stores: Annotated[NameList | None, Arguments("PATH", names="@datasets,@runs/*")] = (
        Field(
            None,
            description="data sets (things-eeg), stores (files, folders or patterns) "
            "and runs (folders or names); default: all stores below paths.embeddings",
        )
    )
    dataset: Any = Field(
        None,
        description="a data set with its keys, as {kind: image-folder, root: FOLDER}",
    )
    subjects: Subjects = flag_field(
        None, "subjects of data sets to check, as in 1,2; default: all"
    )
    plots: bool = flag_field(
        False,
        "draw a page with the reliability of each signal store. Signal "
        "stores of the data sets are included",
    )


CheckOutcome = tuple[Result, list[BrainhiveError]]
"""Result and problems of a check. The details of the result are dicts of facts, by
section and by name of the checked item.
"""


def list_checks(
    recipe: Recipe, is_thorough: bool = False
) -> list[tuple[str, Callable[[], CheckOutcome]]]:
    """List the checks that a recipe asks for, without running them.

    Each name in `recipe.stores` is a data set, a run, or a path or pattern of stores
    and runs. If the recipe names nothing, all target stores (embeddings) are checked.

    Args:
        recipe: Settings of the command.
        is_thorough: If True, check all of a data set instead of a sample, and measure
            the health of embeddings anew instead of reading it.

    Returns:
        Pairs of the name of the checked item, and a function that runs the check.

    Raises:
        RecipeError: if `plots` is set, but no signal store (trials) and no data set is
            named.
        MissingData: if `plots` is set, but the data sets have no signal stores, or if
            no file has one of the names.
    """
    paths = recipe.paths

    # a name is a data set, or else a run, or else a path
    datasets = [parts.resolve("datasets", recipe.dataset)] if recipe.dataset else []
    patterns = list[str]()
    runs_folder = paths.under_home("runs")
    run_by_name = {path.name: path for path in runs_folder.glob("*/*")}
    for name in recipe.stores or ():
        if parts.is_kind("datasets", name):
            datasets.append(parts.resolve("datasets", name))
            continue
        labelled = find_labelled(runs_folder, None, name)
        if labelled and name not in run_by_name and not os.path.exists(name):
            require_single(labelled, name)
            run_by_name[name] = labelled[0]
        patterns.append(str(run_by_name.get(name, name)))

    # divide the paths into runs and stores
    runs = list[Path]()
    store_names = list[str]()
    for path in expand_patterns(patterns):
        if is_run(path):
            runs.append(path)
        else:
            store_names.append(str(path))
    stores = list[Path]()
    if store_names:
        stores = list_stores(store_names, paths)
    elif recipe.stores is None and not recipe.dataset:
        stores = list_stores(None, paths)

    # a file that cannot be read counts as a target store, whose check reports it
    signal_stores = []
    for path in stores:
        with suppress(BrainhiveError):
            if is_signal_store(path):
                signal_stores.append(path)
    target_stores = [path for path in stores if path not in signal_stores]

    # plots need signal stores: named stores, or the stores of a named data set
    if recipe.plots:
        for path in _find_signal_stores(recipe, datasets):
            if path not in signal_stores:
                signal_stores.append(path)
        if not signal_stores and datasets:
            kinds = ", ".join(config.kind for config in datasets)
            raise MissingData(
                f"{kinds} has no signal stores to plot",
                Line("prepare"),
            )
        if not signal_stores:
            raise RecipeError(
                "--plots draws signal stores, and none is named",
                "name a data set, or stores below signals/",
            )

    checks: list[tuple[str, Callable[[], CheckOutcome]]] = []
    for config in datasets:
        check_dataset = partial(_check_dataset, config, recipe, is_thorough)
        checks.append((f"data set {config.kind}", check_dataset))
    for path in target_stores:
        checks.append((str(path), partial(_check_target_store, path, is_thorough)))
    for path in signal_stores:
        checks.append((str(path), partial(_check_signal_store, path, recipe)))
    for path in runs:
        checks.append((str(path), partial(_check_run, path)))
    return checks


def _find_signal_stores(recipe: Recipe, datasets: Sequence[Any]) -> list[Path]:
    """Find the signal stores (trials) of the selected subjects, or of all subjects."""
    file_patterns = ["sub-*.h5"]
    if recipe.subjects:
        file_patterns = [f"sub-{subject:02d}.h5" for subject in recipe.subjects]
    stores = list[Path]()
    for config in datasets:
        # skip a data set whose files are missing
        with suppress(MissingData):
            dataset = config.build(recipe.paths)
            folder = recipe.paths.under_home("signals") / dataset.recorded_as
            for pattern in file_patterns:
                stores += sorted(folder.glob(f"*/{pattern}"))
    return stores


def inputs(recipe: Recipe) -> list[Input]:
    """List the data sets, stores and runs to check."""
    return [Input(name) for name, _ in list_checks(recipe)]


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Check data sets, stores and runs, and warn of each problem.

    Args:
        recipe: Settings of the command.
        launch: Not used.
        force: If True, check all of a data set instead of a sample, and measure the
            health of embeddings anew instead of reading it.

    Returns:
        A table for each kind of checked items, such as the runs. The exit code is the
        code of `MissingData` if a file is missing, else the largest code of the
        problems, or 0.

    Raises:
        MissingData: if no file has one of the names, or if there is no store.
    """
    # run all checks, then warn of the problems
    results = list[Result]()
    problems = list[BrainhiveError]()
    checks = list_checks(recipe, force)
    with console.progress("checking", len(checks)) as bar:
        for name, check in checks:
            result, check_problems = check()
            results.append(result)
            problems += check_problems
            bar.advance(1, name)
    for problem in problems:
        console.warn(problem.message)
        if problem.hint:
            console.say(f"  try: {problem.hint}")

    # join the rows of tables with the same title, and the details of the same section
    tables: dict[str, Table] = {}
    details: dict[str, dict[str, Any]] = {"stores": {}}
    files = dict[str, Path]()
    for result in results:
        for table in result.tables:
            if table.title in tables:
                rows = list(tables[table.title].rows) + list(table.rows)
                tables[table.title] = replace(table, rows=rows)
            else:
                tables[table.title] = table
        for section, facts in result.details.items():
            details.setdefault(section, {}).update(facts)
        files |= result.files

    return Result(
        home_folder(),
        tuple(tables.values()),
        details=details,
        files=files,
        exit_code=choose_exit_code(problems),
    )


def _check_dataset(config: Any, recipe: Recipe, is_thorough: bool) -> CheckOutcome:
    """Look for missing and damaged files of a data set.

    Args:
        config: Config of the data set.
        is_thorough: If True, check every picture and trial instead of a sample.
    """
    name, facts, problems, table = inspect_dataset(
        config, recipe.paths, recipe.subjects, is_thorough
    )
    details = {"datasets": {name: facts}}
    return Result(home_folder(), (table,), details=details), list(problems)


def _check_signal_store(path: Path, recipe: Recipe) -> CheckOutcome:
    """Compare the rows of a signal store (trials) with their checksums.

    If `recipe.plots` is True, a page of plots is written next to the store.

    Returns:
        A table with a row for each split, and the problem if the store is damaged.
    """
    # the path ends with the data set, the preparation and the subject
    dataset, name = shorten_store_path(path.absolute()).split("/", 1)
    title = f"Signal stores of {dataset}"
    columns = ("store",) + COUNT_COLUMNS + ("check",)
    try:
        store = SignalStore.open(path)
        store.verify()
    except BrainhiveError as error:
        # a store that cannot be read has no counts
        row = (name,) + ("–",) * len(COUNT_COLUMNS) + (FAILED,)
        return _report_store(path, error.in_one_line, Table(title, columns, [row]))

    # `overlap` is a sentence if windows of trials overlap in time, else ""
    facts = {"problem": ""} | describe_store(store)
    if facts["overlap"]:
        console.say(f"{name}: {facts['overlap']}")
    rows = [(name,) + counts + (PASSED,) for counts in make_count_rows(facts)]
    table = Table(title, columns, rows)

    files = {}
    if recipe.plots:
        store_name = shorten_store_path(path)
        with console.progress(f"drawing the page of {store_name}"):
            page, facts["reliability"] = write_signal_page(store, path.with_suffix(""))
        files[f"page of {store_name}"] = page
        files[f"maps of {store_name}"] = page.parent
    details = {"stores": {str(path): facts}}
    return Result(path, (table,), files=files, details=details), []


def _check_target_store(path: Path, is_thorough: bool) -> CheckOutcome:
    """Compare the rows of a target store with their checksums, and judge its health.

    The health is a set of numbers, such as the mean norm of the embeddings.

    Args:
        is_thorough: If True, compute the health from the embeddings. If False, read the
            stored numbers.
    """
    try:
        store = TargetStore.open(path)
        store.verify()
        health = store.remeasure_health() if is_thorough else store.health
        problem = describe_health_problem(store, health)
    except BrainhiveError as error:
        # the health of a damaged store is unknown
        unknown_figures = ("–",) * (len(HEALTH_COLUMNS) - 2)
        table = make_health_table([(path.name,) + unknown_figures + (FAILED,)])
        return _report_store(path, error.in_one_line, table)

    row = make_health_row(store.path, health, bool(problem), holds_annotations(store))
    return _report_store(path, problem, make_health_table([row]), **asdict(health))


def _report_store(path: Path, problem: str, table: Table, **facts: Any) -> CheckOutcome:
    """Make the result of the check of a store, and its problem if it has one.

    Args:
        problem: Description of the problem, or "".
        table: Table with the row of the store.
        facts: Further facts about the store, by name.
    """
    problems = []
    if problem:
        problems.append(BrainhiveError(f"{path} failed its health check: {problem}"))
    details = {"stores": {str(path): facts | {"problem": problem}}}
    return Result(path, (table,), details=details), problems


def _check_run(path: Path) -> CheckOutcome:
    """Compare the files of a run with the digests that the run has stored.

    A file that is damaged, changed, missing, or not in the list of digests is a
    problem.
    """
    counts, problems = run_files.check(path)
    has_digests = bool(read_digests(path))

    # Kinds of the files that are counted in a run.
    file_kinds = ("documents", "weights", "checkpoints", "pictures")
    columns = ("run",) + file_kinds + ("digests", "check")
    row: list[object] = [RunFolder(path).name]
    for kind in file_kinds:
        row.append(counts.get(kind, 0))
    row.append("yes" if has_digests else "none")
    row.append(FAILED if problems else PASSED)
    table = Table("Files of runs", columns, [row])
    facts = {"counts": counts, "problems": problems, "has_digests": has_digests}
    result = Result(path, (table,), details={"runs_checked": {str(path): facts}})
    return result, [BrainhiveError(problem) for problem in problems]
