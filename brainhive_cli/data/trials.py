"""Signals and embeddings of a data set, matched picture by picture."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.signal_stores import open_signals
from brainhive_cli.datasets import Dataset
from brainhive_cli.signals.normalisation import Moments, Normaliser
from brainhive_cli.signals.prepared import InMemory, Mapped
from brainhive_cli.signals.section import Signal
from brainhive_cli.signals.selection import Selection
from brainhive_cli.stores.recordings import SignalStore
from brainhive_cli.stores.target_store import EmbeddingStore


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
