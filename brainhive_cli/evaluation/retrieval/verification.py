"""A cell of a finished run, trained again by the run's recipe and compared with the
model that the run holds.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainhive_cli.core import runs, weights
from brainhive_cli.core.command import Result
from brainhive_cli.core.console import progress, say, warn, write_duration
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.runs import ENVIRONMENT, Environment, RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.evaluation.retrieval.job import NOT_COMPARED
from brainhive_cli.evaluation.retrieval.job import Job as Evaluation
from brainhive_cli.evaluation.retrieval.measure import measure_cell
from brainhive_cli.evaluation.retrieval.recipe import Recipe as EvaluationRecipe
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.retrieval import Gallery, Scores
from brainhive_cli.reports import runs_shown
from brainhive_cli.training.alignment.model import is_model
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.references import TRAINING, find_reference
from brainhive_cli.training.alignment.trained import TrainedModel, TrainedRun

EVALUATION = "eval-retrieval"
SIGNALS = 64
"""Training signals whose predictions are compared where weights differ."""
EQUAL = "equal to the bit"


@progress("training a cell again")
def verify(
    reference: str | None,
    paths: Paths,
    launch: Launch,
    name: str,
    tolerance: float,
    train: Callable[..., tuple[Cell, int, list[str]]],
) -> Result:
    """Train a cell again outside home, and compare weights, predictions and ranks.

    Signals, embeddings and pictures are read where the run has read them; nothing is
    written there.

    Args:
        reference: A run of train-align, as `find_reference` takes it, or one of
            eval-retrieval; None: the newest training.
        paths: Where runs, signals and embeddings lie.
        launch: The process that trains.
        name: The cell; empty for the first with the fewest subjects.
        tolerance: Largest difference of a weight or prediction, relative to the largest
            value of its tensor, up to which the result is confirmed; 0: equal to the
            bit, ranks included.
        train: `train_again` of train-align.

    Raises:
        MissingData: if signals or embeddings are not here.
        RecipeError: if the reference is a model without a recipe, or has no such cell.
    """
    # an evaluation leads to its training
    root, evaluations = paths.under_home("runs"), list[RunFolder]()
    with suppress(BrainhiveError):
        named = runs_shown.find(root, reference)[0] if reference else None
        if named and named.command == EVALUATION:
            evaluations = [named]
            reference = (named.recipe(EvaluationRecipe).align_run or [""])[0]
    folder, variant = find_reference(reference, paths)
    if is_model(folder.path):
        raise RecipeError(
            f"{folder.path} is a model folder, which does not hold its recipe",
            "name a run of train-align or eval-retrieval",
        )

    # train it in a folder of its own; the run and home are only read
    there = Environment()
    if (folder.path / ENVIRONMENT).is_file():  # a shared run may have none
        there = folder.read_json(ENVIRONMENT, Environment)
    with tempfile.TemporaryDirectory() as temporary, _use_threads(there.threads):
        start_s = time.monotonic()
        again = RunFolder(Path(temporary) / TRAINING / folder.path.name)
        again.path.mkdir(parents=True)
        cell, others, changed = train(folder, paths, variant, name, again, launch)
        seconds = time.monotonic() - start_s
        kept, model = (
            run.path / "cells" / cell.name / "model" for run in (folder, again)
        )

        # compare the weights, and where they differ what they predict
        differences = _compare_weights(kept, model)
        largest = max(differences.values())
        is_different = [tensor for tensor, value in differences.items() if value != 0]
        details: dict[str, Any] = {
            "cell": cell.name,
            "tensors": len(differences),
            "different_tensors": is_different,
            "largest_weight_difference": largest,
            "largest_prediction_difference": 0.0,
            "changed_inputs": changed,
        }
        predicted = f"{EQUAL}, as the weights are"
        if is_different:
            value = _compare_predictions(folder, paths, cell, model, launch)
            details["largest_prediction_difference"] = value
            predicted = f"largest relative difference {value:.1e}"

        # compare the ranks of an evaluation that holds this cell
        ranks = []
        of_run = runs.reference(folder, root / TRAINING, cell.variant)
        absent = "no evaluation of this cell"
        for found in [*evaluations, *runs.finished_runs(root, EVALUATION)]:
            try:
                ranks = [*_compare_ranks(found, paths, of_run, cell, model, launch)]
            except MissingData as error:  # of test signals or pictures
                absent = error.message
            if ranks:
                break
        details["ranks"] = ranks

    # the result, and what may explain a difference
    is_equal = not is_different and not any(row["different"] for row in ranks)
    predictions = details["largest_prediction_difference"]
    is_confirmed = is_equal or max(largest, predictions) <= tolerance
    explanations = [*_list_other_environment(there, launch)]
    explanations += [f"{key}: content has changed since" for key in changed]
    details |= {
        "equal": is_equal,
        "confirmed": is_confirmed,
        "differs_in": explanations,
    }
    count = len(differences)
    measured = [
        (
            f"ranks of {row['evaluation']}, subject {row['subject']}",
            f"{row['different']} of {row['n']} differ, by {row['largest']} at most"
            if row["different"]
            else f"all {row['n']} equal",
        )
        for row in ranks
    ]
    rows: list[tuple[str, Any]] = [
        ("trained again", f"{cell.name}, {write_duration(seconds)}"),
        ("device", launch.device_name),
        (
            "weights",
            f"{count} tensors, {EQUAL}"
            if not is_different
            else f"{len(is_different)} of {count} tensors differ, largest relative "
            f"difference {largest:.1e}",
        ),
        ("predictions", predicted),
        *(measured or [("ranks", f"not compared: {absent}")]),
        *(("differs from the run", text) for text in explanations),
        ("cells not trained again", others),
    ]
    if not is_confirmed:
        what = "weights" if is_different else "ranks"
        warn(f"{folder.name}, {cell.name}: {what} differ from those of the run")
        where = "the device and versions of the run" if explanations else "a CPU"
        say(f"  try: verify on {where}, or accept rounding: tolerance=1e-4")
    table = Table(f"Verification of {folder.name}", ("item", "value"), rows)
    return Result(
        folder.path, (table,), details=details, exit_code=0 if is_confirmed else 1
    )


def _compare_weights(kept: Path, again: Path) -> dict[str, float]:
    """Measure the largest difference of each tensor of two model folders, relative to
    its largest value; 0 only for equal bytes.
    """
    differences = {}
    for file in sorted({path.name for path in kept.glob("*.safetensors")}):
        first, second = weights.read(kept / file), weights.read(again / file)
        for name in sorted(first.keys() | second.keys()):
            difference = float("inf")
            if name in first and name in second:
                difference = _compare_tensors(first[name], second[name])
            differences[name] = difference
    return differences


def _compare_tensors(first: torch.Tensor, second: torch.Tensor) -> float:
    """Measure the largest difference relative to the largest value; 0 for equal bytes,
    infinite for other shapes or values that are not finite.
    """
    if first.shape != second.shape or first.dtype != second.dtype:
        return float("inf")
    a, b = (tensor.detach().cpu().reshape(-1) for tensor in (first, second))
    if torch.equal(a.view(torch.uint8), b.view(torch.uint8)):
        return 0.0
    a, b = a.double(), b.double()
    value = float((a - b).abs().max() / a.abs().max().clamp(min=1e-30))
    # other bytes of equal numbers, as 0 and -0, are a difference
    return max(value, 1e-300) if np.isfinite(value) else float("inf")


def _compare_predictions(
    folder: RunFolder, paths: Paths, cell: Cell, again: Path, launch: Launch
) -> float:
    """Measure the largest relative difference of the heads on training signals."""
    run = TrainedRun(folder, cell.variant, paths)
    member = next(one for one in run.cells if one.name == cell.name)
    models = [TrainedModel(run, member, launch.device) for _ in range(2)]
    models[1].path = again
    subject = cell.trained_on[0]
    trials = models[0].trials(subject, "train", is_tested=False)
    signal = torch.from_numpy(trials.read(slice(0, SIGNALS)))  # [n, C, T]
    first, second = (model.predict(subject, signal) for model in models)
    return max(_compare_tensors(first[head], second[head]) for head in first)


def _compare_ranks(
    evaluation: RunFolder,
    paths: Paths,
    reference: str,
    cell: Cell,
    again: Path,
    launch: Launch,
) -> Iterator[dict[str, Any]]:
    """Rank by the second model as an evaluation did by the first, by subject; nothing
    where the evaluation is of another run.
    """
    # without what is measured beside the ranks
    spec = evaluation.recipe(EvaluationRecipe, paths=paths)
    file = evaluation.path / f"parts/{cell.name}.safetensors"
    if (spec.align_run or [""])[0] != reference or not file.is_file():
        return
    spec = spec.model_copy(update={**NOT_COMPARED, "ceiling_splits": 0})
    job = Evaluation.resolve(spec)
    group = next(group for group in job.groups if group[0].name == cell.name)
    models = job.open_models(group, launch.device)
    models[0].path = again
    _, measured = measure_cell(models, spec)
    _, kept = weights.load_cell(file, Gallery, Scores, Interleaving)
    for subject, scores in kept.items():
        difference = np.abs(scores.ranks - measured[subject].ranks)
        yield {
            "evaluation": evaluation.name,
            "subject": subject,
            "n": len(difference),
            "different": int((difference > 0).sum()),
            "largest": int(difference.max()),
        }


@contextmanager
def _use_threads(count: int) -> Iterator[None]:
    """Compute with as many threads as the run, as sums of floats depend on it; 0: as
    many as now.
    """
    current = torch.get_num_threads()
    torch.set_num_threads(count or current)
    try:
        yield
    finally:
        torch.set_num_threads(current)


def _list_other_environment(there: Environment, launch: Launch) -> Iterator[str]:
    """List versions, commit and device that differ from those of the run."""
    if not there.versions:
        yield "versions and device of the run are unknown"
        return
    here = Environment.model_validate(launch.describe_environment())
    pairs = [("device", there.device, here.device)]
    pairs += [("commit", there.commit or "", here.commit or "")]
    names = sorted(there.versions.keys() | here.versions.keys())
    pairs += [
        (name, there.versions.get(name, ""), here.versions.get(name, ""))
        for name in names
    ]
    for name, first, second in pairs:
        if first != second:
            yield f"{name} {first or 'unknown'} there, {second or 'unknown'} here"
