"""Responses of subjects to stimuli: signals as a model reads them, with the rows of their targets."""

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core import console, documents
from brainhive_cli.core.arrays import Array, Bool, Float32, Float64, Int64, UInt64
from brainhive_cli.core.claims import Claim
from brainhive_cli.core.errors import BrainhiveError, RecipeError, find_rows, require_kind
from brainhive_cli.core.files import publish
from brainhive_cli.core.lines import Line
from brainhive_cli.data.datasets import stored_split, tested_rows
from brainhive_cli.data.signal_stores import SignalSource
from brainhive_cli.data.signals.channel_mapping import ChannelChoice, map_channels
from brainhive_cli.data.signals.normalisations import Normaliser, Statistics
from brainhive_cli.data.signals.selection import Content, Selection, Signal
from brainhive_cli.data.stores import hdf5
from brainhive_cli.data.stores.hdf5 import StoredRows
from brainhive_cli.data.stores.recordings import Recording, Sensors, Voxels, take
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.models.signal_spec import SignalSpec

Signals = Float32 | StoredRows
"""Signals in memory, or in a file."""
AGAIN = "run the same command again"
"""Function that makes a file of signals."""


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
        statistics: Of the subject's training signals, where these are normalised by them.
        times_s: [T] seconds after stimulus onset.
        regions: Places of each region's voxels among V; empty for sensors.
        sessions: [N, R] session of each repetition, from 0, -1 where there is none; None if not known.
        positions: [C, 3] places of the sensors in metres; None where one is not known.
        unit: Of the signals.
        preparation: Steps that made them, as `Recording.preparation`.
        runs: [N, R] run of each repetition within its session, as `sessions`.
        normaliser: What normalised them, if anything did.
        onset_s: [N, R] seconds from the start of its run to each repetition, as `sessions`.
        digests: [N, R] of training trials, as `Recording.digests`; None of others.
    """

    subject: int
    signal: Signals
    stimulus: Int64
    channels: tuple[str, ...]
    rate_hz: float | None = 250.0
    single: Signals | None = None
    counts: Int64 | None = None
    statistics: Statistics | None = None
    times_s: tuple[float, ...] | None = None
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    sessions: NDArray[np.int8] | None = None
    positions: tuple[tuple[float, float, float], ...] | None = None
    unit: str = ""
    preparation: Mapping[str, Any] = field(default_factory=dict)
    runs: NDArray[np.int16] | None = None
    normaliser: Normaliser | None = None
    onset_s: Float64 | None = None
    digests: UInt64 | None = None

    @classmethod
    def of(
        cls,
        subject: int,
        selection: Selection,
        stimulus: Int64,
        *,
        statistics: Statistics | None = None,
        with_single: bool = False,
        read: Callable[[Selection, Content], Signals] | None = None,
    ) -> Self:
        """Read what is selected of a subject's recording, and average its repetitions.

        Args:
            subject: Who.
            selection: Which part of the recording, and how it is normalised.
            stimulus: [N] row of each stimulus in the target stores.
            statistics: Of the subject's training signals, where these normalise it.
            with_single: Whether single trials are read, too.
            read: How signals are read; default: into memory.
        """
        recording, mapping, read = selection.recording, selection.mapping, read or in_memory
        return cls(
            subject=subject,
            signal=read(selection, "averages"),
            stimulus=stimulus,
            channels=mapping.names if mapping else selection.channels,
            rate_hz=recording.rate_hz,
            single=read(selection, "trials") if with_single else None,
            counts=selection.repetitions if with_single else None,
            statistics=statistics,
            times_s=tuple(selection.times_s.tolist()),
            regions=selection.regions,
            sessions=take(recording.sessions, selection.pictures),
            positions=None if mapping else selection.positions,
            unit=recording.unit,
            preparation=recording.preparation,
            runs=take(recording.runs, selection.pictures),
            normaliser=selection.normaliser,
            onset_s=take(recording.onset_s, selection.pictures),
        )

    def take(self, rows: Int64) -> Self:
        """Take some of the N signals."""
        return replace(
            self,
            signal=self.signal[rows],
            stimulus=self.stimulus[rows],
            single=None if self.single is None else self.single[rows],
            counts=take(self.counts, rows),
            sessions=take(self.sessions, rows),
            runs=take(self.runs, rows),
            onset_s=take(self.onset_s, rows),
            digests=take(self.digests, rows),
        )

    def of_trials(self, is_chosen: Bool) -> Self:
        """Take some of the single trials [N, R], and average those of each stimulus anew.

        Stimuli without a chosen trial are left out. Single trials must be there, unless all trials of each
        stimulus are chosen, or none.
        """
        # all trials of some stimuli: their averages stay
        rows = np.flatnonzero(is_chosen.any(1))
        if self.single is None:
            return self.take(rows)

        # the chosen trials of each stimulus first, and as many columns as the most of them
        is_chosen, counts = is_chosen[rows], is_chosen[rows].sum(1)
        order = np.argsort(~is_chosen, 1, kind="stable")  # [n, R]
        order = order[:, : counts.max(initial=0)]  # [n, r]

        def choose(values: Array | None, padding: float) -> Array | None:
            """Bring what is known of each trial [N, R] into this order."""
            if values is None:
                return None
            return np.take_along_axis(np.where(is_chosen, values[rows], padding), order, 1)

        # signals of these trials, and their average
        single = np.where(is_chosen[..., None, None], self.single[rows], 0)
        single = np.take_along_axis(single, order[..., None, None], 1)  # [n, r, C, T]
        average = single.sum(1, dtype=np.float32) / counts[:, None, None].astype(np.float32)
        return replace(
            self,
            signal=average,
            stimulus=self.stimulus[rows],
            single=single,
            counts=counts,
            sessions=choose(self.sessions, -1),
            runs=choose(self.runs, -1),
            onset_s=choose(self.onset_s, np.nan),
            digests=choose(self.digests, 0),
        )


def spec_of(subjects: Sequence[Responses], signal: Mapping[str, Any] | None = None) -> SignalSpec:
    """Say what a model that learns from these subjects' signals is built for.

    Args:
        subjects: The responses of each.
        signal: The section `signal` that chose them.

    Raises:
        BrainhiveError: if subjects differ in sensors, samples, rate or unit.
    """
    # the subjects share what one model reads
    first = subjects[0]
    shared = {
        "sensors": lambda responses: responses.channels,
        "samples": lambda responses: responses.signal.shape[-1],
        "sampling rate": lambda responses: responses.rate_hz,
        "unit": lambda responses: responses.unit,
        "regions": lambda responses: list(responses.regions),
    }
    for other in subjects[1:]:
        for name, value_of in shared.items():
            if value_of(first) != value_of(other):
                raise BrainhiveError(
                    f"subjects {first.subject} and {other.subject} differ in their {name}",
                    "choose what all have: signal.channels, signal.window_ms; or train on each by itself",
                )

    # steps of the preparation that all subjects share
    steps = [responses.preparation for responses in subjects]
    return SignalSpec(
        names=first.channels,
        samples=first.signal.shape[-1],
        subjects=tuple(responses.subject for responses in subjects),
        widths=tuple(responses.signal.shape[-2] for responses in subjects),
        rate_hz=first.rate_hz,
        times_s=first.times_s,
        regions={name: tuple(responses.regions[name] for responses in subjects) for name in first.regions},
        positions=first.positions,
        unit=first.unit,
        preparation={k: v for k, v in first.preparation.items() if all(s.get(k) == v for s in steps)},
        signal=signal or {},
    )


def read_training(
    source: SignalSource,
    subject: int,
    stimuli: TargetStore,
    *,
    with_single: bool = False,
    memory_map: bool = False,
) -> Responses:
    """Read the signals that a subject's model learns from, normalised by their own statistics.

    Args:
        source: Whose signals, and which part of them.
        subject: Who.
        stimuli: One of the target stores of the training split.
        with_single: Whether single trials are read, too.
        memory_map: Whether signals stay on disk.

    Raises:
        MissingData: if the subject has no signal store, or it has no training split.
        RecipeError: if it does not have the channels, regions or window.
        BrainhiveError: if the signals were simulated of other pictures than there are now.
    """
    recording, pictures, stimulus = match_split(source, subject, "train", stimuli)
    where = f"{source.dataset.name} subject {subject} train"
    selection = replace(source.select(recording, where), pictures=pictures)
    statistics, normalisation = None, source.signal.normalise
    if normalisation is not None:
        statistics = measure_training(source, source.select(recording, where), stimuli)
        selection = replace(selection, normaliser=normalisation.build(statistics))
    read = partial(mapped, store=source.path(subject), split="train") if memory_map else None
    responses = Responses.of(
        subject, selection, stimulus, statistics=statistics, with_single=with_single, read=read
    )
    return replace(responses, digests=recording.digests[pictures])


def measure_training(source: SignalSource, selection: Selection, stimuli: TargetStore) -> Statistics:
    """Measure a subject's training signals for the normalisation: in the fold, where stimuli are held out."""
    if source.dataset.holdout is not None:  # whose stimuli all lie in one store
        rows = stimuli.rows(selection.recording.image_ids)
        is_learned = (rows >= 0) & tested_rows(source.dataset, stimuli, "train", source.fold)[rows]
        selection = replace(selection, pictures=np.flatnonzero(is_learned))
    with console.progress(f"statistics of {selection.where}", len(selection.pictures)) as bar:

        def read() -> Iterator[Float32]:
            for _, chunk in selection.averages():
                yield chunk
                bar.advance(len(chunk))

        return source.signal.normalise.measure(read())


def measure_new_subject(
    spec: SignalSpec,
    source: SignalSource,
    subject: int,
    stimuli: TargetStore,
    is_same_store: bool = False,
    channel_mapping: ChannelChoice = "none",
) -> Normaliser | None:
    """Build the normaliser of a subject whom a model has none of, from the subject's training signals.

    Args:
        spec: What the model is built for.
        source: The signals.
        subject: Whose.
        stimuli: Target store; where stimuli are held out, those of the fold are left out.
        is_same_store: As for `choose_input`.
        channel_mapping: As for `choose_input`.

    Returns:
        The normaliser; None where signals are not normalised.
    """
    if (normalisation := source.signal.normalise) is None:
        return None
    where = f"{source.dataset.name} subject {subject} train"
    recording = source.recording(subject, "train")
    channels = source.dataset.channels
    selection = choose_input(spec, recording, where, channels, is_same_store, channel_mapping)
    return normalisation.build(measure_training(source, selection, stimuli))


def match_split(
    source: SignalSource, subject: int, split: str, stimuli: TargetStore
) -> tuple[Recording, Int64, Int64]:
    """Open a subject's recording of a split, and match it with the stimuli that its fold has of the split.

    Returns:
        The recording of N stimuli, [n] places among these, ascending, and [n] the row of each in the store.

    Raises:
        MissingData: if the subject has no signal store, or it does not have the split.
        BrainhiveError: if the signals were simulated of other pictures than the split has now, or trials that
            are learned are copies of tested ones.
    """
    dataset, store = source.dataset, source.open(subject)
    stored = store.splits.get(stored_split(dataset, split))
    recorded_ids = () if stored is None else stored.image_ids
    # simulated signals are of all stimuli of their split; a real recording may lack some
    if dataset.is_simulated and {*recorded_ids} != {*stimuli.image_ids}:
        raise BrainhiveError(
            f"{store.path} was made when {dataset.name}/{split} had other pictures than {stimuli.path}",
            f"{shlex.join(['rm', os.path.abspath(store.path)])}; the same command then makes it again",
        )
    recording = source.recording(subject, split)
    where = f"{dataset.name} subject {subject} {split}"
    pictures, stimulus = match_stimuli(recording.image_ids, stimuli, where)
    is_in_fold = tested_rows(dataset, stimuli, split, source.fold)[stimulus]

    # no trial is both learned and tested
    other_split, holdout = "test" if split == "train" else "train", dataset.holdout
    if holdout is None:
        others = [store[name].digests for name in store.splits if (name == "train") == (split != "train")]
    elif holdout.shows_seen:
        others = [source.recording(subject, other_split).digests]
    else:
        others = [recording.digests[pictures[~is_in_fold]]]
    recording.refuse_copies(
        np.concatenate([np.empty(0, np.uint64), *map(np.ravel, others)]),
        where,
        "trials that are tested" if split == "train" else "trials that are trained on",
        f"take the copies out of the files, and prepare again: {Line('prepare', '--again')}",
        pictures[is_in_fold],
    )
    return recording, pictures[is_in_fold], stimulus[is_in_fold]


def match_stimuli(image_ids: Sequence[str], stimuli: TargetStore, where: str) -> tuple[Int64, Int64]:
    """Match what was shown with the stimuli of a target store.

    What is not there could not be decoded: it is left out, with a warning.

    Args:
        image_ids: [N] what was shown.
        stimuli: The store.
        where: Whose signals they are of, for the warning.

    Returns:
        [n] places among the N, ascending, and [n] the row of each in the store.

    Raises:
        BrainhiveError: if nothing says what was shown.
    """
    if not len(image_ids):
        raise BrainhiveError(
            f"{where}: nothing says which pictures were shown",
            "Recording(image_ids=[…]); api.model_input, which matches nothing, needs none",
        )
    rows = stimuli.rows(image_ids)
    is_known = rows >= 0
    if not is_known.all():
        console.warn(f"{where}: {(~is_known).sum()} trials left out, their pictures have no embedding")
    return np.flatnonzero(is_known), rows[is_known]


def model_input(
    spec: SignalSpec,
    recording: Recording,
    normaliser: Normaliser | None,
    where: str = "the recording",
    channel_mapping: ChannelChoice = "none",
) -> Float32:
    """Read a recording as a model takes it; it may be of any stimuli, and of anyone.

    Channels are chosen by name, or voxels by region, the window by time; repetitions are averaged, signals
    scaled and normalised as in training.

    Args:
        spec: What the model is built for.
        recording: Prepared as the signals that it learned from, [N, R, C, T].
        normaliser: Of whose signals these are, as `Learned.normaliser_of(subject)` of the model; None where
            the model's are not normalised.
        where: What the recording is, for errors.
        channel_mapping: What to do about channels that the recording lacks, see `map_channels`.

    Returns:
        [N, C, T], channels and samples as in `spec`.

    Raises:
        BrainhiveError: if the recording has another unit, rate or preparation, lacks channels or samples, or
            has to be normalised and nothing says how.
    """
    usage = "model_input(model.layout.spec, recording, model.learned.normaliser_of(SUBJECT))"
    require_kind("spec", spec, SignalSpec, usage)
    require_kind("recording", recording, Recording, usage)
    if normaliser is not None:
        require_kind("normaliser", normaliser, Normaliser, usage)
    selection = choose_input(spec, recording, where, channel_mapping=channel_mapping)
    if (normaliser is None) != (spec.signal.get("normalise", "none") == "none"):
        kind = spec.signal.get("normalise", "none")
        problem = f"{where} comes with{'out' if normaliser is None else ''} a normaliser"
        hint = "model.learned.normaliser_of(SUBJECT), or that of the subject's own training signals"
        raise BrainhiveError(f"{problem}, and the model's signals were normalised by {kind}", hint)
    width = selection.shape[2]
    if normaliser is not None and len(normaliser.mean) != width:
        widths = f"{width} channels or voxels, the normaliser is of {len(normaliser.mean)}"
        raise BrainhiveError(f"{where} has {widths}", "take that of the subject whose signals these are")
    return in_memory(replace(selection, normaliser=normaliser), "averages")


def choose_input(
    spec: SignalSpec,
    recording: Recording,
    where: str,
    default: Sequence[str] | None = None,
    is_same_store: bool = False,
    channel_mapping: ChannelChoice = "none",
) -> Selection:
    """Choose what a model reads of a recording, not normalised; see `model_input`.

    `default` are channels for a model that only counts its own. Of the store that the model learned from, all
    steps of the preparation are compared.
    """
    steps = recording.unit, recording.rate_hz, recording.preparation
    spec.refuse_other_signals(*steps, where, is_same_store)
    section = documents.check({**spec.signal}, "the model's signal", Signal)
    return match_recording(spec, recording, section, default, where, channel_mapping)


def in_memory(selection: Selection, content: Content) -> Float32:
    """Read selected signals: [N, C, T] averages, or [N, R, C, T] trials."""
    signals = np.empty(selection.shape_of(content), np.float32)
    with console.progress(f"signals of {selection.where}", len(signals)) as bar:
        for rows, chunk in selection.read(content):
            signals[rows] = chunk
            bar.advance(len(chunk))
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
    lock = Claim.for_path(path, wait=True)  # of processes that want the same, one writes
    shape = selection.shape_of(content)
    try:
        try:
            signals, mapped_ns = _map(path, shape)
        except BrainhiveError:  # absent or damaged
            mapped_ns = None
        if mapped_ns != changed_ns:
            part = hdf5.part_of(path)
            hdf5.create(part, {"signal": (shape, "float32")}, {}, {"source_changed_ns": changed_ns})
            writer = hdf5.RowWriter(part, "signal")
            with console.progress(f"copy of the signals of {selection.where}", shape[0]) as bar:
                for rows, chunk in selection.read(content):
                    writer.write(np.arange(rows.start, rows.stop), chunk)
                    bar.advance(len(chunk))
            writer.close()
            hdf5.seal(part)
            publish(part, path)
            signals, _ = _map(path, shape)
    finally:
        lock.release()
    return signals


def _map(path: Path, shape: tuple[int, ...]) -> tuple[StoredRows, int]:
    """Map the signals; and return when the store had last changed that they were selected from."""
    with hdf5.open_file(path, AGAIN) as file:
        signals = StoredRows(file, "signal", lambda: AGAIN, "f")
        if signals.shape != shape or signals.dtype != np.float32:
            raise ValueError(f"it holds {signals.dtype} {list(signals.shape)}, not float32 {list(shape)}")
        return signals, hdf5.get_attributes(file)["source_changed_ns"]


def match_recording(
    spec: SignalSpec,
    recording: Recording,
    signal: Signal,
    default: Sequence[str] | None,
    where: str,
    channel_mapping: ChannelChoice = "none",
) -> Selection:
    """Choose the window and the channels of another data set's recording that a model takes.

    Args:
        spec: What the model is built for.
        recording: Of a data set that the model was not trained on.
        signal: The part of its own recordings that the model was trained on.
        default: Channels that the data set uses for decoding.
        where: Name of the recording, for errors.
        channel_mapping: What to do about channels that the recording lacks, see `map_channels`.

    Returns:
        The model's window and channels, in the model's order, not normalised.

    Raises:
        BrainhiveError: if the recording lacks channels that are not mapped, or is too short.
        RecipeError: if voxels are to be mapped.
    """
    if isinstance(recording.space, Voxels) != (not spec.names):
        kind, needed = ("voxels", "sensors") if spec.names else ("sensors", "voxels")
        raise BrainhiveError(
            f"{where} has {kind} where the model takes {needed}", f"use a data set of {needed}"
        )

    # channels are matched by name, and mapped on request; a model that only counts them takes the chosen ones
    mapping = None
    if channel_mapping != "none" and isinstance(recording.space, Voxels):
        raise RecipeError(f"channel_mapping is of sensors, {where} has voxels", "channel_mapping=none")
    if isinstance(recording.space, Sensors):
        names, chosen = recording.space.names, spec.names
        if spec.names == tuple(map(str, range(len(spec.names)))):
            chosen = tuple(signal.channels or default or names)
            if len(chosen) != len(spec.names):
                raise BrainhiveError(
                    f"{where} gives {len(chosen)} channels where the model takes {len(spec.names)}",
                    "the model does not name them; decode with a data set of as many",
                )
        elif missing := [
            name for name, row in zip(chosen, find_rows(chosen, names, where), strict=True) if row is None
        ]:
            if channel_mapping == "none":
                raise BrainhiveError(
                    f"{where} has no channel {', '.join(missing)}, which the model was trained on",
                    "train on channels that both have: signal.channels=…; or map them when it is tested: "
                    "channel_mapping=spline, or common",
                )
            mapping = map_channels(channel_mapping, spec.names, spec.positions, recording.space, where)
            chosen = mapping.sources
        signal = signal.model_copy(update={"channels": list(chosen)})

    # the window is that of the model's own times
    if spec.times_s and spec.rate_hz:
        half_ms = 500 / spec.rate_hz  # samples may lie a little off the model's
        first_ms, last_ms = (1000 * spec.times_s[index] for index in (0, -1))
        window_ms = (float(first_ms - half_ms), float(last_ms + half_ms))
        signal = signal.model_copy(update={"window_ms": window_ms})

    # count the samples in the window
    start_ms, stop_ms = signal.window_ms or (-np.inf, np.inf)
    times_ms = 1000 * recording.times_s
    samples = int(((times_ms >= start_ms) & (times_ms < stop_ms)).sum())
    if samples != spec.samples:
        raise BrainhiveError(
            f"{where} has {samples} samples where the model takes {spec.samples}",
            "cut or resample its signals to the model's window and rate",
        )
    return replace(signal.select(recording, default, where), mapping=mapping)
