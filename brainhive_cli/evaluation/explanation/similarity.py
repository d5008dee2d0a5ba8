"""Representational similarity: whether pictures that a model finds alike evoke signals that are alike."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Array, Float32, Float64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.evaluation.explanation.encoding_model import Levels, read_embeddings
from brainhive_cli.evaluation.explanation.profiles import REGION, TIME, Axis, locate, permutations
from brainhive_cli.evaluation.explanation.reader import Reader
from brainhive_cli.evaluation.explanation.recipe import Explanation
from brainhive_cli.evaluation.explanation.sensor_space import separate_in_time
from brainhive_cli.measurement.reliability import spearman_brown, unit_vectors
from brainhive_cli.measurement.units import Items

FEWEST = 4
"""Fewest pictures whose distances are correlated: three have three distances, whose ranks say little."""
EQUAL = 12
"""Digits to which summed ranks are equal: of a million pairs they differ by 1e-9, and rounding is 1e-16."""
MAX_DISTANCES = 2**24
"""Numbers of permuted distances that are held at once."""


@dataclass(frozen=True)
class Correlations:
    """Spearman correlations of the distances of S subjects' signals with those of M models, at T positions.

    Attributes:
        values: [S, M, T].
        items: [S, M, T, N] values of the pictures, whose mean is `values`: from how they scatter follows its
            interval.
        null: [K, M, T] mean over subjects with the pictures of the model permuted.
    """

    values: Float64
    items: Float32
    null: Float64


@dataclass(frozen=True)
class Similarity:
    """Similarity of signals and models over times, or over regions, of all subjects.

    Attributes:
        axis: The T positions.
        models: Names of the M models.
        whole: Correlations with each model.
        unique: Partial ones, given all other models; the same where there is one model.
        lower: [T] lower ceiling: the mean correlation of each subject with the mean of the others. Of one
            subject NaN.
        upper: [T] with the mean of all. It is far from 0 on noise, about 1 over the root of subjects.
        halves: [T] of one subject: the ceiling by halves of the repetitions.
    """

    axis: Axis
    models: tuple[str, ...]
    whole: Correlations
    unique: Correlations
    lower: Float64
    upper: Float64
    halves: Float64 | None = None


def measure_similarity(
    axis: Axis,
    patterns: Iterable[Sequence[Array]],
    models: Mapping[str, Float64],
    pictures: Items,
    draws: int,
    seed: int = 0,
) -> Similarity:
    """Correlate the distances of signals with those of models, position by position.

    Distances are 1 minus the correlation of two pictures' patterns over channels or voxels. Ranks are fixed
    when pictures are resampled, so an interval neglects that they depend on the other pictures.

    Args:
        axis: The positions.
        patterns: For each of them, the patterns [N, C] of each subject; all of the same pictures.
        models: Ranks [P] of the distances of these pictures, by the name of the model, as `rank_models`.
        pictures: One list of N, and which of them are alike.
        draws: K permutations of their units, alike for all subjects.
        seed: Of the permutations.

    Source: Kriegeskorte 2008; Nili 2014 (ceilings); Walther 2016.
    """
    # what each model has beyond the space of the others, spanned by [M - 1, P]; of unit length
    stacked = np.stack([*models.values()])  # [M, P]
    bases = [np.linalg.qr(np.delete(stacked, row, 0).T)[0].T for row in range(len(stacked))]
    rest = [model - (model @ basis.T) @ basis for model, basis in zip(stacked, bases, strict=True)]
    residuals = unit_vectors(np.stack(rest), -1)  # [M, P]

    # correlations at each position with the models, and with what only each of them has
    directions = np.concatenate([stacked, residuals])  # [2 M, P]
    dots, unique, items, means, ends = [], [], [], [], []
    for subjects in patterns:
        signals = np.stack([ranked(distances(subject)) for subject in subjects])  # [S, P]
        residual_dots = signals @ residuals.T  # [S, M]
        dots.append(np.stack([signals @ stacked.T, residual_dots]))
        shared = np.stack([np.square(signals @ basis.T).sum(-1) for basis in bases], -1)
        unique.append(residual_dots / np.sqrt(np.maximum(1 - shared, 1e-12)))  # partial Spearman correlations
        items.append(_items(signals, directions, pictures.size).astype(np.float32))  # [S, 2 M, N]
        means.append(signals.mean(0))
        ends.append(ceilings(signals))

    # partial correlations are those with residuals times a factor, by which items and control are scaled, too
    raw, residual = np.stack(dots, -1)  # [S, M, T]
    partial = np.stack(unique, -1)
    scale = partial / np.where(np.abs(residual) < 1e-12, 1e-12, residual)  # [S, M, T]
    raw_items, residual_items = np.split(np.stack(items, 2), 2, 1)  # [S, M, T, N]
    orders = permutations(pictures, draws, seed)

    # the same with models whose pictures are permuted, in single precision
    rows, columns = _upper_triangle(pictures.size)
    pair = np.zeros((pictures.size, pictures.size), np.int64)  # number of each pair of pictures
    pair[rows, columns] = pair[columns, rows] = np.arange(len(rows))
    averaged = np.stack(means, -1).astype(np.float32)  # [P, T]
    permuted = np.empty((len(orders), len(directions), averaged.shape[1]))  # [K, 2 M, T]
    step = max(1, MAX_DISTANCES // len(rows))  # several permutations at once, as memory allows
    for start in range(0, len(orders), step):
        chunk = orders[start : start + step]  # [k, N]
        pairs = pair[chunk[:, rows], chunk[:, columns]]  # [k, P]
        for number, direction in enumerate(directions.astype(np.float32)):
            permuted[start : start + step, number] = direction[pairs] @ averaged
    null, residual_null = np.split(permuted, 2, 1)  # [K, M, T]
    unique_items = (residual_items * scale[..., None]).astype(np.float32)
    lower, upper = np.transpose(ends)
    whole = Correlations(raw, raw_items, null)
    alone = Correlations(partial, unique_items, residual_null * scale.mean(0))
    return Similarity(axis, tuple(models), whole, alone, lower, upper)


def rank_models(features: Mapping[str, Array]) -> dict[str, Float64]:
    """Rank the distances [P] of each model by its features of the same pictures, [N, ...] by name.

    Raises:
        BrainhiveError: if there are too few pictures, or a model tells none of them from others.
    """
    models = {name: ranked(distances(values)) for name, values in features.items()}
    if constant := [name for name, model in models.items() if not model.any()]:
        raise BrainhiveError(
            f"{constant[0]} has the same distance between all pictures", "leave the encoder out"
        )
    return models


def distances(patterns: Array) -> Float64:
    """Measure the correlation distance of each pair of pictures, [P] in the order of `numpy.triu_indices`.

    Args:
        patterns: [N, ...], flattened.

    Raises:
        BrainhiveError: if there are fewer than four pictures, or a single number of each.
    """
    flat = np.asarray(patterns, np.float64).reshape(len(patterns), -1)
    if len(flat) < FEWEST or flat.shape[1] < 2:
        raise BrainhiveError(
            f"patterns [{len(flat)}, {flat.shape[1]}] have no distances to correlate",
            f"it needs {FEWEST} pictures and two channels or voxels",
        )
    units = unit_vectors(flat, -1)
    return 1 - (units @ units.T)[_upper_triangle(len(flat))]


def ranked(values: Float64) -> Float64:
    """Rank values [..., P], ties by their mean rank; centred and of unit length: products are Spearman's."""
    return unit_vectors(rankdata(values, axis=-1), -1)


def ceilings(signals: Float64) -> tuple[float, float]:
    """Compute the lower and the upper ceiling of subjects' unit ranks [S, P]; of one subject NaN.

    Source: Nili 2014, with ranks as rsatoolbox has them.
    """
    count = len(signals)
    if count < 2:
        return np.nan, np.nan

    # equal sums of ranks are ties, though their rounding differs
    total = signals.sum(0)
    upper = float(np.mean(signals @ ranked(total.round(EQUAL))))
    lower = float(np.mean([signal @ ranked((total - signal).round(EQUAL)) for signal in signals]))
    return lower, upper


def halves_ceiling(halves: Sequence[Array]) -> float:
    """Estimate the correlation that a perfect model would have with all repetitions, from two halves [N, C].

    It is the root of the correlation of two recordings, which is the halves', Spearman-Brown corrected: two
    recordings each have the noise that a model has not. With the sign of that correlation it is 0 on average
    on noise.
    """
    one, other = (ranked(distances(half)) for half in halves)
    reliability = spearman_brown(float(one @ other))
    return float(np.copysign(abs(reliability) ** 0.5, reliability))


@lru_cache(maxsize=4)
def _upper_triangle(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.triu_indices(count, 1)


def _items(signals: Float64, models: Float64, pictures: int) -> Float64:
    """Compute each picture's share of a correlation, [S, M, N]: the jackknife's pseudo-values, linearised.

    A correlation is a mean over pairs of pictures; the influence of a pair is the product of both values
    less half the correlation times their squares, and a picture's is twice the mean over its pairs.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 11; Arvesen 1969 (pairs).
    """
    rows, columns = _upper_triangle(pictures)
    count = signals.shape[-1]
    shares = np.empty((len(signals), len(models), pictures))
    for subject, signal in enumerate(signals):
        for number, model in enumerate(models):
            value = signal @ model
            pairs = count * (signal * model - value / 2 * (signal**2 + model**2))
            sums = np.bincount(rows, pairs, pictures) + np.bincount(columns, pairs, pictures)
            shares[subject, number] = value + 2 * sums / (pictures - 1)
    return shares


@console.progress("comparing signals and embeddings")
def explain_similarity(readers: Sequence[Reader], levels: Levels, spec: Explanation) -> Similarity:
    """Correlate the distances of all subjects' signals with those of each level's embeddings.

    Args:
        readers: One a subject.
        levels: Embeddings of the tested pictures.
        spec: What is measured.

    Raises:
        BrainhiveError: if subjects share too few pictures, or the signals have one channel.
    """
    # the signal of each subject that showed each of the shared pictures, [n]
    first, items = readers[0], [locate(reader.image_ids, reader.shared.ids[0]) for reader in readers]
    rows = first.trials.stimulus[items[0]]
    if len(rows) < FEWEST:
        raise BrainhiveError(f"the subjects were shown {len(rows)} pictures in common", "fewer subjects")
    cpu = torch.device("cpu")
    models = rank_models({name: read_embeddings(store, rows, cpu).numpy() for name, store in levels.items()})

    # the part of each subject's signals [n, C, T] at each time, or of each region that all have
    if first.trials.channels:
        axis = Axis(TIME, first.times_ms.round(3).tolist())
        parts: list[Any] = [[np.s_[..., row]] * len(readers) for row in range(len(axis.at))]
    else:
        regions = [reader.regions() for reader in readers]
        axis = Axis(
            REGION, [name for name in regions[0] if all(len(one.get(name, ())) > 1 for one in regions)]
        )
        parts = [[np.s_[:, one[name], 0] for one in regions] for name in axis.at]
        if not parts:
            raise BrainhiveError(
                "no region has two voxels of every subject", "prepare the signals with regions"
            )

    # correlations of the patterns [n, C] at each position
    signals = [reader.signal.numpy()[indices] for reader, indices in zip(readers, items, strict=True)]
    patterns = ([signal[index] for signal, index in zip(signals, part, strict=True)] for part in parts)
    similarity = measure_similarity(axis, patterns, models, first.shared, spec.draws, spec.seed)

    # of one subject, halves of the repetitions stand in for ceilings: even and odd parts of the recording
    if len(readers) > 1:
        return similarity
    try:
        numbers, counts = separate_in_time(first.trials)
    except BrainhiveError:  # there are no two parts that are far apart in time
        return similarity
    if counts.min() > 1:
        masks = [(first.trials.is_there & (numbers % 2 == side))[..., None, None] for side in (0, 1)]
        halves = [((first.trials.singles * mask).sum(1) / mask.sum(1))[items[0]] for mask in masks]
        ceilings = [halves_ceiling([half[index] for half in halves]) for (index,) in parts]
        similarity = replace(similarity, halves=np.array(ceilings))
    return similarity
