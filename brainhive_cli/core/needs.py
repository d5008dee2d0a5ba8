"""What a command needs and does not make: files, weights, stores and runs, and the line that gets each."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainhive_cli.core import console, home
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.tables import Table


@dataclass(frozen=True)
class Need:
    """One thing that a command needs.

    Attributes:
        name: What it is.
        size: Its bytes, where it is not here and they are known.
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
        """Where it is, in words."""
        if self.step:
            return f"made by the step {self.step}"
        if self.error is not None:
            return "missing; done without" if self.is_optional else "missing"
        return "to download" if self.size else "here"

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        line = self.error.hint if self.error is not None and not self.step else ""
        return {"what": self.name, "bytes": self.size, "state": self.state, "line": line}


def files(
    present: Sequence[Path] | Path | None, name: str, root: Path, way: str, size: int | None = None
) -> Need:
    """Describe files of a data set by what was present of them below its root."""
    where = home.portable(str(root / name))
    return Need(where) if present else Need(where, size, MissingData(f"no {root / name}", way))


def stores(paths: Sequence[Path], look: Callable[[], Any]) -> list[Need]:
    """List stores, by their paths as keys; `look` raises the one error of all that are not here."""
    is_here = [path.is_file() for path in paths]
    error = None if all(is_here) else Need.of("", look).error
    return [
        Need(home.portable(str(path)), None, None if here else error, str(path))
        for path, here in zip(paths, is_here, strict=True)
    ]


def require(needs: Iterable[Need]) -> int:
    """Raise the error of the first that is missing; return the bytes that are to be downloaded."""
    total = 0
    for need in needs:
        if need.error is not None and need.is_missing:
            raise need.error
        total += need.size or 0
    return total


def to_download(needs: Iterable[Need]) -> str:
    """Say how much is to be downloaded; raises the error of the first that is missing."""
    count = require(needs)
    return f"{console.size(count) if count else 'nothing'} to download"


def lines(errors: Iterable[BrainhiveError]) -> list[str]:
    """Write a line for each way to get what is missing: the first that it gets, and how many more."""
    by_way: dict[str, dict[str, None]] = {}
    for error in errors:
        by_way.setdefault(error.hint or error.message, {})[error.message] = None
    written = []
    for way, messages in by_way.items():
        first, *further = messages
        more = f", and {len(further)} more" if further else ""
        written.append(f"{first}{more} ({way})" if way != first else first)
    return written


def table(needs: Sequence[Need]) -> Table:
    """Lay needs out: what, how large, and where it is."""
    rows = [(need.name, console.size(need.size) if need.size else "–", need.state) for need in needs]
    return Table("Needs", ("what", "size", "state"), tuple(rows), is_list=True)
