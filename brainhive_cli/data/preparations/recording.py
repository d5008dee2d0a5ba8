"""Anyone's own recordings, as mne reads them: events become pictures by a table or by their names."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from brainhive_cli.core import home, parts
from brainhive_cli.core.errors import BrainhiveError, MissingData, naming
from brainhive_cli.core.recipe import Names, Paths, UniqueNames
from brainhive_cli.data.preparations import Overview, Trials
from brainhive_cli.data.preparations._recording_channels import KeptChannels
from brainhive_cli.data.preparations._recording_files import files_of, listed
from brainhive_cli.data.preparations._recording_mne import Channels, Header, open_raw, read_header
from brainhive_cli.data.preparations._recording_overview import Shown, look_over
from brainhive_cli.data.preparations._recording_pictures import EventNames
from brainhive_cli.data.preparations._recording_splines import fill_bad
from brainhive_cli.data.preparations._recording_trials import Chosen, choose
from brainhive_cli.data.preparations._steps import Cutting, Steps, measured, normalise
from brainhive_cli.data.stores.ids import summarise_names

TABLES = ("events.csv", "events.tsv")
"""What the table of events is called in the folder of the recordings."""


class Config(Steps):
    """Recordings in fif, edf, bdf, set or vhdr, alone (`sub-01_ses-01.fif`) or in a BIDS data set."""

    root: str = Field("", description="folder of the recordings; default: recordings below paths.data")
    files: str = Field("*", description="pattern of the files that are read, as *task-images*")
    stimuli: Annotated[Any, parts.part("datasets", "image-folder")] = Field(
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
    types: UniqueNames | None = Field(
        None, description="types of channels as mne names them; default: eeg, or else mag and grad"
    )
    channels: UniqueNames | None = Field(
        None,
        description="channels, in the order of the store; default: all of `types` that none marked as bad",
    )
    exclude: Names = Field([], description="channels that are left out")
    interpolate: bool = Field(
        False,
        description="keep EEG channels that were marked as bad, made of the good ones by spherical splines",
    )
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
        with _keys_of_stimuli():
            return Own(self, root, self.stimuli.build(paths))


TINY = Config()


@contextmanager
def _keys_of_stimuli() -> Iterator[None]:
    """Call the keys of the pictures by their names in this recipe."""
    try:
        yield
    except BrainhiveError as error:
        raise type(error)(error.message, error.hint.replace("dataset.", "preparation.stimuli.")) from error


@dataclass(frozen=True)
class Own:
    """The recordings below one folder."""

    config: Config
    root: Path
    stimuli: Any
    order_seed: int | None = None
    _headers: dict[Path, Header] = field(default_factory=dict, repr=False, compare=False)

    @property
    def dataset(self) -> str:
        """The data set of the pictures."""
        return str(self.stimuli.recorded_as)

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects that the files name."""
        return tuple(sorted(self._listed))

    def files(self, subject: int) -> Sequence[Path]:
        """List the recordings of a subject, what they need, the table, and lists of pictures."""
        recordings = [path for each in self._sessions(subject).values() for path in each]
        table = [] if self._table is None else [self._table]
        lists = filter(Path.is_file, getattr(self.stimuli, "lists", ()))
        return [*(file for path in recordings for file in files_of(path)), *table, *lists]

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions that the files name."""
        return sorted(self._sessions(subject))

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Count the trials of a session."""
        channels, cutting, chosen, _ = self._choose(subject, session)
        rows, shape = (
            np.concatenate([each.rows for each in chosen]),
            (len(channels.names), len(cutting.times_s)),
        )
        counts = {split: int(np.isin(rows, those).sum()) for split, those in self._rows.items()}
        with naming(chosen[0].path):
            measured([split for split, count in counts.items() if count], self.config)
        return {split: (count, *shape) for split, count in counts.items() if count}

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Prepare the trials of a session, by split."""
        channels, cutting, chosen, dropped = self._choose(subject, session)
        by_split = {split: [each.of(rows) for each in chosen] for split, rows in self._rows.items()}
        rows = {split: np.concatenate([each.rows for each in those]) for split, those in by_split.items()}
        epochs = {
            split: self._cut(those, channels, cutting)
            for split, those in by_split.items()
            if len(rows[split])
        }
        with naming(chosen[0].path):
            matrix = normalise(epochs, rows, self.config, channels.names)
        provenance = {
            **self._provenance(subject, session, cutting),
            "dropped_by_split": {split: dict(counts) for split, counts in dropped.items()},
        }
        return {
            split: Trials(
                signal=signal,
                image_ids=[self._image_ids[row] for row in rows[split]],
                space=channels.space,
                times_s=cutting.times_s,
                rate_hz=cutting.rate_hz,
                unit=channels.unit if matrix is None else "whitened",
                whitener=matrix,
                dropped=dropped[split],
                provenance=provenance,
            )
            for split, signal in epochs.items()
        }

    def look_over(self, subjects: Sequence[int]) -> Overview:
        """Describe channels and pictures shown; warn of what is unusual, and of what is left over."""
        described, lines = {}, []
        for subject in subjects:
            try:
                channels = self._channels(subject)
                sessions = {session: self._count(subject, session) for session in self._sessions(subject)}
                lines += self._left_over(subject)
                if channels.names:
                    described[subject] = Shown(channels, sessions)
            except BrainhiveError:
                continue  # the preparation of this subject raises it
        overview = look_over(described, self._image_ids, self._rows) if described else Overview()
        return replace(overview, warnings=(*lines, *overview.warnings))

    def _count(self, subject: int, session: int) -> NDArray[np.int64]:
        """Count how often a session shows each picture, [pictures]."""
        headers = self._headers_of(subject, session).values()
        rows = self._names.match_all(headers).rows
        seen = [rows[name] for header in headers for _, name in {*header.events} if name in rows]
        return np.bincount(np.array(seen, np.int64), minlength=len(self._image_ids))

    def _provenance(self, subject: int, session: int, cutting: Cutting) -> dict[str, Any]:
        return {
            "time_shift": cutting.resampling.time_shift,
            "recorded_hz": cutting.recorded_hz,
            "events_from": [each.events_from for each in self._headers_of(subject, session).values()],
            "unmatched": self._names.match_all(self._headers_of(subject).values()).left_over,
            **self._interpolated(subject, session),
        }

    def _interpolated(self, subject: int, session: int) -> dict[str, dict[str, list[str]]]:
        channels = self._channels(subject)
        bad = {path.name: list(channels.bad_of(path)) for path in self._sessions(subject)[session]}
        return {"interpolated": bad} if self.config.interpolate else {}

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
            path = path if path.exists() else self.root / self.config.events
            if not path.is_file():
                hint = "preparation.events=FILE.csv, with columns event and picture"
                raise MissingData(f"no table {path}", hint)
            return path
        return next((self.root / name for name in TABLES if (self.root / name).is_file()), None)

    @cached_property
    def _names(self) -> EventNames:
        return EventNames.read(self._table, self._image_ids)

    @cached_property
    def _by_split(self) -> dict[str, list[str]]:
        with _keys_of_stimuli():
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

    def _headers_of(self, subject: int, session: int | None = None) -> dict[Path, Header]:
        """Read what the recordings of a session, or of all, hold."""
        sessions, config = self._sessions(subject), self.config
        paths = (
            sessions[session]
            if session is not None
            else [path for each in sessions.values() for path in each]
        )
        for path in paths:
            if path not in self._headers:
                self._headers[path] = read_header(path, config.column, config.stim_channel, config.onset_unit)
        return {path: self._headers[path] for path in paths}

    def _channels(self, subject: int) -> KeptChannels:
        config = self.config
        return KeptChannels(
            self._headers_of(subject), config.types, config.channels, config.exclude, config.interpolate
        )

    def _choose(
        self, subject: int, session: int
    ) -> tuple[KeptChannels, Cutting, list[Chosen], dict[str, Counter[str]]]:
        """Choose channels and trials of a session."""
        channels = self._channels(subject)
        for path in self._sessions(subject)[session]:
            channels.check(path)
        cutting = Cutting(self.config, next(iter(channels.headers.values())).rate_hz)
        return (
            channels,
            cutting,
            *choose(self._headers_of(subject, session), self._names, self._rows, cutting),
        )

    def _left_over(self, subject: int) -> list[str]:
        """List sessions that others have, and what is left over of events and pictures on both sides."""
        lines = []
        known = {session for sessions in self._listed.values() for session in sessions}
        if max(known) < 100:  # no dates
            known |= {*range(1, max(known))}
        if absent := sorted(known - self._listed[subject].keys()):
            lines.append(f"no recording of session {', '.join(map(str, absent))}")
        matched = self._names.match_all(self._headers_of(subject).values())
        lines += [f"{what}, {summarise_names([*names])}" for what, names in matched.left_over.items()]
        seen = {*matched.rows.values()}
        unseen = [image_id for row, image_id in enumerate(self._image_ids) if row not in seen]
        if unseen:
            lines.append(f"pictures that were not shown, {summarise_names(unseen, len(self._image_ids))}")
        return [f"subject {subject}: {line}" for line in lines]

    def _cut(self, chosen: Sequence[Chosen], kept: KeptChannels, cutting: Cutting) -> NDArray[np.float32]:
        """Cut trials [n, C, T] out of the recordings of one session; bad channels are interpolated."""
        epochs = []
        for each in chosen:
            if not len(each.onsets):
                continue
            raw = open_raw(each.path, self.config.onset_unit == "s")
            bad = kept.bad_of(each.path)
            names = [name for name in kept.names if name not in bad]
            channels = Channels(raw, each.path, names, self.config.band_hz)
            with naming(each.path):
                trials = cutting.cut(channels, names, each.onsets, 1.0)  # [n, C less bad, T]
                epochs.append(fill_bad(trials, kept.names, bad, kept.positions) if bad else trials)
        return epochs[0] if len(epochs) == 1 else np.concatenate(epochs)
