"""Needs, plan and result of a command: its needs and plan (`--check`), its result, the pace of its work.

A command resolves its recipe once, into a frozen job of plain values: `plan` prints the job, `run` does it.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from brainhive_cli.core import console, documents
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import atomic_write, portable
from brainhive_cli.core.foreign_code import NotRun
from brainhive_cli.core.measurements import Measurements, extend_tables
from brainhive_cli.core.tables import Table

PACE = "pace.json"
"""The file below the runs that keeps the pace of finished work, by what was done where."""


@dataclass(frozen=True)
class Need:
    """One thing that a command needs.

    Attributes:
        name: What it is.
        size: Its bytes, where it is not here and they are known.
        held: Bytes of its weights that are here.
        line: The line that downloads it, where that was not done yet.
        error: Why the command cannot use it, with the line that gets it; None of what is here, and of what
            the command fetches by itself.
        key: By which the plan of the command that makes it names it; empty of what no command makes.
        is_optional: Whether the command does without.
        step: The earlier step of a workflow that makes it.
    """

    name: str
    size: int | None = None
    error: BrainhiveError | None = None
    key: str = ""
    is_optional: bool = False
    step: str = ""
    held: int = 0
    line: str = ""

    @classmethod
    def of(cls, name: str, look: Callable[[], Any], size: int | None = None, **fields: Any) -> "Need":
        """Look for something by what raises an error of ours where it is absent.

        Args:
            name: What it is.
            look: Looks for it.
            size: Its bytes, where they are known.
            fields: Others of its fields.
        """
        try:
            look()
        except BrainhiveError as error:
            return cls(name, size, error, **fields)
        return cls(name, **fields)

    @property
    def is_missing(self) -> bool:
        """Whether somebody has to get it before the command can run."""
        return self.error is not None and not self.is_optional and not self.step

    @property
    def state(self) -> str:
        """State in words: here, missing, to download, or made by an earlier step."""
        if self.step:
            return f"made by the step {self.step}"
        if self.error is not None:
            return "missing; done without" if self.is_optional else "missing"
        return "to download" if self.size else "here"

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        line = self.error.hint if self.error is not None and not self.step else ""
        return {"what": self.name, "bytes": self.size, "state": self.state, "line": line}


def need_files(
    present: Sequence[Path] | Path | None, name: str, root: Path, way: str, size: int | None = None
) -> Need:
    """Describe files of a data set by what was present of them below its root."""
    # absent files are named below home
    where = portable(str(root / name))
    return Need(where) if present else Need(where, size, MissingData(f"no {root / name}", way))


def need_stores(paths: Sequence[Path], look: Callable[[], Any]) -> list[Need]:
    """List stores, by their paths as keys; `look` raises the one error of all that are not here."""
    # one error stands for all stores that are absent
    is_here = [path.is_file() for path in paths]
    error = None if all(is_here) else Need.of("", look).error
    return [
        Need(portable(str(path)), None, None if here else error, str(path))
        for path, here in zip(paths, is_here, strict=True)
    ]


def require_needs(needs: Iterable[Need]) -> int:
    """Raise the error of the first that is missing; return the bytes that are to be downloaded."""
    total = 0
    for need in needs:
        if need.error is not None and need.is_missing:
            raise need.error
        total += need.size or 0
    return total


def to_download(needs: Iterable[Need]) -> str:
    """Say how much is to be downloaded; raises the error of the first that is missing."""
    count = require_needs(needs)
    return f"{console.size(count) if count else 'nothing'} to download"


class Pace(NamedTuple):
    """Seconds of a unit of work, and the most bytes in use: of a GPU by tensors, else by the process."""

    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Work:
    """An amount of work, whose time and memory `--check` takes from the last work of the same kind.

    Attributes:
        kind: What decides how long a unit takes.
        count: Number of units.
        unit: What is counted.
        seconds: How long it took, where that is not the time of the whole command.
    """

    kind: str
    count: int
    unit: str
    seconds: float | None = None

    def key(self, command: str, device: str, processes: int = 1) -> str:
        """Name the pace of this work."""
        return f"{command}, {self.kind}, on {f'{processes} × ' if processes > 1 else ''}{device}"

    def remember(self, runs: Path, key: str, seconds: float, peak_bytes: int) -> None:
        """Keep how long a unit took and how much memory was in use, instead of what was known before."""
        paces = {**read_paces(runs), key: Pace(seconds / self.count, peak_bytes)}
        with atomic_write(runs / PACE) as part:
            part.write_text(json.dumps(paces, indent=2), encoding="utf-8")

    def estimate(self, runs: Path, key: str) -> dict[str, str]:
        """Write the time, and the memory where work of the same kind was done on this device before."""
        # the pace of the last run of this kind, if there was one
        amount = f"{self.count:,} {self.unit}"
        if (pace := read_paces(runs).get(key)) is None:
            return {"time": f"{amount}; how long is known after the first run of this kind on this device"}
        total, unit = write_duration(pace.seconds * self.count), write_duration(pace.seconds)
        return {
            "time": f"about {total}: {amount}, each {unit} in the last run of this kind",
            "memory": f"{console.size(pace.peak_bytes)}, the most in the last run of this kind",
        }


def read_paces(runs: Path) -> dict[str, Pace]:
    """Read the paces of finished work below a folder of runs; none of a damaged file."""
    with suppress(BrainhiveError):
        return documents.read(runs / PACE, dict[str, Pace])
    return {}


def write_duration(seconds: float) -> str:
    """Write a duration in the largest unit of which it has two."""
    for unit, length_s in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.2g} s"


@dataclass(frozen=True)
class Plan:
    """Plan of a command: its work, and what is missing for it (`--check`).

    Attributes:
        items: What is planned: name and value, in order.
        errors: Why things are missing, each with the way to get it.
        work: How much there is to do, where its time can be estimated.
        tables: What should be looked at before it is done.
        needs: What it reads and does not make.
        makes: Keys of what it makes that other commands need.
        writes: Bytes of what it makes, where they are known.
        cells: Number of cells that several workers can take one by one; 0 where all stores are made.
    """

    items: dict[str, Any]
    errors: tuple[BrainhiveError, ...] = ()
    work: Work | None = None
    tables: tuple[Table, ...] = ()
    needs: tuple[Need, ...] = ()
    makes: frozenset[str] = frozenset()
    writes: int = 0
    cells: int = 1

    @property
    def missing(self) -> list[str]:
        """Lines of what is missing, one for each way to get it: the first that it gets, and how many more."""
        way_messages: dict[str, dict[str, None]] = {}
        for error in self.errors:
            way_messages.setdefault(error.hint or error.message, {})[error.message] = None
        written = []
        for way, (first, *further) in way_messages.items():
            more = f", and {len(further)} more" if further else ""
            written.append(f"{first}{more} ({way})" if way != first else first)
        return written

    def table(self, title: str) -> Table:
        """Lay out the items for people."""
        items = tuple((name, str(value)) for name, value in self.items.items())
        return Table(title, ("item", "value"), items)

    def all_tables(self) -> list[Table]:
        """Lay out the items and needs for people, before the other tables."""
        planned = [self.table("Plan")] if self.items else []
        if self.needs:
            # needs as rows below one another, where a terminal is narrow
            rows = [(n.name, console.size(n.size) if n.size else "–", n.state) for n in self.needs]
            planned.append(Table("Needs", ("what", "size", "state"), tuple(rows), is_list=True))
        return [*planned, *self.tables]

    @classmethod
    def of(
        cls,
        checks: Mapping[str, Callable[[], Any] | BrainhiveError],
        work: Callable[[], Work] | None = None,
        needs: Callable[[], Iterable[Need]] = tuple,
        makes: Iterable[str] = (),
        raised: Iterable[BrainhiveError] = (),
    ) -> Self:
        """Make each item by its check; errors of ours are why things are missing.

        Args:
            checks: Checks by the name of what they return, or the error that one has raised; an empty text
                is no item.
            work: Counts the work; called where nothing is missing.
            needs: Lists what is read and not made, as far as the first error.
            makes: Keys of what is made.
            raised: Errors that were raised already.
        """
        # an item for each check that passes
        items: dict[str, Any] = {}
        errors: list[BrainhiveError] = []
        listed: dict[tuple[str, str], Need] = {}
        for name, check in checks.items():
            try:
                if isinstance(check, BrainhiveError):
                    raise check
                if (item := check()) != "":
                    items[name] = item
            except NotRun as error:
                items[name] = error.message
            except BrainhiveError as error:
                errors.append(error)

        # what is read: each thing in each state once
        try:
            for need in needs():
                listed[need.name, need.state] = need
        except NotRun:  # which a check says
            pass
        except BrainhiveError as error:
            errors.append(error)

        # errors in this order: those of the user's recipe, what is absent, what checks lack besides
        absent = [need.error for need in listed.values() if need.error is not None and need.is_missing]
        known = {error.message for error in absent}  # what a check lacks may be listed, in other words
        wrong = [error for error in errors if not isinstance(error, MissingData)]
        further = [error for error in errors if error not in wrong and error.message not in known]
        errors = [*raised, *wrong, *absent, *further]
        planned = work() if work and not errors else None
        return cls(items, tuple(errors), planned, (), tuple(listed.values()), frozenset(makes))


@dataclass(frozen=True)
class Result:
    """Result of a command.

    Attributes:
        folder: The run folder, or where the stores lie.
        tables: What was found.
        work: What was done this time, from start to end; its pace is kept for later estimates.
        shown: Those of the tables that are printed, where not all are: what was asked for.
        metrics: What `--json` prints together with the tables.
        files: Pictures and pages for people, by name.
        hint: The command that usually comes next.
        exit_code: What the command ends with; not 0 when what it checked failed.
    """

    folder: Path
    tables: tuple[Table, ...] = ()
    metrics: Measurements = field(default_factory=Measurements)
    files: dict[str, Path] = field(default_factory=dict)
    hint: str = ""
    exit_code: int = 0
    shown: tuple[Table, ...] | None = None
    work: Work | None = None

    def __post_init__(self) -> None:
        """Add the caveats of what was measured to the title of every table, whoever prints it.

        Tables of a sweep or a workflow have them already, each those of its variant or step.
        """
        # titles of collected tables have the caveats of their own runs
        is_collected = not self.metrics.notes.keys().isdisjoint({"variants", "commands"})
        for name in () if is_collected else ("tables", "shown"):
            if (tables := getattr(self, name)) is not None:
                object.__setattr__(self, name, extend_tables(tables, self.metrics.caveats))

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a JSON document."""
        return {
            "folder": str(self.folder),
            "tables": [table.as_dict() for table in self.tables],
            "metrics": self.metrics.as_dict(),
            "files": {name: str(path) for name, path in self.files.items()},
            "next": self.hint,
        }
