"""Counts of the items that a command leaves out before it has trials."""

from collections import Counter
from dataclasses import dataclass, field

MAX_SOURCES = 3
"""Largest number of sources in a line of the description."""


@dataclass(frozen=True)
class Ledger:
    """Counts of omitted items, such as files, rows of tables, markers and voxels.

    Attributes:
        counts: Number of items by kind (such as "files"), reason and source file.
    """

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def leave_out(self, kind: str, reason: str, source: str, count: int = 1) -> None:
        """Count omitted items."""
        if count:
            self.counts[kind, reason, source] += count

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
