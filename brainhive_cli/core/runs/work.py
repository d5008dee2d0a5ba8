"""Amounts of work, and the pace (time per unit) at which they were done."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from brainhive_cli.core.base import BrainhiveError, console
from brainhive_cli.core.files import atomic_write, documents

PACE_FILE = "pace.json"
"""File in the folder of runs that stores the pace of finished work."""


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
