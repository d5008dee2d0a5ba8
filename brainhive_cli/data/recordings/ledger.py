"""Ledger of what a command left out before it had trials."""

from collections import Counter
from dataclasses import dataclass, field

MOST_NAMES = 3
"""Number of sources that a line of the ledger names."""


@dataclass(frozen=True)
class Ledger:
    """Items that were left out: files, rows of tables, markers, voxels and the like.

    Attributes:
        counts: Number of items by kind (as `files`), reason and source, which is the
            name of a file.
    """

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def leave_out(self, kind: str, reason: str, source: str, count: int = 1) -> None:
        """Count items that are left out."""
        if count:
            self.counts[kind, reason, source] += count

    def describe(self) -> list[str]:
        """Describe each kind and reason in a line, with the sources that cost most."""
        sources: dict[tuple[str, str], Counter[str]] = {}
        for (kind, reason, source), count in self.counts.items():
            sources.setdefault((kind, reason), Counter())[source] = count
        lines = []
        for (kind, reason), by_source in sources.items():
            names = [
                f"{name} ({count})" if count > 1 else name
                for name, count in by_source.most_common(MOST_NAMES)
            ]
            more = " …" if len(by_source) > MOST_NAMES else ""
            lines.append(
                f"{by_source.total()} {kind} left out, {reason}: "
                f"{', '.join(names)}{more}"
            )
        return lines

    def as_facts(self) -> dict[str, dict[str, int]]:
        """Return the counts by kind and reason, as a store keeps them."""
        facts: dict[str, dict[str, int]] = {}
        for (kind, reason, _), count in self.counts.items():
            counts = facts.setdefault(kind, {})
            counts[reason] = counts.get(reason, 0) + count
        return facts
