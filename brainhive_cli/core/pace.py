"""How long work takes on this machine: the pace of finished commands, from which `--check` estimates."""

import json
from dataclasses import dataclass
from pathlib import Path

from brainhive_cli.core import documents
from brainhive_cli.core.files import atomic_write

NAME = "pace.json"
"""The file below the runs that keeps seconds a unit, by what was done where."""


@dataclass(frozen=True)
class Work:
    """An amount of work.

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


def remember(runs: Path, key: str, work: Work, seconds: float) -> None:
    """Keep how long a unit took; what was known before gives way."""
    found = {**_read(runs), key: seconds / work.count}
    with atomic_write(runs / NAME) as part:
        part.write_text(json.dumps(found, indent=2), encoding="utf-8")


def estimate(runs: Path, key: str, work: Work) -> str:
    """Say how long some work takes, if the like of it was done on this machine before."""
    amount = f"{work.count:,} {work.unit}"
    if (pace := _read(runs).get(key)) is None:
        return f"{amount}; how long is known after the first run of this kind on this device"
    return (
        f"about {in_words(pace * work.count)}: {amount}, each {in_words(pace)} in the last run of this kind"
    )


def in_words(seconds: float) -> str:
    """Write a time."""
    for unit, length_s in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.2g} s"


def _read(runs: Path) -> dict[str, float]:
    return documents.read(runs / NAME, dict[str, float]) if (runs / NAME).is_file() else {}
