"""Run folders: created or resumed by fingerprint, written to, finished."""

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from brainhive_cli.core import console, environment, home
from brainhive_cli.core.errors import BrainhiveError, MissingData, guess
from brainhive_cli.core.file_lock import FileLock
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.recipe import Recipe
from brainhive_cli.core.recipe_files import to_yaml

FINISHED = "metrics.json"
"""The file that makes a run finished; it is written last."""
SHOWN = 5
"""How many runs are listed where the one that was named does not exist."""


@dataclass(frozen=True)
class RunFolder:
    """One run of one command: its recipe, environment, log, models, samples and metrics."""

    path: Path
    lock: FileLock | None = None

    @classmethod
    def open(cls, command: str, label: str, recipe: Recipe, launch: Launch, again: bool = False) -> Self:
        """Create the run's folder, or find the one that the same recipe made before.

        Args:
            command: The subcommand; the folder lies under `runs/<command>`.
            label: The first part of the folder's name; the fingerprint follows.
            recipe: The resolved recipe.
            launch: This process among those that share the run; the main one writes.
            again: Start a new run even if there is a finished one.

        Raises:
            BrainhiveError: if another command is writing the same run.
        """
        base = recipe.paths.under_home("runs") / command
        path = _numbered(base, f"{label}-{recipe.fingerprint()}", again and launch.is_main)
        if not launch.is_main:
            launch.barrier()
            return cls(_numbered(path.parent, f"{label}-{recipe.fingerprint()}", False))
        run = cls(path)
        if not run.is_finished:
            run = cls(path, FileLock(path / ".claim", f"run {path}"))
            run.write_text("recipe.yaml", to_yaml(home.portable(recipe.model_dump(mode="json"))))
            run.write_json("environment.json", environment.describe(launch))
        launch.barrier()
        return run

    @property
    def is_finished(self) -> bool:
        """Whether the run has its metrics."""
        return (self.path / FINISHED).is_file()

    def measurements(self) -> Measurements:
        """Read what a finished run measured.

        Raises:
            MissingData: if the run is not finished.
            BrainhiveError: if its metrics are of another schema.
        """
        return Measurements.read(self.read_json(FINISHED), self.path)

    def recipe(self) -> dict[str, Any]:
        """Read the resolved recipe that the run was made with."""
        fields: dict[str, Any] = yaml.safe_load((self.path / "recipe.yaml").read_text())
        return fields

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON document of the run."""
        try:
            document: dict[str, Any] = json.loads((self.path / name).read_text())
        except FileNotFoundError as error:
            raise MissingData(
                f"run {self.path} is not finished: it has no {name}", "run its command again"
            ) from error
        except ValueError as error:
            raise BrainhiveError(
                f"{self.path / name} is not JSON: {error}", "delete it and run again"
            ) from error
        return document

    def write_json(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a JSON document, its paths relative to home, under its final name only when complete."""
        self.write_text(name, json.dumps(home.portable(document), indent=2, default=str) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file under its final name only when complete."""
        self.replace(name, lambda part: part.write_text(text))

    def replace(self, name: str, write: Callable[[Path], Any]) -> Path:
        """Let `write` fill a path next to the final one, then rename it; works for files and folders."""
        final = self.path / name
        final.parent.mkdir(parents=True, exist_ok=True)
        part = final.with_name(f".{final.stem}.part{final.suffix}")
        write(part)
        if final.is_dir():
            shutil.rmtree(final)
        os.replace(part, final)
        return final

    def save_checkpoint(self, name: str, content: Mapping[str, Any]) -> None:
        """Save tensors and plain values below `checkpoints/`; a full disk raises OSError."""
        import torch

        buffer = io.BytesIO()
        torch.save(dict(content), buffer)
        self.replace(f"checkpoints/{name}", lambda part: part.write_bytes(buffer.getbuffer()))

    def log(self, **event: Any) -> None:
        """Append one event to `log.jsonl`."""
        with (self.path / "log.jsonl").open("a") as stream:
            stream.write(json.dumps({"time": round(time.time(), 3), **event}, default=str) + "\n")

    def finish(self, measurements: Measurements) -> None:
        """Write the metrics, which makes the run finished."""
        self.write_json(FINISHED, measurements.as_dict())
        if self.lock:
            self.lock.release()


def _numbered(base: Path, name: str, again: bool) -> Path:
    """Find the newest of `name`, `name-2`, …; the next free one with `again`."""
    number = 1
    while (base / f"{name}-{number + 1}").exists():
        number += 1
    if again and (base / name).exists():
        number += 1
    return base / (name if number == 1 else f"{name}-{number}")


def reference(run: RunFolder, runs: Path, variant: str = "") -> str:
    """Return what `find` finds a run, or a variant of a sweep, by: its name where it lies in `runs`."""
    name = run.path.name if run.path.parent.resolve() == runs.resolve() else str(run.path)
    return f"{name}:{variant}" if variant else name


def find(runs: Path, command: str, reference: str | None) -> RunFolder:
    """Find a finished run: a folder, a run's name, or the newest of the command.

    Raises:
        MissingData: if there is none; the hint lists those that exist, or the command that makes one.
    """
    hint = f"brainhive {command}"
    if reference is not None:
        for path in (home.located(reference), runs / command / reference):
            if path.is_dir():
                run = RunFolder(path)
                if reason := _why_not(path, runs, command):
                    raise MissingData(f"{path} is {reason}", _others(runs, command, reference) or hint)
                run.measurements()
                return run
        raise MissingData(f"no {command} run {reference!r}", _others(runs, command, reference) or hint)
    found = newest(runs, command)
    if found is None:
        raise MissingData(f"no finished {command} run under {runs / command}", hint)
    return found


def _why_not(path: Path, runs: Path, command: str) -> str:
    """Describe why a folder is no run of the command; empty if it may be one."""
    if not (path / "recipe.yaml").is_file():
        return "no run: it has no recipe.yaml"
    parent = path.resolve().parent
    is_other = parent.parent == runs.resolve() and parent.name != command
    return f"a run of {parent.name}, not of {command}" if is_other else ""


def _others(runs: Path, command: str, reference: str) -> str:
    """List the newest finished runs, the one that may be meant first; empty if there are none."""
    names = [run.path.name for run in _finished(runs, command)]
    named = Path(reference).name
    if not names:
        return ""
    meant = next((f"did you mean {name}? " for name in names if named in name), guess(named, names))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{meant}finished, the newest first: {', '.join(names[:SHOWN])}{more}"


def newest(
    runs: Path,
    command: str,
    accept: Callable[[RunFolder], bool] = lambda run: True,
    choose: str = "--run ",
) -> RunFolder | None:
    """Find the newest finished run of a command that `accept` takes, and print which one it is.

    Warns if an older run of the same data set and mode was trained for more epochs, or has more cells: the
    newest may have been a trial.

    Args:
        runs: Folder of all runs.
        command: Whose runs.
        accept: Whether a run fits.
        choose: What precedes the name of a run on a command line that chooses it.
    """
    found = _finished(runs, command)
    first = next(filter(accept, found), None)
    if first is None:
        return None
    console.say(f"{command.removeprefix('train-')} run: {first.path} ({_described(first)})")
    kind, size = _size(first)
    for other in found[found.index(first) + 1 :]:
        other_kind, other_size = _size(other)
        is_more = any(count > than for count, than in zip(other_size, size, strict=True))
        if other_kind == kind and is_more and accept(other):
            names = [f"{run.path.name} ({_described(run)})" for run in (first, other)]
            console.warn(
                f"{names[0]} is the newest run, but {names[1]} was trained more: "
                f"{choose}{other.path.name} takes that one"
            )
            break
    return first


def _size(run: RunFolder) -> tuple[tuple[Any, ...], tuple[int, int]]:
    """Return a run's kind (data set, mode) and size (epochs, cells)."""
    is_known = (run.path / "recipe.yaml").is_file()
    notes, train = run.read_json(FINISHED).get("notes", {}), run.recipe().get("train", {}) if is_known else {}
    kind = tuple(notes.get(key) for key in ("dataset", "mode"))
    return kind, (train.get("epochs", 0), len(notes.get("cells", ())))


def _described(run: RunFolder) -> str:
    """Describe a run's age and size."""
    counts = zip(_size(run)[1], ("epoch", "cell"), strict=True)
    sizes = [f"{count} {unit}{'s' if count > 1 else ''}" for count, unit in counts if count]
    return ", ".join([_age((run.path / FINISHED).stat().st_mtime), *sizes])


def _age(since: float) -> str:
    """Write how long ago a time was."""
    passed_s = max(0.0, time.time() - since)
    for unit, length_s in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if count := int(passed_s // length_s):
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "less than a minute ago"


def _finished(runs: Path, command: str) -> list[RunFolder]:
    """List the finished runs of a command, the newest first."""
    files = sorted((runs / command).glob(f"*/{FINISHED}"), key=lambda path: -path.stat().st_mtime)
    return [RunFolder(path.parent) for path in files]
