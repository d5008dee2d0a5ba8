"""The command `runs`: lists, shows, verifies or removes finished and unfinished runs.

A cell of a run is one of its models, usually of a subject and a seed.
"""

import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from brainhive_cli.core import console
from brainhive_cli.core.claims import Claim
from brainhive_cli.core.command import Input, Result, map_digests
from brainhive_cli.core.driver import LOCK, is_in_use
from brainhive_cli.core.errors import (
    BrainhiveError,
    Line,
    MissingData,
    RecipeError,
    guess,
)
from brainhive_cli.core.files import remove
from brainhive_cli.core.jobs import OpenRun
from brainhive_cli.core.key_types import NameList
from brainhive_cli.core.launch import Launch, start
from brainhive_cli.core.measurements import (
    extend_title,
    find_caveats,
    list_footnotes,
    list_metric_caveats,
    merge_caveats,
)
from brainhive_cli.core.recipe import FileRecipe, Paths, RunOptions
from brainhive_cli.core.runs import (
    ENVIRONMENT_FILE,
    METRICS_FILE,
    RunFolder,
    find as find_run,
    format_age,
    list_finished_runs,
    reference as reference_of,
)
from brainhive_cli.core.tables import Table, TableCell
from brainhive_cli.reports.paper_tables import list_summary_scopes
from brainhive_cli.reports.runs_shown import ShownRun, find_shown_run
from brainhive_cli.reports.sentences import list_limits, state_finding
from brainhive_cli.reports.tables import describe_metric, metric_table

REMOVE = "rm"
SHOW = "show"
VERIFY = "verify"
EVALUATION = "eval-retrieval"
MAX_LISTED_RUNS = 50
"""Largest number of runs in a list, unless the user asks for all runs."""


class Recipe(FileRecipe):
    """Recipe of `runs`: the runs to list, show, verify or remove."""

    words: NameList = Field(
        [],
        description="names of runs or commands to list; default: all. `show NAME` "
        "shows a run (default: the newest with metrics), `verify RUN CELL` trains one "
        "of its cells again (default: the first with the fewest subjects), `rm NAME` "
        "removes runs",
    )
    all: bool = Field(
        False, description=f"list all runs, not only the {MAX_LISTED_RUNS} newest"
    )
    yes: bool = Field(False, description="remove without asking")


def _name(run: RunFolder) -> str:
    """Return the command and the name of a run, such as eval-retrieval/NAME."""
    return f"{run.command}/{run.name}"


def _list_references(run: RunFolder, exclude_command: bool) -> set[str]:
    """List the texts by which a user may refer to a run.

    Args:
        run: Run of this home.
        exclude_command: If False, the name of the command refers to the run, too.

    Returns:
        The name of the run, COMMAND/NAME and its path.
    """
    references = {run.path.name, _name(run), str(run.path), os.path.abspath(run.path)}
    if not exclude_command:
        references.add(run.path.parent.name)
    return references


def _describe_state(run: RunFolder) -> str:
    """Return the state of a run.

    Returns:
        "running" while a command writes the run, "finished" if it has metrics, else
        "interrupted".
    """
    if is_in_use(run):
        return "running"
    return "finished" if run.is_finished else "interrupted"


def _describe_result(run: RunFolder) -> str | TableCell:
    """Return the main result of a run.

    The result is the most important metric over all cells. If no metric is pooled over
    the cells, the result is a sentence about the cells.

    Returns:
        A cell whose value for programs names all caveats. If the run is damaged, the
        message of the error. If the run is not finished, an empty text.
    """
    if not run.is_finished:
        return ""

    # a damaged run must not end the list
    try:
        shown_run = ShownRun(run.path.name, run)
    except BrainhiveError as error:
        return error.message
    measurements = shown_run.measurements
    metric_name = shown_run.main_headline
    if metric_name in shown_run.metrics:
        result = describe_metric(shown_run.metrics[metric_name])
        if measurements.facts.scope:
            result += f", for {measurements.facts.scope}"
    else:
        result = state_finding(measurements)
    if not result:
        return ""
    caveats = merge_caveats(
        measurements.caveats, list_metric_caveats(shown_run.metrics.values())
    )
    return TableCell(result, value=extend_title(result, caveats))


def _count_bytes(run: RunFolder) -> int:
    """Return the size of all files of a run in bytes."""
    n_bytes = 0
    for folder, _, names in os.walk(run.path):
        for name in names:
            n_bytes += os.lstat(os.path.join(folder, name)).st_size
    return n_bytes


def _find_shown(recipe: Recipe) -> ShownRun:
    """Find the run that `show` describes.

    Raises:
        MissingData: if there is no such run.
        RecipeError: if the recipe names several runs.
    """
    names = recipe.words[1:]
    if len(names) > 1:
        raise RecipeError(
            f"show takes one run, not {len(names)}: {', '.join(names)}",
            Line("runs", SHOW, "NAME"),
        )
    name = names[0] if names else None
    folder, variant = find_shown_run(recipe.paths.under_home("runs"), name)
    return ShownRun(variant or folder.name, folder, variant)


def _find_named(recipe: Recipe, must_remove: bool) -> list[RunFolder]:
    """Find the runs that the recipe names, the newest first. No name means all runs.

    Args:
        recipe: Recipe with the names.
        must_remove: Whether the runs will be removed. They must then be named, and the
            name of a command does not stand for its runs.

    Raises:
        MissingData: if a name does not refer to any run.
        RecipeError: if runs must be removed and the recipe names none.
    """
    names = recipe.words[1:] if must_remove else recipe.words
    if must_remove and not names:
        raise RecipeError("name the runs to remove", Line("runs", REMOVE, "NAME"))

    # all runs of the home
    root = recipe.paths.under_home("runs")
    runs = []
    for path in root.glob("*/*"):
        if path.is_dir() and not path.name.startswith("."):
            runs.append(RunFolder(path))
    if not names:
        return _sort_newest_first(runs)

    # check that each name refers to a run
    references = [_list_references(run, must_remove) for run in runs]
    all_references = set[str]().union(*references)
    requested_references = set[str]()
    for name in names:
        spellings = {name.rstrip("/"), os.path.abspath(name)}
        if spellings.isdisjoint(all_references):
            run_names = [run.path.name for run in _sort_newest_first(runs)]
            raise MissingData(
                f"no run {name!r} under {root}",
                f"{guess(name, run_names)}list all runs: {Line('runs')}",
            )
        requested_references |= spellings

    # select the named runs first, so that sorting reads no files of other runs
    named_runs = []
    for run, run_references in zip(runs, references, strict=True):
        if not requested_references.isdisjoint(run_references):
            named_runs.append(run)
    return _sort_newest_first(named_runs)


def _sort_newest_first(runs: Iterable[RunFolder]) -> list[RunFolder]:
    return sorted(runs, key=lambda run: run.changed_s, reverse=True)


def inputs(recipe: Recipe) -> list[Input]:
    """List the runs to list, show, verify or remove."""
    verb = recipe.words[0] if recipe.words else ""
    if verb == SHOW:
        return [Input(_find_shown(recipe).folder.path.name)]
    if verb == VERIFY:
        return [Input(" ".join(recipe.words[1:]) or "the newest run of train-align")]
    return [Input(_name(run)) for run in _find_named(recipe, verb == REMOVE)]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """List runs, show or verify a run, or remove runs.

    Raises:
        BrainhiveError: if a run to remove is in use, or the user does not confirm the
            removal.
        MissingData: if a run does not exist.
        RecipeError: if the recipe names too many or too few runs.
    """
    verb = recipe.words[0] if recipe.words else ""
    root = recipe.paths.under_home("runs")
    if verb == SHOW:
        return _show(_find_shown(recipe))
    if verb == VERIFY:
        return _run_verification(recipe)
    runs = _find_named(recipe, verb == REMOVE)
    if verb == REMOVE:
        _remove(runs, recipe.yes)
        rows = [(_name(run),) for run in runs]
        return Result(root, (Table("Removed runs", ("run",), rows, is_list=True),))
    return _list_runs(recipe, runs)


def _run_verification(recipe: Recipe) -> Result:
    """Verify the run and the cell that the recipe names.

    Raises:
        RecipeError: if the recipe names more than a run and a cell.
    """
    names = recipe.words[1:]
    if len(names) > 2:
        raise RecipeError(
            f"verify takes a run and a cell, not {len(names)} names",
            Line("runs", VERIFY, "RUN", "CELL"),
        )

    # other uses of `runs` need no GPU, so its recipe has the CPU as default device
    has_run_options = "run" in recipe.model_fields_set
    launch = start(recipe.run if has_run_options else RunOptions())
    reference = names[0] if names else None
    cell_name = names[1] if len(names) > 1 else ""
    return _verify(recipe.paths, launch, reference, cell_name)


def _list_runs(recipe: Recipe, runs: Sequence[RunFolder]) -> Result:
    """List the newest runs with state, result, time of change and size.

    Args:
        recipe: Recipe that may ask for all runs.
        runs: Named runs, the newest first.
    """
    root = recipe.paths.under_home("runs")
    listed_runs = runs if recipe.all else runs[:MAX_LISTED_RUNS]
    rows = []
    caveats: list[str] = []
    for run in listed_runs:
        result = _describe_result(run)
        if isinstance(result, TableCell):
            caveats += find_caveats(str(result.value))

        # programs read the time in ISO 8601, and the size in bytes
        time = datetime.fromtimestamp(run.changed_s, UTC)
        iso_time = time.isoformat(timespec="seconds")
        n_bytes = _count_bytes(run)
        rows.append(
            (
                _name(run),
                _describe_state(run),
                result,
                TableCell(format_age(run.changed_s), value=iso_time),
                TableCell(console.size(n_bytes), value=n_bytes),
            )
        )

    # the note explains the caveats, and says how to list older runs
    notes = []
    if caveats:
        notes.append(list_footnotes(caveats))
    n_older = len(runs) - len(listed_runs)
    if n_older:
        noun = "older run" if n_older == 1 else "older runs"
        notes.append(f"{n_older:,} {noun}: {Line('runs', *recipe.words, '--all')}")
    table = Table(
        f"Runs in {root}",
        ("run", "state", "result", "last changed", "size"),
        rows,
        is_list=True,
        note=". ".join(notes),
    )
    hint = Line("runs", SHOW, "NAME") if runs else ""
    return Result(root, (table,), hint=hint, details={"older": n_older})


def _show(run: ShownRun) -> Result:
    """Describe a run by its facts, its files and its metrics.

    The metrics are pooled over all cells. If nothing is pooled, each cell has a row.
    """
    folder = run.folder
    facts = run.measurements.facts
    size = console.size(_count_bytes(folder))
    reference = f"{folder.name}:{run.variant}" if run.variant else folder.name
    file_names = sorted(path.name for path in folder.path.iterdir())
    visible_names = [name for name in file_names if not name.startswith(".")]
    items = {
        "run": reference if folder.is_shared else f"{run.command}/{reference}",
        "state": f"{_describe_state(folder)}, {format_age(folder.changed_s)}, {size}",
        "dataset": facts.dataset,
        "mode": facts.mode,
        "verdict": facts.verdict,
        "made from": facts.run,
        "variants": ", ".join(facts.variants),
        "cells": console.summarise_names(list(facts.cells)),
        "caveats": ", ".join(run.measurements.caveats),
        "warnings": "; ".join(list_limits(run.measurements)),
        "files": ", ".join(visible_names),
    }
    rows = tuple((name, value) for name, value in items.items() if value)
    tables = [Table(f"Run {folder.name}", ("item", "value"), rows)]

    # the metrics, with a row per scope
    metrics = {
        scope: run.measurements.scopes[scope] for scope in list_summary_scopes(run)
    }
    metrics_table = metric_table("Metrics", metrics, "of")
    if metrics_table.rows:
        tables.append(metrics_table)
    hint = Line("report", reference)
    return Result(folder.path, tuple(tables), run.measurements, hint=hint)


def _remove(runs: Sequence[RunFolder], has_consent: bool) -> None:
    """Show the state of runs, ask the user, and remove them.

    Args:
        runs: Runs to remove.
        has_consent: Whether to remove the runs without asking.

    Raises:
        BrainhiveError: if a run is in use, or the user does not confirm.
    """
    for run in runs:
        if is_in_use(run):
            raise BrainhiveError(
                f"{_name(run)} is in use by a running command",
                "wait until the command ends, or stop it",
            )

    # show each run, and ask
    for run in runs:
        size = console.size(_count_bytes(run))
        console.say(f"{_name(run)}: {_describe_state(run)}, {size}")
    noun = "run" if len(runs) == 1 else "runs"
    if not has_consent and not console.confirm(f"remove {len(runs)} {noun}?"):
        raise BrainhiveError("nothing was removed", "--yes removes without asking")

    # remove each run under its lock
    for run in runs:
        if run.path.is_symlink():
            # only the link is removed, and its target gets no lock file
            remove(run.path)
        else:
            lock = Claim(run.path / LOCK, f"run {run.path}")
            remove(run.path)
            lock.release()


@console.progress("training a cell again")
def _verify(
    paths: Paths, launch: Launch, reference: str | None = None, cell_name: str = ""
) -> Result:
    """Train a cell again in a temporary folder, and compare it with the run.

    Weights, embeddings, metrics and ranks are compared. Nothing is written outside the
    temporary folder.

    Args:
        paths: Folders of runs, signals, embeddings and pictures.
        launch: Process that trains.
        reference: Run of train-align or eval-retrieval. None means the newest run of
            train-align.
        cell_name: Name of the cell. Empty for the first cell with the fewest subjects.

    Returns:
        A result whose exit code is 1 if anything differs.

    Raises:
        MissingData: if signals or embeddings are absent.
        RecipeError: if there is no such cell.
    """
    import torch

    from brainhive_cli.data.targets.encoder_stores import list_changed
    from brainhive_cli.evaluation.retrieval.verification import (
        Verification,
        compare_metrics,
        verify,
    )
    from brainhive_cli.training.alignment.model_files import is_model
    from brainhive_cli.training.alignment.recipe import Recipe as TrainingRecipe
    from brainhive_cli.training.alignment.references import (
        TRAINING,
        choose_cell,
        find_reference,
    )
    from brainhive_cli.training.alignment.training.run import TrainingRun

    # find the training, and the cell
    root = paths.under_home("runs")
    training_reference, evaluation = _find_training(root, reference)
    folder, variant = find_reference(training_reference, paths)
    if is_model(folder.path):
        raise RecipeError(
            f"{folder.path} is a model folder, which does not hold its recipe",
            "name the run that trained the model",
        )
    job = TrainingRun.resolve(folder.recipe(TrainingRecipe, paths=paths, run={}))
    cells = {cell.name: cell for cell in job.cells if variant in ("", cell.variant)}
    if not cell_name:
        cell_name = min(cells, key=lambda name: len(cells[name].trained_on))
    cell = choose_cell(cells, cell_name, folder.name)

    # a run from the hub may have no record of its environment
    run_environment: dict[str, Any] = {}
    with suppress(MissingData):
        run_environment = folder.read_json(ENVIRONMENT_FILE)
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        # train with as many threads as the run, since these change sums of floats
        n_threads = torch.get_num_threads()
        stack.callback(torch.set_num_threads, n_threads)
        torch.set_num_threads(run_environment.get("threads") or n_threads)
        retrained = RunFolder(Path(temporary) / TRAINING / folder.path.name)
        retrained.path.mkdir(parents=True)
        embedding_differences = list_changed(folder, job.stores)
        training_stage = next(job.stages(OpenRun(retrained, launch)))
        training_stage.compute(cell_name, launch)

        # compare the bytes of the weights, and the metrics of the training
        weights_file = f"cells/{cell_name}/model/model.safetensors"
        model_file = retrained.path / weights_file
        weights = (folder.path / weights_file).read_bytes()
        has_equal_weights = weights == model_file.read_bytes()
        measured = retrained.measurements(f"cells/{cell_name}/{METRICS_FILE}")
        metric_differences = list(compare_metrics(folder.measurements(), measured))

        # compare ranks and metrics of the newest evaluation, or of the named one
        evaluations = list_finished_runs(root, EVALUATION)
        if evaluation:
            evaluations = [evaluation] + evaluations
        training = reference_of(folder, root / TRAINING, cell.variant)
        selected_evaluation = _choose_evaluation(evaluations, training, cell_name)
        verification = Verification({}, [], [])
        skip_reasons = []
        if selected_evaluation:
            try:
                verification = verify(
                    selected_evaluation,
                    paths,
                    cell=cell_name,
                    model=model_file.parent,
                    device=launch.device,
                )
            except MissingData as error:
                # signals or pictures of the test are absent
                skip_reasons.append(error.message)
        embedding_differences += verification.embeddings
        metric_differences += verification.metrics

    # versions, device, commit and inputs may explain a difference
    environment = launch.describe_environment()
    _, pinned_versions = job.pin_versions()
    environment |= environment["versions"]
    environment |= map_digests(job.inputs()) | pinned_versions
    run_environment |= run_environment.get("versions", {}) | job.recipe.digests
    environment_differences = []
    for key, value in environment.items():
        run_value = run_environment.get(key)
        if isinstance(value, str) and value != run_value:
            environment_differences.append(
                f"{key}: {run_value} in the run, {value} now"
            )

    # list everything that was compared
    rows = [
        ("trained again", f"{cell_name}, of {len(cells)} cells"),
        ("weights", "identical" if has_equal_weights else "differ"),
    ]
    for name, n_different in verification.ranks.items():
        rows.append((f"ranks of {name}", f"{n_different} differ"))
    lines_by_item = {
        "embeddings differ": embedding_differences,
        "metric differs": metric_differences,
        "evaluation not compared": skip_reasons,
        "differs from the run": environment_differences,
    }
    for item, lines in lines_by_item.items():
        rows += [(item, line) for line in lines]
    is_equal = (
        has_equal_weights
        and not any(verification.ranks.values())
        and not embedding_differences
        and not metric_differences
    )
    details = {
        "cell": cell_name,
        "equal": is_equal,
        "ranks": verification.ranks,
        "metrics": metric_differences,
        "embeddings": embedding_differences,
        "not_compared": skip_reasons,
        "differs_in": environment_differences,
    }
    table = Table(f"Verification of {folder.name}", ("item", "value"), rows)
    return Result(folder.path, (table,), details=details, exit_code=int(not is_equal))


def _find_training(
    root: Path, reference: str | None
) -> tuple[str | None, RunFolder | None]:
    """Find the training of an evaluation.

    Args:
        root: Folder of all runs.
        reference: Run of train-align or eval-retrieval, or None.

    Returns:
        A reference to the training, and the evaluation. If the reference does not name
        an evaluation, it is returned unchanged, with None.
    """
    from brainhive_cli.evaluation.retrieval.recipe import Recipe as EvaluationRecipe

    if not reference:
        return reference, None
    try:
        evaluation = find_run(root, EVALUATION, reference)
    except (MissingData, RecipeError):
        return reference, None
    try:
        recipe = evaluation.recipe(EvaluationRecipe)
    except (MissingData, RecipeError):
        return reference, evaluation
    training_references = recipe.align_run or [reference]
    return training_references[0], evaluation


def _choose_evaluation(
    evaluations: Sequence[RunFolder], training: str, cell: str
) -> RunFolder | None:
    """Return the first evaluation of a training that measured a cell, or None."""
    from brainhive_cli.evaluation.retrieval.recipe import Recipe as EvaluationRecipe

    for evaluation in evaluations:
        # check for the file first, since reading a recipe takes longer
        if not (evaluation.path / f"parts/{cell}.safetensors").is_file():
            continue
        training_references = evaluation.recipe(EvaluationRecipe).align_run or [""]
        if training_references[0] == training:
            return evaluation
    return None
