"""One part of a data set, as an inventory lists it."""

from dataclasses import dataclass, field
from typing import Any

from brainhive_cli.core.errors import BrainhiveError, MissingData

COMPLETE, PARTIAL = "complete", "partial"


@dataclass
class Part:
    """One part of a data set.

    Attributes:
        name: Pictures, a subject's recordings, or a store.
        counts: Of each split, in words.
        size: Bytes; None where they are not counted.
        problem: The first bad thing, with a way out; MissingData if it is something that is not there.
        is_whole: Whether all is there that the publisher has of it; less may be wanted.
        is_raw: Whether it has to be prepared first.
    """

    name: str
    counts: dict[str, str] = field(default_factory=dict)
    size: int | None = None
    problem: BrainhiveError | None = None
    is_whole: bool = True
    is_raw: bool = False

    def note(self, error: BrainhiveError) -> None:
        """Keep an error, if it is the first."""
        self.problem = self.problem or error

    @property
    def state(self) -> str:
        """Whether it is complete, partial, not prepared, missing or bad."""
        if self.problem is None:
            return COMPLETE if self.is_whole else PARTIAL
        if not isinstance(self.problem, MissingData):
            return "bad"
        return "not prepared" if self.is_raw else "missing"

    @property
    def is_absent(self) -> bool:
        """Whether nothing of it is there."""
        return self.state == "missing" and not self.counts and not self.size

    def as_dict(self) -> dict[str, Any]:
        """Give plain values, for JSON."""
        problem = self.problem.in_one_line if self.problem else ""
        return {"counts": self.counts, "bytes": self.size, "state": self.state, "problem": problem}
