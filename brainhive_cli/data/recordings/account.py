"""Account of a folder: what is set aside, and what does not add up."""

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator, Field

from brainhive_cli.core.base import BrainhiveError, Table, console, guess, write_value
from brainhive_cli.data.files import natural_key

MAX_SOURCES = 3
"""Largest number of sources in a line of the account."""
COLUMNS = ("subject", "item", "found", "used", "source, and what is not used")
"""Columns of the table of the account."""
KINDS = {
    "lost-trials": "trials that a table or the codes announce, and that are not there",
    "unnamed-codes": "events at the pace of pictures that no table names",
    "unrecorded-codes": "events of the table that no recording has",
    "absent-pictures": "pictures that were shown and that the data set lacks",
    "mismatched-codes": "trials whose code contradicts the picture in the table",
    "left-out-people": "people whose files are not read",
    "unread-files": "files of betas, and tables of events, that are not read",
    "mixed-kinds": "pictures that occur under two tasks or kinds of rows",
    "other-scale": "recordings with another scale than the others of the person",
}
"""Kinds of disputes, which are the keys of `preparation.accept`."""

AcceptedAmount = int | list[str | int]


def _require_kinds(
    amounts: Mapping[str, AcceptedAmount],
) -> Mapping[str, AcceptedAmount]:
    for kind in amounts:
        if kind not in KINDS:
            raise ValueError(f"{guess(kind, KINDS)}kinds are {', '.join(KINDS)}")
    return amounts


AcceptKey = Annotated[
    dict[str, AcceptedAmount],
    AfterValidator(_require_kinds),
    Field(
        exclude_if=lambda amounts: not amounts,  # stores hold it only if it is set
        description="losses and contradictions to accept, by kind: a number, or the "
        "names of codes, people or files, such as {lost-trials: 8, unnamed-codes: "
        "[99]}; more than that is an error",
    ),
]
"""Recipe key of a preparation for what the user accepts."""


@dataclass(frozen=True)
class Dispute:
    """Something in a folder that does not add up.

    Attributes:
        kind: Key of `KINDS`.
        problem: What was found, and what was expected.
        names: Names of the items, or none if they are counted.
        count: Number of items.
        remedy: Another way out than to accept it, or "".
        subject: Number of the subject, or None for the whole folder.
    """

    kind: str
    problem: str
    names: tuple[str, ...] = ()
    count: int = 0
    remedy: str = ""
    subject: int | None = None


@dataclass(frozen=True)
class Account:
    """Account of what a preparation reads, and of what it does not.

    Attributes:
        counts: Number of items that are set aside, by kind (such as "files"), reason
            and source file.
        disputes: What does not add up.
        rows: Rows of the table, under `COLUMNS`.
        accept: Number or names of disputed items that the user accepts, by kind.
    """

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    disputes: list[Dispute] = field(default_factory=list)
    rows: list[tuple[object, ...]] = field(default_factory=list)
    accept: Mapping[str, AcceptedAmount] = field(default_factory=dict)

    def set_aside(self, kind: str, reason: str, source: str, count: int = 1) -> None:
        """Count items that are left out by a law of the format or by the recipe."""
        if count:
            self.counts[kind, reason, source] += count

    def drop(self, kind: str) -> None:
        """Drop the disputes of a kind."""
        self.disputes[:] = [item for item in self.disputes if item.kind != kind]

    def describe(self) -> list[str]:
        """Describe each kind and reason in a line, with the largest sources."""
        source_counts: dict[tuple[str, str], Counter[str]] = {}
        for (kind, reason, source), count in self.counts.items():
            source_counts.setdefault((kind, reason), Counter())[source] = count
        lines = []
        for (kind, reason), counts in source_counts.items():
            names = []
            for name, count in counts.most_common(MAX_SOURCES):
                names.append(f"{name} ({count})" if count > 1 else name)
            ellipsis = " …" if len(counts) > MAX_SOURCES else ""
            lines.append(
                f"{counts.total()} {kind} left out, {reason}: "
                f"{', '.join(names)}{ellipsis}"
            )
        return lines

    def as_facts(self) -> dict[str, dict[str, int]]:
        """Return the counts by kind and reason, as they are stored."""
        facts: dict[str, dict[str, int]] = {}
        for (kind, reason, _), count in self.counts.items():
            counts = facts.setdefault(kind, {})
            counts[reason] = counts.get(reason, 0) + count
        return facts

    def tabulate(self) -> tuple[Table, ...]:
        """Return the table of the account, if it has rows."""
        return (Table("Account", COLUMNS, self.rows),) if self.rows else ()

    def list_accepted(self, subject: int) -> dict[str, int]:
        """Count what a store of a subject holds only because the user accepted it."""
        accepted = Counter[str]()
        for dispute in self.disputes:
            if dispute.subject in (None, subject):
                accepted[dispute.kind] += len(dispute.names) or dispute.count
        return dict(accepted)

    def require(self) -> None:
        """Raise an error if anything does not add up that the user did not accept."""
        refused = []
        needed: dict[str, AcceptedAmount] = dict(self.accept)
        for kind in dict.fromkeys(dispute.kind for dispute in self.disputes):
            disputes = [dispute for dispute in self.disputes if dispute.kind == kind]
            names = sorted(
                {name for dispute in disputes for name in dispute.names},
                key=natural_key,
            )
            amount = self.accept.get(kind, 0)
            count = len(names) or sum(dispute.count for dispute in disputes)
            if isinstance(amount, list):
                is_accepted = bool(names) and set(names) <= set(map(str, amount))
            else:
                is_accepted = count <= amount
            if not is_accepted:
                refused += disputes
                numbers = [int(x) if x.isdecimal() else x for x in names]
                # The override lists up to 20 names. More are counted.
                needed[kind] = numbers if 0 < len(names) <= 20 else count
        if not refused:
            return
        problems = []
        for dispute in refused:
            source = "" if dispute.subject is None else f"subject {dispute.subject}: "
            problems.append(f"{source}{dispute.problem}")
        for problem in problems[:-1]:
            console.warn(problem)
        ways = list(dict.fromkeys(dispute.remedy for dispute in refused))
        override = shlex.quote(f"preparation.accept={write_value(needed)}")
        ways.append(f"to accept, add to the command: {override}")
        raise BrainhiveError(problems[-1], "; or ".join(filter(None, ways)))
