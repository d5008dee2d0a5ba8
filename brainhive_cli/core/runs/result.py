"""Results of commands."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from brainhive_cli.core.base import Hint, Table
from brainhive_cli.core.results import Measurements, add_footnotes
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.core.runs.work import Work


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
            from brainhive_cli.core.base import device_memory

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
