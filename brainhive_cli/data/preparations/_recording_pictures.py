"""Which picture each event of a recording stands for, by a table or by the events' own names."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.preparations._recording_events import read_table
from brainhive_cli.data.preparations._recording_mne import Header
from brainhive_cli.data.stores.ids import match_names, summarise_names

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
            zip(pictures, match_names(pictures, self.image_ids, each_once=False).rows.tolist(), strict=True)
        )
        shown = {event: table[key] for event, key in keys.items() if key is not None}
        without: Counter[str] = Counter()
        for event, picture in shown.items():
            if rows[picture] < 0:
                without[picture] += counts[event]
        return Matched(
            {event: rows[picture] for event, picture in shown.items() if rows[picture] >= 0},
            {event: count for event, count in counts.items() if event not in shown},
            without,
            [event for event in table if event not in {*keys.values()}],
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
        if matched.without_picture and self.table is not None:
            raise BrainhiveError(
                f"{path}: no picture of its events, by {self.where}, is in the data set, "
                f"of {summarise_names([*matched.without_picture])}",
                f"it has: {', '.join(self.image_ids[:3])} …; fix the table, or "
                "preparation.stimuli.root=FOLDER",
            )
        what, known = ("pictures", self.image_ids) if self.table is None else ("rows", [*self.table])
        raise BrainhiveError(
            f"{path}: none of its events ({source}) is in {self.where}, "
            f"of {summarise_names([*matched.unnamed, *matched.without_picture])}",
            f"{what} are called {', '.join(known[:3])} …: "
            "preparation.events=TABLE, preparation.column=NAME or preparation.stim_channel=NAME",
        )


@dataclass(frozen=True)
class Matched:
    """Events matched with pictures, and what is left over on both sides.

    Attributes:
        rows: Event to the row of its picture.
        unnamed: Events that the table does not have, with their counts.
        without_picture: Pictures of events that the data set does not have, with the counts of the events.
        unused: Events of the table that were not recorded.
    """

    rows: Mapping[str, int]
    unnamed: Mapping[str, int]
    without_picture: Mapping[str, int]
    unused: Sequence[str]

    @property
    def left_over(self) -> dict[str, Any]:
        """What is left over, by what it is in words."""
        found = {
            "events that the table does not have": dict(self.unnamed),
            "pictures of events that the data set does not have": dict(self.without_picture),
            "events of the table that were not recorded": list(self.unused),
        }
        return {what: names for what, names in found.items() if names}
