"""Names of events: pictures that the markers of a recording or a stream stand for."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.recording_files import ABSENT, read_table
from brainhive_cli.data.recording_headers import Header
from brainhive_cli.data.stores.ids import (
    match_names,
    plain_name,
    read_category,
    summarise_names,
    table_text,
)

COLUMNS = ("event", "picture")
TABLES = ("events.csv", "events.tsv")
"""Names of the table of events in the folder of the recordings."""
PREFIX = re.compile(r"(Stimulus|Comment|Response)/")
"""Prefix that BrainVision's reader puts before the name of a marker."""
CODE = re.compile(r"S *(\d+)")
"""Code of a trigger as BrainVision writes it."""
# reasons for leftovers, as the overview and the store word them
UNNAMED = "events that the table does not have"
NO_PICTURE = "pictures of events that the data set does not have"
UNUSED = "events of the table that were not recorded"


Matched = tuple[Mapping[str, int], Mapping[str, Mapping[str, int] | Sequence[str]]]
"""Events to the rows of their pictures; and events and pictures without a match, by
kind in words: events with their counts.
"""


class EventNames:
    """Pictures that events stand for.

    Args:
        path: Table from events to pictures; None where events are called by their
            pictures.
        image_ids: Image ids of the data set.
        is_exact: Whether they are called by their whole names, as categories are, and
            not by ends of paths.

    Attributes:
        path: The table's file.
        table: Name of an event to its picture; None where there is no table.

    Raises:
        BrainhiveError: if the table lacks a column, or gives an event two pictures.
    """

    def __init__(
        self, path: Path | None, image_ids: Sequence[str], is_exact: bool = False
    ) -> None:
        self.path, self.image_ids, self._is_exact = path, image_ids, is_exact
        self._where = "the pictures" if path is None else str(path)
        self.table = None if path is None else _read_table(path)
        self._plain_keys = {plain_name(name): name for name in self.table or ()}

    def require_pictures(self, pictures: str) -> None:
        """Refuse a table that names none of the pictures.

        Args:
            pictures: What they are called, for the message.

        Raises:
            BrainhiveError: if it names none, or a name could mean several.
        """
        # one picture that is there is enough
        if self.table is None or self.count_pictures():
            return
        names = summarise_names([*dict.fromkeys(self.table.values())])
        problem = f"{self._where}: none of its pictures is in {pictures}, of {names}"
        raise BrainhiveError(
            problem, f"its pictures are called {', '.join(self.image_ids[:3])} …"
        )

    def count_pictures(self) -> int:
        """Count these pictures that the table names."""
        matches = self._match([*(self.table or {}).values()])
        return len({*matches} - {-1})

    def find_row(self, event: str) -> int | None:
        """Find the row of one event's picture; None where it has none.

        Raises:
            BrainhiveError: if the name could mean several pictures.
        """
        if (key := self._find_key(event)) is None:
            return None
        row = self._match([key if self.table is None else self.table[key]])[0]
        return row if row >= 0 else None

    def _match(self, pictures: Sequence[str]) -> list[int]:
        """Find the row of each picture; -1 where it has none. Tables cannot hold tabs
        in names.
        """
        # categories by their names, not by ends of paths
        if self._is_exact:
            row_of_name = {
                read_category(name): row for row, name in enumerate(self.image_ids)
            }
            return [row_of_name.get(read_category(name), -1) for name in pictures]
        written, known = (
            list(map(table_text, names)) for names in (pictures, self.image_ids)
        )
        rows, _ = match_names(written, known, each_once=False)
        return rows.tolist()

    def _find_key(self, event: str) -> str | None:
        """Find an event in the table: its name, without BrainVision's prefix, or its
        code alone.
        """
        if self.table is None:
            return event
        plain = " ".join(PREFIX.sub("", event, count=1).split())
        code = CODE.fullmatch(plain)
        # as it is, without a prefix, and the number of a code: 7 of `S  7`
        names = (event, plain, code[1].lstrip("0") or "0" if code else plain)
        keys = (
            name if name in self.table else self._plain_keys.get(plain_name(name))
            for name in names
        )
        return next(filter(None, keys), None)

    def match(self, headers: Iterable[Header]) -> Matched:
        """Match the events of recordings with pictures.

        Raises:
            BrainhiveError: if a name could mean several pictures.
        """
        # the row of the table for each event
        counts = Counter(name for header in headers for _, name in header.events)
        counts.update(name for header in headers for name in header.without_onset)
        keys = {event: self._find_key(event) for event in counts}

        # the row of each picture among the data set's; -1 where it has none
        table = (
            {key: key for key in keys.values() if key}
            if self.table is None
            else self.table
        )
        pictures = list(dict.fromkeys(table.values()))
        matches = self._match(pictures)
        rows = dict(zip(pictures, matches, strict=True))
        picture_of = {
            event: table[key] for event, key in keys.items() if key is not None
        }

        # events and pictures without a match
        without: Counter[str] = Counter()
        for event, picture in picture_of.items():
            if rows[picture] < 0:
                without[picture] += counts[event]
        left_over: dict[str, Mapping[str, int] | Sequence[str]] = {
            UNNAMED: {
                event: count
                for event, count in counts.items()
                if event not in picture_of
            },
            NO_PICTURE: dict(without),
            UNUSED: [event for event in table if event not in {*keys.values()}],
        }
        return (
            {
                event: rows[picture]
                for event, picture in picture_of.items()
                if rows[picture] >= 0
            },
            {what: names for what, names in left_over.items() if names},
        )

    def require_match(self, matched: Matched, path: Path, source: str) -> None:
        """Refuse a session none of whose events is a picture.

        Raises:
            BrainhiveError: with names of both sides.
        """
        rows, left_over = matched
        if rows:
            return

        # no event has a name of the table or data set, or the table names pictures of
        # another data set
        unnamed, without = (left_over.get(what, ()) for what in (UNNAMED, NO_PICTURE))
        known, where = [*(self.table or self.image_ids)], self._where
        if without and self.table:
            known, where = [*self.image_ids], f"the data set, by {self._where}"
        names = summarise_names([*unnamed, *without])
        raise BrainhiveError(
            f"{path}: none of its events ({source}) is in {where}, of {names}",
            f"it has: {', '.join(known[:3])} …; preparation.stimuli.root=FOLDER, "
            "preparation.events=TABLE, preparation.column=NAME or "
            "preparation.stim_channel=NAME",
        )


def _read_table(path: Path) -> dict[str, str]:
    """Read the picture of each event; rows that lack either are skipped."""
    columns, rows = read_table(path)
    if absent := [name for name in COLUMNS if name not in columns]:
        hint = f"its first line: {', '.join(columns)}; needed: event, picture"
        raise BrainhiveError(f"{path} has no column {' and '.join(absent)}", hint)

    # one picture for each event
    table: dict[str, str] = {}
    for row in rows:
        event, picture = row["event"], row["picture"]
        if (
            event not in ABSENT
            and picture not in ABSENT
            and table.setdefault(event, picture) != picture
        ):
            raise BrainhiveError(
                f"{path}: event {event} has pictures {table[event]} and {picture}"
            )
    if not table:
        raise BrainhiveError(
            f"{path} has no rows", "a line for each event: its name, its picture"
        )
    return table
