"""Inputs, results and pace (time per unit of work) of commands."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from brainhive_cli.core import console, documents
from brainhive_cli.core.errors import (
    BrainhiveError,
    DeviceError,
    Hint,
    MissingData,
    MissingExtra,
    RecipeError,
)
from brainhive_cli.core.files import atomic_write, find_unfetched, make_portable
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements, add_footnotes
from brainhive_cli.core.tables import Table

PACE_FILE = "pace.json"
"""File in the folder of runs that stores the pace of finished work."""


class Failures:
    """Errors of items, such as files, whose other items are completed nevertheless.

    Attributes:
        errors: Errors of the items that failed, in their order.
    """

    def __init__(self) -> None:
        self.errors: list[BrainhiveError] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep the error of the item in the block, so that the next item can begin.

        Errors of the recipe and of the device end the command, because they concern
        every item.
        """
        try:
            yield
        except (RecipeError, DeviceError, MissingExtra):
            raise
        except BrainhiveError as error:
            self.errors.append(error)

    def finish(self, n_items: int) -> int:
        """Write the errors with their hints, and return the exit code of the command.

        Args:
            n_items: Number of all items.

        Raises:
            BrainhiveError: the last error, if all items failed.
        """
        errors = list(self.errors)
        last_error = errors.pop() if len(errors) == n_items > 0 else None
        if console.writes_messages():
            for error in errors:
                console.show_error(error)
            if errors and not last_error:
                n_finished = n_items - len(errors)
                console.say(
                    f"{n_finished} of {n_items} are finished, the others failed"
                )
        if last_error:
            raise last_error
        return choose_exit_code(errors)

    def as_details(self) -> dict[str, Any]:
        """Return the errors for the JSON document of a command, or {} if none."""
        if not self.errors:
            return {}
        failures = []
        for error in self.errors:
            failures.append({"error": error.message, "hint": str(error.hint)})
        return {"failures": failures}


def choose_exit_code(errors: Sequence[BrainhiveError]) -> int:
    """Choose the exit code of a command with several errors.

    The code for missing files wins, because a program can download them. Otherwise it
    is the largest code, or 0 without errors.
    """
    exit_codes = {error.exit_code for error in errors}
    if MissingData.exit_code in exit_codes:
        return MissingData.exit_code
    return max(exit_codes, default=0)


@dataclass(frozen=True)
class Input:
    """A file, folder, model or library that a command reads.

    Attributes:
        name: Name of the input.
        size: Size of the download in bytes, or None if it is unknown or not needed.
        error: Error that says why the input cannot be used, with advice as its hint.
        line: Command line that downloads the input, or "".
        is_optional: True if the command also runs without the input.
        note: Text that is shown instead of the state, so the input never
            counts as missing.
        reference: Name of the input in recipes, or "" if it is the same as `name`.
        digest: Digest of the content for the fingerprint of the run, or "".
    """

    name: str
    size: int | None = None
    error: BrainhiveError | None = None
    line: str = ""
    is_optional: bool = False
    note: str = ""
    reference: str = ""
    digest: str = ""

    @classmethod
    def of_file(
        cls,
        present: Sequence[Path] | Path | None,
        path: Path,
        hint: str,
        size: int | None = None,
    ) -> Self:
        """Describe published files as an input.

        Args:
            present: File or files that were found on this machine, if any.
            path: Path where the files are expected, which is the name of the input.
            hint: Advice for the user if no file was found.
            size: Size of the download in bytes, or None if it is unknown.

        Returns:
            The input, with an error if no file was found, or if DataLad or Git LFS has
            not fetched the content of a file.
        """
        files = [present] if isinstance(present, Path) else present or []
        # the error about placeholders is None if all files have their content
        error = find_unfetched(files) if files else MissingData(f"no {path}", hint)
        download_size = size if error else None
        return cls(make_portable(str(path)), download_size, error)

    @property
    def is_missing(self) -> bool:
        """True if the user must provide the input before the command can run."""
        return self.error is not None and not self.is_optional and not self.note

    @property
    def state(self) -> str:
        """The note, or "here", "to download", "missing" or "missing (optional)"."""
        if self.note:
            return self.note
        if self.error is not None:
            return "missing (optional)" if self.is_optional else "missing"
        return "to download" if self.size else "here"

    def as_dict(self) -> dict[str, Any]:
        """Return the input as a JSON object."""
        line = self.error.hint if self.error is not None else self.line
        return {
            "what": self.name,
            "bytes": self.size,
            "state": self.state,
            "line": line,
        }


def map_digests(inputs: Iterable[Input]) -> dict[str, str]:
    """Return the digests of inputs, keyed by the names of the inputs in recipes.

    Inputs without a digest are left out.
    """
    digests = {}
    for item in inputs:
        if item.digest:
            digests[item.reference or item.name] = item.digest
    return digests


def require_inputs(inputs: Iterable[Input]) -> None:
    """Raise the error of the first missing input, if any.

    Raises:
        BrainhiveError: if an input is missing.
    """
    for item in inputs:
        if item.error is not None and item.is_missing:
            raise item.error


def collect_inputs(
    *sources: Callable[[], Iterable[Input]], checks: Iterable[Callable[[], Any]] = ()
) -> list[Input]:
    """Collect the inputs of a command (files, data sets, weights) without duplicates.

    An error of a function becomes an input, unless a required input already reports it.

    Args:
        sources: Functions that return inputs.
        checks: Functions that raise an error if an input does not fit the settings.

    Returns:
        Inputs with distinct names. Only the first input of each name is kept.
    """
    functions: list[Callable[[], Iterable[Input]]] = list(sources)
    for check in checks:
        functions.append(partial(_run_check, check))

    # keep the first input of each name
    inputs_by_name: dict[str, Input] = {}
    for list_inputs in functions:
        try:
            new_inputs = list(list_inputs())
        except BrainhiveError as error:
            new_inputs = []
            if not _is_reported(error, inputs_by_name.values()):
                new_inputs.append(Input(error.message, error=error))
        for item in new_inputs:
            inputs_by_name.setdefault(item.name, item)
    return list(inputs_by_name.values())


def _run_check(check: Callable[[], Any]) -> list[Input]:
    """Call a check, and return no inputs."""
    check()
    return []


def _is_reported(error: BrainhiveError, inputs: Iterable[Input]) -> bool:
    """Return True if a required input has an error with the same message."""
    for item in inputs:
        if item.error is None or item.is_optional:
            continue
        if item.error.message == error.message:
            return True
    return False


def describe_missing(inputs: Iterable[Input]) -> list[str]:
    """Describe the missing inputs that the user must provide.

    Args:
        inputs: Inputs of a command.

    Returns:
        A line for each distinct hint, such as "no a.h5, and 2 more (download it)".
        Errors about missing data come last.
    """
    # errors about missing data come last, because invalid values are more urgent
    errors = []
    for item in inputs:
        if item.error is not None and item.is_missing:
            errors.append(item.error)
    errors.sort(key=lambda error: isinstance(error, MissingData))

    # collect the distinct messages of each hint
    messages_by_hint: dict[str, list[str]] = {}
    for error in errors:
        messages = messages_by_hint.setdefault(error.hint or error.message, [])
        if error.message not in messages:
            messages.append(error.message)

    lines = []
    for hint, messages in messages_by_hint.items():
        line = messages[0]
        if len(messages) > 1:
            line += f", and {len(messages) - 1} more"
        if hint != messages[0]:
            line += f" ({hint})"
        lines.append(line)
    return lines


def tabulate(
    inputs: Iterable[Input], published: Mapping[str, Mapping[str, Any]]
) -> Table:
    """Make a table of the inputs of a command, with their size, state and licence.

    Args:
        inputs: Inputs of the command, such as data sets and weights.
        published: Licence ("licence") and gigabytes ("gb") of weights, by name
            of the input.
    """
    rows = []
    for item in inputs:
        weights = published.get(item.name, {}) if item.state != "here" else {}
        size = item.size or round(weights.get("gb", 0) * 1e9)
        size_text = console.size(size) if size else "–"
        rows.append((item.name, size_text, item.state, weights.get("licence", "–")))
    return Table("Inputs", ("what", "size", "state", "licence"), rows, is_list=True)


@dataclass(frozen=True)
class Work:
    """An amount of work, from which `--check` estimates time and memory.

    Attributes:
        kind: Kind of work, such as the network and the data. All its units take
            the same time.
        count: Number of units.
        unit: Name of the units, such as "epochs".
        seconds: Duration of the work in seconds, or None for the duration
            of the command.
        cells: Number of cells (parts of the work that can be computed at
            the same time).
    """

    kind: str
    count: int
    unit: str
    seconds: float | None = None
    cells: int = 1

    def key(self, command: str, device: str, processes: int = 1) -> str:
        """Make the key under which the pace of this work is stored.

        Args:
            command: Name of the command.
            device: Name of the GPU, or "cpu".
            processes: Number of processes that share the work.
        """
        process_count = f"{processes} × " if processes > 1 else ""
        return f"{command}, {self.kind}, on {process_count}{device}"

    def remember(self, runs: Path, key: str, seconds: float, peak_bytes: int) -> None:
        """Store the seconds per unit of this work and the peak of memory.

        Args:
            runs: Folder of runs, which holds the file of paces.
            key: Key of the pace (see `key`), whose earlier pace is replaced.
            seconds: Duration of the work.
            peak_bytes: Largest memory in use, in bytes.
        """
        paces = read_paces(runs)
        paces[key] = (seconds / self.count, peak_bytes)
        with atomic_write(runs / PACE_FILE) as temporary:
            temporary.write_text(json.dumps(paces, indent=2), "utf-8")

    def describe(self) -> str:
        """Describe the number of units and cells, as in "1,200 epochs in 3 parts"."""
        cells = f" in {self.cells:,} parts" if 1 < self.cells < self.count else ""
        return f"{self.count:,} {self.unit}{cells}"

    def estimate(self, runs: Path, key: str) -> dict[str, str]:
        """Estimate the time and memory of this work from earlier work of the same kind.

        Args:
            runs: Folder of runs, which holds the file of paces.
            key: Key of the pace (see `key`).

        Returns:
            Sentences under "time" and "memory". Without earlier work, "time" says that
            it is unknown, and "memory" is left out.
        """
        amount = self.describe()
        pace = read_paces(runs).get(key)
        if pace is None:
            time = f"unknown until a run of this kind has finished here ({amount})"
            return {"time": time}

        # the peak of memory does not grow with the number of units
        unit_s, peak_bytes = pace
        total = console.write_duration(unit_s * self.count)
        unit = console.write_duration(unit_s)
        time = f"about {total}: {amount}, each {unit} in the last run of this kind"
        memory = f"up to {console.size(peak_bytes)} in the last run of this kind"
        return {"time": time, "memory": memory}


def read_paces(runs: Path) -> dict[str, tuple[float, int]]:
    """Read the stored paces of finished work.

    Args:
        runs: Folder of runs, which holds the file of paces.

    Returns:
        Seconds per unit and peak of memory in bytes, by key (see `Work.key`). Empty if
        the file is missing or damaged.
    """
    with suppress(BrainhiveError):
        return documents.read(runs / PACE_FILE, dict[str, tuple[float, int]])
    return {}


@dataclass(frozen=True)
class Result:
    """Result of a command.

    Attributes:
        folder: Run folder, or folder of the HDF5 files that the command wrote.
        tables: Results as tables.
        metrics: Metrics of the run.
        files: Paths of figures and pages for people, keyed by name.
        hint: Command that the user usually runs next.
        exit_code: Exit code of the command. It is not 0 if a check failed.
        printed_tables: Tables that are printed, or None to print all.
        work: Work of this call, for estimates of later work.
        details: JSON values for programs, from a command without metrics.
        label: Label that the user has given the run, or "".
        begins_with_finding: True to print the finding before the tables.
        document: JSON value that `--json` prints instead of all these, or None. It is
            always printed if there are no tables.
    """

    folder: Path
    tables: tuple[Table, ...] = ()
    metrics: Measurements = field(default_factory=Measurements)
    files: dict[str, Path] = field(default_factory=dict)
    hint: Hint = ""
    exit_code: int = 0
    printed_tables: tuple[Table, ...] | None = None
    work: Work | None = None
    details: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    begins_with_finding: bool = False
    document: Any = None

    def __post_init__(self) -> None:
        """Turn the hint into text, and add caveats to the notes below the tables.

        The tables of a workflow already have their caveats.
        """
        # a frozen dataclass allows new values only through `object`
        object.__setattr__(self, "hint", str(self.hint))
        facts = self.metrics.facts
        if facts.has_marked_tables:
            return
        tables = [_add_caveats(table, facts.caveats) for table in self.tables]
        object.__setattr__(self, "tables", tuple(tables))
        if self.printed_tables is not None:
            tables = [
                _add_caveats(table, facts.caveats) for table in self.printed_tables
            ]
            object.__setattr__(self, "printed_tables", tuple(tables))

    def __repr__(self) -> str:
        """Return a short text that names the folder."""
        return f"Result({str(self.folder)!r})"

    def keep_pace(
        self, command: str, launch: Launch, runs: Path, seconds: float
    ) -> None:
        """Store the seconds per unit of counted work and the peak of memory.

        Args:
            command: Name of the command.
            launch: Processes that did the work. Only the main process stores, unless
                the launch is read-only.
            runs: Folder of runs, which holds the file of paces.
            seconds: Duration of the command, for work without a duration of its own.
        """
        if self.work and launch.is_main and not launch.is_read_only:
            from brainhive_cli.core import device_memory

            key = self.work.key(command, launch.device_name, launch.processes)
            peak_bytes = device_memory.read_peak_bytes(launch.device)
            duration_s = self.work.seconds or seconds
            self.work.remember(runs, key, duration_s, peak_bytes)
            # the next step of a workflow measures its own peak
            device_memory.reset_peak(launch.device)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        has_metrics = self.metrics != Measurements()
        return {
            "folder": str(self.folder),
            "label": self.label,
            "tables": [table.as_dict() for table in self.tables],
            "metrics": self.metrics.as_dict() if has_metrics else {},
            "details": self.details,
            "files": {name: str(path) for name, path in self.files.items()},
            "next": self.hint,
        }


def _add_caveats(table: Table, caveats: Iterable[str]) -> Table:
    """Add caveats to the note below a table of results."""
    if not table.has_results:
        return table
    return replace(table, note=add_footnotes(table.note, caveats))
