"""The linear encoding model: signals predicted from embeddings, also without each of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.evaluation.explanation.linear_maps import Products, reduced
from brainhive_cli.evaluation.explanation.profiles import Labels, Profile

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
        found = products.take(columns).predict(some, penalty)
        return np.asarray(found.double().cpu().numpy().reshape(-1, *shape))

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
    found: Predicted,
    measured: Values,
    axis: str,
    places: Mapping[Any, NDArray[np.int64]],
    by: int,
    labels: Labels,
) -> Profile:
    """Average the correlation over all but one axis, with permuted labels of the measured pictures.

    Args:
        found: What was predicted.
        measured: [N, E, T].
        axis: What the places are.
        places: Indices along E (`by` 1) or T (`by` 2) of each place.
        by: Which axis is kept.
        labels: Permutations of the N items.
    """
    one, other = _unit(found.full), _unit(measured)
    count, values, matrices = len(one), [], []
    for rows in places.values():
        parts = [np.take(each, rows, by).reshape(count, -1) for each in (one, other)]
        matrices.append(count * (parts[0] @ parts[1].T) / parts[0].shape[1])  # [N, N]
        values.append(_influence(*parts).mean(1))
    profile = Profile.of(CORRELATION, axis, [*places], matrices, labels)
    return replace(profile, values=np.array(values))


def unique(
    found: Predicted,
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
    for each in (found.full, found.without[level], found.shuffled[level]):
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
