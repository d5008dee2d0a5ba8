"""The linear encoding model: signals predicted from embeddings, also without each of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.selection import Selection
from brainhive_cli.data.stores.recordings import Sensors
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.evaluation.explanation import reliability, sensor_space
from brainhive_cli.evaluation.explanation.linear_maps import Products, reduced
from brainhive_cli.evaluation.explanation.occlusion import REGION, SENSOR, TIME, regions_of
from brainhive_cli.evaluation.explanation.profiles import (
    SPACE_PART,
    TIME_PART,
    Labels,
    Profile,
    SubjectProfiles,
)
from brainhive_cli.evaluation.explanation.reader import Reader, units_of
from brainhive_cli.evaluation.explanation.recipe import Explanation

Values = NDArray[np.float64]
CORRELATION, UNIQUE = "r", "unique_r"
"""Names of the metrics: Pearson's correlation over pictures of signal and prediction, and what it loses
without the embeddings of one encoder."""


@dataclass(frozen=True)
class Predicted:
    """Signals of the tested pictures, [N, E, T], as embeddings predict them.

    Attributes:
        full: From all levels.
        without: Without each level.
        shuffled: With each level's embeddings exchanged among pictures.
        alpha: The penalty.
    """

    full: Values
    without: Mapping[str, Values]
    shuffled: Mapping[str, Values]
    alpha: float


def predict_signals(
    train: Mapping[str, Tensor],
    test: Mapping[str, Tensor],
    signals: Callable[[], Iterator[Tensor]],
    shape: tuple[int, ...],
    wrong: tuple[NDArray[np.int64], NDArray[np.int64]],
    components: int,
    alpha: float | None,
    seed: int = 0,
) -> Predicted:
    """Fit all models in one pass over the training signals.

    Args:
        train: Embeddings [n, F] of the training pictures by level.
        test: Those of the tested pictures, [N, F].
        signals: Gives the training signals in chunks [m, E T], in the order of the pictures.
        shape: E and T.
        wrong: Which training picture's embeddings another has in the control [n], and which tested one's [N].
        components: Of each level at most.
        alpha: The penalty; chosen by cross-validation for the full model if None, and taken for all.
        seed: Of the principal components.
    """
    pairs = {name: reduced(train[name].flatten(1), test[name].flatten(1), components, seed) for name in train}
    learned, tested = (torch.cat([pair[side] for pair in pairs.values()], 1) for side in (0, 1))
    orders = [torch.from_numpy(order).to(learned.device) for order in wrong]
    products = Products.of(torch.cat([learned, learned[orders[0]]], 1), signals())
    everything = torch.cat([tested, tested[orders[1]]], 1)
    width, stops = learned.shape[1], np.cumsum([pair[0].shape[1] for pair in pairs.values()])
    own = dict(zip(pairs, np.split(np.arange(width), stops[:-1]), strict=True))

    def predict(columns: NDArray[np.int64], penalty: float) -> Values:
        some = everything[:, torch.from_numpy(columns).to(everything.device)]
        outputs = products.take(columns).predict(some, penalty)
        return np.asarray(outputs.double().cpu().numpy().reshape(-1, *shape))

    chosen = products.take(np.arange(width)).best_alpha() if alpha is None else alpha
    rest = {name: np.setdiff1d(np.arange(width), columns) for name, columns in own.items()}
    several = {name: columns for name, columns in rest.items() if len(columns)}
    return Predicted(
        predict(np.arange(width), chosen),
        {name: predict(columns, chosen) for name, columns in several.items()},
        {name: predict(np.union1d(columns, own[name] + width), chosen) for name, columns in several.items()},
        chosen,
    )


def correlations(predicted: Values, measured: Values) -> Values:
    """Correlate [N, E, T] with [N, E, T] over pictures: [E, T]."""
    return np.asarray((_unit(predicted) * _unit(measured)).sum(0))


def along(
    predictions: Predicted,
    measured: Values,
    axis: str,
    places: Mapping[Any, NDArray[np.int64]],
    by: int,
    labels: Labels,
) -> Profile:
    """Average the correlation over all but one axis, with permuted labels of the measured pictures.

    Args:
        predictions: What was predicted.
        measured: [N, E, T].
        axis: What the places are.
        places: Indices along E (`by` 1) or T (`by` 2) of each place.
        by: Which axis is kept.
        labels: Permutations of the N items.
    """
    one, other = _unit(predictions.full), _unit(measured)
    count, values, matrices = len(one), [], []
    for rows in places.values():
        parts = [np.take(each, rows, by).reshape(count, -1) for each in (one, other)]
        matrices.append(count * (parts[0] @ parts[1].T) / parts[0].shape[1])  # [N, N]
        values.append(_influence(*parts).mean(1))
    profile = Profile.of(CORRELATION, axis, [*places], matrices, labels)
    return replace(profile, values=np.array(values))


def unique(
    predictions: Predicted,
    measured: Values,
    level: str,
    axis: str,
    places: Mapping[Any, NDArray[np.int64]],
    by: int,
) -> Profile:
    """Describe what a level adds at each place: the correlation less that without the level.

    The control adds the level with the embeddings of other pictures.
    """
    shares = []
    for each in (predictions.full, predictions.without[level], predictions.shuffled[level]):
        items = _items(each, measured)  # [N, E, T]
        shares.append(np.array([np.take(items, rows, by).mean((1, 2)) for rows in places.values()]))
    values, shuffled = shares[0] - shares[1], shares[2] - shares[1]  # [P, N]
    return Profile(UNIQUE, axis, tuple(places), values, np.empty((0, len(places))), shuffled)


def _items(predicted: Values, measured: Values) -> Values:
    """Give each picture's share of the correlations, [N, E, T]."""
    flat = [_unit(each).reshape(len(each), -1) for each in (predicted, measured)]
    return _influence(*flat).reshape(predicted.shape)


def _influence(one: Values, other: Values) -> Values:
    """Give the share of each picture in correlations of unit columns [N, Q], whose mean is the correlation.

    Source: Devlin, Gnanadesikan and Kettenring 1975 (influence function of a correlation).
    """
    value = (one * other).sum(0)
    return np.asarray(len(one) * (one * other - value / 2 * (one**2 + other**2)) + value)


def _unit(values: Values) -> Values:
    """Centre over pictures and give unit length; zeros where nothing varies."""
    centred = values - values.mean(0)
    lengths = np.linalg.norm(centred, axis=0)
    return np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 1e-12)


Levels = Mapping[str, TargetStore]
"""Stores of the encoders that signals are compared with, by encoder."""


def explain_signals(reader: Reader, train: Levels, test: Levels, spec: Explanation) -> SubjectProfiles:
    """Fit the linear encoding model of one subject's signals, in sensor space where whiteners are known.

    Args:
        reader: Of any cell that is tested on the subject; its model is not used.
        train: Embeddings of the training pictures.
        test: Embeddings of the tested pictures.
        spec: What is measured.
    """
    collected = SubjectProfiles(reader.image_ids)
    collected.attempt("encoding", lambda: _encode(reader, train, test, spec, collected))
    return collected


def _encode(
    reader: Reader, train: Levels, test: Levels, spec: Explanation, collected: SubjectProfiles
) -> dict[str, Profile]:
    learned, rows = reader.member.selection(reader.subject, "train", is_tested=False)
    names, unknown = names_of(reader)
    measured = _averages(reader.selection, bool(unknown))  # [N, E, T]
    device = reader.member.model.device
    given = {name: read_embeddings(store, rows, device) for name, store in train.items()}
    tested = {name: read_embeddings(store, reader.rows, device) for name, store in test.items()}

    def signals() -> Iterator[Tensor]:
        for part in _chunks(learned, bool(unknown)):
            yield torch.from_numpy(part.reshape(len(part), -1)).to(device)

    labels, random = reader.labels.by_item, np.random.default_rng(spec.seed)
    wrong = units_of(reader.member, "train", rows).permute(random)[0], labels.wrong
    shape, how = measured.shape[1:], (wrong, spec.components, spec.alpha, spec.seed)
    predicted = predict_signals(given, tested, signals, shape, *how)
    axes = _axes(reader, names, shape, bool(unknown))
    if unknown:
        collected.missing["encoding by sensor"] = unknown
    profiles = {
        part: along(predicted, measured, axis, places, by, labels)
        for part, (axis, places, by) in axes.items()
    }
    collected.arrays["encoding map"] = correlations(predicted.full, measured)
    collected.arrays["encoding alpha"] = np.array(predicted.alpha)
    _add_ceilings(collected, reader, predicted.full, spec.seed)
    for level in predicted.without:
        for part, (axis, places, by) in axes.items():
            collected.profiles[f"encoding · {level}:{part}"] = unique(
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


def read_embeddings(store: TargetStore, rows: NDArray[np.int64], device: torch.device) -> Tensor:
    """Read embeddings of some pictures, flattened [n, F]; the first where there are alternatives."""
    values = store.embedding if store.alternatives is None else store.embedding.column(0)
    return torch.from_numpy(np.asarray(values[rows], np.float32).reshape(len(rows), -1)).to(device)


def _add_ceilings(
    collected: SubjectProfiles, reader: Reader, predicted: NDArray[np.float64], seed: int
) -> None:
    """Measure what any model could reach, where stimuli were shown more than once."""
    counts = reader.selection.repetitions
    is_mixed = bool(names_of(reader)[1])

    def trials() -> Iterator[NDArray[np.float32]]:
        return sensor_space.trials(reader.selection, is_mixed)

    if counts.min() < 2:
        collected.missing["ceilings of encoding"] = "a picture was shown once; a split with repetitions"
        return
    halves = reliability.random_halves(seed)
    names = ("encoding of a half", "encoding lower ceiling", "encoding upper ceiling")
    each = reliability.half_ceilings(trials(), predicted, halves)
    collected.arrays |= {name: values for name, values in zip(names, each, strict=True)}
    collected.arrays["explainable variance"] = reliability.explainable_variance(trials)
