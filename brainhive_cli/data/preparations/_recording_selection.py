"""What is kept of recordings: channels, and trials of the pictures that events stand for."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.preparations._recording_files import UNITS, Header, read_table
from brainhive_cli.data.preparations._steps import Cutting
from brainhive_cli.data.stores.ids import match_names, summarise_names
from brainhive_cli.data.stores.recordings import Sensors

MEG = ("mag", "grad")
MONTAGES = ("colin27_1005", "standard_1005")
"""What mne calls the positions of electrodes by their names, since 1.13 and before."""
AROUND = re.compile(r"^EEG[ _-]+|[ _-]+(REF|LE|AVG|AR)$|\.+$", re.IGNORECASE)
"""What EDF files write around the name of an electrode: the type, the reference, padding."""

MIN_GOOD = 4
"""Channels that a sphere is fitted to."""
COLUMNS = ("event", "picture")
PREFIX = re.compile(r"(Stimulus|Comment|Response)/")
"""What BrainVision's reader puts before the name of a marker."""
CODE = re.compile(r"S *(\d+)")
"""How BrainVision writes the code of a trigger."""
UNNAMED = "events that the table does not have"
NO_PICTURE = "pictures of events that the data set does not have"
UNUSED = "events of the table that were not recorded"
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class KeptChannels:
    """The channels of one subject.

    Attributes:
        headers: Of the subject's recordings, in their order.
        types: As mne names them; None for EEG, or else MEG.
        wanted: Names of channels in order; None for all of `types` that no recording marks as bad.
        exclude: Names of channels that are left out.
        interpolate: Whether channels that were marked as bad are kept, and made of the others.
    """

    headers: Mapping[Path, Header]
    types: Sequence[str] | None
    wanted: Sequence[str] | None
    exclude: Sequence[str]
    interpolate: bool = False

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Their names.

        Raises:
            BrainhiveError: if the first recording has none of these types that is good.
        """
        if self.wanted:
            return tuple(name for name in self.wanted if name not in self.exclude)
        bad = () if self.interpolate else (name for header in self.headers.values() for name in header.bad)
        out = {*self.exclude, *bad}
        path, header = self._first
        wanted = self.types or (("eeg",) if "eeg" in header.types else MEG)
        if not {*header.types} & {*wanted}:
            hint = f"preparation.types=…; it has: {', '.join(sorted({*header.types}))}"
            raise BrainhiveError(f"{path} has no channels of type {' or '.join(wanted)}", hint)
        pairs = zip(header.names, header.types, strict=True)
        names = tuple(name for name, kind in pairs if kind in wanted and name not in out)
        if not names:
            problem = f"{path}: all its channels of type {' or '.join(wanted)} are marked as bad or excluded"
            raise BrainhiveError(problem, "preparation.channels='[NAME, …]', or correct the marks")
        return names

    def check(self, path: Path) -> None:
        """Compare a recording with the first.

        Raises:
            BrainhiveError: if it lacks a channel, has another sampling rate, or a bad channel that cannot be
                interpolated.
        """
        (first, first_header), header = self._first, self.headers[path]
        if absent := [name for name in self.names if name not in header.names]:
            hint = f"preparation.exclude=[{','.join(absent)}], or rename one of its {', '.join(header.names)}"
            raise BrainhiveError(f"{path} has no channel {', '.join(absent)}", hint)
        if header.rate_hz != first_header.rate_hz:
            raise BrainhiveError(
                f"{path} has {header.rate_hz:g} Hz, but {first.name} {first_header.rate_hz:g} Hz",
                "resample one of them with mne and save it, or leave it out: preparation.files=PATTERN",
            )
        if not (bad := self.bad_of(path)):
            return
        if {*self.kinds} != {"eeg"}:
            problem = f"{path}: only EEG is interpolated, not {', '.join(bad)}"
            raise BrainhiveError(problem, "preparation.interpolate=false")
        if without := self.without_position:
            raise BrainhiveError(
                f"{path}: {', '.join(bad)} cannot be interpolated, since no position is known of "
                f"{', '.join(without)}",
                f"preparation.exclude=[{','.join([*self.exclude, *without])}], "
                "or preparation.interpolate=false",
            )

    def bad_of(self, path: Path) -> tuple[str, ...]:
        """Name the channels of a recording that are interpolated."""
        return tuple(name for name in self.names if self.interpolate and name in self.headers[path].bad)

    @property
    def unit(self) -> str:
        """The unit of signals that are not whitened.

        Raises:
            BrainhiveError: if they have several.
        """
        units = {UNITS.get(kind, (1.0, "SI"))[1]: kind for kind in self.kinds}
        if len(units) > 1:
            raise BrainhiveError(
                f"channels of types {' and '.join(units.values())} have different units",
                "preparation.types=ONE, or let them be whitened: preparation.whiten=epochs",
            )
        return next(iter(units))

    @cached_property
    def positions(self) -> NDArray[np.float64]:
        """Places [C, 3] in the first recording; of electrodes without, the standard ones, NaN if unknown."""
        if self.has_own_positions or {*self.kinds} != {"eeg"}:
            return self._own_positions
        return standard_positions(self.names)

    @property
    def has_own_positions(self) -> bool:
        """Whether the first recording has the positions of all of them."""
        return bool(np.isfinite(self._own_positions).all())

    @property
    def without_position(self) -> list[str]:
        """Those whose position is not known."""
        unknown = np.flatnonzero(~np.isfinite(self.positions).all(axis=1)).tolist()
        return [self.names[place] for place in unknown]

    @property
    def space(self) -> Sensors:
        """Their names, and places where all are known."""
        return Sensors(self.names, None if self.without_position else self.positions)

    @property
    def kinds(self) -> list[str]:
        """[C] their types."""
        header = self._first[1]
        return [header.types[header.names.index(name)] for name in self.names]

    @property
    def _own_positions(self) -> NDArray[np.float64]:
        header = self._first[1]
        return header.positions[[header.names.index(name) for name in self.names]]

    @property
    def _first(self) -> tuple[Path, Header]:
        return next(iter(self.headers.items()))


def standard_positions(names: Sequence[str]) -> NDArray[np.float64]:
    """Place electrodes [C, 3] by their names in the 10-05 system, in the head frame; NaN if it has none."""
    from mne.channels import get_builtin_montages, make_standard_montage, transform_to_head

    montage = next(name for name in MONTAGES if name in get_builtin_montages())
    standard = transform_to_head(make_standard_montage(montage)).get_positions()["ch_pos"]
    known = {name.lower(): at for name, at in standard.items()}
    return np.array([known.get(plain_name(name).lower(), np.full(3, np.nan)) for name in names])


def plain_name(name: str) -> str:
    """Write an electrode's name without what EDF files put around it: `EEG Fp1-REF`, `Fc5.`."""
    return AROUND.sub("", name.strip())


def interpolate_bad(
    epochs: NDArray[np.float32], names: Sequence[str], bad: Sequence[str], positions: Floats
) -> NDArray[np.float32]:
    """Put interpolated channels between the good ones, by spherical splines as mne makes them.

    All steps from a recording to trials are linear and the same for all channels: the trials are as if the
    recording had been interpolated. Of one epoch with an impulse in each channel, mne makes the weights.

    Args:
        epochs: [n, G, T] of the good channels, in the order of `names`.
        names: [C] of all.
        bad: Those that are interpolated.
        positions: [C, 3] of all, in the head frame.

    Returns:
        [n, C, T].

    Source: Perrin et al. 1989; `mne.Epochs.interpolate_bads`.
    """
    import mne

    is_bad = np.isin(names, bad)
    if (good := int((~is_bad).sum())) < MIN_GOOD:
        problem = f"{good} good channels are too few to interpolate {', '.join(bad)}"
        raise BrainhiveError(problem, "preparation.interpolate=false, or leave out this recording")
    montage = mne.channels.make_dig_montage(dict(zip(names, positions, strict=True)), coord_frame="head")
    info = mne.create_info(list(names), 100.0, "eeg").set_montage(montage, verbose="ERROR")
    info["bads"] = list(bad)
    impulses = mne.EpochsArray(np.eye(len(names))[None], info, verbose="ERROR")
    try:
        impulses.interpolate_bads(verbose="ERROR")
    except (ValueError, RuntimeError) as error:
        problem = f"the positions of {len(names)} channels do not lie on a head: {error}"
        raise BrainhiveError(problem, "preparation.interpolate=false") from error
    weights = impulses.get_data(verbose="ERROR")[0][is_bad][:, ~is_bad].astype(np.float32)  # [bad, G]
    whole = np.empty((len(epochs), len(names), epochs.shape[2]), np.float32)
    whole[:, ~is_bad], whole[:, is_bad] = epochs, weights @ epochs
    return whole


@dataclass(frozen=True)
class Matched:
    """Events matched with pictures.

    Attributes:
        rows: Event to the row of its picture.
        left_over: What is left over on both sides, by what it is in words; events with their counts.
    """

    rows: Mapping[str, int]
    left_over: Mapping[str, Mapping[str, int] | Sequence[str]]


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
        left_over: dict[str, Mapping[str, int] | Sequence[str]] = {
            UNNAMED: {event: count for event, count in counts.items() if event not in picture_of},
            NO_PICTURE: dict(without),
            UNUSED: [event for event in table if event not in {*keys.values()}],
        }
        return Matched(
            {event: rows[picture] for event, picture in picture_of.items() if rows[picture] >= 0},
            {what: names for what, names in left_over.items() if names},
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
        unnamed, without = (matched.left_over.get(what, ()) for what in (UNNAMED, NO_PICTURE))
        if without and self.table is not None:
            raise BrainhiveError(
                f"{path}: no picture of its events, by {self.where}, is in the data set, "
                f"of {summarise_names([*without])}",
                f"it has: {', '.join(self.image_ids[:3])} …; fix the table, or "
                "preparation.stimuli.root=FOLDER",
            )
        what, known = ("pictures", self.image_ids) if self.table is None else ("rows", [*self.table])
        raise BrainhiveError(
            f"{path}: none of its events ({source}) is in {self.where}, "
            f"of {summarise_names([*unnamed, *without])}",
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
    for reason, what in {"not in the table": UNNAMED, "no such picture": NO_PICTURE}.items():
        if isinstance(events := matched.left_over.get(what), Mapping):
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
        problem = f"{first} has no whole trial: {', '.join(counts)}"
        raise BrainhiveError(problem, "preparation.epoch_ms=[start, stop]")
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
