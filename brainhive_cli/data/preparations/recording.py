"""Trials of any lab's M/EEG recordings, as mne reads them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from brainhive_cli.core.base import (
    Bool,
    BrainhiveError,
    Float32,
    Float64,
    Int64,
    MissingData,
    Table,
    naming,
)
from brainhive_cli.core.files import locate
from brainhive_cli.core.recipes import NameList, Paths, UniqueNames, refuse_idle
from brainhive_cli.data.files import (
    ChosenSessions,
    SubjectNumbers,
    describe_labels,
    format_ranges,
    read_label,
    read_session,
    read_simulated,
    summarise_names,
)
from brainhive_cli.data.recordings import (
    NOT_IN_TABLE,
    PERSON_COLUMNS,
    AcceptKey,
    Account,
    Dispute,
    ElectrodeKeys,
    EventNames,
    FlatSegments,
    Header,
    KeptChannels,
    NoTrials,
    Overview,
    Preparation,
    RecordingKeys,
    StimuliKey,
    account_for_files,
    build_stimuli,
    cached_method,
    choose_stimuli,
    compare_rates_and_references,
    compare_subjects,
    describe_channels,
    dispute_unrecorded,
    find_event_table,
    find_own_tables,
    group_by_entry,
    join_showings,
    keep_channels,
    leave_trials_apart,
    list_disputes,
    list_pictures,
    list_recording_files,
    list_recordings,
    list_rows,
    list_unrecorded,
    list_unusual_channels,
    open_raw,
    read_channels,
    read_code,
    read_header,
    read_table,
)
from brainhive_cli.data.signals import (
    Band,
    Cutting,
    Steps,
    Trials,
    refuse_flat_channels,
    require_noise_splits,
    standardise_name,
    whiten_session,
)

LOST_REASON = "samples were lost (NaN)"
"""Reason for dropping a trial with NaN in all channels."""
TrialTables = Mapping[Path, Int64]
"""Trials [n, 2] of each recording: sample of the onset, row of the picture."""


class OwnSignalKeys(ElectrodeKeys, Steps):
    """Keys of the preparations of any lab's recordings and epochs."""

    root: str = Field(
        "", description="folder of the recordings; default: recordings below paths.data"
    )
    files: str = Field(
        "*", description="pattern of the files to read, such as *task-images*"
    )
    subject_numbers: SubjectNumbers = Field({})
    sessions: ChosenSessions = Field(None, exclude_if=lambda sessions: not sessions)
    accept: AcceptKey = Field({})
    stimuli: StimuliKey = "image-folder"
    events: str = Field(
        "",
        description="table (CSV or TSV) with columns event and picture; default: "
        "events.csv, events.tsv or BIDS's stimuli/stimuli.tsv in the folder; "
        "without a table, each event has the name of its picture",
    )
    types: UniqueNames | None = Field(
        None,
        description="channel types as in mne; default: eeg, or mag and grad in "
        "recordings without EEG",
    )
    channels: UniqueNames | None = Field(
        None,
        description="channels, in the order of the store; default: all channels of "
        "`types` that no recording marks as bad",
    )
    exclude: NameList = Field([], description="channels to leave out")
    stimulus_ms: float | None = Field(
        None,
        gt=0,
        description="duration of each picture, which figures shade; default: unknown",
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_trials_apart(cls, fields: Any) -> Any:
        """Choose defaults with which trials of categories can be held out."""
        return leave_trials_apart(fields, cls.model_fields)


class Config(RecordingKeys, OwnSignalKeys):
    """Recordings in fif, edf, bdf, set or vhdr.

    The files are called `sub-01_ses-01.fif`, or are part of a BIDS data set.
    """

    called = "continuous files"

    delay_ms: float = Field(
        0.0,
        ge=-600_000,
        le=600_000,
        exclude_if=lambda delay: not delay,  # stores name it only if the user sets it
        description="delay in ms from an event to its picture on the screen, as a "
        "photodiode measures it; added to all onsets",
    )
    band_hz: Band = Field(
        (None, None),
        description="lower and upper edge of mne's filter over the whole recording; "
        "null for no edge",
    )
    phase: Literal["zero", "forward"] = Field(
        "zero",
        description="phase of that filter: zero looks ahead (mne's FIR); forward is "
        "causal, as live decoding needs (Butterworth of fourth order, which delays the "
        "signal)",
    )

    @model_validator(mode="after")
    def _check_band(self) -> Self:
        low, high = self.band_hz
        is_positive = min(low or 1, high or 1) > 0
        if not is_positive or (low and high and low >= high):
            raise ValueError(
                f"band_hz is {[low, high]}, but its lower edge must be above 0 and "
                "below its upper edge"
            )
        if not (low or high):
            refuse_idle(
                self, "phase", "without a filter", "preparation.band_hz=[0.1, 40]"
            )
        return self

    def build(self, paths: Paths) -> "OwnRecordings":
        """Create the preparation without reading a recording."""
        return OwnRecordings.from_config(self, paths)


TINY = Config()


@dataclass(frozen=True)
class OwnRecordings(Preparation):
    """The recordings below a folder.

    Attributes:
        config: `OwnSignalKeys` or a subclass.
        root: Folder of the recordings.
        stimuli: Data set of the pictures.
        dataset: Name of that data set.
        are_epochs: True if files hold epochs.
    """

    config: Any
    root: Path
    stimuli: Any
    dataset: str
    are_epochs: ClassVar[bool] = False

    @classmethod
    def from_config(cls, config: Any, paths: Paths) -> Self:
        """Find the folder and the pictures that a recipe names."""
        root = paths.dataset("recordings", config.root)
        config = choose_stimuli(config, paths, root)
        stimuli = build_stimuli(config, paths)
        return cls(config, root, stimuli, str(stimuli.recorded_as))

    @property
    def subjects(self) -> tuple[int, ...]:
        """Subjects with recordings, ascending."""
        return tuple(sorted(self._recordings))

    def files(self, subject: int) -> Sequence[Path]:
        """List a subject's recordings, the files next to them, and the tables of events
        and pictures.
        """
        paths: list[Path] = []
        for recording in self._list_paths(subject):
            paths += list_recording_files(recording)
        names = self._names(subject).values()
        paths += dict.fromkeys(table.path for table in names if table.path)
        return paths + list(filter(Path.is_file, self.stimuli.lists))

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions of a subject, ascending."""
        return sorted(self._sessions(subject))

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Count the trials, channels and samples of a session by split."""
        channels, cutting, trials, _ = self._choose_trials(subject, session)
        rows = np.concatenate(list(trials.values()))[:, 1]
        n_channels = len(channels.ch_names)
        n_samples = len(cutting.times_s)
        shapes = {}
        for split, split_rows in self._pictures[1].items():
            count = int(np.isin(rows, split_rows).sum())
            if count:
                shapes[split] = (count, n_channels, n_samples)
        with naming(next(iter(trials))):
            require_noise_splits(list(shapes), self.config)
        return shapes

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Cut and whiten the trials of a session."""
        channels, cutting, trials, dropped = self._choose_trials(subject, session)
        image_ids, split_rows = self._pictures

        # cut the trials of each split
        epochs = {}  # [n, C, T] by split
        picture_rows = {}  # [n] by split
        times = {}
        for split, rows in split_rows.items():
            split_trials = {}
            for path, pairs in trials.items():
                split_trials[path] = pairs[np.isin(pairs[:, 1], rows)]
            split_pairs = np.concatenate(list(split_trials.values()))
            if not len(split_pairs):
                continue
            signal, faults = self._cut(split_trials, channels, cutting)
            is_good = faults == ""
            dropped[split].update(faults[~is_good].tolist())
            if not len(signal):
                continue
            epochs[split] = signal
            picture_rows[split] = split_pairs[is_good, 1]
            times[split] = self._collect_times(split_trials, is_good, cutting)
        first_path = next(iter(trials))
        if not epochs:
            raise _make_no_trials_error(first_path, dropped)

        # whiten the trials in place
        with naming(first_path):
            matrix = whiten_session(
                epochs, picture_rows, self.config, channels.ch_names
            )

        # facts for the store
        headers = self._headers(subject, session)
        edges_hz = np.array([header.filtered_hz for header in headers.values()])
        provenance = {
            "time_shift": cutting.resampling.time_shift,
            "recorded_hz": cutting.recorded_hz,
            "stimulus_ms": self.config.stimulus_ms,
            "filtered_hz": [float(edges_hz[:, 0].max()), float(edges_hz[:, 1].min())],
            "recorded_unit": channels.unit,
            "modality": channels.modality,
            "reference": [header.reference for header in headers.values()],
            "events_from": [header.event_source for header in headers.values()],
            "unmatched": self._match(subject)[1],
        }
        warnings = _describe_warnings(headers)
        if warnings:
            provenance["doubts"] = warnings
        disputes = self._list_disputes(subject)
        accepted = Account(disputes=list(disputes)).list_accepted(subject)
        if accepted:
            provenance["accepted"] = accepted
        programs = read_simulated(*headers)
        if programs:
            provenance["simulated"] = programs
        provenance["dropped_by_split"] = {
            split: dict(counts) for split, counts in dropped.items()
        }

        recordings = {}
        for split, signal in epochs.items():
            recordings[split] = Trials(
                signal,  # [n, C, T]
                [image_ids[row] for row in picture_rows[split]],
                channels.space,
                cutting.times_s,
                cutting.rate_hz,
                unit=channels.unit if matrix is None else "whitened",
                provenance={"dropped": dropped[split]} | provenance,
                whiteners=None if matrix is None else matrix[None],
                **times[split],
            )
        return recordings

    def look_over(self, subjects: Sequence[int]) -> Overview:
        """Describe the channels and the shown pictures, and take the account."""
        lines = describe_labels(
            self._recordings, self.root, subjects, self.config.subject_numbers
        )
        account = self._take_account(subjects)
        lines += account.describe()
        channels = {}
        counts = {}  # [pictures] by subject and session
        for subject in subjects:
            try:
                subject_channels = self._channels(subject)
                subject_counts = self._count_pictures(subject)
                lines += self._describe_unmatched(subject)
            except BrainhiveError:
                continue  # preparing this subject raises it again
            channels[subject] = subject_channels
            counts[subject] = subject_counts
        if not channels:
            return Overview((), tuple(lines), account=account)

        # subjects with the same warning share a line
        warnings: dict[str, list[int]] = {}
        suspects = []
        for subject, subject_channels in channels.items():
            for text, suspect_names in list_unusual_channels(subject_channels):
                warnings.setdefault(text, []).append(subject)
                suspects += suspect_names
        for text, numbers in warnings.items():
            lines.append(f"subject {format_ranges(numbers)}: {text}")
        lines += compare_rates_and_references(channels, self.config.rate_hz)
        lines += self._list_idle_names(channels)
        differences, override = compare_subjects(
            channels, suspects, self.config.exclude
        )
        lines += differences

        # subjects with the same channels of a type share a row
        channel_rows = group_by_entry(
            {number: describe_channels(channels[number]) for number in channels}
        )
        columns = ("subject", "type", "channels", "kept", "bad", "positions", "names")
        tables = (
            Table("Channels", columns, channel_rows),
            _tabulate_pictures(counts, self._pictures[1]),
        )
        return Overview(tables, tuple(lines), override, account)

    def _take_account(self, subjects: Sequence[int]) -> Account:
        """Take the account of the folder and of subjects."""
        account = Account(accept=self.config.accept)
        recordings = {}
        for subject in self._recordings:
            for path in self._list_paths(subject):
                recordings[path] = read_label(path, self.root)
        tables = {self._table, *self._own_tables.values()}
        account_for_files(
            account, self.root, recordings, tables, self.are_epochs, self.config.files
        )

        rows = {}
        recorded: set[str] = set()
        unrecorded: list[str] | None = None
        for subject in subjects:
            try:
                disputes = self._list_disputes(subject)
                headers = self._headers(subject)
            except BrainhiveError:
                continue  # preparing this subject raises it again
            names = self._names(subject)
            account.disputes.extend(disputes)
            for table_names in set(names.values()):
                for key, count in table_names.account.counts.items():
                    account.counts[key] = count
            absent = list_unrecorded(headers, names)
            if unrecorded is None:
                unrecorded = absent
            unrecorded = [name for name in unrecorded if name in absent]
            for header in headers.values():
                recorded.update(read_code(name) for _, name in header.events)
            rows[subject] = self._list_account_rows(subject)
        is_explained = any(item.kind == "unnamed-codes" for item in account.disputes)
        if unrecorded and not is_explained:
            account.disputes.append(dispute_unrecorded(unrecorded, recorded))
        account.rows.extend(group_by_entry(rows))
        return account

    def _list_account_rows(self, subject: int) -> list[tuple[object, ...]]:
        """Count recordings, events, trials and pictures, as found and as used."""
        n_trials = 0
        dropped = Counter[str]()
        for session in self._sessions(subject):
            with suppress(BrainhiveError):  # preparing it raises the error again
                _, _, trials, session_dropped = self._choose_trials(subject, session)
                n_trials += sum(map(len, trials.values()))
                dropped += sum(session_dropped.values(), Counter[str]())
        headers = self._headers(subject)
        rows = list_rows(headers, self._names(subject), n_trials, dropped)
        sessions = f"sessions {', '.join(map(str, self._sessions(subject)))}"
        n_shown = len(self._match(subject)[0])
        return [
            ("recordings", len(headers), len(headers), sessions),
            *rows,
            ("pictures", len(self._pictures[0]), n_shown, ""),
        ]

    def _list_idle_names(self, channels: Mapping[int, KeptChannels]) -> list[str]:
        """Describe names of channels in the recipe that no recording has."""
        config = self.config
        file_names = set[str]()
        file_types = set[str]()
        for subject_channels in channels.values():
            for path, header in subject_channels.headers.items():
                file_names.update(header.ch_names)
                file_types.update(header.ch_types)
                if config.rename:
                    # names in the file, before renaming
                    unchanged = config.model_copy(update={"rename": {}, "montage": ""})
                    raw = replace(self, config=unchanged)._open(path)
                    file_names.update(raw.ch_names)

        lines = []
        for key, names, present in (
            ("rename", config.rename, file_names),
            ("exclude", config.exclude, file_names),
            ("types", config.types or (), file_types),
        ):
            absent = []
            for name in names:
                spellings = {name, standardise_name(name), config.rename.get(name)}
                if spellings.isdisjoint(present):
                    absent.append(name)
            if absent:
                lines.append(
                    f"no recording has {', '.join(absent)}, which preparation.{key} "
                    "names"
                )
        return lines

    def _count_pictures(self, subject: int) -> dict[int, Int64]:
        """Count how often each picture was shown [pictures], by session."""
        counts = {}
        for session in self._sessions(subject):
            headers = self._headers(subject, session)
            names = self._names(subject)
            rows = []
            for path, header in headers.items():
                row_of_event, _ = names[path].match([header])
                # an event that is coded twice counts once
                for _, name in set(header.events):
                    if name in row_of_event:
                        rows.append(row_of_event[name])
            counts[session] = np.bincount(
                np.array(rows, np.int64), minlength=len(self._pictures[0])
            )
        return counts

    def _describe_unmatched(self, subject: int) -> list[str]:
        """Describe absent sessions, warnings of headers, and unmatched events and
        pictures.
        """
        lines = []
        all_sessions = set(chain.from_iterable(self._recordings.values()))
        absent = sorted(all_sessions - self._recordings[subject].keys())
        if absent:
            lines.append(f"no recording of session {', '.join(map(str, absent))}")
        lines += _describe_warnings(self._headers(subject))
        for session in self._sessions(subject):
            dates = {header.date for header in self._headers(subject, session).values()}
            if len(dates) > 1:
                lines.append(
                    f"session {session} was recorded on {', '.join(sorted(dates))}: "
                    "name ses-01, ses-02 … if these are sessions"
                )

        # events and pictures without a match
        shown_rows, unmatched = self._match(subject)
        for description, names in unmatched.items():
            lines.append(f"{description}, {summarise_names(list(names))}")
        image_ids = self._pictures[0]
        unseen = [name for row, name in enumerate(image_ids) if row not in shown_rows]
        if unseen:
            summary = summarise_names(unseen, len(image_ids))
            lines.append(f"pictures that were not shown, {summary}")
        return [f"subject {subject}: {line}" for line in lines]

    def _match(
        self, subject: int
    ) -> tuple[set[int], dict[str, Mapping[str, int] | Sequence[str]]]:
        """Match the events of a subject, with the table of each recording.

        Returns:
            Rows of the shown pictures, and events and pictures without a match by kind.
        """
        headers = self._headers(subject)
        names = self._names(subject)
        shown_rows: set[int] = set()
        unmatched: dict[str, Mapping[str, int] | Sequence[str]] = {}
        for table_names in dict.fromkeys(names.values()):
            own = [headers[path] for path in headers if names[path] is table_names]
            row_of_event, own_unmatched = table_names.match(own)
            shown_rows.update(row_of_event.values())
            unmatched |= own_unmatched
        return shown_rows, unmatched

    @cached_property
    def _recordings(self) -> dict[int, dict[int, list[Path]]]:
        """Recordings by subject and session."""
        return list_recordings(
            self.root,
            self.config.files,
            self.config.subject_numbers,
            self.config.sessions,
            self.are_epochs,
        )

    def _sessions(self, subject: int) -> dict[int, list[Path]]:
        """Return a subject's recordings by session."""
        if subject not in self._recordings:
            raise MissingData(
                f"no recording of subject {subject} in {self.root}",
                f"subjects with recordings: {', '.join(map(str, self.subjects))}",
            )
        return self._recordings[subject]

    def _list_paths(self, subject: int) -> list[Path]:
        """List the recordings of a subject, session by session."""
        return list(chain.from_iterable(self._sessions(subject).values()))

    @cached_property
    def _table(self) -> Path | None:
        """The recipe's table of events, else one of a usual name, or None."""
        if self.config.events:
            path = locate(self.config.events)
            if not path.exists():
                path = self.root / self.config.events
            if not path.is_file():
                raise MissingData(
                    f"there is no table {path}",
                    "name the table of events: preparation.events=FILE.csv, with the "
                    "columns event and picture",
                )
            return path
        return find_event_table(self.root)

    @cached_property
    def _pictures(self) -> tuple[list[str], dict[str, Int64]]:
        """Ids of all pictures, and the rows of each split in that list."""
        image_ids, picture_splits = list_pictures(self.stimuli)
        split_rows = {}
        for split in self.stimuli.splits:
            split_rows[split] = np.flatnonzero(picture_splits == split)
        return image_ids, split_rows

    @cached_method
    def _make_names(self, table: Path | None, *labels: str) -> EventNames:
        """Match the events of a table, for a person and session if it selects them."""
        selecting = dict(zip(("sub", "ses"), labels, strict=False))
        return EventNames(
            table, self._pictures[0], self.stimuli.are_categories, selecting
        )

    @cached_method
    def _selects_people(self, table: Path | None) -> bool:
        """Return True if a table has a column of people or sessions."""
        columns = read_table(table)[0] if table else []
        return not set(chain.from_iterable(PERSON_COLUMNS.values())).isdisjoint(columns)

    @cached_method
    def _names(self, subject: int) -> dict[Path, EventNames]:
        """Return the pictures of the events of each recording of a subject."""
        names = {}
        for path in self._list_paths(subject):
            label = read_label(path, self.root)
            session = read_session(path, self.root)
            table = self._table
            if not self.config.events:
                table = self._own_tables.get(label, table)
                table = self._own_tables.get(f"{label} {session}", table)
            labels = (label, session) if self._selects_people(table) else ()
            names[path] = self._make_names(table, *labels)
        return names

    @cached_property
    def _own_tables(self) -> dict[str, Path]:
        """Tables of events that hold the label of a person."""
        return find_own_tables(self.root)

    @cached_method
    def _list_disputes(self, subject: int) -> list[Dispute]:
        """List what does not add up in the recordings of a subject."""
        headers = self._headers(subject)
        channels = self._channels(subject)
        # another compensation has an error of its own
        grade = next(iter(headers.values())).compensation_grade
        spreads = {
            path: channels.measure_spread(path)
            for path, header in headers.items()
            if header.compensation_grade == grade
        }
        disputes = list_disputes(headers, self._names(subject), spreads)
        return [replace(dispute, subject=subject) for dispute in disputes]

    @cached_method
    def _read_header(self, path: Path, names: EventNames) -> Header:
        """Read the header of a recording, once."""
        delay_s = self.config.delay_ms / 1000
        header = read_header(path, self.config, delay_s, names.find_pictures)
        events = names.join_codes(header.events, header.rate_hz)
        return replace(header, events=events)

    @cached_method
    def _all_headers(self, subject: int) -> dict[Path, Header]:
        """Read the headers of a subject's recordings, and join their showings."""
        names = self._names(subject)
        headers = {
            path: self._read_header(path, names[path])
            for path in self._list_paths(subject)
        }
        return headers if self.are_epochs else join_showings(headers, names)

    def _headers(self, subject: int, session: int | None = None) -> dict[Path, Header]:
        """Return the headers of a subject's recordings in one or all sessions."""
        headers = self._all_headers(subject)
        if session is None:
            return headers
        return {path: headers[path] for path in self._sessions(subject)[session]}

    def _channels(self, subject: int) -> KeptChannels:
        """Choose the channels of a subject."""
        config = self.config
        headers = self._headers(subject)
        first_header = next(iter(headers.values()))
        exclude = list(config.exclude)
        if config.stim_channel:  # event codes are never a signal
            exclude.append(config.stim_channel)
        return keep_channels(
            headers,
            types=config.types,
            names=self._translate_names(config.channels or (), first_header),
            exclude=self._translate_names(exclude, first_header),
            whiten=config.whiten != "no",
        )

    def _translate_names(self, names: Sequence[str], header: Header) -> list[str]:
        """Turn the recipe's names of channels into the names of a recording."""
        translated = []
        for name in names:
            if name not in header.ch_names:
                name = self.config.rename.get(name, standardise_name(name))
            translated.append(name)
        return translated

    def _choose_trials(
        self, subject: int, session: int
    ) -> tuple[KeptChannels, Cutting, TrialTables, dict[str, Counter[str]]]:
        """Choose channels and trials of a session, and count the dropped trials by
        split and reason.
        """
        channels = self._channels(subject)
        headers = self._headers(subject, session)
        for path in headers:
            channels.require_consistent(path)
        # refuse flat channels before any signal is read
        variances = [channels.measure_variances(path) for path in headers]
        with naming(next(iter(headers))):
            refuse_flat_channels(np.max(variances, 0), channels.ch_names)
        cutting = self._make_cutting(channels)
        names = self._names(subject)[next(iter(headers))]
        trials, dropped = choose_trials(headers, names, self._pictures[1], cutting)
        return channels, cutting, trials, dropped

    def _make_cutting(self, channels: KeptChannels) -> Cutting:
        """Return the cutting at the rate of the subject's first recording."""
        return Cutting(self.config, next(iter(channels.headers.values())).rate_hz)

    def _open(self, path: Path) -> Any:
        """Open a recording with mne."""
        config = self.config
        return open_raw(path, config.onset_unit == "s", config.rename, config.montage)

    def _collect_times(
        self, trials: TrialTables, is_good: Bool, cutting: Cutting
    ) -> dict[str, Any]:
        """Return the runs of the good trials [n], and their onsets. Unknown onsets
        are replaced by the order in time, if known.

        The keys are arguments of `Trials`.
        """
        columns = []
        for file_number, (path, pairs) in enumerate(trials.items()):
            columns.append(self._locate_trials(path, file_number, pairs[:, 0], cutting))
        runs, onset_s, numbers = map(np.concatenate, zip(*columns, strict=True))
        times = {"runs": runs[is_good].astype(np.int16)}
        if np.isfinite(onset_s[is_good]).all():
            times["onset_s"] = onset_s[is_good]
        elif numbers[is_good].min() >= 0:
            times["trial_numbers"] = numbers[is_good]
        return times

    def _locate_trials(
        self, path: Path, file_number: int, onsets: Int64, cutting: Cutting
    ) -> tuple[Int64, Float64, Int64]:
        """Return the run, the onset in seconds (NaN if unknown) and the order in time
        (-1 if unknown) of each trial of a file.
        """
        # each file is a run
        runs = np.full(len(onsets), file_number)
        return runs, onsets / cutting.recorded_hz, onsets

    def _cut(
        self, trials: TrialTables, channels: KeptChannels, cutting: Cutting
    ) -> tuple[Float32, NDArray[np.str_]]:
        """Cut trials out of the recordings of a session.

        Returns:
            The good trials [good, C, T], and the fault of each trial [n], which is
            empty for a good trial.
        """
        config = self.config
        names = channels.ch_names
        epochs = []
        faults = []
        for path, pairs in trials.items():
            if not len(pairs):
                continue

            # read, filter and cut
            onsets = pairs[:, 0]
            raw = self._open(path)
            segments = FlatSegments(int(raw.n_times), float(raw.info["sfreq"]))
            breaks = channels.headers[path].breaks
            samples = read_channels(
                raw, path, names, config.band_hz, config.phase, breaks, segments
            )
            with naming(path):
                signal = cutting.cut_trials(
                    samples, names, onsets, scale=1.0, may_be_lost=True
                )  # [n, C, T]
            # `segments` holds unfiltered samples, because a filter hides flat ones
            is_flat = segments.are_flat(onsets, cutting.span, len(names))
            # Reason for dropping a trial in which the amplifier was off or saturated.
            file_faults = np.where(is_flat, "flat", "")
            file_faults = np.where(np.isnan(signal[:, 0, 0]), LOST_REASON, file_faults)
            is_good = file_faults == ""
            faults.append(file_faults)
            epochs.append(signal if is_good.all() else signal[is_good])
        # a single recording is not copied
        joined = epochs[0] if len(epochs) == 1 else np.concatenate(epochs)
        return joined, np.concatenate(faults)


def choose_trials(
    headers: Mapping[Path, Header],
    names: EventNames,
    split_rows: Mapping[str, Int64],
    cutting: Cutting,
) -> tuple[TrialTables, dict[str, Counter[str]]]:
    """Choose trials with a picture that lie in the recording, outside of BAD spans.

    Args:
        headers: Headers of the recordings of a session.
        names: Pictures of the events.
        split_rows: Rows of each split in the list of all pictures.
        cutting: Cutting of trials.

    Returns:
        The trials of each recording, and the number of dropped trials by split and
        reason. Events without a picture count in the first split.

    Raises:
        NoTrials: if no trial is left.
    """
    first_path, first_header = next(iter(headers.items()))
    matches = names.match(headers.values())
    names.require_match(matches, first_path, first_header.event_source)
    row_of_event, unmatched = matches
    unnamed_events = unmatched.get(NOT_IN_TABLE, ())

    split_of_row: dict[int, str] = {}
    for split, rows in split_rows.items():
        split_of_row |= dict.fromkeys(rows.tolist(), split)
    dropped: dict[str, Counter[str]] = {split: Counter() for split in split_rows}
    first_split = next(iter(split_rows))

    trials = {}
    for path, header in headers.items():
        # onsets and pictures in the order of time; an event coded twice counts once
        events = set()
        for onset, name in header.events:
            if name in row_of_event:
                events.add((onset, row_of_event[name]))
        pairs = np.array(sorted(events), np.int64).reshape(-1, 2)
        onsets, picture_rows = pairs.T
        for name in header.events_without_onset:
            if name in row_of_event:
                split = split_of_row[row_of_event[name]]
                dropped[split]["without an onset"] += 1

        # count events without a picture, except at a picture's onset
        picture_onsets = set(onsets.tolist())
        event_names = [
            name for onset, name in header.events if onset not in picture_onsets
        ]
        event_names += header.events_without_onset
        for name in event_names:
            if name not in row_of_event:
                is_unnamed = name in unnamed_events
                reason = "not in the table" if is_unnamed else "no such picture"
                dropped[first_split][reason] += 1

        # count each dropped trial under a single reason
        is_inside = cutting.are_complete(onsets, header.n_times)
        repeated_onsets = onsets[1:][np.diff(onsets) == 0]
        is_simultaneous = np.isin(onsets, repeated_onsets)
        is_kept = np.ones(len(onsets), bool)
        for index, onset in enumerate(onsets.tolist()):
            if is_simultaneous[index]:
                reason = "two pictures at once"
            elif not is_inside[index]:
                reason = "beyond the recording"
            else:
                reason = header.find_bad_span(onset, cutting.span)
            if reason:
                dropped[split_of_row[picture_rows[index]]][reason] += 1
                is_kept[index] = False
        trials[path] = pairs[is_kept]

    if not any(map(len, trials.values())):
        raise _make_no_trials_error(first_path, dropped)
    return trials, dropped


def _make_no_trials_error(
    path: Path, dropped: Mapping[str, Mapping[str, int]]
) -> NoTrials:
    """Return an error that counts the dropped trials by reason."""
    counts = sum(map(Counter, dropped.values()), Counter[str]())
    phrases = []
    # Words of an error for reasons why trials are dropped. Others mark BAD spans.
    dropped_phrases = {
        "beyond the recording": "cut off by the start or the end of the file",
        "not in the table": "of an event that is not in the table",
        "no such picture": "of a picture that is not in the data set",
        "two pictures at once": "with two pictures at once",
        "without an onset": "without an onset",
    }
    for reason, count in counts.items():
        phrase = dropped_phrases.get(reason, f"marked as {reason}")
        phrases.append(f"{count} {phrase}")
    reasons = ", ".join(phrases) or "it has no events"
    if list(counts.values()) == [1]:
        reasons = f"its only trial is {phrases[0].removeprefix('1 ')}"
    return NoTrials(
        f"{path} has no complete trial: {reasons}",
        "choose other subjects (--subjects) or files (preparation.files=PATTERN), or "
        "cut shorter trials (preparation.epoch_ms=[START, STOP])",
    )


def _describe_warnings(headers: Mapping[Path, Header]) -> list[str]:
    """Describe each warning of headers, with its recording or number of recordings."""
    file_names: dict[str, list[str]] = {}
    for path, header in headers.items():
        for warning in header.warnings:
            file_names.setdefault(warning, []).append(path.name)
    lines = []
    for warning, names in file_names.items():
        source = names[0] if len(names) == 1 else f"{len(names)} recordings"
        lines.append(f"{source}: {warning}")
    return lines


def _tabulate_pictures(
    counts: Mapping[int, Mapping[int, Int64]], split_rows: Mapping[str, Int64]
) -> Table:
    """Tabulate how often pictures were shown. Equal subjects and sessions share a row.

    Args:
        counts: How often each picture was shown [pictures], by subject and session.
        split_rows: Rows of each split in the list of pictures.
    """
    subject_rows = {}
    for subject, sessions in counts.items():
        session_rows = {}
        for session, times_shown in sessions.items():
            session_rows[session] = _describe_splits(times_shown, split_rows)
        subject_rows[subject] = group_by_entry(session_rows)
    columns = ("subject", "session", "split", "pictures", "times shown")
    return Table("Pictures that were shown", columns, group_by_entry(subject_rows))


def _describe_splits(
    times_shown: Int64, split_rows: Mapping[str, Int64]
) -> list[tuple[str, str, str]]:
    """Describe for each split how many pictures were shown, and how often."""
    entries = []
    for split, rows in split_rows.items():
        counts = times_shown[rows]
        counts = counts[counts > 0]
        if not len(counts):
            continue
        if np.ptp(counts):
            median = np.median(counts)
            frequency = f"{counts.min()} to {counts.max()}, mostly {median:g}"
        else:
            frequency = str(counts[0])
        entries.append((split, f"{len(counts)} of {len(rows)}", frequency))
    return entries
