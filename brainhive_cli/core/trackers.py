"""Experiment trackers such as Weights & Biases, opened through accelerate.

A tracker records the curves of each cell of a run. A cell is a part of the run with
curves of its own: one trained model (a subject and a seed), a prior or an evaluation.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import MissingExtra
from brainhive_cli.core.files import resolve_without_links
from brainhive_cli.core.measurements import extend_title

PROJECT = "brainhive"
"""Project of the trackers, under which all runs appear."""
TIME_NAMES = {"epoch", "epochs", "step"}
"""Names of the values that state the time of an event. They are not curves."""
FOLDER_ARGUMENTS = {"wandb": "dir", "swanlab": "log_dir"}
"""Trackers that can resume a cell by its id. Each value is the name of the tracker's
argument for the folder of its files.
"""


def list_inputs(names: Sequence[str]) -> list[Input]:
    """List experiment trackers, such as Weights & Biases, as inputs of a command.

    A command lists its inputs, so that missing inputs are reported before it starts.

    Args:
        names: Names of the trackers, which are also the names of their packages.

    Returns:
        An `Input` for each tracker. The `error` of the input is set if the package of
        the tracker is not installed.
    """
    inputs = []
    for name in names:
        error = None
        if importlib.util.find_spec(name) is None:
            error = MissingExtra(
                f"run.trackers: {name} is not installed", f"pip install {name}"
            )
        inputs.append(Input(f"tracker {name}", error=error))
    return inputs


@contextmanager
def open_trackers(
    names: Sequence[str],
    run_folder: Path,
    cell: str,
    settings: Mapping[str, Any],
    caveats: Sequence[str] = (),
    clock: str = "epoch",
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Record the curves of a cell in experiment trackers.

    A cell is one part of a run: one trained model (for a subject and a seed), a prior
    or an evaluation. If the training of a cell is resumed, the trackers of
    `FOLDER_ARGUMENTS` (Weights & Biases and SwanLab) continue its curves.

    Args:
        names: Names of the trackers, such as "wandb". Empty to record nothing.
        run_folder: Folder of the run. The trackers group the cells by the name of this
            folder.
        cell: Name of the cell.
        settings: Settings that the trackers show next to the curves.
        caveats: Limits of the numbers, such as "selected on test", for the title.
        clock: Key of an event under which its time is stored, such as "epoch".

    Yields:
        A function that records an event in all trackers. An event is a mapping from the
        names of curves to their values at one time, with the time under the key
        `clock`.
    """
    # the caveats follow the name of the cell in brackets
    title = extend_title(cell, caveats)
    trackers = [_open(name, run_folder, title, settings) for name in names]

    def log_event(event: Mapping[str, Any]) -> None:
        # Record only numbers. The names in TIME_NAMES, such as "step", are times, which
        # are not curves.
        curves = {}
        for name, value in event.items():
            if isinstance(value, int | float) and name not in TIME_NAMES:
                curves[name] = value
        for tracker in trackers:
            tracker.log(curves, step=event[clock])

    # close the trackers even if the training fails
    try:
        yield log_event
    finally:
        for tracker in trackers:
            tracker.finish()


def _open(name: str, run_folder: Path, title: str, settings: Mapping[str, Any]) -> Any:
    """Open an experiment tracker for a cell (a trained model or an evaluation).

    Args:
        name: Name of the tracker.
        run_folder: Folder of the run.
        title: Name of the cell, with the caveats of its numbers.
        settings: Settings that the tracker shows next to the curves.

    Returns:
        The tracker, a `GeneralTracker` of accelerate, which is started already.
    """
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # trackers of accelerate read this global state of processes
    tracker_class = LOGGER_TYPE_TO_CLASS[name]

    # TensorBoard shows a curve for each folder, so the title is the name of a folder
    if name == "tensorboard":
        events = resolve_without_links(
            run_folder, f"{name}/events", "a tracker's folder"
        )
        tracker = tracker_class(title, str(events.parent))
    else:
        options = make_run_options(name, run_folder, title, settings)
        tracker = tracker_class(PROJECT, **options)
    # by default, accelerate records only in the main process, but any process may
    # train the cell
    tracker.main_process_only = False
    tracker.start()
    return tracker


def make_run_options(
    name: str, run_folder: Path, title: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Make the keyword arguments with which a tracker starts or continues a cell.

    A cell is one part of a run, such as a trained model or an evaluation.

    Args:
        name: Name of the tracker.
        run_folder: Folder of the run. The tracker groups the cells by the name of this
            folder.
        title: Name of the cell, with the caveats of its numbers.
        settings: Settings that the tracker shows next to the curves.

    Returns:
        Keyword arguments of the tracker's class. The trackers of `FOLDER_ARGUMENTS`
        (Weights & Biases and SwanLab) also get an id of the cell, and the folder for
        the files that the tracker writes.
    """
    options = {
        "name": title,
        "group": run_folder.name,
        "config": dict(settings),
        "resume": "allow",
    }

    # The id depends only on names, so it is the same when a training is resumed, also
    # on another machine. The tracker then continues the curves with this id.
    if name in FOLDER_ARGUMENTS:
        identity = f"{run_folder.parent.name}/{run_folder.name}/{title}"
        options["id"] = hashlib.sha256(identity.encode()).hexdigest()[:16]
        options[FOLDER_ARGUMENTS[name]] = str(run_folder)
    return options
