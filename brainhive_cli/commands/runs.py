"""The command `runs`: lists, shows, verifies or removes finished and unfinished runs.

A cell is a trained model of a run, usually of one subject and seed.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from glob import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from brainhive_cli.core.base import (
    BrainhiveError,
    Line,
    MissingData,
    RecipeError,
    Table,
    console,
    guess,
)
from brainhive_cli.core.files import Input, locate, map_digests, remove
from brainhive_cli.core.recipes import (
    START,
    Arguments,
    FileRecipe,
    NameList,
    RunOptions,
    flag_field,
)
from brainhive_cli.core.results import Measurements
from brainhive_cli.core.runs import (
    ENVIRONMENT_FILE,
    LOCK,
    METRICS_FILE,
    Claim,
    Launch,
    OpenRun,
    Result,
    RunFolder,
    find as find_run,
    find_labelled,
    format_age,
    is_in_use,
    is_run,
    list_finished_runs,
    reference as reference_of,
    require_single,
    start,
)
from brainhive_cli.reports.pages.run_table import (
    count_bytes,
    describe_state,
    lay_out_runs,
    name_run,
    shorten_table,
)
from brainhive_cli.reports.sentences.sentences import list_limits
from brainhive_cli.reports.tables import (
    ShownRun,
    find_shown_run,
    lay_out_set_up,
    tabulate_rows,
)

if TYPE_CHECKING:
    from brainhive_cli.training.alignment.training import TrainingRun

LIST = "list"
REMOVE = "rm"
SHOW = "show"
VERIFY = "verify"
EVALUATION = "eval-retrieval"
MAX_LISTED_RUNS = 50
"""Largest number of runs in a list, unless the user asks for all runs."""


class Recipe(FileRecipe):
    """Recipe of `runs`: the runs to list, show, verify or remove."""

    section = START
    summary = (
        "List runs with label, result and the settings in which they differ. "
        "`runs show NAME` shows a run with its whole set-up, `runs verify NAME` "
        "repeats a training of it, and `runs rm NAME` removes it."
    )
    example = "train-align"

    words: Annotated[
        NameList, Arguments(names=f"{LIST},{SHOW},{VERIFY},{REMOVE},@runs/*")
    ] = Field(
        [],
        description="names or labels of runs, or commands, to list; default: all. "
        "`show NAME` shows a run (default: the newest with metrics), `verify RUN CELL` "
        "trains one of its cells again (default: the first with the fewest subjects), "
        "`rm NAME` removes runs, `list` is the same as no word",
    )
    all: bool = flag_field(
        False, f"list all runs instead of the {MAX_LISTED_RUNS} newest"
    )
    yes: bool = flag_field(False, "remove runs without asking")

    @property
    def verb(self) -> str:
        """First word if it is a verb, else "list"."""
        if self.words and self.words[0] in (LIST, SHOW, VERIFY, REMOVE):
            return self.words[0]
        return LIST

    @property
    def names(self) -> list[str]:
        """Words after the verb."""
        has_verb = bool(self.words) and self.words[0] == self.verb
        return self.words[1:] if has_verb else self.words


def _is_called(run_folder: RunFolder, name: str, fits_command: bool) -> bool:
    """Return True if a name, such as COMMAND/NAME, refers to a run.

    Args:
        fits_command: If True, the name of a command refers to all its runs.
    """
    path = run_folder.path
    references = {path.name, name_run(run_folder), str(path), os.path.abspath(path)}
    if fits_command:
        references.add(path.parent.name)
    return not references.isdisjoint({name.rstrip("/"), os.path.abspath(name)})


def _find_shown(recipe: Recipe) -> RunFolder:
    """Find the run that `runs show NAME` describes.

    An unfinished run is named by its path, name or label. The end of a name means a
    finished run. Without a name, the newest run with metrics is found. Several names
    raise an error.
    """
    root = recipe.paths.under_home("runs")
    names = recipe.names
    if not names:
        return find_shown_run(root)
    if len(names) > 1:
        raise RecipeError(
            f"show takes one run, not {len(names)}: {', '.join(names)}",
            Line("runs", SHOW, "NAME"),
        )

    name = names[0]
    paths = [locate(name), root / name]
    paths += sorted(root.glob(f"*/{escape(name)}"))
    paths += find_labelled(root, None, name)
    for path in paths:
        if is_run(path) and not RunFolder(path).is_finished:
            return RunFolder(path)
    return find_shown_run(root, name)


def _find_named(recipe: Recipe) -> dict[RunFolder, float]:
    """Find the runs to list or to remove, the newest first.

    Without names, all runs are listed. To be removed, runs must be named, and the name
    of a command does not stand for its runs.

    Returns:
        Seconds since 1970 at the last change of each run.

    Raises:
        MissingData: if a name does not refer to any run.
        RecipeError: if runs must be removed, and the recipe names none or a label of
            several.
    """
    names = recipe.names
    is_list = recipe.verb == LIST
    if recipe.verb == REMOVE and not names:
        raise RecipeError("name the runs to remove", Line("runs", REMOVE, "NAME"))

    # list the folders of all runs, COMMAND/NAME
    root = recipe.paths.under_home("runs")
    runs = []
    for path in root.glob("*/*"):
        if path.is_dir() and not path.name.startswith("."):
            runs.append(RunFolder(path))
    if not names:
        return _sort_newest_first(runs)

    # each name refers to runs by their name or path, or else by their label
    named_runs = []
    for name in names:
        matches = [folder for folder in runs if _is_called(folder, name, is_list)]
        if not matches:
            labelled = find_labelled(root, None, name)
            if not is_list:
                require_single(labelled, name)
            matches = [RunFolder(path) for path in labelled]
        if not matches:
            run_names = [folder.path.name for folder in _sort_newest_first(runs)]
            raise MissingData(
                f"no run {name!r} under {root}",
                f"{guess(name, run_names)}list all runs: {Line('runs')}",
            )
        named_runs += matches
    return _sort_newest_first(named_runs)


def _sort_newest_first(runs: Iterable[RunFolder]) -> dict[RunFolder, float]:
    """Sort runs by the seconds at their last change, in descending order."""
    changed_s = {run_folder: run_folder.changed_s for run_folder in runs}
    sorted_runs = sorted(changed_s, key=changed_s.__getitem__, reverse=True)
    return {run_folder: changed_s[run_folder] for run_folder in sorted_runs}


def inputs(recipe: Recipe) -> list[Input]:
    """List the runs that the command lists, shows, verifies or removes."""
    if recipe.verb == SHOW:
        folder = _find_shown(recipe)
        return [Input(folder.path.name)]
    if recipe.verb == VERIFY:
        return [Input(" ".join(recipe.names) or "the newest run of train-align")]
    return [Input(name_run(run_folder)) for run_folder in _find_named(recipe)]


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """List runs, show a run, remove runs, or train a cell of a run again to verify it.

    Args:
        recipe: Recipe with the words of the command line. The first word may be `list`,
            `show`, `verify` or `rm`. Without such a word, runs are listed.
        launch: Not used. A verification starts processes of its own.
        force: Not used, since `runs` computes nothing that is stored.

    Returns:
        A table of the listed or removed runs, tables that describe a run, or a table of
        the differences of a verification.

    Raises:
        BrainhiveError: if a run to remove is in use, or if the user does not confirm.
        MissingData: if a run does not exist.
        RecipeError: if the recipe names too many or too few runs.
    """
    if recipe.verb == SHOW:
        return _show(_find_shown(recipe))
    if recipe.verb == VERIFY:
        return _verify(recipe)

    # remove the named runs, or list them
    runs = _find_named(recipe)
    if recipe.verb == REMOVE:
        _remove(list(runs), recipe.yes)
        rows = [(name_run(run_folder),) for run_folder in runs]
        table = Table("Removed runs", ("run",), rows, is_list=True)
        return Result(recipe.paths.under_home("runs"), (table,))
    return _list_runs(recipe, runs)


def _list_runs(recipe: Recipe, runs: Mapping[RunFolder, float]) -> Result:
    """Return a table of the runs of each command.

    Args:
        recipe: Recipe of `runs`. Unless `recipe.all` is set, only the `MAX_LISTED_RUNS`
            newest runs are listed.
        runs: Seconds since 1970 at the last change of each run, the newest first.
    """
    root = recipe.paths.under_home("runs")
    n_listed = len(runs) if recipe.all else MAX_LISTED_RUNS
    tables = lay_out_runs(dict(islice(runs.items(), n_listed)), f"Runs in {root}")
    n_older = max(0, len(runs) - n_listed)
    if n_older:
        noun = "older run" if n_older == 1 else "older runs"
        line = f"{n_older:,} {noun}: {Line('runs', *recipe.words, '--all')}"
        notes = filter(None, [tables[-1].note, line])
        tables[-1] = replace(tables[-1], note=". ".join(notes))
    return Result(
        root,
        tuple(tables),
        hint=Line("runs", SHOW, "NAME") if runs else "",
        printed_tables=tuple(map(shorten_table, tables)),
        document=[row for table in tables for row in table.as_dict()["rows"]],
    )


def _show(folder: RunFolder) -> Result:
    """Describe a run in tables of its properties, its metrics and its whole set-up.

    The metrics are of all cells together, or else of the parts of the run. An
    unfinished run has no metrics.
    """
    measurements = Measurements()
    metrics_table = Table("Metrics", (), ())
    if folder.is_finished:
        shown_run = ShownRun(folder.name, folder)
        measurements = shown_run.measurements
        metrics_table = tabulate_rows("Metrics", shown_run.list_summaries(), "of")
    facts = measurements.facts
    size = console.size(count_bytes(folder.path))
    file_names = sorted(path.name for path in folder.path.iterdir())
    visible_names = [name for name in file_names if not name.startswith(".")]

    # list the properties of the run that are not empty
    items = {
        "run": folder.name if folder.is_shared else name_run(folder),
        "label": folder.label,
        "state": f"{describe_state(folder)}, {format_age(folder.changed_s)}, {size}",
        "dataset": facts.dataset,
        "mode": facts.mode,
        "verdict": facts.verdict,
        "made from": facts.run,
        "compares": ", ".join(facts.compared),
        "cells": console.summarise_names(list(facts.cells)),
        "caveats": ", ".join(measurements.caveats),
        "warnings": "; ".join(list_limits(measurements)),
        "files": ", ".join(visible_names),
    }
    rows = tuple((name, value) for name, value in items.items() if value)
    tables = [Table(f"Run {folder.name}", ("item", "value"), rows)]
    if metrics_table.rows:
        tables.append(metrics_table)
    tables += lay_out_set_up(folder, facts)
    return Result(
        folder.path,
        tuple(tables),
        measurements,
        hint=Line("report", folder.name) if folder.is_finished else "",
        label=folder.label,
    )


def _remove(runs: Sequence[RunFolder], has_consent: bool) -> None:
    """Print the state of runs, ask the user for a confirmation, and remove the runs.

    Args:
        has_consent: If True, do not ask for a confirmation.

    Raises:
        BrainhiveError: if a run is in use, or if the user does not confirm.
    """
    # refuse to remove a run to which another command writes
    for run_folder in runs:
        if is_in_use(run_folder):
            raise BrainhiveError(
                f"{name_run(run_folder)} is in use by a running command",
                "wait until the command ends, or stop it",
            )

    # print each run, and ask for a confirmation
    for run_folder in runs:
        size = console.size(count_bytes(run_folder.path))
        console.say(f"{name_run(run_folder)}: {describe_state(run_folder)}, {size}")
    noun = "run" if len(runs) == 1 else "runs"
    if not has_consent and not console.confirm(f"remove {len(runs)} {noun}?"):
        raise BrainhiveError("nothing was removed", "--yes removes without asking")

    # lock each run before it is removed, so that no command can write to it
    for run_folder in runs:
        if run_folder.path.is_symlink():
            # only the link is removed, and the run stays
            remove(run_folder.path)
        else:
            lock = Claim(run_folder.path / LOCK, f"run {run_folder.path}")
            remove(run_folder.path)
            lock.release()


@console.progress("training a cell again")
def _verify(recipe: Recipe) -> Result:
    """Train a cell of a run again in a temporary folder, and compare it with the run.

    Args:
        recipe: Recipe with the words `verify RUN CELL`. The run is a run of
            train-align, or of eval-retrieval that has tested it (default: the newest
            run of train-align). The cell has a name such as `sub-01_seed-1` (default:
            the first cell with the fewest subjects).

    Returns:
        A table of the differences. The exit code is 1 if weights, embeddings, metrics
        or ranks differ, else 0.

    Raises:
        MissingData: if signals or embeddings are absent.
        RecipeError: if the run has no such cell, or too many names are given.
    """
    from brainhive_cli.data.targets import list_changed
    from brainhive_cli.evaluation.retrieval.verification import compare_metrics, verify
    from brainhive_cli.training.alignment import (
        TRAINING,
        Recipe as TrainingRecipe,
        choose_cell,
        find_reference,
        is_model,
    )
    from brainhive_cli.training.alignment.training import TrainingRun

    names = recipe.names
    if len(names) > 2:
        raise RecipeError(
            f"verify takes a run and a cell, not {len(names)} names",
            Line("runs", VERIFY, "RUN", "CELL"),
        )

    # The recipe of `runs` has the CPU as its default device. A training uses the
    # default device of `RunOptions`.
    has_run_options = "run" in recipe.model_fields_set
    launch = start(recipe.run if has_run_options else RunOptions())

    # find the training and the cell
    paths = recipe.paths
    root = paths.under_home("runs")
    training_reference, evaluation = _find_training(root, names[0] if names else None)
    folder = find_reference(training_reference, paths)
    if is_model(folder.path):
        raise RecipeError(
            f"{folder.path} is a model folder, which does not hold its recipe",
            "name the run that trained the model",
        )
    job = TrainingRun.resolve(folder.recipe(TrainingRecipe, paths=paths, run={}))
    cells = {cell.name: cell for cell in job.cells}
    if len(names) > 1:
        cell_name = names[1]
    else:
        cell_name = min(cells, key=lambda name: len(cells[name].trained_on))
    choose_cell(
        cells, cell_name, folder.name, partial(Line, "runs", VERIFY, folder.name)
    )

    # a run from the hub may have no record of its environment
    environment: dict[str, Any] = {}
    with suppress(MissingData):
        environment = folder.read_json(ENVIRONMENT_FILE)
    ranks: Mapping[str, int] = {}
    skip_reasons = []
    with (
        tempfile.TemporaryDirectory() as temporary,
        _use_threads(environment.get("threads")),
    ):
        # compare the embeddings, on which the weights depend
        retrained = RunFolder(Path(temporary) / TRAINING / folder.path.name)
        retrained.path.mkdir(parents=True)
        embeddings = list_changed(folder, job.stores)

        # train the cell again, in the first stage of the training
        training_stage = next(job.stages(OpenRun(retrained, launch)))
        training_stage.compute(cell_name, launch)

        # compare the bytes of the weights, and the metrics of the training
        weights_file = f"cells/{cell_name}/model/model.safetensors"
        model_file = retrained.path / weights_file
        weights = (folder.path / weights_file).read_bytes()
        has_equal_weights = weights == model_file.read_bytes()
        new_measurements = retrained.measurements(f"cells/{cell_name}/{METRICS_FILE}")
        metrics = list(compare_metrics(folder.measurements(), new_measurements))

        # compare ranks and metrics of the named evaluation, or of the newest
        evaluations = list_finished_runs(root, EVALUATION)
        if evaluation:
            evaluations = [evaluation] + evaluations
        training = reference_of(folder, root / TRAINING)
        evaluation = _choose_evaluation(evaluations, training, cell_name)
        try:
            if evaluation:
                verification = verify(
                    evaluation, paths, cell_name, model_file.parent, launch.device
                )
                ranks = verification.ranks
                metrics += verification.metrics
                embeddings += verification.embeddings
        except MissingData as error:
            skip_reasons.append(error.message)

    changes = _compare_environments(job, launch, environment)
    is_equal = has_equal_weights and not (any(ranks.values()) or embeddings or metrics)
    rows = [
        ("trained again", f"{cell_name}, of {len(cells)} cells"),
        ("weights", "identical" if has_equal_weights else "differ"),
    ]
    rows += [(f"ranks of {name}", f"{count} differ") for name, count in ranks.items()]
    rows += [("embeddings differ", line) for line in embeddings]
    rows += [("metric differs", line) for line in metrics]
    rows += [("evaluation not compared", line) for line in skip_reasons]
    rows += [("differs from the run", line) for line in changes]
    return Result(
        folder.path,
        (Table(f"Verification of {folder.name}", ("item", "value"), rows),),
        details={
            "cell": cell_name,
            "equal": is_equal,
            "ranks": ranks,
            "metrics": metrics,
            "embeddings": embeddings,
            "not_compared": skip_reasons,
            "differs_in": changes,
        },
        exit_code=int(not is_equal),
    )


@contextmanager
def _use_threads(n_threads: int | None) -> Iterator[None]:
    """Set the number of threads of PyTorch, and restore it at the end.

    The number changes the order of sums, and so the last digits of results.

    Args:
        n_threads: Number of threads. None, or 0, keeps the present number.
    """
    import torch

    previous_n_threads = torch.get_num_threads()
    torch.set_num_threads(n_threads or previous_n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(previous_n_threads)


def _compare_environments(
    job: "TrainingRun", launch: Launch, run_environment: dict[str, Any]
) -> list[str]:
    """List the versions, device, commits and digests that have changed since a run.

    Args:
        job: Second training, with the recipe of the run and the present inputs.
        run_environment: Values from the environment file of the run, by key. Empty if
            the file is absent.
    """
    # collect the present environment, with the inputs of the training
    environment = launch.describe_environment()
    _, pinned_versions = job.pin_versions()
    environment |= environment["versions"]
    environment |= map_digests(job.inputs()) | pinned_versions

    # compare each value with the run
    versions = run_environment.get("versions", {})
    run_values = run_environment | versions | job.recipe.digests
    differences = []
    for key, value in environment.items():
        run_value = run_values.get(key)
        if isinstance(value, str) and value != run_value:
            differences.append(f"{key}: {run_value} in the run, {value} now")
    return differences


def _find_training(
    root: Path, reference: str | None
) -> tuple[str | None, RunFolder | None]:
    """Find the training run to verify, which the user may name by an evaluation of it.

    Args:
        root: Folder of all runs.
        reference: Run of eval-retrieval or train-align. None stands for the newest run
            of train-align.

    Returns:
        A reference of the training run, and the evaluation. If `reference` does not
        name an evaluation, the values are `reference` and None.
    """
    from brainhive_cli.evaluation.retrieval.recipe import Recipe as EvaluationRecipe

    evaluation = None
    with suppress(MissingData, RecipeError):
        if reference:
            # read the training from the recipe of the evaluation
            evaluation = find_run(root, EVALUATION, reference)
            trainings = evaluation.recipe(EvaluationRecipe).align_run
            return (trainings or [reference])[0], evaluation
    return reference, evaluation


def _choose_evaluation(
    evaluations: Sequence[RunFolder], training: str, cell: str
) -> RunFolder | None:
    """Return the first evaluation that has tested a cell, or None.

    Args:
        evaluations: Runs of eval-retrieval, in the order of preference.
        training: Training run of the cell, written as in recipes of eval-retrieval.
    """
    from brainhive_cli.evaluation.retrieval.recipe import Recipe as EvaluationRecipe

    for evaluation in evaluations:
        # skip evaluations without results of the cell, since reading a recipe is slow
        if not (evaluation.path / f"parts/{cell}.safetensors").is_file():
            continue
        training_references = evaluation.recipe(EvaluationRecipe).align_run or [""]
        if training_references[0] == training:
            return evaluation
    return None
