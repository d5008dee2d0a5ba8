"""Pictures that are named by the events of a recording or a stream."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from brainhive_cli.core.base import BrainhiveError, Line, choose_only
from brainhive_cli.core.files import is_file, walk
from brainhive_cli.data.files import (
    find_label,
    match_names,
    normalise_name,
    read_session,
    summarise_names,
    to_table_cell,
)
from brainhive_cli.data.recordings.account import Account
from brainhive_cli.data.recordings.files import DERIVED_FOLDERS
from brainhive_cli.data.recordings.headers import Header
from brainhive_cli.data.recordings.tables import (
    EMPTY_CELLS,
    SAVE_WORKBOOK_HINT,
    WORKBOOK_ENDINGS,
    read_table,
    select_rows,
)

COLUMNS = ("event", "picture")
STIMULI_TABLE = "stimuli/stimuli.tsv"
"""Table of the pictures of a BIDS data set (draft extension 44)."""
EVENT_TABLES = ("events.csv", "events.tsv", STIMULI_TABLE)
"""Paths of the table of events in the folder of the recordings."""
MARKER_TYPE = re.compile(r"(Stimulus|Comment|Response)/")
"""Type of a marker, which mne's reader of BrainVision files puts before its name."""
IS_ABSENT = " (present: false)"
"""End of the name of a picture that a stimuli.tsv says to be absent."""
# kinds of events and pictures without a match, as overviews and stores call them
NOT_IN_TABLE = "events that the table does not have"
NOT_IN_DATASET = "pictures of events that the data set does not have"
NOT_RECORDED = "events of the table that were not recorded"


EventMatch = tuple[Mapping[str, int], Mapping[str, Mapping[str, int] | Sequence[str]]]
"""Row of the picture of each event, and events and pictures without a match by kind.
Recorded events have their counts.
"""


class EventNames:
    """Pictures that events stand for.

    Args:
        path: Table of events and pictures, or None if events have names of pictures.
        image_ids: Image ids of the data set.
        are_categories: If True, whole names must match. Else ends of paths match too.
        labels: Label of the person and session, such as {"sub": "01"}, which select
            rows.

    Attributes:
        path: Path of the table, or None.
        table: Picture of each event in the table, or None.
        account: Counts of the rows that are left out.

    Raises:
        BrainhiveError: if the table lacks a column, if an event (up to leading zeros)
            has two pictures, or if pictures may have lost leading zeros.
    """

    def __init__(
        self,
        path: Path | None,
        image_ids: Sequence[str],
        are_categories: bool = False,
        labels: Mapping[str, str] = {},
    ) -> None:
        self.path = path
        self.image_ids = image_ids
        self.are_categories = are_categories
        self._labels = labels
        # with a stimuli.tsv, events may have names of pictures (stim_file) too
        self._may_be_pictures = path is None
        self.account = Account()
        # events that the table lists without a picture
        self._blank_events: set[str] = set()
        # rows of pictures that were compared with the data set, or None
        self._row_of_picture: dict[str, int | None] = {}
        # possible names of a picture in the data set, the preferred name last
        self._candidates: dict[str, list[str]] = {}
        # events of the table by their names without leading zeros
        self._plain_keys: dict[str, str] = {}
        self.table = None if path is None else self._read_table(path)
        self._pictures = self.table or {}
        # codes that are half of an event
        self._half_codes: set[str] = set()
        # Event of two successive codes, for studies with more pictures than codes.
        code_pair = re.compile(r"\d+/\d+")
        for pair in filter(code_pair.fullmatch, self._pictures):
            self._half_codes.update(pair.split("/"))
        self._require_zeros()

    def require_pictures(self, pictures: str) -> None:
        """Raise an error if the table names no picture of the data set `pictures`."""
        if self.count_pictures():
            return
        names = summarise_names(list(dict.fromkeys(self._pictures.values())))
        raise BrainhiveError(
            f"{self.path} names no picture of {pictures}. It names {names}",
            f"use the names of the data set: {', '.join(self.image_ids[:3])} …",
        )

    def count_pictures(self) -> int:
        """Count the pictures of the data set that the table names."""
        return len(set(self._match_pictures(self._pictures.values()).values()))

    def join_codes(
        self, events: Sequence[tuple[int, str]], rate_hz: float
    ) -> tuple[tuple[int, str], ...]:
        """Join two successive codes that name a picture together in the table.

        Args:
            events: Sample and name of each event, in the order of time.
            rate_hz: Sampling rate.

        Returns:
            Events, in which the event `12/200` replaces the codes 12 and 200.
        """
        joined: list[tuple[int, str]] = []
        for sample, name in events:
            # Longest time between the codes of a pair. A screen at 60 Hz sends the
            # second code two frames after the first, in 0.033 s.
            if joined and sample - joined[-1][0] <= 0.05 * rate_hz:
                pair = f"{read_code(joined[-1][1])}/{read_code(name)}"
                if self._find_table_event(pair):
                    joined[-1] = (joined[-1][0], pair)
                    continue
            joined.append((sample, name))
        return tuple(joined)

    def find_pictures(self, events: Iterable[str]) -> list[str]:
        """Return the events that stand for pictures, in the data set or not.

        The codes of a pair count too.

        Raises:
            BrainhiveError: if a name fits several pictures.
        """
        picture_events = [
            event for event in events if read_code(event) in self._half_codes
        ]
        for event, (_, row) in self._look_up(events).items():
            if row is not None or self._find_key(event) in self._pictures:
                picture_events.append(event)
        return picture_events

    def find_row(self, event: str) -> int | None:
        """Return the row of an event's picture, or None.

        A response counts only if the table lists it with its type.

        Raises:
            BrainhiveError: if the name fits several pictures.
        """
        if self._read_type(event) == "Response":
            return None
        _, row = self._look_up([event]).get(event, ("", None))
        return row

    def name_pictures(self, events: Sequence[str]) -> list[str]:
        """Return the image id of each event, or else its name in table or recording."""
        pictures = self._look_up(events)
        names = []
        for event in events:
            name, row = pictures.get(event, (event, None))
            names.append(name if row is None else self.image_ids[row])
        return names

    def name_events(self, events: Iterable[tuple[int, str]]) -> dict[str, str]:
        """Return the image id of each event that shows a picture of the data set.

        Args:
            events: Sample and name of each event.

        Raises:
            BrainhiveError: if a name fits several pictures.
        """
        pictures = self._look_up(name for _, name in events)
        return {
            name: self.image_ids[row]
            for name, (_, row) in pictures.items()
            if row is not None
        }

    def match(self, headers: Iterable[Header]) -> EventMatch:
        """Match the events of recordings with pictures.

        Raises:
            BrainhiveError: if a name fits several pictures.
        """
        events = []
        events_without_onset: list[str] = []
        for header in headers:
            for _, name in header.events:
                events.append(name)
            events_without_onset += header.events_without_onset
        events += events_without_onset
        pictures = self._look_up(events)

        # count events and pictures without a match
        rows = {}
        unknown_events = Counter[str]()
        unknown_pictures = Counter[str]()
        for event in events:
            if event not in pictures:
                unknown_events[event] += 1
                continue
            picture, row = pictures[event]
            if row is None:
                unknown_pictures[picture] += 1
            else:
                rows[event] = row
        unrecorded_events = []
        if not self._may_be_pictures:
            recorded_keys = set(map(self._find_key, pictures))
            unrecorded_events = [
                event for event in self._pictures if event not in recorded_keys
            ]
        unmatched: dict[str, Mapping[str, int] | Sequence[str]] = {
            NOT_IN_TABLE: unknown_events,
            NOT_IN_DATASET: unknown_pictures,
            NOT_RECORDED: unrecorded_events,
        }
        return rows, {kind: names for kind, names in unmatched.items() if names}

    def is_listed(self, event: str) -> bool:
        """Return True if the table lists an event with a picture."""
        return self._find_key(event) in self._pictures

    def is_blank(self, event: str) -> bool:
        """Return True if the table lists an event without a picture, or as absent."""
        picture = self._pictures.get(self._find_key(event) or "", "")
        is_empty = strip_zeros(read_code(event)) in self._blank_events
        return is_empty or picture.endswith(IS_ABSENT)

    def require_match(self, match: EventMatch, path: Path, source: str) -> None:
        """Raise an error about the events of a recording if no picture is matched.

        Args:
            match: Result of `match`.
            path: Path of the recording.
            source: Source of its events.
        """
        rows, unmatched = match
        if rows:
            return

        # the table lacks the events, or names pictures of another data set
        unknown_pictures = list(unmatched.get(NOT_IN_DATASET, ()))
        unknown_events = list(unmatched.get(NOT_IN_TABLE, ()))
        names = summarise_names(unknown_events + unknown_pictures)
        valid_names = list(self.table or self.image_ids)
        target = str(self.path or "the data set")
        if unknown_pictures and self.table:
            valid_names = list(self.image_ids)
            target = f"the data set (by {self.path})"
        table = "Write a table (preparation.events=TABLE)"
        if self.path is None:
            table = f"{Line('init')} lists the events in a table to complete"
        problem = f"no event of {path} is in {target}. Its events ({source}): {names}"

        # events of a category design name the folders of the pictures
        folders = {PurePosixPath(image_id).parent.name for image_id in self.image_ids}
        categories = sorted(folders.intersection(unknown_events + unknown_pictures))
        if len(categories) > 1:
            raise BrainhiveError(
                f"{problem}. They are folders of pictures",
                "set 'preparation.stimuli={kind: categories, names: "
                f"[{', '.join(categories)}]}}'",
            )
        raise BrainhiveError(
            problem,
            f"expected are names such as {', '.join(valid_names[:3])}. {table}, or set "
            "preparation.stimuli.root, preparation.column or preparation.stim_channel",
        )

    def _read_table(self, path: Path) -> dict[str, str]:
        """Read the picture of each event. Incomplete rows are left out."""
        categories = self.image_ids if self.are_categories else ()
        columns, all_rows = read_table(path, categories)
        rows, _ = select_rows(path, columns, all_rows, {}, self._labels)
        is_stimuli = path.name == "stimuli.tsv" and "event" not in columns
        self._may_be_pictures = is_stimuli
        absent_columns = [name for name in COLUMNS if name not in columns]
        if absent_columns and not is_stimuli:
            raise BrainhiveError(
                f"{path} lacks the column {' and '.join(absent_columns)}. It has: "
                f"{', '.join(columns) or 'none'}",
                "write event,picture as its first line",
            )

        table: dict[str, str] = {}
        incomplete_events = []
        for row in rows:
            if is_stimuli:
                event, picture = self._read_stimulus(row)
            else:
                event, picture = row["event"], row["picture"]
            if event in EMPTY_CELLS or picture in EMPTY_CELLS:
                is_blank = event in EMPTY_CELLS and picture in EMPTY_CELLS
                count = int(not is_blank)
                source = f"{path.name} ({event or picture})"
                self.account.set_aside(
                    "rows", "without an event or a picture", source, count
                )
                incomplete_events += [event or picture] * count
                self._blank_events.add(strip_zeros(read_code(event)))
                continue
            # events that differ in leading zeros must have the same picture
            table.setdefault(event, picture)
            first_event = self._plain_keys.setdefault(strip_zeros(event), event)
            if table[first_event] != picture:
                is_same = event == first_event
                names = event if is_same else f"{first_event} or {event}"
                raise BrainhiveError(
                    f"{path}: event {names} has two pictures, {table[first_event]} and "
                    f"{picture}",
                    "keep one line for each event",
                )
        if incomplete_events and not table and not is_stimuli:
            raise BrainhiveError(
                f"{path} names no picture yet. Events without a picture, "
                f"{summarise_names(incomplete_events)}",
                "write the picture of each event behind the comma, as in "
                f"{incomplete_events[0]},{self.image_ids[0]}. Events that stay without "
                "a picture are left out",
            )
        if not table and not is_stimuli:
            raise BrainhiveError(
                f"{path} has no rows",
                "write a line for each event: its name, its picture",
            )
        return table

    def _read_stimulus(self, row: Mapping[str, str]) -> tuple[str, str]:
        """Read the event and the picture of a row of a stimuli.tsv."""
        event = row.get("stimulus_id", "")
        path = row.get("filename", "")
        # without a filename, the draft names a file by its id and type
        if path in EMPTY_CELLS:
            path = f"{event}_{row.get('type', 'image')}"
        is_absent = row.get("present", "").lower() == "false"
        picture = f"{path}{IS_ABSENT}" if is_absent else path
        # the data set may use the names of the source
        names = [path]
        # Name of a picture at its source, in the descriptions of NEMAR's nm000232.
        original = re.search(
            r'original filename "([^"/]+)"', row.get("description", "")
        )
        if original:
            folder = path.rpartition("/")[0]
            names.insert(0, f"{folder}/{original[1]}")
        self._candidates[picture] = names
        return event, picture

    def _require_zeros(self) -> None:
        """Raise an error if a spreadsheet may have dropped leading zeros of pictures.

        The picture 7 is ambiguous in a data set with 7 and 0007, unless another
        number in the table has leading zeros.
        """
        numbers = list(filter(str.isdecimal, self._pictures.values()))
        for name in numbers:
            if name.startswith("0") and name != "0":
                return
        ids_of_number: dict[int, list[str]] = {}
        for image_id in self.image_ids:
            stem = image_id.rpartition("/")[2]
            if stem.isdecimal():
                ids_of_number.setdefault(int(stem), []).append(image_id)
        for name in numbers:
            image_ids = ids_of_number.get(int(name), [])
            if len(image_ids) > 1:
                raise BrainhiveError(
                    f"{self.path}: picture {name} may mean {' or '.join(image_ids)}, "
                    "because spreadsheets drop leading zeros",
                    "name pictures by their paths: train/cat/0007.jpg",
                )

    def _look_up(self, events: Iterable[str]) -> dict[str, tuple[str, int | None]]:
        """Look up the picture of each event, and its row or None.

        Events that are not in the table are left out. A name without a type stands for
        stimuli if there are any, else for comments or for responses.

        Raises:
            BrainhiveError: if both comments and responses have such names.
        """
        pictures = {}
        for event in dict.fromkeys(events):
            key = self._find_key(event)
            if key is not None:
                pictures[event] = self._pictures.get(key, key)
        rows = self._match_pictures(pictures.values())
        # mne joins the names of events at one sample
        for picture in set(pictures.values()) - rows.keys():
            if "/" in picture and not self.are_categories:
                parts = drop_type(picture).split("/")
                part_rows = set(self._match_pictures(parts).values())
                if len(part_rows) == 1:
                    rows[picture] = part_rows.pop()
        types = {}
        matched_types = set()
        for event, picture in pictures.items():
            types[event] = self._read_type(event)
            if picture in rows:
                matched_types.add(types[event])

        excluded_types = set()
        if "Stimulus" in matched_types:
            excluded_types = {"Comment", "Response"}
        else:
            choose_only(
                {f"its {name}s": name for name in sorted(matched_types - {""})},
                str(self.path or "the markers of pictures"),
                "preparation.events=TABLE that names markers with their type, such as "
                "Comment/1",
            )
        matches = {}
        for event, picture in pictures.items():
            if types[event] not in excluded_types:
                matches[event] = (picture, rows.get(picture))
        return matches

    def _match_pictures(self, pictures: Iterable[str]) -> dict[str, int]:
        """Find the rows of pictures that the data set has, each once.

        Tabs count as spaces.
        """
        # match all names of each new picture. The last match wins
        pairs = []
        distinct_pictures = list(dict.fromkeys(pictures))
        for picture in distinct_pictures:
            if picture not in self._row_of_picture:
                for name in self._candidates.get(picture, [picture]):
                    pairs.append((picture, to_table_cell(name)))
        if pairs:
            rows, _ = match_names(
                [name for _, name in pairs],
                list(map(to_table_cell, self.image_ids)),
                are_categories=self.are_categories,
            )
            for (picture, _), row in zip(pairs, rows.tolist(), strict=True):
                earlier_row = self._row_of_picture.get(picture)
                self._row_of_picture[picture] = row if row >= 0 else earlier_row
        known_rows = {name: self._row_of_picture[name] for name in distinct_pictures}
        return {name: row for name, row in known_rows.items() if row is not None}

    def _find_key(self, event: str) -> str | None:
        """Find an event in the table by its name, with or without type, or its code."""
        plain = drop_type(event)
        for name in (event, plain, read_code(event)):
            key = self._find_table_event(name)
            if key:
                return key
        # mne joins the names of events at one sample
        merged = set(map(self._find_table_event, plain.split("/"))) - {None}
        if len(merged) == 1:
            return merged.pop()
        return event if self._may_be_pictures else None

    def _find_table_event(self, name: str) -> str | None:
        """Find a name in the table, up to leading zeros."""
        if name in self._pictures:
            return name
        return self._plain_keys.get(strip_zeros(name))

    def _read_type(self, event: str) -> str:
        """Return the type of a marker, or "" if table or code state the type."""
        match = MARKER_TYPE.match(event)
        if match is None or self._find_table_event(event):
            return ""
        # Code of a response in BrainVision files, whose letter says the type.
        return "" if re.fullmatch(r"R *\d+", drop_type(event)) else match[1]


def find_event_table(root: Path) -> Path | None:
    """Return the table of events in a folder of recordings, or None.

    Raises:
        BrainhiveError: if only a workbook has its name.
    """
    names = {}
    if root.is_dir():
        names = {path.name.lower(): path for path in sorted(root.iterdir())}
    for name in EVENT_TABLES:
        path = names.get(name, root / name)
        if is_file(path):
            return path
    for ending in WORKBOOK_ENDINGS:
        if f"events{ending}" in names:
            raise BrainhiveError(
                f"{names[f'events{ending}']} is a workbook", SAVE_WORKBOOK_HINT
            )
    return None


def find_own_tables(root: Path) -> dict[str, Path]:
    """Find tables with the columns event and picture that hold a person's label.

    Returns:
        Path by label of the person, and of the session if the path has one, such as
        "sub-02" or "sub-02 01".

    Raises:
        BrainhiveError: if two tables have the same labels.
    """
    tables: dict[str, Path] = {}
    for name, _ in walk(root, enters=lambda name: name not in DERIVED_FOLDERS):
        path = root / name
        label = find_label(path, root)
        if path.suffix.lower() not in (".csv", ".tsv") or not label:
            continue
        with path.open("rb") as file:
            columns = re.findall(r"\w+", file.readline(1000).decode("latin-1").lower())
        # a table of trials or of onsets belongs to one file
        is_own = {"event", "picture"} <= set(columns) and "onset" not in columns
        if not is_own or path.stem.lower().endswith("_trials"):
            continue
        key = f"{label} {read_session(path, root)}".strip()
        if key in tables:
            raise BrainhiveError(
                f"{tables[key]} and {path} both list the events of {key}",
                "keep one of them, or name the session in each",
            )
        tables[key] = path
    return tables


def read_code(event: str) -> str:
    """Return the code of a trigger (7 for `Stimulus/S  7`), or the name of an event."""
    plain = drop_type(event)
    # Code of a trigger in files of BrainVision, BIOSIG and ERPLAB (after its bin).
    code = re.fullmatch(r"(?:S *|condition |B\d+\()(\d+)\)?", plain)
    return code[1] if code else plain


def drop_type(event: str) -> str:
    """Remove the type of a marker, and repeated spaces."""
    return " ".join(MARKER_TYPE.sub("", event, count=1).split())


def strip_zeros(name: str) -> str:
    """Remove leading zeros of numbers in a name, and repeated spaces."""
    # Leading zeros of a number in a name.
    return re.sub(r"(?<![\d.])0+(?=\d)", "", " ".join(normalise_name(name).split()))
