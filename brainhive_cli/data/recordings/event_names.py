"""Names of events: pictures that the markers of a recording or a stream stand for."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.files import is_file
from brainhive_cli.core.only_match import choose_only
from brainhive_cli.data.files.ids import (
    match_names,
    plain_name,
    read_category,
    summarise_names,
    table_text,
)
from brainhive_cli.data.recordings.headers import Header
from brainhive_cli.data.recordings.ledger import Ledger
from brainhive_cli.data.recordings.tables import EMPTY_CELLS, read_table

COLUMNS = ("event", "picture")
STIMULI = "stimuli/stimuli.tsv"
"""Table of the pictures of a BIDS data set (draft extension 44)."""
EVENT_TABLES = ("events.csv", "events.tsv", STIMULI)
"""Names of the table of events in the folder of the recordings."""
ORIGINAL = re.compile(r'original filename "([^"/]+)"')
"""File of a picture at its source, in the descriptions of NEMAR's nm000232."""
TYPE = re.compile(r"(Stimulus|Comment|Response)/")
"""Type of a marker, which BrainVision's reader puts before its name."""
CODE = re.compile(r"S *(\d+)")
"""Code of a trigger as BrainVision writes it."""
RESPONSE = re.compile(r"R *\d+")
"""Code of a response as BrainVision writes it: the letter says its type."""
ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")
"""Leading zeros of a number in a name."""
REASON = "without an event or a picture"
"""Why rows of a table are left out."""
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
        ledger: Rows of the table that are left out.

    Raises:
        BrainhiveError: if the table lacks a column, or gives an event, or two whose
            numbers differ in leading zeros alone, two pictures.
    """

    def __init__(
        self, path: Path | None, image_ids: Sequence[str], is_exact: bool = False
    ) -> None:
        self.path = path
        self.image_ids = image_ids
        self._is_exact = is_exact
        # whether events may be called by their pictures, as stim_file beside a
        # stimuli.tsv, which lists the pictures of all sessions
        self._may_be_pictures = path is None
        self.ledger = Ledger()
        # names by which the data set may have a picture, the usual one last
        self._candidates = dict[str, list[str]]()
        # events of the table, by their names without leading zeros
        self._plain_keys = dict[str, str]()
        self.table = None if path is None else self._read_table(path)
        self._pictures = self.table or {}
        self._require_zeros()

    def _read_table(self, path: Path) -> dict[str, str]:
        """Read the picture of each event; rows that lack either are skipped."""
        columns, rows = read_table(path)
        is_stimuli = path.name == "stimuli.tsv" and "event" not in columns
        self._may_be_pictures = is_stimuli
        absent = [name for name in COLUMNS if name not in columns]
        if absent and not is_stimuli:
            raise BrainhiveError(
                f"{path} has no column {' and '.join(absent)}",
                f"its first line: {', '.join(columns)}; needed: event, picture",
            )

        # one picture for each event, whatever zeros its numbers begin with
        read = self._read_stimulus if is_stimuli else itemgetter(*COLUMNS)
        table: dict[str, str] = {}
        for event, picture in map(read, rows):
            if event in EMPTY_CELLS or picture in EMPTY_CELLS:
                # a row without both is blank
                is_row = not {event, picture} <= {*EMPTY_CELLS}
                self.ledger.leave_out("rows", REASON, path.name, int(is_row))
                continue
            table.setdefault(event, picture)
            first = self._plain_keys.setdefault(_plain_key(event), event)
            if table[first] != picture:
                name = event if event == first else f"{first} or {event}"
                raise BrainhiveError(
                    f"{path}: event {name} has pictures {table[first]} and {picture}"
                )
        if not table and not is_stimuli:
            raise BrainhiveError(
                f"{path} has no rows", "a line for each event: its name, its picture"
            )
        return table

    def _read_stimulus(self, row: Mapping[str, str]) -> tuple[str, str]:
        """Read event and picture of a row of a stimuli.tsv."""
        event = row.get("stimulus_id", "")
        path = row.get("filename", "")
        # the draft names a file by its id and type, where no column does
        if path in EMPTY_CELLS:
            path = f"{event}_{row.get('type', 'image')}"
        is_absent = row.get("present", "").lower() == "false"
        picture = f"{path} (present: false)" if is_absent else path
        # files of an archive may have the names of their source
        source = ORIGINAL.search(row.get("description", ""))
        sources = [f"{path.rpartition('/')[0]}/{source[1]}"] if source else []
        self._candidates[picture] = [*sources, path]
        return event, picture

    def _require_zeros(self) -> None:
        """Refuse a table whose names a spreadsheet may have rid of leading zeros: of
        two pictures 7 and 0007, it would name the first for both.

        Raises:
            BrainhiveError: naming the pictures, if the table writes no leading zero.
        """
        names = [name for name in self._pictures.values() if name.isdecimal()]
        if any(name.startswith("0") and name != "0" for name in names):
            return
        numbered: dict[int, list[str]] = {}
        for image_id in self.image_ids:
            stem = image_id.rpartition("/")[2]
            if stem.isdecimal():
                numbered.setdefault(int(stem), []).append(image_id)
        for name in names:
            if len(image_ids := numbered.get(int(name), [])) > 1:
                raise BrainhiveError(
                    f"{self.path}: picture {name} may be {' or '.join(image_ids)}: "
                    "spreadsheets drop leading zeros",
                    "name pictures by their paths: train/cat/0007.jpg",
                )

    def require_pictures(self, pictures: str) -> None:
        """Refuse a table that names none of the pictures.

        Args:
            pictures: What they are called, for the message.

        Raises:
            BrainhiveError: if it names none, or a name could mean several.
        """
        # one picture that is there is enough
        if self.count_pictures():
            return
        names = summarise_names([*dict.fromkeys(self._pictures.values())])
        raise BrainhiveError(
            f"{self.path}: none of its pictures is in {pictures}, of {names}",
            f"its pictures are called {', '.join(self.image_ids[:3])} …",
        )

    def count_pictures(self) -> int:
        """Count these pictures that the table names."""
        return len({*self._match(self._pictures.values()).values()})

    def find_pictures(self, events: Iterable[str]) -> list[str]:
        """Find the events that stand for pictures, be they in the data set or not.

        Raises:
            BrainhiveError: if a name could mean several pictures.
        """
        return [
            event
            for event, (_, row) in self._find(events).items()
            if row is not None or self._find_key(event) in self._pictures
        ]

    def require_codes(self, path: Path) -> None:
        """Refuse a table with two codes that a recording's channel cannot tell apart.

        Args:
            path: The recording: BioSemi's has 17 bits, others have single precision.

        Raises:
            BrainhiveError: naming both codes.
        """
        held: dict[float, str] = {}
        for event in filter(str.isdecimal, self._pictures):
            code = int(event)
            is_bdf = path.suffix.lower() == ".bdf"
            value = float(code % 2**17 if is_bdf else np.float32(code))
            other = held.setdefault(value, event)
            if self._pictures[other] != self._pictures[event]:
                raise BrainhiveError(
                    f"{path} has codes {other} and {event} of {self.path} as one: its "
                    f"trigger channel holds {17 if is_bdf else 24} bits",
                    "name pictures in an events.tsv",
                )

    def find_row(self, event: str) -> int | None:
        """Find the row of one event's picture; None where it has none.

        A response counts only if the table lists it with its type.

        Raises:
            BrainhiveError: if the name could mean several pictures.
        """
        if self._find_type(event) == "Response":
            return None
        return next((row for _, row in self._find([event]).values()), None)

    def name_pictures(self, events: Sequence[str]) -> list[str]:
        """Name the picture of each event, by its image id if the data set has it."""
        pictures = self._find(events)
        named = (pictures.get(event, (event, None)) for event in events)
        return [name if row is None else self.image_ids[row] for name, row in named]

    def _find(self, events: Iterable[str]) -> dict[str, tuple[str, int | None]]:
        """Find picture and row (None where the data set lacks it) of the events that
        the table has.

        A name without a type stands for the markers of one type: stimuli if there are
        any, else comments or responses.

        Raises:
            BrainhiveError: if both comments and responses have such names.
        """
        pictures = {
            event: self._pictures.get(key, key)
            for event in dict.fromkeys(events)
            if (key := self._find_key(event)) is not None
        }
        rows = self._match(pictures.values())
        types = {event: self._find_type(event) for event in pictures}
        found = {types[name] for name, picture in pictures.items() if picture in rows}
        if "Stimulus" not in found:
            choose_only(
                {f"its {name}s": name for name in sorted(found - {""})},
                str(self.path or "the markers of pictures"),
                "preparation.events=TABLE that names markers with their type, as "
                "Comment/1",
            )
        excluded = {"Comment", "Response"} if "Stimulus" in found else set()
        return {
            name: (picture, rows.get(picture))
            for name, picture in pictures.items()
            if types[name] not in excluded
        }

    def _match(self, pictures: Iterable[str]) -> dict[str, int]:
        """Find the rows of those pictures that the data set has. Tables cannot hold
        tabs in names.
        """
        # categories by their names, not by ends of paths
        if self._is_exact:
            known = {
                read_category(name): row for row, name in enumerate(self.image_ids)
            }
            keys = {name: read_category(name) for name in pictures}
            return {name: known[key] for name, key in keys.items() if key in known}
        # the last of its names by which the data set has a picture
        pairs = [
            (picture, table_text(name))
            for picture in dict.fromkeys(pictures)
            for name in self._candidates.get(picture, [picture])
        ]
        names = [name for _, name in pairs]
        known_names = map(table_text, self.image_ids)
        rows, _ = match_names(names, [*known_names])
        matched = zip(pairs, rows.tolist(), strict=True)
        return {picture: row for (picture, _), row in matched if row >= 0}

    def _find_key(self, event: str) -> str | None:
        """Find an event in the table: its name, without its type, or its code alone."""
        plain = _drop_type(event)
        code = CODE.fullmatch(plain)
        # as it is, without its type, and the number of a code: 7 of `S  7`
        keys = map(self._find_listed, (event, plain, code[1] if code else plain))
        return next(filter(None, keys), event if self._may_be_pictures else None)

    def _find_listed(self, name: str) -> str | None:
        """Find a name in the table, whatever zeros its numbers begin with."""
        if name in self._pictures:
            return name
        return self._plain_keys.get(_plain_key(name))

    def _find_type(self, event: str) -> str:
        """Return the type of a marker; empty if the table lists it with its type, or
        its name says the type.
        """
        match = TYPE.match(event)
        is_explicit = self._find_listed(event) or RESPONSE.fullmatch(_drop_type(event))
        return "" if match is None or is_explicit else match[1]

    def match(self, headers: Iterable[Header]) -> Matched:
        """Match the events of recordings with pictures.

        Raises:
            BrainhiveError: if a name could mean several pictures.
        """
        events = [name for header in headers for _, name in header.events]
        events += [name for header in headers for name in header.events_without_onset]
        pictures = self._find(events)

        # events and pictures without a match
        known = [pictures[event] for event in events if event in pictures]
        recorded = {*map(self._find_key, pictures)}
        left_over: dict[str, Mapping[str, int] | Sequence[str]] = {
            UNNAMED: Counter(event for event in events if event not in pictures),
            NO_PICTURE: Counter(picture for picture, row in known if row is None),
            UNUSED: []
            if self._may_be_pictures
            else [event for event in self._pictures if event not in recorded],
        }
        return (
            {event: row for event, (_, row) in pictures.items() if row is not None},
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
        unnamed = left_over.get(UNNAMED, ())
        without = left_over.get(NO_PICTURE, ())
        known = [*(self.table or self.image_ids)]
        where = self.path or "the pictures"
        if without and self.table:
            known = [*self.image_ids]
            where = f"the data set, by {self.path}"
        names = summarise_names([*unnamed, *without])
        raise BrainhiveError(
            f"{path}: none of its events ({source}) is in {where}, of {names}",
            f"it has: {', '.join(known[:3])} …; preparation.stimuli.root=FOLDER, "
            "preparation.events=TABLE, preparation.column=NAME or "
            "preparation.stim_channel=NAME",
        )


def find_event_table(root: Path) -> Path | None:
    """Find the table of events in a folder of recordings, or of a BIDS data set; None
    where there is none.
    """
    return next(filter(is_file, map(root.joinpath, EVENT_TABLES)), None)


def _drop_type(event: str) -> str:
    return " ".join(TYPE.sub("", event, count=1).split())


def _plain_key(name: str) -> str:
    return ZEROS.sub("", " ".join(plain_name(name).split()))
