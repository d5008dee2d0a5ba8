"""Anyone's own recordings, as mne reads them: events become pictures by a table or by
their names.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from brainhive_cli.core.arrays import Float32, Float64, Int64
from brainhive_cli.core.errors import BrainhiveError, MissingData, naming
from brainhive_cli.core.files import locate
from brainhive_cli.core.key_types import NameList, UniqueNames
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.sections import refuse_idle
from brainhive_cli.core.tables import Table
from brainhive_cli.data.files.bids_labels import (
    ChosenSessions,
    SubjectNumbers,
    read_simulated,
)
from brainhive_cli.data.files.ids import spans, summarise_names
from brainhive_cli.data.files.named_files import list_named_parts
from brainhive_cli.data.recordings.channels import (
    KeptChannels,
    compare_rates_and_references,
    compare_subjects,
    describe_channels,
    group_by_entry,
    keep_channels,
    list_unusual_channels,
)
from brainhive_cli.data.recordings.contract import (
    NoTrials,
    Overview,
    Preparation,
    cached_method,
)
from brainhive_cli.data.recordings.event_names import (
    UNNAMED,
    EventNames,
    find_event_table,
)
from brainhive_cli.data.recordings.files import (
    list_other_formats,
    list_recording_files,
    list_recordings,
    list_signal_files,
)
from brainhive_cli.data.recordings.headers import (
    ElectrodeKeys,
    Header,
    RecordingKeys,
    read_header,
)
from brainhive_cli.data.recordings.labels import describe_labels
from brainhive_cli.data.recordings.ledger import Ledger
from brainhive_cli.data.recordings.opening import open_raw
from brainhive_cli.data.recordings.samples import FlatSegments, read_channels
from brainhive_cli.data.recordings.shown_pictures import (
    StimuliKey,
    build_stimuli,
    choose_stimuli,
    list_pictures,
)
from brainhive_cli.data.signals.cutting import (
    Band,
    Cutting,
    Steps,
    normalise,
    refuse_flat,
    require_noise_splits,
)
from brainhive_cli.data.signals.spaces import standard_name
from brainhive_cli.data.signals.trials import Trials

FLAT, LOST = "flat", "samples were lost (NaN)"
"""Why trials are dropped during which the amplifier stood at a limit or was off, or
that have NaN in all channels.
"""
TrialTables = Mapping[Path, Int64]
"""Trials of each recording, [n, 2]: sample of the onset, and row of the picture among
all.
"""


class OwnKeys(ElectrodeKeys, Steps):
    """Keys of anyone's own recordings, continuous or cut."""

    root: str = Field(
        "", description="folder of the recordings; default: recordings below paths.data"
    )
    files: str = Field(
        "*", description="pattern of the files that are read, as *task-images*"
    )
    subject_numbers: SubjectNumbers = Field({})
    sessions: ChosenSessions = Field(None, exclude_if=lambda sessions: not sessions)
    stimuli: StimuliKey = "image-folder"
    events: str = Field(
        "",
        description="table (CSV or TSV) with columns event and picture; default: "
        "events.csv, events.tsv or BIDS's stimuli/stimuli.tsv in the folder; "
        "without one, events are called by their pictures",
    )
    types: UniqueNames | None = Field(
        None,
        description="types of channels as mne names them; default: eeg, or else mag "
        "and grad",
    )
    channels: UniqueNames | None = Field(
        None,
        description="channels, in the order of the store; default: all of `types` that "
        "none marked as bad",
    )
    exclude: NameList = Field([], description="channels that are left out")
    stimulus_ms: float | None = Field(
        None,
        gt=0,
        description="how long each picture was shown, which figures shade; default: "
        "not known",
    )


class Config(RecordingKeys, OwnKeys):
    """Recordings in fif, edf, bdf, set or vhdr, alone (`sub-01_ses-01.fif`) or in a
    BIDS data set.
    """

    delay_ms: float = Field(
        0.0,
        ge=-600_000,
        le=600_000,
        exclude_if=lambda delay: not delay,  # stores name it only where it is chosen
        description="ms from an event to its picture on the screen, as a photodiode "
        "has it; added to all",
    )
    band_hz: Band = Field(
        (None, None),
        description="lower and upper edge of a filter over the whole recording, as "
        "mne's; or null",
    )
    phase: Literal["zero", "forward"] = Field(
        "zero",
        description="of that filter: zero looks ahead (mne's FIR); forward is causal, "
        "as live decoding needs (Butterworth of fourth order, whose delay "
        "stays)",
    )

    @model_validator(mode="after")
    def _has_a_band_in_order(self) -> Self:
        low, high = self.band_hz
        if min(low or 1, high or 1) <= 0 or (low and high and low >= high):
            raise ValueError(
                f"band_hz {[low, high]} is not from a lower to an upper edge"
            )
        if not (low or high):
            refuse_idle(
                self, "phase", "without a filter", "preparation.band_hz=[0.1, 40]"
            )
        return self

    def build(self, paths: Paths) -> "Own":
        """Point at the recordings; nothing is read yet."""
        return Own.find(self, paths)


TINY = Config()


@dataclass(frozen=True)
class Own(Preparation):
    """The recordings below one folder.

    Attributes:
        dataset: The data set of the pictures.
    """

    config: Any  # OwnKeys, and those of the kind of recordings
    root: Path
    stimuli: Any
    dataset: str
    are_epochs: ClassVar[bool] = False

    @classmethod
    def find(cls, config: Any, paths: Paths) -> Self:
        """Find the folder and the pictures that a recipe names."""
        root = paths.dataset("recordings", config.root)
        config = choose_stimuli(config, paths, root)
        stimuli = build_stimuli(config, paths)
        return cls(config, root, stimuli, str(stimuli.recorded_as))

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects that the files name."""
        return tuple(sorted(self._recordings))

    def files(self, subject: int) -> Sequence[Path]:
        """List the recordings of a subject, what they need, the table, and lists of
        pictures.
        """
        recordings = chain(*self._sessions(subject).values())
        table = [] if self._table is None else [self._table]
        lists = filter(Path.is_file, self.stimuli.lists)
        return [*chain(*map(list_recording_files, recordings)), *table, *lists]

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions that the files name."""
        return sorted(self._sessions(subject))

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Count the trials of a session."""
        # trials by split
        channels, cutting, trials, _ = self._choose(subject, session)
        rows = np.concatenate([*trials.values()])[:, 1]
        counts = {
            split: int(np.isin(rows, of_split).sum())
            for split, of_split in self._pictures[1].items()
        }

        # trials whose noise can be measured
        with naming(next(iter(trials))):
            require_noise_splits(
                [split for split, count in counts.items() if count], self.config
            )
        shape = (len(channels.ch_names), len(cutting.times_s))
        return {split: (count, *shape) for split, count in counts.items() if count}

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Prepare the trials of a session, by split."""
        channels, cutting, trials, dropped = self._choose(subject, session)

        # cut the trials of each split
        epochs = {}  # [n, C, T]
        rows = {}  # [n] picture of each trial
        times: dict[str, Any] = {}  # run and onset of each, [n, 1]
        for split, split_rows in self._pictures[1].items():
            selected = {
                path: pairs[np.isin(pairs[:, 1], split_rows)]
                for path, pairs in trials.items()
            }
            pairs = np.concatenate([*selected.values()])
            if not len(pairs):
                continue
            signal, faults = self._cut(selected, channels, cutting)
            is_live = faults == ""
            dropped[split].update(faults[~is_live].tolist())
            if len(signal):
                epochs[split] = signal
                rows[split] = pairs[is_live, 1]
                timed = (
                    self._when(path, number, onsets[:, 0], cutting)
                    for number, (path, onsets) in enumerate(selected.items())
                )
                runs, onset_s, numbers = (
                    np.concatenate(each)[is_live, None]
                    for each in zip(*timed, strict=True)
                )
                # of epochs, only their order may be known, or nothing
                times[split] = {"runs": runs.astype(np.int16)}
                if np.isfinite(onset_s).all():
                    times[split]["onset_s"] = onset_s
                elif numbers.min() >= 0:
                    times[split]["trial_numbers"] = numbers
        first = next(iter(trials))
        if not epochs:
            raise _no_trials(first, dropped)

        # whiten them without a copy
        with naming(first):
            matrix = normalise(epochs, rows, self.config, channels.ch_names)

        # facts for the store
        headers = self._headers(subject, session)
        highpass_hz, lowpass_hz = np.array(
            [header.filtered_hz for header in headers.values()]
        ).T
        provenance = {
            "time_shift": cutting.resampling.time_shift,
            "recorded_hz": cutting.recorded_hz,
            "stimulus_ms": self.config.stimulus_ms,
            "filtered_hz": [float(highpass_hz.max()), float(lowpass_hz.min())],
            "recorded_unit": channels.unit,
            "modality": channels.modality,
            "reference": [header.reference for header in headers.values()],
            "events_from": [header.event_source for header in headers.values()],
            "unmatched": self._names.match(channels.headers.values())[1],
        }
        # facts that not all recordings have
        if doubts := list(_list_doubts(headers)):
            provenance["doubts"] = doubts
        if programs := read_simulated(*headers):
            provenance["simulated"] = programs
        provenance["dropped_by_split"] = {
            split: dict(counts) for split, counts in dropped.items()
        }

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
                **times[split],
            )
            for split, signal in epochs.items()
        }

    def look_over(self, subjects: Sequence[int]) -> Overview:
        """Describe channels and pictures shown; warn of unusual facts and of
        leftovers.
        """
        image_ids, split_rows = self._pictures
        channels = {}
        counts = {}  # [pictures] by session
        lines = describe_labels(
            self._recordings, self.root, subjects, self.config.subject_numbers
        )
        # a folder may hold both: which are read is said
        sessions = (sessions.values() for sessions in self._recordings.values())
        read = {*chain(*chain(*sessions))}
        lines += [*self._list_unread_files(read), *self._names.ledger.describe()]
        for subject in subjects:
            try:
                subject_channels = self._channels(subject)
                session_counts = {}
                for session in self._sessions(subject):
                    # how often the recordings of the session show each picture
                    headers = self._headers(subject, session).values()
                    rows, _ = self._names.match(headers)
                    seen = [
                        rows[name]
                        for header in headers
                        for _, name in {*header.events}
                        if name in rows
                    ]
                    session_counts[session] = np.bincount(
                        np.array(seen, np.int64), minlength=len(image_ids)
                    )
                lines += self._describe_left_over(subject)
                channels[subject], counts[subject] = subject_channels, session_counts
            except BrainhiveError:
                continue  # the preparation of this subject raises it
        if not channels:
            return Overview((), tuple(lines))

        # one line for all subjects with the same warning
        warnings: dict[str, list[int]] = {}
        suspects = []
        for subject, subject_channels in channels.items():
            for text, suspect_names in list_unusual_channels(subject_channels):
                warnings.setdefault(text, []).append(subject)
                suspects += suspect_names
        lines += [
            f"subject {spans(numbers)}: {text}" for text, numbers in warnings.items()
        ]
        lines += compare_rates_and_references(channels, self.config.rate_hz)
        lines += self._list_idle_names(channels)
        differences, way = compare_subjects(channels, suspects, self.config.exclude)

        # one row for all subjects with the same channels of a type
        channel_rows = group_by_entry(
            {subject: describe_channels(kept) for subject, kept in channels.items()}
        )
        columns = ("subject", "type", "channels", "kept", "bad", "positions", "names")
        tables = (
            Table("Channels", columns, channel_rows),
            _tabulate_pictures(counts, split_rows),
        )
        return Overview(tables, (*lines, *differences), way)

    def _list_unread_files(self, read: Collection[Path]) -> list[str]:
        """Describe files of signals that are not read, and parts that are read by
        themselves.
        """
        ledger = Ledger()
        kind = "recording" if self.are_epochs else "epochs"
        for path in list_signal_files(self.root, "*", not self.are_epochs):
            if path not in read:
                reason = f"not read here but by prepare --from {kind}"
                ledger.leave_out("files", reason, path.name)
        for path in list_other_formats(self.root, self.config.files):
            reason = "of a format that is not read (mne saves .fif)"
            ledger.leave_out("files", reason, path.name)
        lines = [
            f"{path.name} is read as a recording of its own: no other file names it as "
            "its next part"
            for path in sorted(read)
            if list_named_parts(path)
        ]
        return ledger.describe() + lines

    def _list_idle_names(self, channels: Mapping[int, KeptChannels]) -> list[str]:
        """Describe names of channels in the recipe that no recording has."""
        config = self.config
        names = set[str]()
        kinds = set[str]()
        for subject_channels in channels.values():
            for path, header in subject_channels.headers.items():
                names.update(header.ch_names)
                kinds.update(header.ch_types)
                if config.rename:
                    plain = config.model_copy(update={"rename": {}, "montage": ""})
                    names.update(replace(self, config=plain)._open(path).ch_names)
        idle = {
            key: [
                name
                for name in listed or ()
                if not {name, standard_name(name), config.rename.get(name)} & names
            ]
            for key, listed in (("rename", config.rename), ("exclude", config.exclude))
        }
        idle["types"] = [kind for kind in config.types or () if kind not in kinds]
        return [
            f"no recording has {', '.join(absent)}, which preparation.{key} names"
            for key, absent in idle.items()
            if absent
        ]

    def _describe_left_over(self, subject: int) -> list[str]:
        """List sessions that other subjects have, and events and pictures without a
        match.
        """
        # sessions of other subjects
        lines = []
        known = {*chain(*self._recordings.values())}
        if absent := sorted(known - self._recordings[subject].keys()):
            lines.append(f"no recording of session {', '.join(map(str, absent))}")

        # doubts of headers about events and tables
        lines += _list_doubts(self._headers(subject))

        # events and pictures without a match
        rows, left_over = self._names.match(self._headers(subject).values())
        lines += [
            f"{what}, {summarise_names([*names])}" for what, names in left_over.items()
        ]
        image_ids = self._pictures[0]
        unseen = sorted({*range(len(image_ids))} - {*rows.values()})
        if names := [image_ids[row] for row in unseen]:
            shown = summarise_names(names, len(image_ids))
            lines.append(f"pictures that were not shown, {shown}")
        return [f"subject {subject}: {line}" for line in lines]

    @cached_property
    def _recordings(self) -> dict[int, dict[int, list[Path]]]:
        return list_recordings(
            self.root,
            self.config.files,
            self.config.subject_numbers,
            self.config.sessions,
            self.are_epochs,
        )

    def _sessions(self, subject: int) -> dict[int, list[Path]]:
        if subject not in self._recordings:
            raise MissingData(
                f"no recording of subject {subject} below {self.root}",
                f"there are: {', '.join(map(str, self.subjects))}",
            )
        return self._recordings[subject]

    @cached_property
    def _table(self) -> Path | None:
        """The table of events: that of the recipe, or the usual one; None where there
        is none.
        """
        if self.config.events:
            path = locate(self.config.events)
            # from the working directory, else in the folder of the recordings
            path = path if path.exists() else self.root / self.config.events
            if not path.is_file():
                raise MissingData(
                    f"no table {path}",
                    "preparation.events=FILE.csv, with columns event and picture",
                )
            return path
        return find_event_table(self.root)

    @cached_property
    def _pictures(self) -> tuple[list[str], dict[str, Int64]]:
        """Ids of the pictures of all splits [pictures], and the rows of each split
        among them.
        """
        image_ids, splits = list_pictures(self.stimuli)
        return image_ids, {
            split: np.flatnonzero(splits == split) for split in self.stimuli.splits
        }

    @cached_property
    def _names(self) -> EventNames:
        return EventNames(self._table, self._pictures[0], self.stimuli.are_categories)

    @cached_method
    def _read_header(self, path: Path) -> Header:
        """Read the header of a recording, once."""
        delay_s = self.config.delay_ms / 1000
        names = self._names
        header = read_header(path, self.config, delay_s, names.find_pictures)
        if header.event_source.startswith("channel"):
            names.require_codes(path)
        return header

    def _headers(self, subject: int, session: int | None = None) -> dict[Path, Header]:
        """Read the headers of a subject's recordings, or of those of one session."""
        sessions = self._sessions(subject)
        groups = sessions.values() if session is None else [sessions[session]]
        return {path: self._read_header(path) for paths in groups for path in paths}

    def _channels(self, subject: int) -> KeptChannels:
        config = self.config
        headers = self._headers(subject)
        first = next(iter(headers.values()))

        def write(names: Sequence[str]) -> list[str]:
            """Write names of the recipe as those of recordings are written."""
            return [
                name
                if name in first.ch_names
                else config.rename.get(name, standard_name(name))
                for name in names
            ]

        # codes of events are no signal, whatever the file calls their channel
        exclude = write([*config.exclude, *filter(None, [config.stim_channel])])
        wanted = write(config.channels or ())
        return keep_channels(
            headers, config.types, wanted, exclude, config.whiten != "no"
        )

    def _choose(
        self, subject: int, session: int
    ) -> tuple[KeptChannels, Cutting, TrialTables, dict[str, Counter[str]]]:
        """Choose channels and trials of a session."""
        channels = self._channels(subject)
        headers = self._headers(subject, session)
        # all recordings have the channels, rate and unit of the first
        for path in headers:
            channels.require_consistent(path)
        # channels that are flat throughout are refused before signals are read
        variances = [channels.measure_variances(path) for path in headers]
        with naming(next(iter(headers))):
            refuse_flat(np.max(variances, 0), channels.ch_names)
        cutting = self._make_cutting(channels)
        chosen = choose_trials(headers, self._names, self._pictures[1], cutting)
        return channels, cutting, *chosen

    def _make_cutting(self, channels: KeptChannels) -> Cutting:
        return Cutting(self.config, next(iter(channels.headers.values())).rate_hz)

    def _open(self, path: Path) -> Any:
        """Open a recording with mne."""
        config = self.config
        return open_raw(path, config.onset_unit == "s", config.rename, config.montage)

    def _when(
        self, path: Path, number: int, onsets: Int64, cutting: Cutting
    ) -> tuple[Int64, Float64, Int64]:
        """Give the run of each trial [n] of a file, its onset in seconds (NaN if not
        known) and its number in the order of time (-1 if not known).
        """
        # each file is a run
        runs = np.full(len(onsets), number)
        return runs, onsets / cutting.recorded_hz, onsets

    def _cut(
        self, trials: TrialTables, channels: KeptChannels, cutting: Cutting
    ) -> tuple[Float32, NDArray[np.str_]]:
        """Cut trials out of the recordings of one session.

        Returns:
            Trials [live, C, T], and why each [n] is dropped; empty of those that are
            kept.
        """
        epochs = []
        faults = []
        for path, pairs in trials.items():
            if not len(pairs):
                continue

            # read, filter and cut
            config = self.config
            onsets = pairs[:, 0]
            raw = self._open(path)
            names = channels.ch_names
            pieces = FlatSegments(int(raw.n_times), float(raw.info["sfreq"]))
            breaks = channels.headers[path].breaks
            samples = read_channels(
                raw, path, names, config.band_hz, config.phase, breaks, pieces
            )
            with naming(path):
                signal = cutting.cut(samples, names, onsets, 1.0, True)  # [n, C, T]
            # still samples are looked for before the filter, which would hide them
            is_still = pieces.are_flat(onsets, cutting.span, len(names))
            is_lost = np.isnan(signal[:, 0, 0])
            faults.append(np.where(is_lost, LOST, np.where(is_still, FLAT, "")))
            is_live = faults[-1] == ""
            epochs.append(signal if is_live.all() else signal[is_live])
        return (
            epochs[0] if len(epochs) == 1 else np.concatenate(epochs)
        ), np.concatenate(faults)


def choose_trials(
    headers: Mapping[Path, Header],
    names: EventNames,
    split_rows: Mapping[str, Int64],
    cutting: Cutting,
) -> tuple[TrialTables, dict[str, Counter[str]]]:
    """Choose the events of pictures whose trials lie in the recording, outside of BAD
    spans, one at a time.

    Args:
        headers: Headers of the recordings of one session.
        names: Pictures that events stand for.
        split_rows: The rows of each split among all pictures.
        cutting: Cutting of trials.

    Returns:
        The trials of each recording, and by split the number of dropped ones, by
        reason. Events without a picture count as those of the first split.

    Raises:
        NoTrials: if nothing is left.
    """
    first, header = next(iter(headers.items()))
    matched = names.match(headers.values())
    names.require_match(matched, first, header.event_source)
    row_of_event, left_over = matched

    split_of = {
        row: split for split, rows in split_rows.items() for row in rows.tolist()
    }
    dropped: dict[str, Counter[str]] = {split: Counter() for split in split_rows}

    # onsets and pictures in the order of time; an event that is coded twice counts once
    trials = {}
    for path, header in headers.items():
        known = [event for event in header.events if event[1] in row_of_event]
        shown = sorted({(onset, row_of_event[name]) for onset, name in known})
        pairs = np.array(shown, np.int64).reshape(-1, 2)
        onsets, rows = pairs.T
        for name in filter(row_of_event.__contains__, header.events_without_onset):
            dropped[split_of[row_of_event[name]]]["without an onset"] += 1

        # events without a picture, unless they lie at the onset of one, count as those
        # of the first split
        shown_at = {*onsets.tolist()}
        others = [name for at, name in header.events if at not in shown_at]
        for name in [*others, *header.events_without_onset]:
            if name not in row_of_event:
                is_unnamed = name in left_over.get(UNNAMED, ())
                reason = "not in the table" if is_unnamed else "no such picture"
                next(iter(dropped.values()))[reason] += 1

        # trials that lie wholly in the recording, outside of BAD spans, one at a time
        is_inside = cutting.fits(onsets, header.n_times)
        is_simultaneous = np.isin(onsets, onsets[1:][np.diff(onsets) == 0])
        is_kept = np.ones(len(onsets), bool)
        for index, onset in enumerate(onsets.tolist()):
            # one reason for each trial; two pictures at once come before all others
            reason = "" if is_inside[index] else "beyond the recording"
            reason = reason or header.find_bad_span(onset, cutting.span)
            if reason := "two pictures at once" if is_simultaneous[index] else reason:
                dropped[split_of[rows[index]]][reason] += 1
                is_kept[index] = False
        trials[path] = pairs[is_kept]

    if not any(map(len, trials.values())):
        raise _no_trials(first, dropped)
    return trials, dropped


def _no_trials(path: Path, dropped: Mapping[str, Mapping[str, int]]) -> NoTrials:
    counts = [
        f"{count} {reason}"
        for split in dropped.values()
        for reason, count in split.items()
    ]
    return NoTrials(
        f"{path} has no whole trial: {', '.join(counts)}",
        "leave it out: preparation.files=PATTERN, or preparation.epoch_ms=[start, "
        "stop] of shorter trials",
    )


def _list_doubts(headers: Mapping[Path, Header]) -> Iterator[str]:
    """Describe what is unusual about events and tables of recordings, with their
    names.
    """
    # files by doubt, so that many files with one doubt are one line
    files: dict[str, list[str]] = {}
    for path, header in headers.items():
        for doubt in header.warnings:
            files.setdefault(doubt, []).append(path.name)
    for doubt, (name, *further) in files.items():
        yield f"{f'{1 + len(further)} recordings' if further else name}: {doubt}"


def _tabulate_pictures(
    counts: Mapping[int, Mapping[int, Int64]], split_rows: Mapping[str, Int64]
) -> Table:
    """Tabulate how often pictures were shown; a row stands for all subjects and
    sessions that are alike.

    Args:
        counts: Number of times that each subject was shown each picture, [pictures] by
            session.
        split_rows: The rows of each split among these.
    """

    def list_splits(times_shown: Int64) -> Iterator[tuple[str, str, str]]:
        """Yield the pictures of each split, and how often these were shown."""
        for split, rows in split_rows.items():
            seen = times_shown[rows][times_shown[rows] > 0]
            if len(seen):
                often = f"{seen.min()} to {seen.max()}, mostly {np.median(seen):g}"
                often = often if np.ptp(seen) else str(seen[0])
                yield split, f"{len(seen)} of {len(rows)}", often

    subject_rows = {
        subject: group_by_entry(
            {session: [*list_splits(times)] for session, times in sessions.items()}
        )
        for subject, sessions in counts.items()
    }
    columns = ("subject", "session", "split", "pictures", "times shown")
    return Table("Pictures that were shown", columns, group_by_entry(subject_rows))
