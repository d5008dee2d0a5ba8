"""Experiment trackers through accelerate: each cell (or prior, or evaluation) is a run of theirs."""

import hashlib
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from brainhive_cli.core.caveats import in_title
from brainhive_cli.core.errors import MissingExtra
from brainhive_cli.core.measurements import Metric
from brainhive_cli.core.runs import TRACKER_ID

PROJECT = "brainhive"
NO_CURVES = {"epoch", "epochs", "step"}
"""What an event says of itself; its other numbers are curves."""


def require(names: Sequence[str]) -> Sequence[str]:
    """Return the trackers' names if they are installed; to be asked before anything is trained.

    Raises:
        MissingExtra: with the pip line.
    """
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    if absent:
        raise MissingExtra(
            f"run.trackers: {', '.join(absent)} is not installed", f"pip install {' '.join(absent)}"
        )
    return names


def looks(names: Sequence[str]) -> dict[str, Callable[[], str]]:
    """Give what a plan looks at: whether the trackers are there; nothing where there are none."""
    return {"trackers": lambda: ", ".join(require(names))} if names else {}


@contextmanager
def tracked(
    names: Sequence[str],
    run: Path,
    cell: str,
    recipe: Mapping[str, Any],
    caveats: Sequence[str] = (),
    clock: str = "epoch",
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Open a cell's run in each tracker; what is given takes events, by their clock.

    Args:
        names: Which trackers; what they keep on disk lies in the run folder.
        run: The run folder, whose name groups the cells.
        cell: The name of their run. Trackers that can go on with it do so when the cell does.
        recipe: What they show beside the curves.
        caveats: What must be said of the numbers; the name of their run says it.
        clock: Which number of an event says when it was.
    """
    with ExitStack() as stack:
        trackers = []
        for name in names:
            trackers.append(_begun(name, run, in_title(cell, caveats), recipe))
            stack.callback(_finish, name, trackers[-1])

        def tell(event: Mapping[str, Any]) -> None:
            values = {
                name: value
                for name, value in event.items()
                if isinstance(value, int | float) and name not in NO_CURVES
            }
            for tracker in trackers:
                tracker.log(values, step=event[clock])

        yield tell


def tell_results(
    names: Sequence[str],
    run: Path,
    label: str,
    recipe: Mapping[str, Any],
    results: Mapping[str, Any],
    caveats: Sequence[str],
) -> None:
    """Tell each tracker what a finished run has measured, as one run of theirs.

    Args:
        names: Which trackers.
        run: The run folder.
        label: The name of their run.
        recipe: What they show beside.
        results: Metrics by name, by what they are of.
        caveats: What must be said of them; the name of their run says it.
    """
    values = {f"{of}/{name}": _value(metric) for of, some in results.items() for name, metric in some.items()}
    with tracked(names, run, label, recipe, caveats) as tell:
        tell({"epoch": 0, **values})


def _value(metric: Metric | Mapping[str, Any]) -> float:
    return metric.value if isinstance(metric, Metric) else metric["value"]


def _begun(name: str, run: Path, cell: str, recipe: Mapping[str, Any]) -> Any:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # which accelerate's own log asks for
    tracker = LOGGER_TYPE_TO_CLASS[name](*_place(name, run, cell), **_options(name, run, cell, recipe))
    tracker.main_process_only = False  # whichever process trains the cell tells of it
    tracker.start()
    return tracker


def _finish(name: str, tracker: Any) -> None:
    if name == "trackio":  # accelerate would leave the run open in trackio's eyes, which then ends it twice
        importlib.import_module(name).finish()
    else:
        tracker.finish()


def _place(name: str, run: Path, cell: str) -> tuple[str, ...]:
    return (cell, str(run / name)) if name == "tensorboard" else (PROJECT,)


def _options(name: str, run: Path, cell: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    if name == "tensorboard":
        return {}
    options = {"name": cell, "group": run.name, "config": dict(recipe), "resume": "allow"}
    if name == "trackio":
        os.environ.setdefault("TRACKIO_DIR", str((run / name).resolve()))  # it has no argument for that
        return options
    known_as = (run / TRACKER_ID).read_text()
    identity = hashlib.sha256(f"{known_as}/{cell}".encode()).hexdigest()[:16]
    where = {"dir": str(run)} if name == "wandb" else {"log_dir": str(run / name)}
    return {**options, **where, "id": identity}
