"""Responses of subjects to stimuli: signals as a model reads them, with the rows of their targets."""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.file_lock import FileLock
from brainhive_cli.core.files import publish
from brainhive_cli.data.signal_stores import SignalSource
from brainhive_cli.data.signals.normalisation import Moments, Normaliser
from brainhive_cli.data.signals.section import Signal
from brainhive_cli.data.signals.selection import Content, Selection
from brainhive_cli.data.stores import hdf5
from brainhive_cli.data.stores.hdf5 import StoredRows
from brainhive_cli.data.stores.recordings import Recording, Voxels
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.models.signal_spec import SignalSpec

Rows = NDArray[np.int64]
Signals = NDArray[np.float32] | StoredRows
"""Signals in memory, or in a file."""
AGAIN = "run the same command again"
"""What makes a file of signals."""


@dataclass(frozen=True)
class Responses:
    """The responses of one subject to the stimuli of one split, each the average of its trials.

    Attributes:
        signal: [N, C, T], repetitions averaged.
        stimulus: [N] row of the stimulus in the target stores.
        channels: [C] names of the sensors; () for voxels.
        rate_hz: Sampling rate; None where there is one sample.
        single: [N, R, C, T], each trial by itself, where they are needed.
        counts: [N] how many of R there are, where they are needed.
        moments: Of the subject's training signals, where these are normalised by them.
        times_s: [T] seconds after stimulus onset.
        regions: Places of each region's voxels among V; empty for sensors.
        sessions: [N, R] session of each repetition, from 0, -1 where there is none; None if not known.
    """

    subject: int
    signal: Signals
    stimulus: Rows
    channels: tuple[str, ...]
    rate_hz: float | None = 250.0
    single: Signals | None = None
    counts: Rows | None = None
    moments: Moments | None = None
    times_s: tuple[float, ...] | None = None
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    sessions: NDArray[np.int8] | None = None

    def take(self, rows: Rows) -> Self:
        """Take some of the N signals."""
        return replace(
            self,
            signal=self.signal[rows],
            stimulus=self.stimulus[rows],
            single=None if self.single is None else self.single[rows],
            counts=None if self.counts is None else self.counts[rows],
            sessions=None if self.sessions is None else self.sessions[rows],
        )

    def of_first_sessions(self, count: int) -> Self:
        """Take the trials of the first sessions; sessions and single trials must be there."""
        assert self.sessions is not None and self.single is not None
        is_first = (self.sessions >= 0) & (self.sessions < count)  # [N, R]
        rows = np.flatnonzero(is_first.any(1))
        is_first, counts = is_first[rows], is_first[rows].sum(1)
        order = np.argsort(~is_first, axis=1, kind="stable")  # [n, R], theirs first
        order = order[:, : counts.max(initial=0)]  # [n, r]
        single = np.where(is_first[..., None, None], self.single[rows], 0)
        single = np.take_along_axis(single, order[..., None, None], 1)  # [n, r, C, T]
        sessions = np.take_along_axis(np.where(is_first, self.sessions[rows], -1), order, 1)
        average = single.sum(1, dtype=np.float32) / counts[:, None, None].astype(np.float32)
        chosen = {"signal": average, "stimulus": self.stimulus[rows], "single": single, "counts": counts}
        return replace(self, **chosen, sessions=sessions)


def spec_of(subjects: Sequence[Responses]) -> SignalSpec:
    """Say what a model that learns from these subjects' signals is built for.

    Raises:
        BrainhiveError: if subjects differ in sensors, samples or rate.
    """
    first = subjects[0]
    for other in subjects[1:]:
        for name, pair in {
            "sensors": (first.channels, other.channels),
            "samples": (first.signal.shape[-1], other.signal.shape[-1]),
            "sampling rate": (first.rate_hz, other.rate_hz),
            "regions": (list(first.regions), list(other.regions)),
        }.items():
            if pair[0] != pair[1]:
                raise BrainhiveError(
                    f"subjects {first.subject} and {other.subject} differ in their {name}",
                    "choose what all have: signal.channels, signal.window_ms; or train on each by itself",
                )
    return SignalSpec(
        names=first.channels,
        samples=first.signal.shape[-1],
        subjects=tuple(each.subject for each in subjects),
        widths=tuple(each.signal.shape[-2] for each in subjects),
        rate_hz=first.rate_hz,
        times_s=first.times_s,
        regions={name: tuple(each.regions[name] for each in subjects) for name in first.regions},
    )


def open_responses(
    source: SignalSource,
    subject: int,
    split: str,
    stimuli: TargetStore,
    *,
    channels: Sequence[str] | None = None,
    normaliser: Normaliser | None = None,
    recording: Recording | None = None,
    are_allowed: Callable[[Rows], NDArray[np.bool_]] | None = None,
    with_single: bool = False,
    memory_map: bool = False,
) -> Responses:
    """Average a subject's signals and match them with the stimuli of a target store.

    This is the one way from a recording to what a model reads. Signals whose stimulus could not be decoded
    are left out, with a warning.

    Args:
        source: Whose signals, and which part of them.
        subject: Who.
        split: Which split.
        stimuli: One of the target stores of the split.
        channels: Names or regions; default: those of the source, else the data set's.
        normaliser: Normalises the signals; default: made of the subject's training signals.
        recording: Signals of the split; default: those of the subject's store.
        are_allowed: Says of rows of stimuli [N] which may be read; default: all.
        with_single: Whether single trials are read, too.
        memory_map: Whether signals stay on disk.

    Raises:
        MissingData: if the subject has no signal store, or it does not have the split.
        RecipeError: if it does not have the channels, regions or window.
        BrainhiveError: if the signals were simulated of other pictures than the split has now.
    """
    selection, stimulus, moments = select_responses(
        source, subject, split, stimuli, channels, normaliser, recording, are_allowed
    )

    def read(content: Content) -> Signals:
        if memory_map:
            return mapped(selection, content, source.path(subject), split)
        return in_memory(selection, content)

    sessions = selection.recording.sessions
    return Responses(
        subject,
        read("averages"),
        stimulus,
        selection.channels,
        selection.recording.rate_hz,
        read("trials") if with_single else None,
        selection.repetitions if with_single else None,
        moments,
        tuple(selection.times_s.tolist()),
        selection.regions,
        None if sessions is None else sessions[selection.pictures],
    )


def select_responses(
    source: SignalSource,
    subject: int,
    split: str,
    stimuli: TargetStore,
    channels: Sequence[str] | None = None,
    normaliser: Normaliser | None = None,
    recording: Recording | None = None,
    are_allowed: Callable[[Rows], NDArray[np.bool_]] | None = None,
) -> tuple[Selection, Rows, Moments | None]:
    """Choose what `open_responses` reads, with its arguments and errors; nothing is averaged.

    Returns:
        The selection, normalised; the row of each of its N stimuli in the target store; and the moments of
        the subject's training signals, where these normalise it.
    """
    where = f"{source.dataset.name} subject {subject} {split}"
    if recording is None:
        store = source.open(subject)
        _refuse_other_pictures(store.path, store.splits.get(split), source, split, stimuli)
        recording = store[split]
    signal = source.signal
    if channels:
        signal = signal.model_copy(update={"channels": list(channels)})
    selection = replace(source, signal=signal).select(recording, where)

    # rows of stimuli that have targets, and may be read
    stimulus = stimuli.rows(recording.image_ids)
    is_known = stimulus >= 0
    if not is_known.all():
        console.warn(f"{where}: {(~is_known).sum()} trials left out, their pictures could not be decoded")
    pictures = np.flatnonzero(is_known)
    if are_allowed is not None:
        pictures = pictures[are_allowed(stimulus[pictures])]
    selection = replace(selection, pictures=pictures)

    moments = None
    if signal.normalise != "none":
        if normaliser is None:
            learned = replace(source, signal=signal).select(source.open(subject)["train"], where)
            moments = Moments.of((chunk for _, chunk in learned.averages()), signal.normalise)
            normaliser = moments.normaliser(signal.normalise)
        selection = replace(selection, normaliser=normaliser)
    return selection, stimulus[pictures], moments


def _refuse_other_pictures(
    path: Path, recording: Recording | None, source: SignalSource, split: str, stimuli: TargetStore
) -> None:
    """Refuse signals that were simulated when the split was not there, or had other stimuli.

    A real recording may lack stimuli of its split, and is matched with them one by one.
    """
    recorded_of = () if recording is None else recording.image_ids
    if source.dataset.is_simulated and set(recorded_of) != set(stimuli.image_ids):
        raise BrainhiveError(
            f"{path} was made when {source.dataset.name}/{split} had other pictures than {stimuli.path}",
            f"{shlex.join(['rm', os.path.abspath(path)])}; the same command then makes it again",
        )


def in_memory(selection: Selection, content: Content) -> NDArray[np.float32]:
    """Read selected signals: [N, C, T] averages, or [N, R, C, T] trials."""
    signals = np.empty(selection.shape_of(content), np.float32)
    for rows, chunk in selection.read(content):
        signals[rows] = chunk
    return signals


def mapped(selection: Selection, content: Content, store: Path, split: str) -> StoredRows:
    """Map selected signals, [N, C, T] or [N, R, C, T], from a file that is written the first time.

    Args:
        selection: What is selected.
        content: Averages or trials.
        store: The signal store that it is selected from; the file lies below its folder.
        split: Split of the store.
    """
    name = f"{store.stem}_{split}_{content}_{selection.fingerprint()}.h5"
    path, changed_ns = store.parent / "prepared" / name, store.stat().st_mtime_ns
    lock = FileLock.for_path(path, wait=True)  # of processes that want the same, one writes
    shape = selection.shape_of(content)
    try:
        is_current = _map(path, shape)[1] == changed_ns
    except BrainhiveError:  # absent or damaged
        is_current = False
    if not is_current:
        part = hdf5.part_of(path)
        hdf5.create(part, {"signal": (shape, "float32")}, {}, {"source_changed_ns": changed_ns})
        writer = hdf5.RowWriter(part, "signal")
        for rows, chunk in selection.read(content):
            writer.write(np.arange(rows.start, rows.stop), chunk)
        writer.close()
        hdf5.seal(part)
        publish(part, path)
    lock.release()
    return _map(path, shape)[0]


def _map(path: Path, shape: tuple[int, ...]) -> tuple[StoredRows, int]:
    """Map the signals; and return when the store had last changed that they were selected from."""
    with hdf5.open_file(path, AGAIN) as file:
        signals = StoredRows(file, "signal", lambda: AGAIN, "f")
        if signals.shape != shape or signals.dtype != np.float32:
            raise ValueError(f"it holds {signals.dtype} {list(signals.shape)}, not float32 {list(shape)}")
        return signals, hdf5.get_attributes(file)["source_changed_ns"]


def match_recording(
    spec: SignalSpec, recording: Recording, signal: Signal, default: Sequence[str] | None, where: str
) -> tuple[Signal, tuple[str, ...]]:
    """Choose the window and the channels of another data set's recording that a model takes.

    Args:
        spec: What the model is built for.
        recording: Of a data set that the model was not trained on.
        signal: The part of its own recordings that the model was trained on.
        default: Channels that the data set uses for decoding.
        where: Name of the recording, for errors.

    Returns:
        `signal` with the recording's window, and channels in the model's order (() for voxels).

    Raises:
        BrainhiveError: if the recording lacks channels, has another rate, or is too short.
    """
    channels = _match_channels(spec, recording, signal.channels or default, where)
    if spec.rate_hz and recording.rate_hz and round(spec.rate_hz - recording.rate_hz, 3):
        raise BrainhiveError(
            f"{where} is sampled at {recording.rate_hz:g} Hz, what the model was trained on at "
            f"{spec.rate_hz:g} Hz",
            f"prepare its signals at {spec.rate_hz:g} Hz",
        )
    if spec.times_s and spec.rate_hz:
        half_ms = 500 / spec.rate_hz  # samples may lie a little off the model's
        first_ms, last_ms = (1000 * spec.times_s[index] for index in (0, -1))
        window_ms = (float(first_ms - half_ms), float(last_ms + half_ms))
        signal = signal.model_copy(update={"window_ms": window_ms})
    start_ms, stop_ms = signal.window_ms or (-np.inf, np.inf)
    times_ms = 1000 * recording.times_s
    samples = int(((times_ms >= start_ms) & (times_ms < stop_ms)).sum())
    if samples != spec.samples:
        raise BrainhiveError(
            f"{where} has {samples} samples where the model takes {spec.samples}",
            "cut or resample its signals to the model's window and rate",
        )
    return signal, channels


def _match_channels(
    spec: SignalSpec, recording: Recording, chosen: Sequence[str] | None, where: str
) -> tuple[str, ...]:
    """Find the model's channels by name; a model that only counts them takes those that are chosen."""
    if isinstance(recording.space, Voxels) != (not spec.names):
        kind, needed = ("voxels", "sensors") if spec.names else ("sensors", "voxels")
        raise BrainhiveError(
            f"{where} has {kind} where the model takes {needed}", f"use a data set of {needed}"
        )
    if isinstance(recording.space, Voxels):
        return ()
    names = recording.space.names
    if spec.names != tuple(map(str, range(len(spec.names)))):
        known = {name.lower() for name in names}
        if missing := [name for name in spec.names if name.lower() not in known]:
            raise BrainhiveError(
                f"{where} has no channel {', '.join(missing)}, which the model was trained on",
                "train on channels that both have: signal.channels=…",
            )
        return spec.names
    channels = tuple(chosen or names)
    if len(channels) != len(spec.names):
        raise BrainhiveError(
            f"{where} gives {len(channels)} channels where the model takes {len(spec.names)}",
            "the model does not name them; decode with a data set of as many",
        )
    return channels
