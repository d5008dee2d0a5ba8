"""The analyses of signals and embeddings, which need no model: linear encoding and similarity."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.selection import Selection
from brainhive_cli.data.stores.recordings import Sensors
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.evaluation.explanation import encoding_ceilings, encoding_model, sensor_space, similarity
from brainhive_cli.evaluation.explanation.found import SPACE_PART, TIME_PART, Found
from brainhive_cli.evaluation.explanation.occlusion import REGION, SENSOR, TIME, regions_of
from brainhive_cli.evaluation.explanation.profiles import Profile
from brainhive_cli.evaluation.explanation.reader import Reader, units_of
from brainhive_cli.evaluation.explanation.recipe import Explanation
from brainhive_cli.measurement.units import Items

Levels = Mapping[str, TargetStore]
"""Stores of the encoders that signals are compared with, by encoder."""


def explain_signals(reader: Reader, train: Levels, test: Levels, spec: Explanation) -> Found:
    """Fit the linear encoding model of one subject's signals, in sensor space where whiteners are known.

    Args:
        reader: Of any cell that is tested on the subject; its model is not used.
        train: Embeddings of the training pictures.
        test: Embeddings of the tested pictures.
        spec: What is measured.
    """
    found = Found(reader.image_ids)
    found.attempt("encoding", lambda: _encode(reader, train, test, spec, found))
    return found


def _encode(
    reader: Reader, train: Levels, test: Levels, spec: Explanation, found: Found
) -> dict[str, Profile]:
    learned, rows = reader.member.selection(reader.subject, "train", is_tested=False)
    names, unknown = names_of(reader)
    measured = _averages(reader.selection, bool(unknown))  # [N, E, T]
    device = reader.member.model.device
    given = {name: _rows(store, rows, device) for name, store in train.items()}
    tested = {name: _rows(store, reader.rows, device) for name, store in test.items()}

    def signals() -> Iterator[Tensor]:
        for part in _chunks(learned, bool(unknown)):
            yield torch.from_numpy(part.reshape(len(part), -1)).to(device)

    labels, random = reader.labels.by_item, np.random.default_rng(spec.seed)
    wrong = units_of(reader.member, "train", rows).permute(random)[0], labels.wrong
    shape, how = measured.shape[1:], (wrong, spec.components, spec.alpha, spec.seed)
    predicted = encoding_model.predict_signals(given, tested, signals, shape, *how)
    axes = _axes(reader, names, shape, bool(unknown))
    if unknown:
        found.missing["encoding by sensor"] = unknown
    profiles = {
        part: encoding_model.along(predicted, measured, axis, places, by, labels)
        for part, (axis, places, by) in axes.items()
    }
    found.arrays["encoding map"] = encoding_model.correlations(predicted.full, measured)
    found.arrays["encoding alpha"] = np.array(predicted.alpha)
    _add_ceilings(found, reader, predicted.full, spec.seed)
    for level in predicted.without:
        for part, (axis, places, by) in axes.items():
            found.profiles[f"encoding · {level}:{part}"] = encoding_model.unique(
                predicted, measured, level, axis, places, by
            )
    return profiles


def names_of(reader: Reader) -> tuple[tuple[str, ...], str]:
    """Name the sensors; () of voxels, and where whitening cannot be undone, with the reason."""
    space = reader.selection.recording.space
    if not isinstance(space, Sensors):
        return (), ""
    try:
        sensor_space.refuse_unknown_whitening(reader.selection.recording)
    except BrainhiveError as error:
        return (), error.in_one_line
    is_whitened = reader.selection.recording.whiteners is not None
    return (tuple(space.names) if is_whitened else reader.selection.channels), ""


def _axes(
    reader: Reader, names: Sequence[str], shape: tuple[int, ...], is_mixed: bool
) -> dict[str, tuple[str, Mapping[Any, NDArray[np.int64]], int]]:
    """List what the correlation is averaged by: axis, indices of each place, and which axis of [N, E, T]."""
    axes: dict[str, tuple[str, Mapping[Any, NDArray[np.int64]], int]] = {}
    if shape[1] > 1:
        at = {float(time.round(3)): np.array([row]) for row, time in enumerate(reader.times_ms)}
        axes[TIME_PART] = (TIME, at, 2)
    if names:
        axes[SPACE_PART] = (SENSOR, {name: np.array([row]) for row, name in enumerate(names)}, 1)
    elif not is_mixed:
        regions = {name: np.array(places) for name, places in regions_of(reader).items()}
        axes[SPACE_PART] = (REGION, regions, 1)
    return axes


def _chunks(selection: Selection, is_mixed: bool) -> Iterator[NDArray[np.float32]]:
    """Yield the averages of some stimuli [n, E, T]: in sensor space, unless it is not known."""
    if is_mixed:
        return (part for _, part in selection.averages())
    return sensor_space.averages(selection)


def _averages(selection: Selection, is_mixed: bool) -> NDArray[np.float64]:
    return np.concatenate([*_chunks(selection, is_mixed)]).astype(np.float64)


def _rows(store: TargetStore, rows: NDArray[np.int64], device: torch.device) -> Tensor:
    """Read embeddings of some pictures, flattened [n, F]; the first where there are alternatives."""
    values = store.embedding if store.alternatives is None else store.embedding.column(0)
    return torch.from_numpy(np.asarray(values[rows], np.float32).reshape(len(rows), -1)).to(device)


def _add_ceilings(found: Found, reader: Reader, predicted: NDArray[np.float64], seed: int) -> None:
    """Measure what any model could reach, where stimuli were shown more than once."""
    counts = reader.selection.repetitions
    is_mixed = bool(names_of(reader)[1])

    def trials() -> Iterator[NDArray[np.float32]]:
        return sensor_space.trials(reader.selection, is_mixed)

    if counts.min() < 2:
        found.missing["ceilings of encoding"] = "a picture was shown once; a split with repetitions"
        return
    halves = encoding_ceilings.random_halves(seed)
    names = ("encoding of a half", "encoding lower ceiling", "encoding upper ceiling")
    each = encoding_ceilings.half_ceilings(trials(), predicted, halves)
    found.arrays |= {name: values for name, values in zip(names, each, strict=True)}
    found.arrays["explainable variance"] = encoding_ceilings.explainable_variance(trials)


@dataclass(frozen=True)
class Course:
    """Representational similarity over times, or over regions, of all subjects.

    Attributes:
        axis: What the places are.
        at: [T].
        found: What was measured.
        pictures: One list of N that all subjects were shown, and which of them are alike.
        halves: [T] of one subject: the correlation of halves of the repetitions, corrected to all.
    """

    axis: str
    at: tuple[Any, ...]
    found: similarity.Similarity
    pictures: Items
    halves: NDArray[np.float64] | None = None


def explain_similarity(readers: Sequence[Reader], levels: Levels, spec: Explanation) -> Course:
    """Correlate the distances of all subjects' signals with those of each level's embeddings.

    Args:
        readers: One a subject.
        levels: Embeddings of the tested pictures.
        spec: What is measured.

    Raises:
        BrainhiveError: if subjects share too few pictures, or the signals have one channel.
    """
    units, taken = readers[0].shared, [reader.shared_items for reader in readers]
    rows = readers[0].rows[taken[0]]
    if len(rows) < similarity.FEWEST:
        raise BrainhiveError(f"the subjects were shown {len(rows)} pictures in common", "fewer subjects")
    signals = [reader.signal.numpy()[some] for reader, some in zip(readers, taken, strict=True)]
    device = torch.device("cpu")
    models = similarity.Models.of({name: _rows(each, rows, device).numpy() for name, each in levels.items()})
    axis, at, choose = _places(readers)
    places = ([choose(signal, place, number) for number, signal in enumerate(signals)] for place in at)
    found = similarity.measure_similarity(places, models, units, spec.draws, spec.seed)
    halves = _halves(readers[0], taken[0], choose, at) if len(readers) == 1 else None
    return Course(axis, tuple(at), found, units, halves)


def _places(readers: Sequence[Reader]) -> tuple[str, list[Any], Any]:
    """Name the places, and how their patterns [N, C] are taken from signals [N, C, T]."""
    if readers[0].selection.channels:
        times = [float(each.round(3)) for each in readers[0].times_ms]
        return TIME, times, lambda signal, place, _: signal[:, :, times.index(place)]
    regions = [regions_of(reader) for reader in readers]
    shared = [name for name in regions[0] if all(len(each.get(name, ())) > 1 for each in regions)]
    if not shared:
        raise BrainhiveError("no region has two voxels of every subject", "prepare the signals with regions")
    return REGION, shared, lambda signal, place, number: signal[:, list(regions[number][place]), 0]


def _halves(
    reader: Reader, rows: NDArray[np.int64], choose: Any, at: Sequence[Any]
) -> NDArray[np.float64] | None:
    """Correlate the distances of the even and the odd repetitions, at each place."""
    if reader.selection.repetitions.min() < 2:
        return None
    single = reader.member.responses(reader.subject, reader.split, with_single=True)
    assert single.single is not None and single.counts is not None
    trials = np.asarray(single.single)  # [N, R, C, T]
    there = np.arange(trials.shape[1]) < single.counts[:, None]  # [N, R]
    means = []
    for first in (0, 1):
        some = there[:, first::2, None, None]
        means.append((trials[:, first::2] * some).sum(1)[rows] / some.sum(1)[rows])
    return np.array([similarity.halves_ceiling([choose(half, place, 0) for half in means]) for place in at])
