"""Selection of recordings: channels, and trials of the pictures that events stand for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.arrays import Float32, Float64, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.electrodes import standard_positions
from brainhive_cli.data.event_names import NO_PICTURE, UNNAMED, EventNames
from brainhive_cli.data.recording_files import RUN, UNITS
from brainhive_cli.data.recording_headers import Header
from brainhive_cli.data.signals.cutting import Cutting
from brainhive_cli.data.spaces import Sensors

MEG = ("mag", "grad")
MIN_GOOD = 4
"""Least number of channels that a sphere is fitted to."""
RATE_TOLERANCE = 1e-5
"""Share by which sampling rates of one subject may differ: headers round them."""
OTHER_UNIT = 100
"""Times the spread of other recordings that one reaches only if it is in another unit, or no signal."""
LEAST_EVENTS = 5
"""Pictures at the same samples that show two recordings to be one."""
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class KeptChannels:
    """The channels of one subject.

    Attributes:
        headers: Headers of the subject's recordings, in their order.
        types: Types of channels as mne names them; None for EEG, or else MEG.
        wanted: Names of channels in order; None for all of `types` that no recording marks as bad.
        exclude: Names of channels that are left out.
        interpolate: Whether channels that were marked as bad are kept, and made of the others.
        whiten: Whether signals are whitened, which makes units of all channels one.
    """

    headers: Mapping[Path, Header]
    types: Sequence[str] | None
    wanted: Sequence[str] | None
    exclude: Sequence[str]
    interpolate: bool = False
    whiten: bool = True

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Their names.

        Raises:
            BrainhiveError: if the first recording has none of these types that is good.
        """
        # the recipe's list, in its order
        if self.wanted:
            return tuple(name for name in self.wanted if name not in self.exclude)

        # else the good channels of the types, in the order of the first recording
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
            BrainhiveError: if it lacks a channel, has another sampling rate, unit or compensation, or a bad
                channel that cannot be interpolated.
        """
        # without whitening, all channels have one unit; `unit` raises
        if not self.whiten:
            _ = self.unit
        # the same channels at the same rate
        (first, first_header), header = self._first, self.headers[path]
        if absent := [name for name in self.names if name not in header.names]:
            hint = f"preparation.exclude=[{','.join(absent)}], or rename one of its {', '.join(header.names)}"
            raise BrainhiveError(f"{path} has no channel {', '.join(absent)}", hint)
        leave_out = "or leave it out: preparation.files=PATTERN"
        if abs(header.rate_hz / first_header.rate_hz - 1) > RATE_TOLERANCE:
            raise BrainhiveError(
                f"{path} has {header.rate_hz:.10g} Hz, but {first.name} {first_header.rate_hz:.10g} Hz",
                f"resample one of them with mne and save it, {leave_out}",
            )

        # signals in the same unit, with the same references taken out
        ratio = self.spread(header) / (self.spread(first_header) or np.nan)
        if ratio and not 1 / OTHER_UNIT < (ratio if np.isfinite(ratio) else 1) < OTHER_UNIT:
            raise BrainhiveError(
                f"{path} has signals of {ratio:.2g} times the size of those of {first.name}: another unit",
                f"mne takes V and T: multiply one of them by raw.apply_function and save it, {leave_out}",
            )
        if header.compensation != first_header.compensation:
            raise BrainhiveError(
                f"{path} has CTF's compensation of grade {header.compensation}, "
                f"but {first.name} {first_header.compensation}",
                f"bring both to one grade by mne's raw.apply_gradient_compensation, {leave_out}",
            )

        # bad channels that splines can fill: EEG with all positions
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

    def spread(self, header: Header) -> float:
        """Median standard deviation of the channels, of those that change; 0 if none does."""
        rows = [header.names.index(name) for name in self.names if name in header.names]
        variances = header.variances[rows]
        # channels that do not change say nothing about the unit
        variances = variances[np.isfinite(variances) & (variances > 0)]
        return float(np.sqrt(np.median(variances))) if len(variances) else 0.0

    @property
    def unit(self) -> str:
        """The unit of signals before they are whitened.

        Raises:
            BrainhiveError: if they have several, and are not whitened.
        """
        units = {UNITS.get(kind, (1.0, "SI"))[1]: kind for kind in self.kinds}
        if len(units) > 1 and not self.whiten:
            raise BrainhiveError(
                f"channels of types {' and '.join(units.values())} have different units",
                "preparation.types=[ONE], or let them be whitened: preparation.whiten=epochs",
            )
        return " and ".join(units)

    @cached_property
    def positions(self) -> Float64:
        """Positions [C, 3] in the first recording; for EEG without them, standard ones, NaN if unknown."""
        if self.has_own_positions or {*self.kinds} != {"eeg"}:
            return self._own_positions
        return standard_positions(self.names)

    @property
    def has_own_positions(self) -> bool:
        """Whether the first recording has the positions of all of them."""
        return bool(np.isfinite(self._own_positions).all())

    @property
    def without_position(self) -> list[str]:
        """Names of the channels whose position is not known."""
        unknown = np.flatnonzero(~np.isfinite(self.positions).all(1)).tolist()
        return [self.names[row] for row in unknown]

    @property
    def space(self) -> Sensors:
        """Names of the channels, and their positions if all are known."""
        return Sensors(self.names, None if self.without_position else self.positions)

    @property
    def kinds(self) -> list[str]:
        """Types [C] of the channels."""
        header = self._first[1]
        return [header.types[header.names.index(name)] for name in self.names]

    @property
    def _own_positions(self) -> Float64:
        header = self._first[1]
        return header.positions[[header.names.index(name) for name in self.names]]

    @property
    def _first(self) -> tuple[Path, Header]:
        return next(iter(self.headers.items()))


def interpolate_bad(epochs: Float32, names: Sequence[str], bad: Sequence[str], positions: Floats) -> Float32:
    """Put interpolated channels between the good ones, by spherical splines as mne makes them.

    All steps from a recording to trials are linear and the same for all channels: the trials are as if the
    recording had been interpolated. mne makes the weights, of one epoch with an impulse in each channel.

    Args:
        epochs: [n, G, T] of the good channels, in the order of `names`.
        names: [C] names of all channels.
        bad: Names of the channels that are interpolated.
        positions: [C, 3] positions of all channels, in the head frame.

    Returns:
        [n, C, T].

    Source: Perrin et al. 1989; `mne.Epochs.interpolate_bads`.
    """
    import mne

    is_bad = np.isin(names, bad)
    if (good := int((~is_bad).sum())) < MIN_GOOD:
        problem = f"{good} good channels are too few to interpolate {', '.join(bad)}"
        raise BrainhiveError(problem, "preparation.interpolate=false, or leave out this recording")

    # mne interpolates one impulse a channel, which gives the weights of the good channels
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

    # good and interpolated channels in the order of `names`
    filled = np.empty((len(epochs), len(names), epochs.shape[2]), np.float32)  # [n, C, T]
    filled[:, ~is_bad], filled[:, is_bad] = epochs, weights @ epochs
    return filled


@dataclass(frozen=True)
class RecordingTrials:
    """The trials of one recording.

    Attributes:
        onsets: [n] samples.
        rows: [n] row of each trial's picture among all.
    """

    path: Path
    onsets: Int64
    rows: Int64

    def select(self, rows: Int64) -> "RecordingTrials":
        """Select the trials of the pictures in `rows`."""
        is_kept = np.isin(self.rows, rows)
        return RecordingTrials(self.path, self.onsets[is_kept], self.rows[is_kept])


def choose_trials(
    headers: Mapping[Path, Header],
    names: EventNames,
    split_rows: Mapping[str, Int64],
    cutting: Cutting,
) -> tuple[list[RecordingTrials], dict[str, Counter[str]]]:
    """Choose the events of pictures whose trials lie in the recording, outside of BAD spans, one at a time.

    Args:
        headers: Headers of the recordings of one session.
        names: Pictures that events stand for.
        split_rows: The rows of each split among all pictures.
        cutting: Cutting of trials.

    Returns:
        The trials of each recording, and by split the number of dropped ones, by reason. Events without a
        picture count as those of the first split.

    Raises:
        BrainhiveError: if nothing is left.
    """
    first, header = next(iter(headers.items()))
    matched = names.match(headers.values())
    names.require_match(matched, first, header.events_from)

    # events without a picture, counted as those of the first split
    split_of = {row: split for split, rows in split_rows.items() for row in rows.tolist()}
    dropped: dict[str, Counter[str]] = {split: Counter() for split in split_rows}
    for reason, what in {"not in the table": UNNAMED, "no such picture": NO_PICTURE}.items():
        if isinstance(events := matched.left_over.get(what), Mapping):
            next(iter(dropped.values()))[reason] = sum(events.values())

    # onsets and pictures in the order of time; an event that is coded twice counts once
    _refuse_copies(headers, matched.rows)
    trials = []
    for path, header in headers.items():
        shown = {(onset, matched.rows[name]) for onset, name in header.events if name in matched.rows}
        pairs = sorted(shown)
        onsets, rows = np.array(pairs, np.int64).reshape(-1, 2).T
        for name in header.without_onset:
            if name in matched.rows:
                dropped[split_of[matched.rows[name]]]["without an onset"] += 1

        # trials that lie wholly in the recording, outside of BAD spans, one at a time
        is_inside = cutting.fits(onsets, header.samples)
        is_simultaneous = np.isin(onsets, onsets[1:][np.diff(onsets) == 0])
        is_kept = np.ones(len(onsets), bool)
        for index, onset in enumerate(onsets.tolist()):
            # one reason for each trial; two pictures at once come before all others
            reason = "" if is_inside[index] else "beyond the recording"
            reason = reason or header.find_bad_span(onset, cutting.span)
            if reason := "two pictures at once" if is_simultaneous[index] else reason:
                dropped[split_of[rows[index]]][reason] += 1
                is_kept[index] = False
        trials.append(RecordingTrials(path, onsets[is_kept], rows[is_kept]))

    if not sum(len(recording.onsets) for recording in trials):
        counts = [f"{count} {reason}" for split in dropped.values() for reason, count in split.items()]
        problem = f"{first} has no whole trial: {', '.join(counts)}"
        raise BrainhiveError(problem, "preparation.epoch_ms=[start, stop]")
    return trials, dropped


def _refuse_copies(headers: Mapping[Path, Header], rows: Mapping[str, int]) -> None:
    """Refuse recordings whose events are the same pictures at the same samples, as of a filtered copy."""
    known: list[tuple[Path, Header, Int64]] = []
    for path, header in headers.items():
        pairs = [(at, rows[name]) for at, name in header.events if name in rows]
        shown = np.array(pairs, np.int64).reshape(-1, 2)  # [n, 2]
        for other, other_header, other_hashes in known:
            # few events may agree by chance
            if len(shown) != len(other_hashes) or len(shown) < LEAST_EVENTS:
                continue
            # a table may be of several runs, and plan onsets that all of them have
            is_table = header.events_from.endswith(".tsv")
            is_shared = is_table and header.events_from == other_header.events_from
            # copies are equally long: to the sample with tables, else within a second
            is_long = abs(header.samples - other_header.samples) > (0 if is_table else header.rate_hz)
            runs = {match[1] for each in (other, path) if (match := RUN.search(each.name))}
            is_same = (np.abs(shown - other_hashes) <= [2, 0]).all()  # samples of EEGLAB are counted from 1
            if is_same and len(runs) < 2 and not (is_shared or is_long):
                raise BrainhiveError(
                    f"{other} and {path} are one recording: the same {len(shown)} pictures at the same times",
                    "leave one of them out: preparation.files=PATTERN; two runs are called run-1 and run-2",
                )
        known.append((path, header, shown))
