"""Anyone's own recordings, as mne reads them: events become pictures by a table or by their names."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from brainhive_cli.core import console, home, parts
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Names, Paths
from brainhive_cli.preparations import Trials
from brainhive_cli.preparations._event_names import EventNames, Matched
from brainhive_cli.preparations._raw_files import (
    UNITS,
    Channels,
    Header,
    files_of,
    listed,
    open_raw,
    read_header,
)
from brainhive_cli.preparations._steps import Cutting, Steps, normalise
from brainhive_cli.stores.matching import shown
from brainhive_cli.stores.recordings import Sensors

TABLES = ("events.csv", "events.tsv")
"""What the table of events is called in the folder of the recordings."""
MEG = ("mag", "grad")
MONTAGES = ("colin27_1005", "standard_1005")
"""What mne calls the positions of electrodes by their names, since 1.13 and before."""


class Config(Steps):
    """Recordings in fif, edf, bdf, set or vhdr, alone (`sub-01_ses-01.fif`) or in a BIDS data set."""

    root: str = Field("", description="folder of the recordings; default: recordings below paths.data")
    files: str = Field("*", description="pattern of the files that are read, as *task-images*")
    stimuli: Annotated[Any, parts.part("datasets", "image_folder")] = Field(
        "image-folder", validate_default=True, description="the data set of the pictures that were shown"
    )
    events: str = Field(
        "",
        description="table (CSV or TSV) with columns event and picture; default: events.csv or events.tsv in "
        "the folder; without one, events are called by their pictures",
    )
    column: str = Field(
        "",
        description="column of the events.tsv next to a recording that describes its events; default: "
        "stim_file, or where there is none the recording's annotations",
    )
    onset_unit: Literal["s", "ms"] = Field(
        "s",
        description="unit of the onsets in that events.tsv: BIDS has s; with ms nothing else is read as BIDS",
    )
    stim_channel: str = Field(
        "", description="channel whose codes are the events; default: any, if there are no annotations"
    )
    types: Names | None = Field(
        None, description="types of channels as mne names them; default: eeg, or else mag and grad"
    )
    channels: Names | None = Field(
        None,
        description="channels, in the order of the store; default: all of `types` that none marked as bad",
    )
    exclude: Names = Field([], description="channels that are left out")
    band_hz: tuple[float | None, float | None] = Field(
        (None, None),
        description="lower and upper edge of a filter over the whole recording, as mne's; or null",
    )

    @model_validator(mode="after")
    def _has_a_table_of_that_unit(self) -> Self:
        if self.onset_unit != "s" and (self.stim_channel or not self.column):
            raise ValueError(f"onset_unit {self.onset_unit} needs a column of the events.tsv")
        return self

    @model_validator(mode="after")
    def _has_a_band_in_order(self) -> Self:
        low, high = self.band_hz
        if min(low or 1, high or 1) <= 0 or (low and high and low >= high):
            raise ValueError(f"band_hz {[low, high]} is not from a lower to an upper edge")
        return self

    def build(self, paths: Paths) -> "Own":
        """Point at the recordings; nothing is read yet."""
        root = home.located(self.root) if self.root else paths.under_home("data") / "recordings"
        return Own(self, root, self.stimuli.build(paths))


TINY = Config()


@dataclass(frozen=True)
class Chosen:
    """The trials of one recording.

    Attributes:
        onsets: [n] samples.
        rows: [n] of their pictures among all.
    """

    path: Path
    header: Header
    onsets: NDArray[np.int64]
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Own:
    """The recordings below one folder."""

    config: Config
    root: Path
    stimuli: Any
    order_seed: int | None = None
    _headers: dict[Path, Header] = field(default_factory=dict, repr=False, compare=False)
    _warned: set[int] = field(default_factory=set, repr=False, compare=False)

    @property
    def dataset(self) -> str:
        """The data set of the pictures."""
        return str(self.stimuli.recorded_as)

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects that the files name."""
        return tuple(sorted(self._listed))

    def files(self, subject: int) -> Sequence[Path]:
        """List the recordings of a subject, what they need, and the table."""
        recordings = [path for each in self._sessions(subject).values() for path in each]
        table = [] if self._table is None else [self._table]
        return [*(file for path in recordings for file in files_of(path)), *table]

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions that the files name."""
        return sorted(self._sessions(subject))

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Count the trials of a session."""
        self._warn_of_unmatched(subject)
        chosen, _ = self._choose(subject, session)
        channels, samples = len(self._channels(subject)), len(self._cutting(subject).times_s)
        rows = np.concatenate([each.rows for each in chosen])
        counts = {split: int(np.isin(rows, self._rows[split]).sum()) for split in self._rows}
        return {split: (count, channels, samples) for split, count in counts.items() if count}

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Prepare the trials of a session, by split."""
        self._warn_of_unmatched(subject)
        chosen, dropped = self._choose(subject, session)
        names, cutting = self._channels(subject), self._cutting(subject)
        epochs, rows = {}, {}
        for split, those in self._rows.items():
            kept = [_only(each, np.isin(each.rows, those)) for each in chosen]
            rows[split] = np.concatenate([each.rows for each in kept])
            if len(rows[split]):
                epochs[split] = self._cut([each for each in kept if len(each.rows)], names, cutting)
        try:
            matrix = normalise(epochs, rows, self.config, names)
        except BrainhiveError as error:
            raise BrainhiveError(f"{chosen[0].path}: {error.message}", error.hint) from error
        return {
            split: Trials(
                epochs[split],
                [self._image_ids[row] for row in rows[split]],
                self._space(subject),
                cutting.times_s,
                cutting.rate_hz,
                self._unit(subject) if matrix is None else "whitened",
                matrix,
                dropped[split],
                {
                    **self._provenance(subject, session, cutting),
                    "dropped_by_split": {name: dict(counts) for name, counts in dropped.items()},
                },
            )
            for split in epochs
        }

    def _provenance(self, subject: int, session: int, cutting: Cutting) -> dict[str, Any]:
        matched = self._matched(subject)
        unmatched = {
            "events that the table does not have": dict(matched.unnamed),
            "events without a picture": dict(matched.without_picture),
            "events of the table that were not recorded": list(matched.unused),
        }
        return {
            "time_shift": cutting.resampling.time_shift,
            "recorded_hz": cutting.recorded_hz,
            "events_from": [self._header(path).events_from for path in self._sessions(subject)[session]],
            "unmatched": {name: found for name, found in unmatched.items() if found},
        }

    @cached_property
    def _listed(self) -> dict[int, dict[int, list[Path]]]:
        return listed(self.root, self.config.files)

    def _sessions(self, subject: int) -> dict[int, list[Path]]:
        if subject not in self._listed:
            known = ", ".join(map(str, self.subjects))
            raise MissingData(f"no recording of subject {subject} below {self.root}", f"there are: {known}")
        return self._listed[subject]

    @cached_property
    def _table(self) -> Path | None:
        if self.config.events:
            path = home.located(self.config.events)
            return path if path.exists() else self.root / self.config.events
        return next((self.root / name for name in TABLES if (self.root / name).is_file()), None)

    @cached_property
    def _names(self) -> EventNames:
        return EventNames.read(self._table, self._image_ids)

    @cached_property
    def _by_split(self) -> dict[str, list[str]]:
        return {split: list(self.stimuli.images(split).image_ids) for split in self.stimuli.splits}

    @cached_property
    def _image_ids(self) -> list[str]:
        return [image_id for ids in self._by_split.values() for image_id in ids]

    @cached_property
    def _rows(self) -> dict[str, NDArray[np.int64]]:
        """The rows of each split among all pictures."""
        stops = np.cumsum([len(ids) for ids in self._by_split.values()])
        ranges = np.split(np.arange(len(self._image_ids)), stops[:-1])
        return dict(zip(self._by_split, ranges, strict=True))

    def _header(self, path: Path) -> Header:
        if path not in self._headers:
            config = self.config
            self._headers[path] = read_header(path, config.column, config.stim_channel, config.onset_unit)
        return self._headers[path]

    def _all_headers(self, subject: int) -> dict[Path, Header]:
        return {path: self._header(path) for each in self._sessions(subject).values() for path in each}

    def _matched(self, subject: int, paths: Iterable[Path] | None = None) -> Matched:
        headers = (
            self._all_headers(subject) if paths is None else {path: self._header(path) for path in paths}
        )
        return self._names.match(name for header in headers.values() for _, name in header.events)

    def _warn_of_unmatched(self, subject: int) -> None:
        """List once what is left over on both sides; a picture that other subjects saw is none of it."""
        if subject in self._warned:
            return
        self._warned.add(subject)
        matched, where = self._matched(subject), self._names.where
        seen = {*matched.rows.values()}
        unseen = [image_id for row, image_id in enumerate(self._image_ids) if row not in seen]
        for what, names, of in (
            (f"events that are not in {where}", list(matched.unnamed), None),
            ("events whose picture is not in the data set", list(matched.without_picture), None),
            (f"events of {where} that were not recorded", list(matched.unused), len(self._names.table or ())),
            ("pictures that were not shown", unseen, len(self._image_ids)),
        ):
            if names:
                console.warn(f"subject {subject}: {what}, {shown(names, of)}")

    def _choose(self, subject: int, session: int) -> tuple[list[Chosen], dict[str, Counter[str]]]:
        """Choose the events of pictures whose trials lie in the recording and outside of BAD spans.

        Returns:
            The trials of each recording, and by split how many others there are, by reason.
        """
        paths = self._sessions(subject)[session]
        matched, splits = self._matched(subject, paths), list(self._rows)
        self._names.refuse_none(matched, paths[0], self._header(paths[0]).events_from)
        of_row = {row: split for split, rows in self._rows.items() for row in rows.tolist()}
        dropped: dict[str, Counter[str]] = {split: Counter() for split in splits}
        counts = (("not in the table", matched.unnamed), ("no such picture", matched.without_picture))
        for reason, events in counts:
            if events:
                dropped[splits[0]][reason] = sum(events.values())
        chosen = []
        for path in paths:
            header, cutting = self._header(path), self._cutting(subject)
            self._check_channels(path, header, subject)
            pairs = [(at, matched.rows[name]) for at, name in header.events if name in matched.rows]
            onsets, rows = np.array(pairs, np.int64).reshape(-1, 2).T
            if len(again := onsets[1:][np.diff(onsets) == 0]):
                raise BrainhiveError(
                    f"{path} has two pictures at {again[0] / header.rate_hz:.3f} s",
                    "let the table name one event of each picture",
                )
            reasons = self._reasons(header, cutting, onsets)
            for row, reason in zip(rows.tolist(), reasons, strict=True):
                if reason:
                    dropped[of_row[row]][reason] += 1
            chosen.append(_only(Chosen(path, header, onsets, rows), np.array([not r for r in reasons], bool)))
        if not sum(len(each.onsets) for each in chosen):
            reasons = [f"{count} {reason}" for each in dropped.values() for reason, count in each.items()]
            raise BrainhiveError(
                f"{paths[0]} has no whole trial: {', '.join(reasons)}", "preparation.epoch_ms=[start, stop]"
            )
        return chosen, dropped

    def _reasons(self, header: Header, cutting: Cutting, onsets: NDArray[np.int64]) -> list[str]:
        """Say why each trial is dropped; empty where it is not."""
        (start, stop), fits = cutting.span, cutting.fits(onsets, header.samples)
        found = []
        for onset, is_whole in zip(onsets.tolist(), fits.tolist(), strict=True):
            bad = (
                text for low, high, text in header.bad_spans if low <= onset + stop and onset + start <= high
            )
            found.append(next(bad, "") if is_whole else "beyond the recording")
        return found

    def _first(self, subject: int) -> tuple[Path, Header]:
        return next(iter(self._all_headers(subject).items()))

    def _cutting(self, subject: int) -> Cutting:
        return Cutting(self.config, self._first(subject)[1].rate_hz)

    def _types(self, subject: int) -> tuple[str, ...]:
        path, header = self._first(subject)
        there = set(header.types)
        wanted = tuple(self.config.types or (("eeg",) if "eeg" in there else MEG))
        if not there & set(wanted):
            hint = f"preparation.types=…; it has: {', '.join(sorted(there))}"
            raise BrainhiveError(f"{path} has no channels of type {' or '.join(wanted)}", hint)
        return wanted

    def _channels(self, subject: int) -> tuple[str, ...]:
        """Name the channels that are kept; those that any recording of the subject marks as bad are not."""
        header, config = self._first(subject)[1], self.config
        if config.channels:
            return tuple(name for name in config.channels if name not in config.exclude)
        wanted = self._types(subject)
        bad = {name for each in self._all_headers(subject).values() for name in each.bad}
        out = {*config.exclude, *bad}
        pairs = zip(header.names, header.types, strict=True)
        return tuple(name for name, kind in pairs if kind in wanted and name not in out)

    def _check_channels(self, path: Path, header: Header, subject: int) -> None:
        first, cutting = self._first(subject)[0], self._cutting(subject)
        if absent := [name for name in self._channels(subject) if name not in header.names]:
            has = f"it has: {', '.join(header.names)}"
            raise BrainhiveError(
                f"{path} has no channel {', '.join(absent)}", f"preparation.exclude=…; {has}"
            )
        if header.rate_hz != cutting.recorded_hz:
            raise BrainhiveError(
                f"{path} has {header.rate_hz:g} Hz, but {first.name} {cutting.recorded_hz:g} Hz",
                "resample one of them with mne and save it, or leave it out: preparation.files=PATTERN",
            )

    def _kinds(self, subject: int) -> list[str]:
        header = self._first(subject)[1]
        return [header.types[header.names.index(name)] for name in self._channels(subject)]

    def _unit(self, subject: int) -> str:
        units = {UNITS.get(kind, (1.0, "SI"))[1]: kind for kind in self._kinds(subject)}
        if len(units) > 1:
            raise BrainhiveError(
                f"channels of types {' and '.join(units.values())} have different units",
                "preparation.types=ONE, or let them be whitened: preparation.whiten=epochs",
            )
        return next(iter(units))

    def _space(self, subject: int) -> Sensors:
        """Take the positions of the first recording; of electrodes without, the standard ones."""
        header, names = self._first(subject)[1], self._channels(subject)
        places = header.positions[[header.names.index(name) for name in names]]
        if not np.isfinite(places).all() and set(self._kinds(subject)) == {"eeg"}:
            from mne.channels import get_builtin_montages, make_standard_montage

            montage = next(name for name in MONTAGES if name in get_builtin_montages())
            standard = make_standard_montage(montage).get_positions()["ch_pos"]
            known = {name.lower(): at for name, at in standard.items()}
            unknown = np.full(3, np.nan)
            places = np.array([known.get(name.lower(), unknown) for name in names])
        return Sensors(names, places if np.isfinite(places).all() else None)

    def _cut(self, chosen: Sequence[Chosen], names: Sequence[str], cutting: Cutting) -> NDArray[np.float32]:
        """Cut trials [n, C, T] out of the recordings of one session."""
        found = []
        for each in chosen:
            raw = open_raw(each.path, self.config.onset_unit == "s")
            channels = Channels(raw, each.path, names, self.config.band_hz)
            try:
                found.append(cutting.cut(channels, names, each.onsets, 1.0))
            except BrainhiveError as error:
                raise BrainhiveError(f"{each.path}: {error.message}", error.hint) from error
        return found[0] if len(found) == 1 else np.concatenate(found)


def _only(chosen: Chosen, rows: NDArray[np.bool_]) -> Chosen:
    return Chosen(chosen.path, chosen.header, chosen.onsets[rows], chosen.rows[rows])
