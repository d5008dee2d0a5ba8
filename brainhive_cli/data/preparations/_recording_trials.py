"""Which picture each event of a recording stands for, which events become trials, and why others do not."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.preparations._recording_mne import Header, read_table
from brainhive_cli.data.preparations._steps import Cutting
from brainhive_cli.data.stores.ids import match_names, summarise_names

COLUMNS = ("event", "picture")
PREFIX = re.compile(r"(Stimulus|Comment|Response)/")
"""What BrainVision's reader puts before the name of a marker."""
CODE = re.compile(r"S *(\d+)")
"""How BrainVision writes the code of a trigger."""


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
    def left_over(self) -> dict[str, Mapping[str, int] | Sequence[str]]:
        """What is left over, by what it is in words."""
        groups: dict[str, Mapping[str, int] | Sequence[str]] = {
            "events that the table does not have": dict(self.unnamed),
            "pictures of events that the data set does not have": dict(self.without_picture),
            "events of the table that were not recorded": list(self.unused),
        }
        return {what: names for what, names in groups.items() if names}


@dataclass(frozen=True)
class EventNames:
    """What events stand for.

    Attributes:
        table: Name of an event to its picture; None where events are called by their pictures.
        image_ids: Of the data set.
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
            if event and picture and table.setdefault(event, picture) != picture:
                raise BrainhiveError(f"{path}: event {event} has pictures {table[event]} and {picture}")
        if not table:
            raise BrainhiveError(f"{path} has no rows", "a line for each event: its name, its picture")
        return cls(table, image_ids, str(path))

    def match(self, headers: Iterable[Header]) -> Matched:
        """Match the events of recordings with pictures.

        Raises:
            BrainhiveError: if a name could mean several pictures.
        """
        counts = Counter(name for header in headers for _, name in header.events)
        keys = {event: self._key(event) for event in counts}
        table = {key: key for key in keys.values() if key} if self.table is None else self.table
        pictures = list(dict.fromkeys(table.values()))
        matches = match_names(pictures, self.image_ids, each_once=False).rows.tolist()
        rows = dict(zip(pictures, matches, strict=True))
        picture_of = {event: table[key] for event, key in keys.items() if key is not None}
        without: Counter[str] = Counter()
        for event, picture in picture_of.items():
            if rows[picture] < 0:
                without[picture] += counts[event]
        return Matched(
            {event: rows[picture] for event, picture in picture_of.items() if rows[picture] >= 0},
            {event: count for event, count in counts.items() if event not in picture_of},
            without,
            [event for event in table if event not in {*keys.values()}],
        )

    def _key(self, event: str) -> str | None:
        """Find an event in the table: as it is, without BrainVision's prefix, or by its code alone."""
        if self.table is None:
            return event
        plain = " ".join(PREFIX.sub("", event, count=1).split())
        code = CODE.fullmatch(plain)
        names = (event, plain, code[1].lstrip("0") or "0" if code else plain)
        return next((name for name in names if name in self.table), None)

    def require_match(self, matched: Matched, path: Path, source: str) -> None:
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
class RecordingTrials:
    """The trials of one recording.

    Attributes:
        onsets: [n] samples.
        rows: [n] of their pictures among all.
    """

    path: Path
    onsets: NDArray[np.int64]
    rows: NDArray[np.int64]

    def select(self, rows: NDArray[np.int64]) -> "RecordingTrials":
        """Keep the trials of some pictures."""
        is_kept = np.isin(self.rows, rows)
        return RecordingTrials(self.path, self.onsets[is_kept], self.rows[is_kept])


def choose_trials(
    headers: Mapping[Path, Header],
    names: EventNames,
    by_split: Mapping[str, NDArray[np.int64]],
    cutting: Cutting,
) -> tuple[list[RecordingTrials], dict[str, Counter[str]]]:
    """Choose the events of pictures whose trials lie in the recording, outside of BAD spans, one at a time.

    Args:
        headers: Of the recordings of one session.
        names: What events stand for.
        by_split: The rows of each split among all pictures.
        cutting: How trials are cut.

    Returns:
        The trials of each recording, and by split how many others there are, by reason. Events without a
        picture count as those of the first split.

    Raises:
        BrainhiveError: if nothing is left.
    """
    first, header = next(iter(headers.items()))
    matched = names.match(headers.values())
    names.require_match(matched, first, header.events_from)
    split_of = {row: split for split, rows in by_split.items() for row in rows.tolist()}
    dropped: dict[str, Counter[str]] = {split: Counter() for split in by_split}
    without = {"not in the table": matched.unnamed, "no such picture": matched.without_picture}
    for reason, events in without.items():
        if events:
            next(iter(dropped.values()))[reason] = sum(events.values())
    trials = []
    for path, header in headers.items():
        pairs = sorted({(at, matched.rows[name]) for at, name in header.events if name in matched.rows})
        onsets, rows = np.array(pairs, np.int64).reshape(-1, 2).T
        reasons = _reasons_to_drop(header, cutting, onsets)
        for row, reason in zip(rows.tolist(), reasons, strict=True):
            if reason:
                dropped[split_of[row]][reason] += 1
        is_kept = np.array([not reason for reason in reasons], bool)
        trials.append(RecordingTrials(path, onsets[is_kept], rows[is_kept]))
    if not sum(len(recording.onsets) for recording in trials):
        counts = [f"{count} {reason}" for split in dropped.values() for reason, count in split.items()]
        raise BrainhiveError(
            f"{first} has no whole trial: {', '.join(counts)}", "preparation.epoch_ms=[start, stop]"
        )
    return trials, dropped


def _reasons_to_drop(header: Header, cutting: Cutting, onsets: NDArray[np.int64]) -> Sequence[str]:
    """Say why each trial is dropped; empty where it is not."""
    start, stop = cutting.span
    is_whole = cutting.fits(onsets, header.samples)
    is_simultaneous = np.isin(onsets, onsets[1:][np.diff(onsets) == 0])
    reasons = []
    for onset, whole, simultaneous in zip(onsets.tolist(), is_whole, is_simultaneous, strict=True):
        if simultaneous:
            reasons.append("two pictures at once")
        elif not whole:
            reasons.append("beyond the recording")
        else:
            spans = ((low - stop, high - start, text) for low, high, text in header.bad_spans)
            reasons.append(next((text for low, high, text in spans if low <= onset <= high), ""))
    return reasons
