"""Signals of a subject, matched with the targets of their stimuli."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.signal_stores import open_signals, store_path
from brainhive_cli.data.signals.normalisation import Moments, Normaliser
from brainhive_cli.data.signals.prepared import Content, Signals, in_memory, mapped
from brainhive_cli.data.signals.section import Signal
from brainhive_cli.data.signals.selection import Selection
from brainhive_cli.data.stores.recordings import Recording, SignalStore
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.models.signal_spec import SignalSpec


@dataclass(frozen=True)
class Trials:
    """Signals of one subject and split, with the row of each one's stimulus in the target stores.

    Attributes:
        signal: [N, C, T], repetitions averaged.
        stimulus: [N] row of the stimulus.
        channels: [C] names of the sensors; () for voxels.
        rate_hz: Sampling rate; None where there is one sample.
        single: [N, R, C, T], each repetition by itself, where they are needed.
        counts: [N] how many of R there are, where they are needed.
        moments: Of the subject's training signals, where these are normalised by them.
        times_s: [T] seconds after stimulus onset.
        regions: Places of each region's voxels among V; empty for sensors.
        sessions: [N, R] session of each repetition, from 0, -1 where there is none; None if not known.
    """

    subject: int
    signal: Signals
    stimulus: NDArray[np.int64]
    channels: tuple[str, ...]
    rate_hz: float | None = 250.0
    single: Signals | None = None
    counts: NDArray[np.int64] | None = None
    moments: Moments | None = None
    times_s: tuple[float, ...] | None = None
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    sessions: NDArray[np.int8] | None = None

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Keep some of the N signals."""
        return replace(
            self,
            signal=self.signal[rows],
            stimulus=self.stimulus[rows],
            single=None if self.single is None else self.single[rows],
            counts=None if self.counts is None else self.counts[rows],
            sessions=None if self.sessions is None else self.sessions[rows],
        )

    def of_first_sessions(self, count: int) -> Self:
        """Keep the repetitions of the first sessions; sessions and single repetitions must be there."""
        assert self.sessions is not None and self.single is not None
        is_first = (self.sessions >= 0) & (self.sessions < count)  # [N, R]
        rows = np.flatnonzero(is_first.any(1))
        is_first, counts = is_first[rows], is_first[rows].sum(1)
        order = np.argsort(~is_first, axis=1, kind="stable")[
            :, : counts.max(initial=0)
        ]  # [n, r], theirs first
        single = np.where(is_first[..., None, None], self.single[rows], 0)
        single = np.take_along_axis(single, order[..., None, None], 1)  # [n, r, C, T]
        sessions = np.take_along_axis(np.where(is_first, self.sessions[rows], -1), order, 1)
        average = single.sum(1, dtype=np.float32) / counts[:, None, None].astype(np.float32)
        chosen = {"signal": average, "stimulus": self.stimulus[rows], "single": single, "counts": counts}
        return replace(self, **chosen, sessions=sessions)


def spec_of(trials: Sequence[Trials]) -> SignalSpec:
    """Say what a model that learns from these subjects' signals is built for.

    Raises:
        BrainhiveError: if subjects differ in sensors, samples or rate.
    """
    first = trials[0]
    for other in trials[1:]:
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
        subjects=tuple(each.subject for each in trials),
        widths=tuple(each.signal.shape[-2] for each in trials),
        rate_hz=first.rate_hz,
        times_s=first.times_s,
        regions={name: tuple(each.regions[name] for each in trials) for name in first.regions},
    )


def open_trials(
    dataset: Dataset,
    paths: Paths,
    signal: Signal,
    subject: int,
    split: str,
    pictures: TargetStore,
    channels: Sequence[str] | None = None,
    normaliser: Normaliser | None = None,
    with_single: bool = False,
    memory_map: bool = False,
    recording: Recording | None = None,
) -> Trials:
    """Average a subject's signals and match them with the stimuli of a target store.

    Trials whose stimulus could not be decoded are left out, with a warning.

    Args:
        dataset: Whose signals.
        paths: Where stores lie.
        signal: Which part of them.
        subject: Who.
        split: Which split.
        pictures: One of the target stores of the split.
        channels: Names or regions; default: those of `signal`, else the data set's.
        normaliser: Normalises the signals; default: made of the subject's training signals.
        with_single: Whether single repetitions are read, too.
        memory_map: Whether signals stay on disk.
        recording: Signals of the split; default: those of the subject's store.

    Raises:
        MissingData: if the subject has no signal store, or it does not have the split.
        RecipeError: if it does not have the channels, regions or window.
        BrainhiveError: if the signals were simulated of other pictures than the split has now.
    """
    selection, stimulus, moments = select_trials(
        dataset, paths, signal, subject, split, pictures, channels, normaliser, recording
    )
    path, recorded = store_path(dataset, paths, signal, subject), selection.recording.sessions

    def read(content: Content) -> Signals:
        return mapped(selection, content, path, split) if memory_map else in_memory(selection, content)

    return Trials(
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
        None if recorded is None else recorded[selection.pictures],
    )


def select_trials(
    dataset: Dataset,
    paths: Paths,
    signal: Signal,
    subject: int,
    split: str,
    pictures: TargetStore,
    channels: Sequence[str] | None = None,
    normaliser: Normaliser | None = None,
    recording: Recording | None = None,
) -> tuple[Selection, NDArray[np.int64], Moments | None]:
    """Choose what `open_trials` reads, with its arguments and errors; nothing is averaged.

    Returns:
        The selection, normalised; the row of each of its N stimuli in the target store; and the moments of
        the subject's training signals, where these normalise it.
    """
    where = f"{dataset.name} subject {subject} {split}"
    if recording is None:
        store = open_signals(dataset, paths, signal, subject)
        _refuse_other_pictures(store, dataset, split, pictures)
        recording = store[split]
    stimulus = pictures.rows(recording.image_ids)
    if (stimulus < 0).any():
        console.warn(f"{where}: {(stimulus < 0).sum()} trials left out, their pictures could not be decoded")
    if channels:
        signal = signal.model_copy(update={"channels": list(channels)})
    selection = replace(
        signal.select(recording, dataset.channels, where), pictures=np.flatnonzero(stimulus >= 0)
    )
    moments = None
    if signal.normalise != "none":
        if normaliser is None:
            training = open_signals(dataset, paths, signal, subject)["train"]
            learned = signal.select(training, dataset.channels, where)
            moments = Moments.of((chunk for _, chunk in learned.averages()), signal.normalise)
            normaliser = moments.normaliser(signal.normalise)
        selection = replace(selection, normaliser=normaliser)
    return selection, stimulus[stimulus >= 0], moments


def _refuse_other_pictures(store: SignalStore, dataset: Dataset, split: str, pictures: TargetStore) -> None:
    """Refuse signals that were simulated when the split was not there, or had other stimuli.

    A real recording may lack stimuli of its split, and is matched with them one by one.
    """
    made_of = store.splits[split].image_ids if split in store.splits else ()
    if dataset.is_simulated and set(made_of) != set(pictures.image_ids):
        raise BrainhiveError(
            f"{store.path} was made when {dataset.name}/{split} had other pictures than {pictures.path}",
            f"{shlex.join(['rm', os.path.abspath(store.path)])}; the same command then makes it again",
        )
