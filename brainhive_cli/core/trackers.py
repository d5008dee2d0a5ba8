"""Experiment trackers, such as Weights & Biases, used through accelerate."""

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
TIME_NAMES = {"epoch", "epochs", "step"}
"""Numbers that state the time of an event. All other numbers are curves."""
FOLDER_ARGUMENTS = {"wandb": "dir", "swanlab": "log_dir"}
"""Argument for the folder of the files, keyed by the trackers that can resume a run by
its id.
"""


def list_inputs(names: Sequence[str]) -> list[Input]:
    """List trackers as inputs of a command, because they must be installed."""
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
    run: Path,
    cell: str,
    recipe: Mapping[str, Any],
    caveats: Sequence[str] = (),
    clock: str = "epoch",
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Open a run in each tracker for one cell.

    A cell is one trained model (a subject and a seed), a prior or an evaluation. If the
    cell is resumed, trackers that can resume a run do so.

    Args:
        names: Names of the trackers.
        run: Run folder. The trackers group the cells by its name.
        cell: Name of the cell.
        recipe: Settings that the tracker shows next to the curves.
        caveats: Caveats of the numbers, which become part of the title.
        clock: Name of the number that states the time of an event.

    Yields:
        A function that logs an event, a mapping of names to values.
    """
    title = extend_title(cell, caveats)
    trackers = [_open(name, run, title, recipe) for name in names]

    def log(event: Mapping[str, Any]) -> None:
        # trackers draw only numbers, with the clock as their horizontal axis
        curves = {}
        for name, value in event.items():
            if isinstance(value, int | float) and name not in TIME_NAMES:
                curves[name] = value
        for tracker in trackers:
            tracker.log(curves, step=event[clock])

    # close the run in each tracker even if the training fails
    try:
        yield log
    finally:
        for tracker in trackers:
            tracker.finish()


def _open(name: str, run: Path, cell: str, recipe: Mapping[str, Any]) -> Any:
    """Open a run in one tracker.

    Args:
        name: Name of the tracker.
        run: Run folder.
        cell: Title of the run.
        recipe: Settings that the tracker shows next to the curves.

    Returns:
        Tracker of accelerate.
    """
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # accelerate cannot log without it
    tracker_class = LOGGER_TYPE_TO_CLASS[name]

    # TensorBoard has no names of runs, so the cell becomes a subfolder of the run
    if name == "tensorboard":
        events = resolve_without_links(run, f"{name}/events", "a tracker's folder")
        tracker = tracker_class(cell, str(events.parent))
    else:
        tracker = tracker_class(PROJECT, **make_run_options(name, run, cell, recipe))
    tracker.main_process_only = False  # any process may train the cell
    tracker.start()
    return tracker


def make_run_options(
    name: str, run: Path, cell: str, recipe: Mapping[str, Any]
) -> dict[str, Any]:
    """Make the arguments with which a tracker opens or resumes the run of a cell.

    Args:
        name: Name of the tracker.
        run: Run folder.
        cell: Title of the run.
        recipe: Settings that the tracker shows next to the curves.
    """
    options = {
        "name": cell,
        "group": run.name,
        "config": dict(recipe),
        "resume": "allow",
    }

    # the id is the same on every machine, so a resumed cell continues its curves
    if name in FOLDER_ARGUMENTS:
        identity = f"{run.parent.name}/{run.name}/{cell}"
        options["id"] = hashlib.sha256(identity.encode()).hexdigest()[:16]
        options[FOLDER_ARGUMENTS[name]] = str(run)
    return options
