"""Anyone's own recordings, as mne reads them: events become pictures by a table or by their names."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from brainhive_cli.core.arrays import Bool, Float32, Float64, Int64
from brainhive_cli.core.errors import BrainhiveError, MissingData, naming
from brainhive_cli.core.files import locate
from brainhive_cli.core.recipe import Names, Paths, UniqueNames, refuse_idle
from brainhive_cli.data.bids_labels import ChosenSessions, SubjectNumbers
from brainhive_cli.data.electrodes import Cap, standard_name
from brainhive_cli.data.event_names import EventNames
from brainhive_cli.data.exchange.session_folder import read_simulated
from brainhive_cli.data.preparations import (
    Overview,
    Stimuli,
    cached_method,
    keys_of_stimuli,
    list_pictures,
)
from brainhive_cli.data.preparations._recording_overview import describe_subjects
from brainhive_cli.data.preparations._recording_selection import (
    KeptChannels,
    RecordingTrials,
    choose_trials,
    interpolate_bad,
)
from brainhive_cli.data.recording_files import (
    MS_DURATIONS,
    RUN,
    StillPieces,
    describe_labels,
    durations_are_ms,
    files_of,
    list_recordings,
    list_unread,
    open_raw,
    read_channels,
    read_table,
    table_of,
    way_to_read,
)
from brainhive_cli.data.recording_headers import Header, read_header
from brainhive_cli.data.signals.cutting import (
    Cutting,
    Steps,
    measure_noise,
    normalise,
    require_noise_splits,
)
from brainhive_cli.data.stores.ids import summarise_names
from brainhive_cli.data.trials import Trials

TABLES = ("events.csv", "events.tsv")
"""Names of the table of events in the folder of the recordings."""
FLAT = "flat"
"""Why trials are dropped during which the amplifier stood at a limit, or was off."""
NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][-+]?\d+)?")
"""A time in a table of events; rows with another one, as `n/a`, are left out."""


class Config(Steps):
    """Recordings in fif, edf, bdf, set or vhdr, alone (`sub-01_ses-01.fif`) or in a BIDS data set."""

    root: str = Field("", description="folder of the recordings; default: recordings below paths.data")
    files: str = Field("*", description="pattern of the files that are read, as *task-images*")
    subject_numbers: SubjectNumbers = Field({})
    sessions: ChosenSessions = Field(None, exclude_if=lambda sessions: not sessions)  # as `rename`
    stimuli: Stimuli = "image-folder"
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
    delay_ms: float = Field(
        0.0,
        ge=-600_000,
        le=600_000,
        exclude_if=lambda delay: not delay,  # as `rename`
        description="ms from an event to its picture on the screen, as a photodiode has it; added to all",
    )
    types: UniqueNames | None = Field(
        None, description="types of channels as mne names them; default: eeg, or else mag and grad"
    )
    channels: UniqueNames | None = Field(
        None,
        description="channels, in the order of the store; default: all of `types` that none marked as bad",
    )
    exclude: Names = Field([], description="channels that are left out")
    rename: dict[str, str] = Field(
        {},
        exclude_if=lambda rename: not rename,  # stores name it only where it is chosen
        description="name of a channel in the files: its name in the store; names of EEG are written as the "
        "10-05 system does (FP1 and `EEG Fp1-REF` are Fp1) by themselves",
    )
    montage: str = Field(
        "",
        exclude_if=lambda montage: not montage,  # as `rename`
        description="cap, as mne calls it: biosemi64, GSN-HydroCel-128, easycap-M1 …: positions, and of "
        "BioSemi's inputs (A1 …) also names; default: the files' positions, or those of the names",
    )
    interpolate: bool = Field(
        False,
        description="keep EEG channels that were marked as bad, made of the good ones by spherical splines",
    )
    band_hz: tuple[float | None, float | None] = Field(
        (None, None),
        description="lower and upper edge of a filter over the whole recording, as mne's; or null",
    )
    phase: Literal["zero", "forward"] = Field(
        "zero",
        description="of that filter: zero looks ahead (mne's FIR); forward is causal, as live decoding needs "
        "(Butterworth of fourth order, whose delay stays)",
    )
    stimulus_ms: float | None = Field(
        None, gt=0, description="how long each picture was shown, which figures shade; default: not known"
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
        if not (low or high):
            refuse_idle(self, ("phase",), "without a filter", "preparation.band_hz=[0.1, 40]")
        return self

    def build(self, paths: Paths) -> "Own":
        """Point at the recordings; nothing is read yet."""
        root = locate(self.root) if self.root else paths.under_home("data") / "recordings"
        with keys_of_stimuli():
            return Own(self, root, self.stimuli.build(paths))


TINY = Config()


@dataclass(frozen=True)
class Own:
    """The recordings below one folder."""

    config: Config
    root: Path
    stimuli: Any
    order_seed: int | None = None

    @property
    def dataset(self) -> str:
        """The data set of the pictures."""
        return str(self.stimuli.recorded_as)

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects that the files name."""
        return tuple(sorted(self._recordings))

    def files(self, subject: int) -> Sequence[Path]:
        """List the recordings of a subject, what they need, the table, and lists of pictures."""
        recordings = [path for paths in self._sessions(subject).values() for path in paths]
        table = [] if self._table is None else [self._table]
        lists = filter(Path.is_file, self.stimuli.lists)
        return [*(file for path in recordings for file in files_of(path)), *table, *lists]

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions that the files name."""
        return sorted(self._sessions(subject))

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Count the trials of a session."""
        # trials by split
        channels, cutting, trials, _ = self._choose(subject, session)
        shape = (len(channels.names), len(cutting.times_s))
        rows = np.concatenate([recording.rows for recording in trials])
        counts = {split: int(np.isin(rows, those).sum()) for split, those in self._split_rows.items()}

        # trials whose noise can be measured: of this session, or of any session of the subject
        if self.config.whiten_by != "all_training":
            with naming(trials[0].path):
                require_noise_splits([split for split, count in counts.items() if count], self.config)
        elif not counts.get("train"):
            self._training_trials(subject)  # which refuses a subject without any
        return {split: (count, *shape) for split, count in counts.items() if count}

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Prepare the trials of a session, by split."""
        # noise of all sessions, measured once for the subject
        averages_noise = self.config.whiten_by == "all_training"
        noise, noise_sessions = self._average_noise(subject) if averages_noise else (None, [])
        channels, cutting, trials, dropped = self._choose(subject, session)

        # cut the trials of each split
        epochs = {}  # [n, C, T]
        runs = {}  # each file is a run
        onset_s = {}
        rows = {}
        for split, those in self._split_rows.items():
            selected = [recording.select(those) for recording in trials]
            rows[split] = np.concatenate([recording.rows for recording in selected])
            counts = [len(recording.rows) for recording in selected]
            runs[split] = np.repeat(np.arange(len(counts), dtype=np.int16), counts)[:, None]
            onsets = np.concatenate([recording.onsets for recording in selected])
            onset_s[split] = onsets[:, None] / cutting.recorded_hz  # [n, 1]
            if len(rows[split]):
                epochs[split], is_live = self._cut(selected, channels, cutting)
                # trials of an amplifier at its limit are dropped, and counted
                if flat := int((~is_live).sum()):
                    dropped[split][FLAT] = flat
                    rows[split], runs[split] = rows[split][is_live], runs[split][is_live]
                    onset_s[split] = onset_s[split][is_live]
                if not len(rows[split]):
                    del epochs[split]
        if not epochs:
            raise BrainhiveError(
                f"{trials[0].path}: all trials are flat", "leave it out: preparation.files=…"
            )

        # whiten them in place
        with naming(trials[0].path):
            matrix = normalise(epochs, rows, self.config, channels.names, noise)

        # facts for the store
        headers = self._headers(subject, session)
        highpass_hz, lowpass_hz = np.array([header.filtered_hz for header in headers.values()]).T
        provenance = {
            "time_shift": cutting.resampling.time_shift,
            "recorded_hz": cutting.recorded_hz,
            "stimulus_ms": self.config.stimulus_ms,
            "filtered_hz": [float(highpass_hz.max()), float(lowpass_hz.min())],
            "recorded_unit": channels.unit,
            "events_from": [header.events_from for header in headers.values()],
            "unmatched": self._names.match(channels.headers.values()).left_over,
        }
        # facts that not all recordings have
        if doubts := list(self._list_doubts(headers)):
            provenance["doubts"] = doubts
        if programs := {*map(read_simulated, headers)} - {""}:
            provenance["simulated"] = ", ".join(sorted(programs))
        if self.config.interpolate:
            provenance["interpolated"] = {path.name: list(channels.bad_of(path)) for path in headers}
        if averages_noise:
            provenance["noise_of_sessions"] = noise_sessions
        provenance["dropped_by_split"] = {split: dict(counts) for split, counts in dropped.items()}

        # trials [n, 1, C, T]
        return {
            split: Trials(
                signal[:, None],
                [self._pictures[0][row] for row in rows[split]],
                channels.space,
                cutting.times_s,
                cutting.rate_hz,
                channels.unit if matrix is None else "whitened",
                {"dropped": dropped[split], **provenance},
                whiteners=None if matrix is None else matrix[None],
                runs=runs[split],
                onset_s=onset_s[split],
            )
            for split, signal in epochs.items()
        }

    def look_over(self, subjects: Sequence[int]) -> Overview:
        """Describe channels and pictures shown; warn of unusual facts and of leftovers."""
        channels = {}
        counts = {}  # [pictures] by session
        lines = describe_labels(self._recordings, self.root, subjects, self.config.subject_numbers)
        for subject in subjects:
            try:
                kept_channels = self._channels(subject)
                session_counts = {}
                for session in self._sessions(subject):
                    # how often the recordings of the session show each picture
                    headers = self._headers(subject, session).values()
                    rows = self._names.match(headers).rows
                    seen = [rows[name] for header in headers for _, name in {*header.events} if name in rows]
                    picture_count = len(self._pictures[0])
                    session_counts[session] = np.bincount(np.array(seen, np.int64), minlength=picture_count)
                lines += self._describe_left_over(subject)
                if kept_channels.names:
                    channels[subject], counts[subject] = kept_channels, session_counts
            except BrainhiveError:
                continue  # the preparation of this subject raises it
        overview = describe_subjects(channels, counts, *self._pictures) if channels else Overview()
        # warn of recordings in formats that are not read
        if unread := list_unread(self.root, self.config.files):
            names = summarise_names([path.name for path in unread])
            ways = "; ".join(dict.fromkeys(map(way_to_read, unread[:3])))
            lines.append(f"recordings in formats that are not read, {names}: {ways}")
        return replace(overview, warnings=(*lines, *overview.warnings))

    def _list_doubts(self, headers: Mapping[Path, Header]) -> Iterator[str]:
        """Describe what is unusual about events and tables of recordings, with their names."""
        # files by doubt, so that many files with one doubt are one line
        files: dict[str, list[str]] = {}
        for path, header in headers.items():
            for doubt in header.doubts:
                files.setdefault(doubt, []).append(path.name)
        for doubt, names in files.items():
            yield f"{names[0]}: {doubt}" if len(names) == 1 else f"{len(names)} recordings: {doubt}"

    def _describe_left_over(self, subject: int) -> list[str]:
        """List sessions that other subjects have, and events and pictures without a match."""
        # sessions of other subjects, and numbers that are skipped
        lines = []
        known = {session for sessions in self._recordings.values() for session in sessions}
        if max(known) < 100:  # no dates
            known |= {*range(1, max(known))}
        if absent := sorted(known - self._recordings[subject].keys()):
            lines.append(f"no recording of session {', '.join(map(str, absent))}")

        # runs that other sessions have
        session_runs = {
            (number, session): {int(match[1]) for path in paths for match in RUN.finditer(path.name)}
            for number, sessions in self._recordings.items()
            for session, paths in sessions.items()
        }
        known_runs = set().union(*session_runs.values())
        for (number, session), runs in session_runs.items():
            if number == subject and runs and (lost := sorted(known_runs - runs)):
                lines.append(f"session {session} has no run {', '.join(map(str, lost))}, which others have")

        # tables whose durations are probably milliseconds
        for path, header in self._headers(subject).items():
            table = table_of(path, "events")
            if table is not None and table.name == header.events_from and self.config.onset_unit == "s":
                times = [(row.get("onset", ""), row.get("duration", "")) for row in read_table(table)[1]]
                numbers = [[*map(float, pair)] for pair in times if all(map(NUMBER.fullmatch, pair))]
                if numbers and durations_are_ms(*np.array(numbers).T):
                    lines.append(f"{table.name} has {MS_DURATIONS}")

        # doubts of headers about events and tables
        lines += self._list_doubts(self._headers(subject))

        # events and pictures without a match
        matched, image_ids = self._names.match(self._headers(subject).values()), self._pictures[0]
        lines += [f"{what}, {summarise_names([*names])}" for what, names in matched.left_over.items()]
        seen = {*matched.rows.values()}
        if unseen := [image_id for row, image_id in enumerate(image_ids) if row not in seen]:
            lines.append(f"pictures that were not shown, {summarise_names(unseen, len(image_ids))}")
        return [f"subject {subject}: {line}" for line in lines]

    @cached_property
    def _recordings(self) -> dict[int, dict[int, list[Path]]]:
        return list_recordings(
            self.root, self.config.files, self.config.subject_numbers, self.config.sessions
        )

    def _sessions(self, subject: int) -> dict[int, list[Path]]:
        if subject not in self._recordings:
            known = ", ".join(map(str, self.subjects))
            raise MissingData(f"no recording of subject {subject} below {self.root}", f"there are: {known}")
        return self._recordings[subject]

    @cached_property
    def _table(self) -> Path | None:
        """The table of events: that of the recipe, or the usual one; None where there is none."""
        if self.config.events:
            path = locate(self.config.events)
            # from the working directory, else in the folder of the recordings
            path = path if path.exists() else self.root / self.config.events
            if not path.is_file():
                hint = "preparation.events=FILE.csv, with columns event and picture"
                raise MissingData(f"no table {path}", hint)
            return path
        return next((self.root / name for name in TABLES if (self.root / name).is_file()), None)

    @cached_property
    def _pictures(self) -> tuple[list[str], dict[str, Int64]]:
        """Ids of the pictures of all splits [pictures], and the rows of each split among them."""
        image_ids, splits = list_pictures(self.stimuli)
        return image_ids, {split: np.flatnonzero(splits == split) for split in self.stimuli.splits}

    @property
    def _split_rows(self) -> dict[str, Int64]:
        return self._pictures[1]

    @cached_property
    def _names(self) -> EventNames:
        return EventNames.read(self._table, self._pictures[0], self.stimuli.are_categories)

    @cached_method
    def _read_header(self, path: Path) -> Header:
        """Read the header of a recording, once."""
        config = self.config
        return read_header(
            *(path, config.column, config.stim_channel, config.onset_unit, self._cap, config.delay_ms / 1000)
        )

    def _headers(self, subject: int, session: int | None = None) -> dict[Path, Header]:
        """Read the headers of a subject's recordings, or of those of one session."""
        sessions = self._sessions(subject)
        groups = sessions.values() if session is None else [sessions[session]]
        return {path: self._read_header(path) for paths in groups for path in paths}

    @cached_property
    def _cap(self) -> Cap:
        return Cap(self.config.rename, self.config.montage)

    def _channels(self, subject: int) -> KeptChannels:
        config, headers = self.config, self._headers(subject)
        first = next(iter(headers.values()))

        def name(names: Sequence[str] | None) -> Sequence[str] | None:
            """Write names of the recipe as those of recordings are written."""
            return names and [
                name if name in first.names else config.rename.get(name, standard_name(name))
                for name in names
            ]

        # codes of events are no signal, whatever the file calls their channel
        out = [*config.exclude, *filter(None, [config.stim_channel])]
        wanted, left_out = name(config.channels), name(out) or []
        whiten = config.whiten != "no"
        return KeptChannels(headers, config.types, wanted, left_out, config.interpolate, whiten)

    def _choose(
        self, subject: int, session: int
    ) -> tuple[KeptChannels, Cutting, list[RecordingTrials], dict[str, Counter[str]]]:
        """Choose channels and trials of a session."""
        channels, headers = self._channels(subject), self._headers(subject, session)
        # all recordings have the channels, rate and unit of the first
        for path in headers:
            channels.check(path)
        cutting = Cutting(self.config, next(iter(channels.headers.values())).rate_hz)
        return channels, cutting, *choose_trials(headers, self._names, self._split_rows, cutting)

    def _training_trials(self, subject: int) -> dict[int, list[RecordingTrials]]:
        """Choose the training trials of each of a subject's sessions that has any."""
        rows, session_trials = self._split_rows.get("train", np.zeros(0, np.int64)), {}
        for session in self.sessions(subject):
            trials = [recording.select(rows) for recording in self._choose(subject, session)[2]]
            if any(len(recording.rows) for recording in trials):
                session_trials[session] = trials

        # noise is that of training trials alone
        if not session_trials:
            problem = f"no session of subject {subject} below {self.root} has training trials"
            hint = "preparation.whiten_by=both, or preparation.whiten=no"
            raise BrainhiveError(f"{problem}, whose noise is to be measured", hint)
        return session_trials

    @cached_method
    def _average_noise(self, subject: int) -> tuple[Float64, list[int]]:
        """Average the noise [C, C] of a subject's training trials over sessions, once, and list these."""
        session_trials = self._training_trials(subject)
        noise = []  # [C, C] of each session
        for session, trials in session_trials.items():
            channels, cutting, *_ = self._choose(subject, session)
            # trials that are not flat, and the pictures that they show
            signal, is_live = self._cut(trials, channels, cutting)
            epochs = {"train": signal}
            rows = {"train": np.concatenate([recording.rows for recording in trials])[is_live]}
            with naming(trials[0].path):
                noise.append(measure_noise(epochs, rows, self.config, channels.names))
        # sessions weigh the same, however many trials they have
        return np.mean(noise, 0), [*session_trials]

    def _cut(
        self, trials: Sequence[RecordingTrials], channels: KeptChannels, cutting: Cutting
    ) -> tuple[Float32, Bool]:
        """Cut trials out of the recordings of one session; bad channels are interpolated.

        Returns:
            Trials [live, C, T] that are not flat, and which [n] of all these are.
        """
        epochs, lives = [], []
        for recording in trials:
            if not len(recording.onsets):
                continue

            # read, filter and cut the good channels
            raw = open_raw(recording.path, self.config.onset_unit == "s", self._cap)
            bad = channels.bad_of(recording.path)
            names = [name for name in channels.names if name not in bad]
            pieces = StillPieces(int(raw.n_times), float(raw.info["sfreq"]))
            band_hz, phase = self.config.band_hz, self.config.phase
            samples = read_channels(raw, recording.path, names, band_hz, phase, pieces)
            with naming(recording.path):
                signal = cutting.cut(samples, names, recording.onsets, 1.0)  # [n, C less bad, T]
                if bad:
                    signal = interpolate_bad(signal, channels.names, bad, channels.positions)  # [n, C, T]
                # still samples are found before the filter, which would hide them
                is_live = ~pieces.are_still(recording.onsets, cutting.span, len(names))
                lives.append(is_live)
                epochs.append(signal if is_live.all() else signal[is_live])
        return (epochs[0] if len(epochs) == 1 else np.concatenate(epochs)), np.concatenate(lives)
