"""Contract of a command: inputs that it reads, its result, and the pace of its work, by
which `--check` knows time and memory.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from brainhive_cli.core import console, documents
from brainhive_cli.core.errors import BrainhiveError, Hint, MissingData
from brainhive_cli.core.facts import WorkflowFacts
from brainhive_cli.core.files import atomic_write, find_unfetched, make_portable
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements, add_footnotes
from brainhive_cli.core.tables import Table

PACE = "pace.json"
"""The file below the runs that keeps the pace of finished work, by what was done
where.
"""


@dataclass(frozen=True)
class Input:
    """One thing that a command reads.

    Attributes:
        name: What it is.
        reference: What recipes name it by, where that is not its name.
        digest: Of its content, where that is part of the fingerprint of the command's
            run.
        size: Bytes to get, where they are known; None of what is here.
        error: Why it cannot be used, with the line that gets it; None of what is here,
            and of what the command fetches by itself.
        line: The line that fetches it ahead of the command, where that was not done
            yet.
        is_optional: Whether the command does without.
        note: What is said of it instead of its state: nothing is missing of what has a
            note.
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
        way: str,
        size: int | None = None,
    ) -> Self:
        """Describe files of a publisher, by those that are here and the path where
        they are expected.
        """
        files = [present] if isinstance(present, Path) else present or []
        error = find_unfetched(files) if files else MissingData(f"no {path}", way)
        return cls(make_portable(str(path)), size if error else None, error)

    @property
    def is_missing(self) -> bool:
        """Whether somebody has to get it before the command can run."""
        return self.error is not None and not self.is_optional and not self.note

    @property
    def state(self) -> str:
        """State in words."""
        # the first that applies: a note, an absence, a download
        if self.note:
            return self.note
        if self.error is not None:
            return "missing; done without" if self.is_optional else "missing"
        return "to download" if self.size else "here"

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        line = self.error.hint if self.error is not None else self.line
        return {
            "what": self.name,
            "bytes": self.size,
            "state": self.state,
            "line": line,
        }


def digests_of(inputs: Iterable[Input]) -> dict[str, str]:
    """Give the digests of those whose content is part of a fingerprint, by what recipes
    name them.
    """
    return {one.reference or one.name: one.digest for one in inputs if one.digest}


def require(inputs: Iterable[Input]) -> None:
    """Raise the error of the first that is missing."""
    for one in inputs:
        if one.error is not None and one.is_missing:
            raise one.error


def collect(
    *sources: Callable[[], Iterable[Input]], checks: Iterable[Callable[[], Any]] = ()
) -> list[Input]:
    """List the inputs of several sources, each once.

    Args:
        sources: List them; an error that one raises is an absent input.
        checks: Open what is listed; an error that none of the inputs has is an absent
            input, too.
    """
    # by name, as several sources may list the same input
    listed: dict[str, Input] = {}
    # checks come last, since they open what the sources list
    every: list[Callable[[], Iterable[Input]]] = [
        *sources,
        *(partial(_open, check) for check in checks),
    ]
    for look in every:
        try:
            inputs = [*look()]
        except BrainhiveError as error:
            # an error that a needed input has already is the same absence
            known = {
                one.error.message
                for one in listed.values()
                if one.error is not None and not one.is_optional
            }
            inputs = (
                [] if error.message in known else [Input(error.message, None, error)]
            )
        for one in inputs:
            listed.setdefault(one.name, one)
    return [*listed.values()]


def _open(check: Callable[[], Any]) -> list[Input]:
    check()
    return []


def describe_missing(inputs: Iterable[Input]) -> list[str]:
    """Write a line for each way to get what is missing: the first that it gets, and how
    many more.
    """
    # messages by the way out that they share, each once and in order
    way_messages: dict[str, dict[str, None]] = {}
    errors = [one.error for one in inputs if one.error is not None and one.is_missing]
    # problems of another kind come before missing data
    for error in sorted(errors, key=lambda error: isinstance(error, MissingData)):
        way_messages.setdefault(error.hint or error.message, {})[error.message] = None

    # a line for each way out
    written = []
    for way, (first, *further) in way_messages.items():
        rest = f", and {len(further)} more" if further else ""
        written.append(f"{first}{rest} ({way})" if way != first else first)
    return written


def tabulate(
    inputs: Iterable[Input], published: Mapping[str, Mapping[str, Any]]
) -> Table:
    """Lay inputs out for people, as rows below one another where a terminal is narrow.

    Args:
        inputs: What is listed.
        published: Licence and size (`gb`) of published weights, by name.
    """
    rows = []
    for one in inputs:
        # licence and size matter for what is still to be fetched
        known = published.get(one.name, {}) if one.state != "here" else {}
        size = one.size or round(known.get("gb", 0) * 1e9)
        rows.append(
            (
                one.name,
                console.size(size) if size else "–",
                one.state,
                known.get("licence", "–"),
            )
        )
    return Table("Inputs", ("what", "size", "state", "licence"), rows, is_list=True)


@dataclass(frozen=True)
class Work:
    """An amount of work, whose time and memory `--check` takes from the last work of
    the same kind.

    Attributes:
        kind: What decides how long a unit takes.
        count: Number of units.
        unit: What is counted.
        seconds: How long it took, where that is not the time of the whole command.
        cells: Number of cells that several workers can take one by one.
    """

    kind: str
    count: int
    unit: str
    seconds: float | None = None
    cells: int = 1

    def key(self, command: str, device: str, processes: int = 1) -> str:
        """Name the pace of this work."""
        return (
            f"{command}, {self.kind}, on "
            f"{f'{processes} × ' if processes > 1 else ''}{device}"
        )

    def remember(self, runs: Path, key: str, seconds: float, peak_bytes: int) -> None:
        """Keep how long a unit took and how much memory was in use, instead of what was
        known before.
        """
        # paces of other kinds of work stay in the file
        paces = {**read_paces(runs), key: (seconds / self.count, peak_bytes)}
        with atomic_write(runs / PACE) as part:
            part.write_text(json.dumps(paces, indent=2), "utf-8")

    def describe(self) -> str:
        """Name the number of units, and of the cells that they belong to."""
        cells = f" in {self.cells:,} cells" if 1 < self.cells < self.count else ""
        return f"{self.count:,} {self.unit}{cells}"

    def estimate(self, runs: Path, key: str) -> dict[str, str]:
        """Write the time, and the memory where work of the same kind was done on this
        device before.
        """
        # the pace of the last run of this kind, if there was one
        amount = self.describe()
        if (pace := read_paces(runs).get(key)) is None:
            return {
                "time": (
                    f"{amount}; how long is known after the first run of this kind on "
                    "this device"
                )
            }

        # time scales with the amount of work, the peak of memory does not
        seconds, peak_bytes = pace
        total, unit = map(console.write_duration, (seconds * self.count, seconds))
        return {
            "time": (
                f"about {total}: {amount}, each {unit} in the last run of this kind"
            ),
            "memory": (
                f"{console.size(peak_bytes)}, the most in the last run of this kind"
            ),
        }


def read_paces(runs: Path) -> dict[str, tuple[float, int]]:
    """Read the paces of finished work below a folder of runs; none of a damaged file.

    A pace is the seconds of a unit, and the most bytes in use: of a GPU by tensors,
    else by the process.
    """
    # an estimate is not worth an error
    with suppress(BrainhiveError):
        return documents.read(runs / PACE, dict[str, tuple[float, int]])
    return {}


@dataclass(frozen=True)
class Result:
    """Result of a command.

    Attributes:
        folder: The run folder, or where the stores lie.
        tables: Results as tables.
        details: What programs read of a command that measures nothing, as plain values.
        work: What was done this time, from start to end; its pace is kept for later
            estimates.
        shown: Those of the tables that are printed, where not all are: what was asked
            for.
        metrics: What `--json` prints together with the tables.
        files: Pictures and pages for people, by name.
        hint: The command that usually comes next.
        exit_code: What the command ends with; not 0 when what it checked failed.
    """

    folder: Path
    tables: tuple[Table, ...] = ()
    metrics: Measurements = field(default_factory=Measurements)
    files: dict[str, Path] = field(default_factory=dict)
    hint: Hint = ""
    exit_code: int = 0
    shown: tuple[Table, ...] | None = None
    work: Work | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Write the hint, and add the caveats of what was measured to the note of every
        table.

        Tables of a sweep or a workflow have them already, each those of its variant or
        step.
        """
        # completed now, by the options of the line that is running
        object.__setattr__(self, "hint", str(self.hint))
        facts = self.metrics.facts

        # caveats go into every note, unless tables have those of their variant or step
        if facts.variants or isinstance(facts, WorkflowFacts):
            return
        for name in ("tables", "shown"):
            if (tables := getattr(self, name)) is not None:
                noted = [
                    replace(table, note=add_footnotes(table.note, facts.caveats))
                    for table in tables
                ]
                object.__setattr__(self, name, tuple(noted))

    def __repr__(self) -> str:
        """Name it in one line."""
        return f"Result({str(self.folder)!r})"

    def keep_pace(
        self, command: str, launch: Launch, runs: Path, seconds: float
    ) -> None:
        """Keep the pace of what was done, for the estimate of the next; `seconds` are
        of the whole command.
        """
        if self.work and launch.is_main and not launch.is_read_only:
            from brainhive_cli.core import device_memory

            key = self.work.key(command, launch.device_name, launch.processes)
            peak_bytes = device_memory.read_peak_bytes(launch.device)
            self.work.remember(runs, key, self.work.seconds or seconds, peak_bytes)
            device_memory.reset_peak(launch.device)  # for the next step of a workflow

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a JSON document."""
        return {
            "folder": str(self.folder),
            "tables": [table.as_dict() for table in self.tables],
            "metrics": self.metrics.as_dict(),
            "details": self.details,
            "files": {name: str(path) for name, path in self.files.items()},
            "next": self.hint,
        }
