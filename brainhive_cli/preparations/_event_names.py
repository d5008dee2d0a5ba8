"""Which picture each event of a recording stands for, by a table or by the events' own names."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.preparations._raw_files import Header, read_table
from brainhive_cli.stores.matching import match, shown

COLUMNS = ("event", "picture")
PREFIX = re.compile(r"(Stimulus|Comment|Response)/")
"""What BrainVision's reader puts before the name of a marker."""
CODE = re.compile(r"S *(\d+)")
"""How BrainVision writes the code of a trigger."""


@dataclass(frozen=True)
class EventNames:
    """What events stand for.

    Attributes:
        table: Name of an event to its picture; None where events are called by their pictures.
        rows: Name of a picture, in the table or in events, to its row among the image ids.
        where: The table, or whose events, for messages.
    """

    table: Mapping[str, str] | None
    image_ids: Sequence[str]
    where: str

    @classmethod
    def read(cls, path: Path | None, image_ids: Sequence[str]) -> "EventNames":
        """Read the table, if there is one.

        Raises:
            MissingData: if it is not there.
            BrainhiveError: if it lacks a column, or gives an event two pictures.
        """
        if path is None:
            return cls(None, image_ids, "the pictures")
        columns, rows = read_table(path)
        if absent := [name for name in COLUMNS if name not in columns]:
            hint = f"its first line: {', '.join(columns)}; needed: event, picture"
            raise BrainhiveError(f"{path} has no column {' and '.join(absent)}", hint)
        table: dict[str, str] = {}
        for row in rows:
            event, picture = row["event"], row["picture"]
            if not event or not picture:
                continue
            if table.setdefault(event, picture) != picture:
                raise BrainhiveError(f"{path}: event {event} has pictures {table[event]} and {picture}")
        if not table:
            raise BrainhiveError(f"{path} has no rows", "a line for each event: its name, its picture")
        return cls(table, image_ids, str(path))

    def match(self, events: Iterable[str]) -> "Matched":
        """Match events with pictures.

        Args:
            events: Names, with repetitions.

        Raises:
            BrainhiveError: if a name could mean several pictures.
        """
        counts = Counter(events)
        keys = {event: self._key(event) for event in counts}
        table = {key: key for key in keys.values() if key} if self.table is None else self.table
        pictures = list(dict.fromkeys(table.values()))
        rows = dict(
            zip(pictures, match(pictures, self.image_ids, each_once=False).rows.tolist(), strict=True)
        )
        found = {event: rows[table[key]] for event, key in keys.items() if key is not None}
        used = {key for key in keys.values() if key is not None}
        return Matched(
            {event: row for event, row in found.items() if row >= 0},
            {event: count for event, count in counts.items() if event not in found},
            {event: counts[event] for event, row in found.items() if row < 0},
            [event for event in table if event not in used],
        )

    def match_all(self, headers: Iterable[Header]) -> "Matched":
        """Match the events of recordings with pictures."""
        return self.match(name for header in headers for _, name in header.events)

    def _key(self, event: str) -> str | None:
        """Find an event in the table: as it is, without BrainVision's prefix, or by its code alone."""
        if self.table is None:
            return event
        plain = " ".join(PREFIX.sub("", event, count=1).split())
        code = CODE.fullmatch(plain)
        names = (event, plain, code[1].lstrip("0") or "0" if code else plain)
        return next((name for name in names if name in self.table), None)

    def refuse_none(self, matched: "Matched", path: Path, source: str) -> None:
        """Refuse a session none of whose events is a picture.

        Raises:
            BrainhiveError: with names of both sides.
        """
        if matched.rows:
            return
        others = list(matched.unnamed) + list(matched.without_picture)
        known = list(self.table) if self.table is not None and matched.unnamed else list(self.image_ids)
        what = "rows" if self.table is not None and matched.unnamed else "pictures"
        raise BrainhiveError(
            f"{path}: none of its events ({source}) is in {self.where}, of {shown(others)}",
            f"{what} are called {', '.join(known[:3])} …: "
            "preparation.events=TABLE, preparation.column=NAME or preparation.stim_channel=NAME",
        )


@dataclass(frozen=True)
class Matched:
    """Events matched with pictures, and what is left over on both sides.

    Attributes:
        rows: Event to the row of its picture.
        unnamed: Events that the table does not have, with their counts.
        without_picture: Events whose picture the data set does not have, with their counts.
        unused: Events of the table that were not recorded.
    """

    rows: Mapping[str, int]
    unnamed: Mapping[str, int]
    without_picture: Mapping[str, int]
    unused: Sequence[str]
