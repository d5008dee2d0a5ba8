"""What a command plans and what it returns: its plan (`--check`) and its result."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.foreign_code import NotRun
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.needs import Need, lines
from brainhive_cli.core.pace import Work
from brainhive_cli.core.tables import Table


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

    @classmethod
    def of(
        cls,
        checks: Mapping[str, Callable[[], Any]],
        work: Callable[[], Work] | None = None,
        needs: Callable[[], Iterable[Need]] = tuple,
        makes: Iterable[str] = (),
        raised: Iterable[BrainhiveError] = (),
    ) -> Self:
        """Make each item by its check; errors of ours are why things are missing.

        Args:
            checks: Checks by the name of what they give; an empty text is no item.
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
        others = [error for error in errors if error not in wrong and error.message not in known]
        errors = [*raised, *wrong, *absent, *others]
        planned = work() if work and not errors else None
        return cls(items, tuple(errors), planned, (), tuple(listed.values()), frozenset(makes))


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
