"""What a command plans and what it returns: its plan (`--check`) and its result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from brainhive_cli.core.console import Table
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.foreign_code import NotRun
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.pace import Work


@dataclass(frozen=True)
class Plan:
    """What a command would do, and what is missing for it (`--check`).

    Attributes:
        items: What is planned: name and value, in order.
        missing: What is not there, each with the way to get it.
        work: How much there is to do, where its time can be estimated.
        tables: What should be looked at before it is done.
    """

    items: dict[str, Any]
    missing: list[str] = field(default_factory=list)
    work: Work | None = None
    tables: tuple[Table, ...] = ()

    @classmethod
    def of(cls, checks: Mapping[str, Callable[[], Any]], work: Callable[[], Work] | None = None) -> Self:
        """Make each item by its check; each error of ours that checks raise is listed once as missing.

        Args:
            checks: Checks by the name of what they give.
            work: Counts the work; called where nothing is missing.
        """
        items, missing = {}, {}
        for name, check in checks.items():
            try:
                items[name] = check()
            except NotRun as error:
                items[name] = error.message
            except BrainhiveError as error:
                missing[error.in_one_line] = name
        return cls(items, list(missing), work() if work and not missing else None)


@dataclass(frozen=True)
class Result:
    """What a command made.

    Attributes:
        folder: The run folder, or where the stores lie.
        tables: What was found.
        work: What was done this time, from start to end, and the seconds that it took; they are kept.
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
    work: tuple[Work, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a JSON document."""
        return {
            "folder": str(self.folder),
            "tables": [table.as_dict() for table in self.tables],
            "metrics": self.metrics.as_dict(),
            "files": {name: str(path) for name, path in self.files.items()},
            "next": self.hint,
        }
