"""Signals and embeddings of a data set, matched picture by picture."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from brainhive_cli import console, embeddings, parts, recordings
from brainhive_cli.datasets import Dataset
from brainhive_cli.embeddings import EmbeddingStore
from brainhive_cli.encoders import EncoderConfig
from brainhive_cli.errors import BrainhiveError, MissingData
from brainhive_cli.launch import Launch
from brainhive_cli.pipelines._advice import command
from brainhive_cli.pipelines._illness import warn_of_illness
from brainhive_cli.recipe import Names, Paths, Section
from brainhive_cli.recordings import Recording, SignalStore
from brainhive_cli.signals.selection import average

Change = Callable[[Recording], Recording]
"""What is done to a recording before it is averaged: one of its repetitions taken, say."""


class Signal(Section):
    """Which part of the recordings a brain encoder sees."""

    name: str = Field("default", description="preparation: the folder of stores below signals/<dataset>")
    channels: Names | None = Field(
        None, description="channel names; default: those the data set decodes with"
    )
    window_ms: tuple[float, float] | None = Field(None, description="start and stop after the picture, ms")
    scale: float = Field(1.0, description="signals are multiplied by this (one over their usual spread)")


@dataclass(frozen=True)
class Trials:
    """Signals of one subject and split, with the row of the picture of each in the embedding stores.

    Attributes:
        signal: [N, C, T], repetitions averaged.
        picture: [N] row of the picture.
    """

    subject: int
    signal: NDArray[np.float32]
    picture: NDArray[np.int64]
    channels: tuple[str, ...]


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
    change: Change | None = None,
) -> Trials:
    """Average a subject's signals and match them with the pictures of an embedding store.

    Trials whose picture was skipped as bad are left out, with a warning.
    """
    recording = open_signals(dataset, paths, signal, subject)[split]
    recording = change(recording) if change else recording
    chosen = channels or signal.channels or dataset.channels or recording.channels
    where = f"{dataset.name} subject {subject} {split}"
    averaged = average(recording, chosen, signal.window_ms, signal.scale, where)
    picture = pictures.rows(recording.image_ids)
    if (picture < 0).any():
        console.warn(f"{where}: {(picture < 0).sum()} trials left out, their pictures could not be decoded")
        averaged, picture = averaged[picture >= 0], picture[picture >= 0]
    return Trials(subject, averaged, picture, tuple(chosen))


def chosen_subjects(dataset: Dataset, subjects: Sequence[int] | None) -> list[int]:
    """Check the subjects asked for; all when None."""
    unknown = [subject for subject in subjects or [] if subject not in dataset.subjects]
    if unknown or not dataset.subjects:
        known = ", ".join(map(str, dataset.subjects)) or "none: it holds pictures only"
        raise MissingData(
            f"{dataset.name} has no subject {', '.join(map(str, unknown))}".rstrip(), f"it has: {known}"
        )
    return list(subjects or dataset.subjects)


def prepare_all(
    dataset: Dataset, paths: Paths, signal: Signal, subjects: Sequence[int], launch: Launch
) -> None:
    """Make the signal stores that are missing, one process for all."""
    if launch.is_main:
        for subject in subjects:
            open_signals(dataset, paths, signal, subject)
    launch.wait()


def open_embeddings(
    dataset: Dataset, made_of: parts.Config, split: str, encoders: Sequence[EncoderConfig], paths: Paths
) -> dict[str, EmbeddingStore]:
    """Open the stores of several encoders over the same pictures, warning of collapsed ones.

    Args:
        dataset: Whose pictures.
        made_of: The data set's Config, for the command line that would embed it.
        split: Which of them.
        encoders: One store each.
        paths: Where stores lie.

    Raises:
        MissingData: if a store is missing, with the line that makes it.
        BrainhiveError: if a store is another data set's, or the stores hold different pictures.
    """
    root, line = paths.under_home("embeddings"), command("embed", made_of, encoders)
    try:
        stores = embeddings.open_all(root, dataset.name, split, [config.name for config in encoders])
    except MissingData as error:
        raise MissingData(error.what, line) from error
    first = next(iter(stores.values()))
    for other in stores.values():
        warn_of_illness(other)
        whose = "{dataset}/{split}".format_map(other.attributes)
        if whose != f"{dataset.name}/{split}":
            raise BrainhiveError(
                f"{other.path} holds embeddings of {whose}, not of {dataset.name}/{split}", f"{line} --again"
            )
        if difference := _difference(first, other):
            raise BrainhiveError(f"{first.path} and {other.path} hold {difference}", f"{line} --again")
    return stores


def _difference(first: EmbeddingStore, other: EmbeddingStore) -> str:
    """Say how the pictures of two stores differ; empty if row by row they do not."""
    if not np.array_equal(first.packed_ids, other.packed_ids):
        is_order = np.array_equal(np.sort(first.packed_ids), np.sort(other.packed_ids))
        return "the same pictures in another order" if is_order else "different pictures"
    return "" if np.array_equal(first.done, other.done) else "gaps at different pictures"


def as_tensors(
    stores: Mapping[str, EmbeddingStore], keys: Mapping[str, str], device: torch.device
) -> dict[str, Tensor]:
    """Load whole stores onto the device, by the fuser's keys; each [M, D_encoder]."""
    return {
        keys[name]: torch.from_numpy(np.array(store.embedding)).float().to(device)
        for name, store in stores.items()
    }


def match_keys(encoders: Sequence[EncoderConfig], dims: Mapping[str, int], whose: str) -> dict[str, str]:
    """Find under which of a prior's keys each encoder goes.

    Raises:
        BrainhiveError: naming both lists, if they are not the same encoders.
    """
    keys = {config.name: next((key for key in config.known_as if key in dims), "") for config in encoders}
    if "" in keys.values() or sorted(keys.values()) != sorted(dims):
        wanted = encoder_names(dims)
        raise BrainhiveError(
            f"{whose} takes the encoders {', '.join(wanted)}, not {', '.join(keys)}",
            f"--encoders {','.join(wanted)}",
        )
    return keys


def encoder_names(keys: Iterable[str]) -> list[str]:
    """Name the encoders that a prior's keys mean, as `--encoders` takes them."""
    kinds = {parts.load("encoders", kind).Config.upstream: kind for kind in parts.kinds("encoders")}
    return sorted(kinds[key].replace("_", "-") if key in kinds else key for key in keys)


def concepts_of(store: EmbeddingStore) -> NDArray[np.str_]:
    """Return the concept of each row."""
    return np.asarray(store.concepts)
