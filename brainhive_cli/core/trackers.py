"""Experiment trackers through accelerate: each cell (or prior, or evaluation) is a run
in each of them.
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
TIMES = {"epoch", "epochs", "step"}
"""Numbers that are the time of an event; all other numbers are curves."""
FOLDER_ARGUMENTS = {"wandb": "dir", "swanlab": "log_dir"}
"""Trackers that resume a run by its id, and their argument for the folder of its
files.
"""


def inputs(names: Sequence[str]) -> list[Input]:
    """List the trackers, which must be installed."""
    listed = []
    for name in names:
        error = None
        if importlib.util.find_spec(name) is None:
            error = MissingExtra(
                f"run.trackers: {name} is not installed", f"pip install {name}"
            )
        listed.append(Input(f"tracker {name}", error=error))
    return listed


@contextmanager
def tracked(
    names: Sequence[str],
    run: Path,
    cell: str,
    recipe: Mapping[str, Any],
    caveats: Sequence[str] = (),
    clock: str = "epoch",
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Open a cell's run in each tracker; yields a function that logs events.

    Args:
        names: Names of the trackers.
        run: The run folder, whose name groups the cells.
        cell: The name of their run. Trackers that can resume a run do so when the cell
            is resumed.
        recipe: Shown with the curves.
        caveats: Caveats of the numbers; added to the name of their run.
        clock: Name of the number that is the time of an event.
    """
    # one run in each tracker
    opened = [_open(name, run, extend_title(cell, caveats), recipe) for name in names]

    def log(event: Mapping[str, Any]) -> None:
        # numbers only; the clock is the horizontal axis of all curves
        numbers = {
            name: value
            for name, value in event.items()
            if isinstance(value, int | float)
        }
        curves = {name: value for name, value in numbers.items() if name not in TIMES}
        for tracker in opened:
            tracker.log(curves, step=event[clock])

    # a run ends in each tracker even if the training fails
    try:
        yield log
    finally:
        for tracker in opened:
            tracker.finish()


def _open(name: str, run: Path, cell: str, recipe: Mapping[str, Any]) -> Any:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # accelerate's own logging needs it
    tracker_class = LOGGER_TYPE_TO_CLASS[name]

    # TensorBoard knows no names of runs: the cell becomes a folder of the run
    if name == "tensorboard":
        tracker = tracker_class(
            cell,
            str(
                resolve_without_links(
                    run, f"{name}/events", "a tracker's folder"
                ).parent
            ),
        )
    else:
        tracker = tracker_class(PROJECT, **run_options(name, run, cell, recipe))
    tracker.main_process_only = False  # the process that trains the cell logs it
    tracker.start()
    return tracker


def run_options(
    name: str, run: Path, cell: str, recipe: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments with which a tracker opens, or resumes, a cell's run."""
    options = {
        "name": cell,
        "group": run.name,
        "config": dict(recipe),
        "resume": "allow",
    }
    if name not in FOLDER_ARGUMENTS:
        return options

    # the id is the same on every machine, so that a resumed cell continues its curves
    identity = hashlib.sha256(
        f"{run.parent.name}/{run.name}/{cell}".encode()
    ).hexdigest()[:16]
    return {**options, FOLDER_ARGUMENTS[name]: str(run), "id": identity}
