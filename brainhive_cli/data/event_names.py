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
STIMULI = "stimuli/stimuli.tsv"
"""Table of the pictures of a BIDS data set (draft extension 44)."""
TABLES = ("events.csv", "events.tsv", STIMULI)
"""Names of the table of events in the folder of the recordings."""
ORIGINAL = re.compile(r'original filename "([^"/]+)"')
"""File of a picture at its source, in the descriptions of NEMAR's nm000232."""
PREFIX = re.compile(r"(Stimulus|Comment|Response)/")
"""Prefix that BrainVision's reader puts before the name of a marker."""
CODE = re.compile(r"S *(\d+)")
"""Code of a trigger as BrainVision writes it."""
ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")
"""Leading zeros of a number in a name."""
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
        BrainhiveError: if the table lacks a column, or gives an event, or two whose
            numbers differ in leading zeros alone, two pictures.
    """

    def __init__(
        self, path: Path | None, image_ids: Sequence[str], is_exact: bool = False
    ) -> None:
        self.path, self.image_ids, self._is_exact = path, image_ids, is_exact
        self._where = "the pictures" if path is None else str(path)
        # names of events without leading zeros; of a stimuli.tsv, paths of pictures by
        # their names at the source, and notes
        self._plain_keys, self._is_stimuli = dict[str, str](), False
        self._originals, self._notes = dict[str, str](), dict[str, str]()
        self.table = None if path is None else self._read_table(path)
        self._pictures = self.table or {}

    def _read_table(self, path: Path) -> dict[str, str]:
        """Read the picture of each event; rows that lack either are skipped."""
        columns, rows = read_table(path)
        self._is_stimuli = path.name == "stimuli.tsv" and "event" not in columns
        for row in rows if self._is_stimuli else ():
            row["event"], picture = row.get("stimulus_id", ""), row.get("filename", "")
            # the draft names a file by its id and type, where no column does
            if picture in ABSENT:
                picture = f"{row['event']}_{row.get('type', 'image')}"
            row["picture"] = picture
            if match := ORIGINAL.search(row.get("description", "")):
                self._originals[picture] = f"{picture.rpartition('/')[0]}/{match[1]}"
            if row.get("present", "").lower() == "false":
                self._notes[picture] = f"{picture} (present: false)"
        absent = [name for name in COLUMNS if name not in columns]
        if absent and not self._is_stimuli:
            hint = f"its first line: {', '.join(columns)}; needed: event, picture"
            raise BrainhiveError(f"{path} has no column {' and '.join(absent)}", hint)

        # one picture for each event, whatever zeros its numbers begin with
        table: dict[str, str] = {}
        for row in rows:
            event, picture = row["event"], row["picture"]
            if event in ABSENT or picture in ABSENT:
                continue
            table.setdefault(event, picture)
            first = self._plain_keys.setdefault(_plain_key(event), event)
            if table[first] != picture:
                name = event if event == first else f"{first} or {event}"
                raise BrainhiveError(
                    f"{path}: event {name} has pictures {table[first]} and {picture}"
                )
        if not table and not self._is_stimuli:
            raise BrainhiveError(
                f"{path} has no rows", "a line for each event: its name, its picture"
            )
        return table

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
        row = self._match([self._pictures.get(key, key)])[0]
        return row if row >= 0 else None

    def name_pictures(self, events: Iterable[str]) -> list[str]:
        """Name the picture of each event, by its image id if the data set has it."""
        keys = [self._find_key(event) or event for event in events]
        pictures = [self._pictures.get(key, key) for key in keys]
        return [
            self.image_ids[row] if row >= 0 else self._notes.get(picture, picture)
            for row, picture in zip(self._match(pictures), pictures, strict=True)
        ]

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
        # files of an archive may have the names of their source
        if self._originals:
            written = [self._originals.get(name, name) for name in pictures]
            originals, _ = match_names(written, known, each_once=False)
            rows[rows < 0] = originals[rows < 0]
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
        keys = (
            name if name in self.table else self._plain_keys.get(_plain_key(name))
            for name in (event, plain, code[1] if code else plain)
        )
        # by a stimuli.tsv, events may be called by pictures, too: stim_file
        return next(filter(None, keys), event if self._is_stimuli else None)

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
        picture_of = {
            event: self._pictures.get(key, key)
            for event, key in keys.items()
            if key is not None
        }
        pictures = list(dict.fromkeys(picture_of.values()))
        rows = dict(zip(pictures, self._match(pictures), strict=True))

        # events and pictures without a match
        without: Counter[str] = Counter()
        for event, picture in picture_of.items():
            if rows[picture] < 0:
                without[self._notes.get(picture, picture)] += counts[event]
        left_over: dict[str, Mapping[str, int] | Sequence[str]] = {
            UNNAMED: {
                event: count
                for event, count in counts.items()
                if event not in picture_of
            },
            NO_PICTURE: dict(without),
            # a stimuli.tsv lists the pictures of all sessions
            UNUSED: [
                event
                for event in self._pictures
                if not self._is_stimuli and event not in {*keys.values()}
            ],
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


def find_table(root: Path) -> Path | None:
    """Find the table of events in a folder of recordings, or of a BIDS data set; None
    where there is none.
    """
    return next((path for name in TABLES if (path := root / name).is_file()), None)


def _plain_key(name: str) -> str:
    return ZEROS.sub("", plain_name(name))
