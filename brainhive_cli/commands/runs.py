"""runs: every run with its state, result, age and size; one of them whole; a cell
trained again; and the removal of runs.
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
from brainhive_cli.core.command import Input, Result, digests_of
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
    caveats_of,
    extend_title,
    find_caveats,
    list_footnotes,
    merge_caveats,
)
from brainhive_cli.core.recipe import FileRecipe, Paths, RunOptions
from brainhive_cli.core.runs import (
    ENVIRONMENT,
    FINISHED,
    RunFolder,
    age,
    find as find_run,
    finished_runs,
    reference as reference_of,
)
from brainhive_cli.core.tables import Table, TableCell
from brainhive_cli.reports.paper_tables import list_summary_scopes
from brainhive_cli.reports.runs_shown import ShownRun, find
from brainhive_cli.reports.sentences import list_limits, state_finding
from brainhive_cli.reports.tables import describe_metric, metric_table

REMOVE, SHOW, VERIFY = "rm", "show", "verify"
EVALUATION = "eval-retrieval"
MAX_LISTED = 50
"""Runs that are listed at once, unless all are asked for."""


class Recipe(FileRecipe):
    """Recipe of runs: the runs that are listed, shown, verified or removed."""

    words: NameList = Field(
        [],
        description="runs or commands, none for all; `show` before one shows it "
        "(default: the newest with metrics), `verify RUN CELL` trains a cell of "
        "it again (default: the first with the fewest subjects), `rm` removes runs",
    )
    all: bool = Field(
        False, description=f"list all runs, not only the {MAX_LISTED} newest"
    )
    yes: bool = Field(False, description="remove without asking")


def _name(run: RunFolder) -> str:
    """Name a run by its command and name."""
    return f"{run.command}/{run.name}"


def _list_references(run: RunFolder, exactly: bool) -> set[str]:
    """List what a run is called by: its name, COMMAND/NAME or path; also its command
    unless `exactly` is set.
    """
    references = {run.path.name, _name(run), str(run.path), os.path.abspath(run.path)}
    return references if exactly else {*references, run.path.parent.name}


def _describe_state(run: RunFolder) -> str:
    """Say whether it is finished with metrics, running while a command writes it, or
    interrupted.
    """
    if is_in_use(run):
        return "running"
    return "finished" if run.is_finished else "interrupted"


def _describe_result(run: RunFolder) -> str | TableCell:
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
    measured = shown.measured
    name = shown.main_headline
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
    return TableCell(result, value=extend_title(result, caveats)) if result else ""


def _count_bytes(run: RunFolder) -> int:
    count = 0
    for folder, _, names in os.walk(run.path):
        for name in names:
            count += os.lstat(os.path.join(folder, name)).st_size
    return count


def _find_shown(recipe: Recipe) -> ShownRun:
    """Find the run that is to be shown.

    Raises:
        MissingData: if there is none of the name.
        RecipeError: if several are named.
    """
    names = recipe.words[1:]
    if len(names) > 1:
        raise RecipeError(
            f"{len(names)} runs: {', '.join(names)}", Line("runs", SHOW, "NAME")
        )
    folder, variant = find(recipe.paths.under_home("runs"), names[0] if names else None)
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

    # all runs of the home
    root = recipe.paths.under_home("runs")
    runs = [
        RunFolder(path)
        for path in root.glob("*/*")
        if path.is_dir() and not path.name.startswith(".")
    ]
    if not names:
        return _sort_newest_first(runs)

    # every name must mean a run
    references = [_list_references(run, removes) for run in runs]
    known = set[str]().union(*references)
    called = set[str]()
    for name in names:
        meanings = {name.rstrip("/"), os.path.abspath(name)}
        if meanings.isdisjoint(known):
            others = [run.path.name for run in _sort_newest_first(runs)]
            raise MissingData(
                f"no run {name!r} under {root}",
                f"{guess(name, others)}they are listed by: {Line('runs')}",
            )
        called |= meanings

    # of other runs no file is read
    pairs = zip(runs, references, strict=True)
    return _sort_newest_first(
        run for run, listed in pairs if not called.isdisjoint(listed)
    )


def _sort_newest_first(runs: Iterable[RunFolder]) -> list[RunFolder]:
    return sorted(runs, key=lambda run: run.changed_s, reverse=True)


def inputs(recipe: Recipe) -> list[Input]:
    """List the runs that are listed, shown, verified or removed."""
    verb = recipe.words[0] if recipe.words else ""
    if verb == SHOW:
        return [Input(_find_shown(recipe).folder.path.name)]
    if verb == VERIFY:
        return [Input(" ".join(recipe.words[1:]) or "the newest run of train-align")]
    return [Input(_name(run)) for run in _find_named(recipe, verb == REMOVE)]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """List runs, show or verify one, or remove those that are named and not in use.

    Raises:
        BrainhiveError: if one is in use, or the user does not agree.
    """
    # show, verify or remove
    verb = recipe.words[0] if recipe.words else ""
    root = recipe.paths.under_home("runs")
    if verb == SHOW:
        return _show(_find_shown(recipe))
    if verb == VERIFY:
        # it trains, unlike all else here: on a GPU unless the user names a device
        here = start(recipe.run if "run" in recipe.model_fields_set else RunOptions())
        if len(recipe.words) > 3:
            problem = (
                f"verify takes a run and a cell, not {len(recipe.words) - 1} words"
            )
            raise RecipeError(problem, str(Line("runs", "verify", "RUN", "CELL")))
        return _verify(recipe.paths, here, *recipe.words[1:])
    runs = _find_named(recipe, verb == REMOVE)
    if verb == REMOVE:
        _remove(runs, root, recipe.yes)
        removed = [(_name(run),) for run in runs]
        return Result(root, (Table("Removed runs", ("run",), removed, is_list=True),))

    # else list the newest; files of others are neither read nor counted
    columns = ("run", "state", "result", "last changed", "size")
    rows = []
    listed = runs if recipe.all else runs[:MAX_LISTED]
    for run in listed:
        # for programs, the time is in ISO 8601, and the size in bytes
        size = _count_bytes(run)
        changed_s = run.changed_s
        time = datetime.fromtimestamp(changed_s, UTC).isoformat(timespec="seconds")
        cells = (
            TableCell(age(changed_s), value=time),
            TableCell(console.size(size), value=size),
        )
        rows.append((_name(run), _describe_state(run), _describe_result(run), *cells))
    # the note has the caveats of the results
    results = [
        cell.value for row in rows for cell in row if isinstance(cell, TableCell)
    ]
    note = list_footnotes(
        caveat for result in results for caveat in find_caveats(str(result))
    )
    older = len(runs) - len(listed)
    if older:
        more = f"{older:,} older run{'s' if older > 1 else ''}"
        more += f": {Line('runs', *recipe.words, '--all')}"
        note = f"{note}. {more}" if note else more
    table = Table(f"Runs in {root}", columns, rows, is_list=True, note=note)
    hint = Line("runs", SHOW, "NAME") if runs else ""
    return Result(root, (table,), hint=hint, details={"older": older})


def _show(run: ShownRun) -> Result:
    """Describe a run: its facts and files, and its metrics over everything, else of
    each cell.
    """
    # its facts and files, without empty ones
    facts = run.measured.facts
    size = console.size(_count_bytes(run.folder))
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
    metrics = {scope: run.measured.scopes[scope] for scope in list_summary_scopes(run)}
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


@console.progress("training a cell again")
def _verify(
    paths: Paths, launch: Launch, reference: str | None = None, name: str = ""
) -> Result:
    """Train a cell again in a temporary folder, and compare weights, ranks, embeddings
    and the reported metrics.

    Signals, embeddings and pictures are only read.

    Args:
        paths: Where runs, signals and embeddings lie.
        launch: The process that trains.
        reference: A run of train-align, as `find_reference` takes it, or one of
            eval-retrieval; None: the newest training.
        name: The cell; empty for the first with the fewest subjects.

    Raises:
        MissingData: if signals or embeddings are absent.
        RecipeError: if there is no such cell.
    """
    import torch

    from brainhive_cli.data.targets.encoder_stores import list_changed
    from brainhive_cli.evaluation.retrieval.recipe import Recipe as EvaluationRecipe
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

    # an evaluation leads to its training
    root = paths.under_home("runs")
    evaluation = None
    with suppress(MissingData, RecipeError):
        if reference:
            evaluation = find_run(root, EVALUATION, reference)
            spec = evaluation.recipe(EvaluationRecipe)
            reference = (spec.align_run or [reference])[0]
    folder, variant = find_reference(reference, paths)
    if is_model(folder.path):
        raise RecipeError(f"{folder.path} does not hold its recipe", "name a run")
    job = TrainingRun.resolve(folder.recipe(TrainingRecipe, paths=paths, run={}))
    cells = {one.name: one for one in job.cells if variant in ("", one.variant)}
    name = name or min(cells, key=lambda name: len(cells[name].trained_on))
    cell = choose_cell(cells, name, folder.name)

    # train it with the run's number of threads, on which sums of floats depend
    there: dict[str, Any] = {}
    with suppress(MissingData):  # a shared run may have no environment
        there = folder.read_json(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        threads = torch.get_num_threads()
        stack.callback(torch.set_num_threads, threads)
        torch.set_num_threads(there.get("threads") or threads)
        again = RunFolder(Path(temporary) / TRAINING / folder.path.name)
        again.path.mkdir(parents=True)
        changed = list_changed(folder, job.stores)
        training_stage = next(job.stages(OpenRun(again, launch)))
        training_stage.compute(name, launch)

        # compare bytes of weights, metrics, and the ranks of an evaluation
        file = f"cells/{name}/model/model.safetensors"
        model = again.path / file
        is_equal = (folder.path / file).read_bytes() == model.read_bytes()
        training = reference_of(folder, root / TRAINING, cell.variant)
        measured = again.measurements(f"cells/{name}/{FINISHED}")
        metrics = [*compare_metrics(folder.measurements(), measured)]
        found = Verification({}, [], [])
        absent = list[str]()
        listed = finished_runs(root, EVALUATION)
        chosen = _choose_evaluation(
            [evaluation, *listed] if evaluation else listed, training, name
        )
        try:
            if chosen:
                found = verify(chosen, paths, name, model.parent, launch.device)
        except MissingData as error:  # of test signals or pictures
            absent = [error.message]
        changed += found.embeddings
        metrics += found.metrics

    # versions, device, commit and inputs, which may explain a difference
    here = launch.describe_environment()
    _, versions = job.pin_versions()
    here |= here["versions"] | digests_of(job.inputs()) | versions
    there |= there.get("versions", {}) | job.recipe.digests
    others = [
        f"{key}: {there.get(key)} there, {value} here"
        for key, value in here.items()
        if isinstance(value, str) and value != there.get(key)
    ]

    # the result
    rows = [
        ("trained again", f"{name}, of {len(cells)} cells"),
        ("weights", "equal to the bit" if is_equal else "differ"),
        *((f"ranks of {key}", f"{count} differ") for key, count in found.ranks.items()),
        *(("embeddings differ", text) for text in changed),
        *(("metric differs", text) for text in metrics),
        *(("evaluation not compared", text) for text in absent),
        *(("differs from the run", text) for text in others),
    ]
    is_equal = (
        is_equal and not any(found.ranks.values()) and not changed and not metrics
    )
    details = {
        "cell": name,
        "equal": is_equal,
        "ranks": found.ranks,
        "metrics": metrics,
        "embeddings": changed,
        "not_compared": absent,
        "differs_in": others,
    }
    table = Table(f"Verification of {folder.name}", ("item", "value"), rows)
    return Result(folder.path, (table,), details=details, exit_code=int(not is_equal))


def _choose_evaluation(
    evaluations: Sequence[RunFolder], training: str, cell: str
) -> RunFolder | None:
    """Choose the first evaluation of a training that measured a cell."""
    from brainhive_cli.evaluation.retrieval.recipe import Recipe as EvaluationRecipe

    for evaluation in evaluations:
        # a recipe takes longer to read than to see whether the cell was measured
        if not (evaluation.path / f"parts/{cell}.safetensors").is_file():
            continue
        aligned = evaluation.recipe(EvaluationRecipe).align_run or [""]
        if aligned[0] == training:
            return evaluation
    return None
