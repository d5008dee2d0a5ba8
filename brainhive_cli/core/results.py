"""What a command plans and what it returns: its plan (`--check`), its result, and the pace of its work.

A command resolves its recipe once, into a frozen job of plain values: `plan` prints the job, `run` does it.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from brainhive_cli.core import documents
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import atomic_write
from brainhive_cli.core.foreign_code import NotRun
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.needs import Need, lines
from brainhive_cli.core.tables import Table

PACE = "pace.json"
"""The file below the runs that keeps seconds a unit of finished work, by what was done where."""


@dataclass(frozen=True)
class Work:
    """An amount of work, whose time `--check` estimates from the last work of the same kind.

    Attributes:
        kind: What decides how long a unit takes.
        count: Number of units.
        unit: What is counted.
    """

    kind: str
    count: int
    unit: str

    def key(self, command: str, device: str) -> str:
        """Name the pace of this work."""
        return f"{command}, {self.kind}, on {device}"

    def remember(self, runs: Path, key: str, seconds: float) -> None:
        """Keep how long a unit took, instead of what was known before."""
        paces = {**_read_paces(runs), key: seconds / self.count}
        with atomic_write(runs / PACE) as part:
            part.write_text(json.dumps(paces, indent=2), encoding="utf-8")

    def estimate(self, runs: Path, key: str) -> str:
        """Say how long this work takes, if work of the same kind was done on this machine before."""
        amount = f"{self.count:,} {self.unit}"
        if (pace_s := _read_paces(runs).get(key)) is None:
            return f"{amount}; how long is known after the first run of this kind on this device"
        total, unit = write_duration(pace_s * self.count), write_duration(pace_s)
        return f"about {total}: {amount}, each {unit} in the last run of this kind"


def _read_paces(runs: Path) -> dict[str, float]:
    return documents.read(runs / PACE, dict[str, float]) if (runs / PACE).is_file() else {}


def write_duration(seconds: float) -> str:
    """Write a duration in the largest unit of which it has two."""
    for unit, length_s in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.2g} s"


@dataclass(frozen=True)
class Plan:
    """What a command would do, and what is missing for it (`--check`).

    Attributes:
        items: What is planned: name and value, in order.
        errors: Why things are missing, each with the way to get it.
        work: How much there is to do, where its time can be estimated.
        tables: What should be looked at before it is done.
        needs: What it reads and does not make.
        makes: Keys of what it makes that other commands need.
    """

    items: dict[str, Any]
    errors: tuple[BrainhiveError, ...] = ()
    work: Work | None = None
    tables: tuple[Table, ...] = ()
    needs: tuple[Need, ...] = ()
    makes: frozenset[str] = frozenset()

    @property
    def missing(self) -> list[str]:
        """What is not there, a line for each way to get something."""
        return lines(self.errors)

    def table(self, title: str) -> Table:
        """Lay out the items for people."""
        return Table(
            title, ("item", "value"), tuple((name, str(value)) for name, value in self.items.items())
        )

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
        try:
            for need in needs():
                listed[need.name, need.state] = need
        except NotRun:  # which a check says
            pass
        except BrainhiveError as error:
            errors.append(error)
        absent = [need.error for need in listed.values() if need.error is not None and need.is_missing]
        known = {error.message for error in absent}  # what a check lacks may be listed, in other words
        wrong = [error for error in errors if not isinstance(error, MissingData)]
        further = [error for error in errors if error not in wrong and error.message not in known]
        errors = [*raised, *wrong, *absent, *further]
        planned = work() if work and not errors else None
        return cls(items, tuple(errors), planned, (), tuple(listed.values()), frozenset(makes))


@dataclass(frozen=True)
class Result:
    """What a command made.

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

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a JSON document."""
        return {
            "folder": str(self.folder),
            "tables": [table.as_dict() for table in self.tables],
            "metrics": self.metrics.as_dict(),
            "files": {name: str(path) for name, path in self.files.items()},
            "next": self.hint,
        }
