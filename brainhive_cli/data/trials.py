"""Signals and embeddings of a data set, matched picture by picture."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Names, Paths, Section, refuse_idle
from brainhive_cli.datasets import Dataset
from brainhive_cli.signals.normalisation import Moments, Normaliser
from brainhive_cli.signals.prepared import InMemory, Mapped
from brainhive_cli.signals.selection import Selection
from brainhive_cli.stores import recordings
from brainhive_cli.stores.recordings import SignalStore
from brainhive_cli.stores.target_store import EmbeddingStore


class Signal(Section):
    """Which part of the recordings a brain encoder sees."""

    name: str = Field("default", description="preparation: the folder of stores below signals/<dataset>")
    channels: Names | None = Field(
        None,
        description="names, or regions (frontal, central, temporal, parietal, occipital); default: the "
        "data set's for decoding",
    )
    window_ms: tuple[float, float] | None = Field(None, description="start and stop after the picture, ms")
    scale: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="signals are multiplied by this (1 over their usual spread)",
    )
    normalise: Literal["none", "channel", "whiten"] = Field(
        "none",
        description="by the training signals of each subject: channel (mean 0, variance 1), whiten (also "
        "no correlation between channels)",
    )
    normalise_by: Literal["subject", "training_subjects"] = Field(
        "subject",
        description="whose statistics normalise a subject who was not trained on: the subject's own training "
        "split, or the mean of those of the subjects trained on",
    )
    repetitions: Literal["average", "single", "random"] = Field(
        "average",
        description="a training sample is the average of a picture's trials, each trial, or the average of "
        "some at random; validation and test take the average of all",
    )
    random_k: int = Field(2, gt=0, description="trials that a random average takes, anew each time")

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        if self.repetitions != "random":
            refuse_idle(self, ("random_k",), f"with repetitions {self.repetitions}", "repetitions: random")
        if self.normalise == "none":
            refuse_idle(self, ("normalise_by",), "with normalise none", "normalise: channel")
        return self


@dataclass(frozen=True)
class Repeated:
    """The single trials of each picture, for training.

    Attributes:
        signal: [N, R, C, T].
        count: [N] how many of R there are.
        how: What a sample is: one trial ("single"), or the average of all or of `most` at random.
    """

    signal: NDArray[np.float32]
    count: NDArray[np.int64]
    how: Literal["average", "single", "random"]
    most: int


@dataclass(frozen=True)
class Trials:
    """Signals of one subject and split, with the row of the picture of each in the embedding stores.

    Attributes:
        signal: [N, C, T], repetitions averaged.
        picture: [N] row of the picture.
        repeated: The trials that were averaged, where training takes them apart.
        moments: Of the subject's training signals, where they normalise.
    """

    subject: int
    signal: NDArray[np.float32]
    picture: NDArray[np.int64]
    channels: tuple[str, ...]
    rate_hz: float | None = 250.0
    repeated: Repeated | None = None
    moments: Moments | None = None


@dataclass(frozen=True)
class StorageMode:
    """How training signals are held: with the single trials or not, in memory or mapped."""

    is_repeated: bool = False
    is_mapped: bool = False


def open_signals(dataset: Dataset, paths: Paths, signal: Signal, subject: int) -> SignalStore:
    """Open a subject's signal store; it is made from the data set's own files the first time."""
    path = recordings.path_of(paths.under_home("signals"), dataset.recorded_as, signal.name, subject)
    if not path.is_file():
        if signal.name != "default":
            raise MissingData(f"no signals {path}", "signal.name=default uses the data set's own")
        console.say(f"preparing signals of {dataset.name} subject {subject}")
        SignalStore.write(path, {split: dataset.recording(subject, split) for split in dataset.splits})
    return SignalStore.open(path)


def open_trials(
    dataset: Dataset,
    paths: Paths,
    signal: Signal,
    subject: int,
    split: str,
    pictures: EmbeddingStore,
    channels: Sequence[str] | None = None,
    form: StorageMode = StorageMode(),
    normaliser: Normaliser | None = None,
) -> Trials:
    """Average a subject's signals and match them with the pictures of an embedding store.

    Trials whose picture was skipped as bad are left out, with a warning. Where signals are normalised, it is
    by the `normaliser` that is given, else by the subject's training signals.

    Raises:
        BrainhiveError: if the signals were simulated of other pictures than the split has now.
    """
    store = open_signals(dataset, paths, signal, subject)
    _refuse_other_pictures(store, dataset, split, pictures)
    recording, where = store[split], f"{dataset.name} subject {subject} {split}"
    picture = pictures.rows(recording.image_ids)
    if (picture < 0).any():
        console.warn(f"{where}: {(picture < 0).sum()} trials left out, their pictures could not be decoded")
    chosen = channels or signal.channels or dataset.channels
    selection = replace(
        Selection.of(recording, chosen, signal.window_ms, signal.scale, where),
        pictures=np.flatnonzero(picture >= 0),
    )
    moments = None
    if signal.normalise != "none":
        if normaliser is None:
            learned = Selection.of(store["train"], chosen, signal.window_ms, signal.scale, where)
            moments = Moments.of(chunk for _, chunk in learned.averages())
            normaliser = moments.normaliser(signal.normalise)
        selection = replace(selection, normaliser=normaliser)
    held = Mapped(selection, store.path, split) if form.is_mapped else InMemory(selection)
    repeated = None
    if form.is_repeated:
        repeated = Repeated(held.trials(), selection.repetitions, signal.repetitions, signal.random_k)
    return Trials(
        subject,
        held.averages(),
        picture[picture >= 0],
        selection.channels,
        recording.rate_hz,
        repeated,
        moments,
    )


def _refuse_other_pictures(
    store: SignalStore, dataset: Dataset, split: str, pictures: EmbeddingStore
) -> None:
    """Refuse signals that were simulated when the split was not there, or had other pictures.

    A recording may lack pictures of its split, and is matched with them one by one.
    """
    made_of = store.splits[split].image_ids if split in store.splits else ()
    if dataset.is_simulated and set(made_of) != set(pictures.image_ids):
        raise BrainhiveError(
            f"{store.path} was made when {dataset.name}/{split} had other pictures than {pictures.path}",
            f"{shlex.join(['rm', os.path.abspath(store.path)])}; the same command then makes it again",
        )


def chosen_subjects(dataset: Dataset, subjects: Sequence[int] | None) -> list[int]:
    """Check the subjects asked for; all when None."""
    unknown = [subject for subject in subjects or [] if subject not in dataset.subjects]
    if unknown or not dataset.subjects:
        known = ", ".join(map(str, dataset.subjects)) or "none: it holds pictures only"
        raise MissingData(
            f"{dataset.name} has no subject {', '.join(map(str, unknown))}".rstrip(), f"it has: {known}"
        )
    return list(subjects or dataset.subjects)


def require_signals(dataset: Dataset, paths: Paths, signal: Signal, subjects: Sequence[int]) -> None:
    """Hold that each subject's signals were prepared, or have a recording to be made from; nothing is read.

    Raises:
        MissingData: naming the first recording that is not there, and the subjects whose are.
    """
    absent: dict[int, MissingData] = {}
    for subject in subjects:
        path = recordings.path_of(paths.under_home("signals"), dataset.recorded_as, signal.name, subject)
        try:
            if not path.is_file():
                dataset.require(subject)
        except MissingData as error:
            absent[subject] = error
    if absent:
        first, there = next(iter(absent.values())), [str(each) for each in subjects if each not in absent]
        way = f"; or those that are there: --subjects {','.join(there)}" if there else ""
        more = f", nor of {len(absent) - 1} more" if len(absent) > 1 else ""
        raise MissingData(first.message + more, first.hint + way)


def size_up(
    dataset: Dataset, paths: Paths, signal: Signal, subjects: Sequence[int]
) -> tuple[tuple[int, ...], int]:
    """Return the shape [N, R, C, T] of a subject's training signals, and the bytes of the stores to be made.

    One recording is opened; the others are taken to be as large.

    Raises:
        BrainhiveError: if it has not the channels or the window that are asked for.
    """
    root, name = paths.under_home("signals"), dataset.recorded_as
    stores = {subject: recordings.path_of(root, name, signal.name, subject) for subject in subjects}
    absent = [subject for subject, path in stores.items() if not path.is_file()]
    if absent:
        found = {split: dataset.recording(absent[0], split) for split in dataset.splits}
    else:
        found = {"train": SignalStore.open(stores[subjects[0]])["train"]}
    train, chosen = found["train"], signal.channels or dataset.channels
    Selection.of(train, chosen, signal.window_ms, signal.scale, "")  # which refuses what is not there
    return train.signal.shape, len(absent) * sum(map(recordings.size_of, found.values()))


def prepare_all(
    dataset: Dataset, paths: Paths, signal: Signal, subjects: Sequence[int], launch: Launch
) -> None:
    """Make the signal stores that are missing, one process for all."""
    require_signals(dataset, paths, signal, subjects)
    if launch.is_main:
        for subject in subjects:
            open_signals(dataset, paths, signal, subject)
    launch.barrier()
