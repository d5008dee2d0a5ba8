"""Result of a command, and the pace of its work, from which `--check` takes time and
memory of the next.
"""

import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from brainhive_cli.core import console, documents
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import WorkflowFacts
from brainhive_cli.core.files import atomic_write
from brainhive_cli.core.lines import Hint
from brainhive_cli.core.measurements import Measurements, add_footnotes
from brainhive_cli.core.tables import Table

PACE = "pace.json"
"""The file below the runs that keeps the pace of finished work, by what was done
where.
"""


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

    def estimate(self, runs: Path, key: str) -> dict[str, str]:
        """Write the time, and the memory where work of the same kind was done on this
        device before.
        """
        # the pace of the last run of this kind, if there was one
        amount = f"{self.count:,} {self.unit}"
        if (pace := read_paces(runs).get(key)) is None:
            return {
                "time": (
                    f"{amount}; how long is known after the first run of this kind on "
                    "this device"
                )
            }

        # time scales with the amount of work, the peak of memory does not
        seconds, peak_bytes = pace
        total, unit = write_duration(seconds * self.count), write_duration(seconds)
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


def write_duration(seconds: float) -> str:
    """Write a duration in the largest unit of which it has two."""
    for unit, length_s in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        # a unit counts from two on: 90 min say more than 2 h
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.2g} s"


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
        for name in (
            ()
            if facts.variants or isinstance(facts, WorkflowFacts)
            else ("tables", "shown")
        ):
            if (tables := getattr(self, name)) is not None:
                noted = [
                    replace(table, note=add_footnotes(table.note, facts.caveats))
                    for table in tables
                ]
                object.__setattr__(self, name, tuple(noted))

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
