"""Experiment trackers such as Weights & Biases, opened through accelerate.

A tracker records the curves of each cell of a run, such as a trained model.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from brainhive_cli.core.base import MissingExtra
from brainhive_cli.core.files import Input, resolve_without_links
from brainhive_cli.core.recipes import Recipe
from brainhive_cli.core.results import extend_title
from brainhive_cli.core.runs.launch import Launch


def list_inputs(names: Sequence[str]) -> list[Input]:
    """List experiment trackers as inputs of a command.

    Args:
        names: Names of the trackers, which are also the names of their packages.

    Returns:
        An `Input` for each tracker, with an error if its package is not installed.
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
    run_folder: Path,
    cell: str,
    recipe: Recipe,
    launch: Launch,
    caveats: Sequence[str] = (),
    clock: str = "epoch",
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Record the curves of a cell (such as a trained model) in experiment trackers.

    Args:
        run_folder: Folder of the run, by whose name the trackers group the cells.
        cell: Name of the cell.
        recipe: Settings of the cell, with the names of the trackers.
        launch: Processes that share the cell. Only the main process records.
        caveats: Limits of the numbers, such as "selected on test", for the title.
        clock: Key of the time in an event, such as "epoch".

    Yields:
        A function that records an event, a mapping from names of curves to values.
    """
    title = extend_title(cell, caveats)
    settings = recipe.model_dump(mode="json")
    names = recipe.run.trackers if launch.is_main else ()
    trackers = [_open(name, run_folder, title, settings) for name in names]

    def log_event(event: Mapping[str, Any]) -> None:
        # trackers record only numbers
        curves = {}
        for name, value in event.items():
            # Names of the values that state the time of an event. They are not curves.
            if isinstance(value, int | float) and name not in {
                "epoch",
                "epochs",
                "step",
            }:
                curves[name] = value
        for tracker in trackers:
            tracker.log(curves, step=event[clock])

    try:
        yield log_event
    finally:
        for tracker in trackers:
            tracker.finish()


def _open(name: str, run_folder: Path, title: str, settings: Mapping[str, Any]) -> Any:
    """Start an experiment tracker, a `GeneralTracker` of accelerate, for a cell.

    Args:
        name: Name of the tracker.
        run_folder: Folder of the run.
        title: Name of the cell, with the caveats of its numbers.
        settings: Settings that the tracker shows next to the curves.
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
        # Project of the trackers, under which all runs appear.
        tracker = tracker_class("brainhive", **options)
    # any process may train the cell, and by default only the main process records
    tracker.main_process_only = False
    tracker.start()
    return tracker


def make_run_options(
    name: str, run_folder: Path, title: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Make the keyword arguments with which a tracker starts or continues a cell.

    Args:
        name: Name of the tracker.
        run_folder: Folder of the run, by whose name the tracker groups the cells.
        title: Name of the cell, with the caveats of its numbers.
        settings: Settings that the tracker shows next to the curves.

    Returns:
        Keyword arguments of the tracker's class. Trackers in `folder_arguments` also
        get an id of the cell and a folder for their files.
    """
    options = {
        "name": title,
        "group": run_folder.name,
        "config": dict(settings),
        "resume": "allow",
    }

    # Trackers that can resume a cell by its id, with the name of their argument for the
    # folder of their files.
    folder_arguments = {"wandb": "dir", "swanlab": "log_dir"}
    # the id depends only on names, so it stays the same on another machine
    if name in folder_arguments:
        identity = f"{run_folder.parent.name}/{run_folder.name}/{title}"
        options["id"] = hashlib.sha256(identity.encode()).hexdigest()[:16]
        options[folder_arguments[name]] = str(run_folder)
    return options
