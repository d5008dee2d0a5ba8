"""Agreement between repetitions of a stimulus: correlations and noise ceilings."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core.base import Array, Float64, Int64
from brainhive_cli.measurement.ranks import (
    TIE_TOLERANCE,
    normalise_tokens,
    rank_targets,
)

Correlation = TypeVar("Correlation", float, Float64)
Repetitions = Iterable[NDArray[np.floating[Any]]]
"""Repetitions [R, ...] of each stimulus."""


def average_halves(
    trials: Tensor,
    available: Tensor,
    random: torch.Generator,
    parts: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Divide the repetitions of each stimulus into two random halves, and average each.

    Args:
        trials: Repetitions [N, R, F] of each stimulus, or [R, F] of a stimulus that is
            divided N times.
        available: Number [N] of repetitions that exist. The others are padding.
        random: Generator of the random halves.
        parts: Part of the recording [N, R] of each repetition, from 0. No part is in
            both halves. If None, each repetition is a part.

    Returns:
        Means [N, F] of the first and of the second halves, and the number [N] of
        repetitions in each half.
    """
    # number of the part of each repetition, where padding gets 0
    n_repetitions = trials.shape[-2]
    numbers = torch.arange(n_repetitions).expand(len(available), -1)
    is_available = numbers < available[:, None]
    part_numbers = numbers if parts is None else parts
    part_numbers = part_numbers.masked_fill(~is_available, 0)
    n_parts = 1 + part_numbers.amax(1, keepdim=True)

    # position of each part in a random order, where parts that do not exist are last
    keys = torch.rand((len(available), n_repetitions), generator=random)
    keys = keys.masked_fill(numbers >= n_parts, torch.inf)
    position_of_part = keys.argsort(1).argsort(1)
    position = position_of_part.gather(1, part_numbers)  # [N, R]

    # the parts at the first positions form a half, and the next parts the other half
    n_half = n_parts // 2
    is_first = position < n_half
    is_second = (position >= n_half) & (position < 2 * n_half)
    is_in_half = (
        torch.stack([is_first, is_second], 1) & is_available[:, None]
    )  # [N, 2, R]

    # parts may differ in size, so drop random repetitions of the larger half
    if parts is not None:
        n_smaller = is_in_half.sum(2).amin(1)[:, None, None]
        keys = torch.rand(is_in_half.shape, generator=random)
        keys = keys.masked_fill(~is_in_half, torch.inf)
        is_in_half &= keys.argsort(2).argsort(2) < n_smaller

    # average the repetitions of each half
    weights = is_in_half.to(trials.dtype) / is_in_half.sum(2, keepdim=True)
    first_means, second_means = torch.matmul(weights, trials).unbind(1)
    return first_means, second_means, is_in_half[:, 0].sum(1)


def average_random_halves(
    repetitions: Array, random: torch.Generator
) -> tuple[Array, Array]:
    """Average random halves of the repetitions of a stimulus, 10 times.

    Args:
        repetitions: Repetitions [R, ...] of the stimulus.
        random: Generator of the random halves.

    Returns:
        Flattened means [10, F] of the first halves and of the second halves.
    """
    flat = torch.from_numpy(repetitions).flatten(1)
    # Number of random divisions into halves over which a reliability is averaged.
    counts = torch.full((10,), len(repetitions))
    first_means, second_means, _ = average_halves(flat, counts, random)
    return first_means.numpy(), second_means.numpy()


def average_parts(repetitions: Array, parts: Int64) -> Array:
    """Average the repetitions of a stimulus within each part of the recording.

    Args:
        repetitions: Repetitions [R, ...] of the stimulus.
        parts: Number [R], from 0, of the part of each repetition.

    Returns:
        Means [P, ...] of the parts.
    """
    n_parts = parts.max() + 1
    return np.stack([repetitions[parts == part].mean(0) for part in range(n_parts)])


def retrieve_halves(first: Tensor, second: Tensor) -> dict[str, Float64]:
    """Find the second half of each stimulus by its similarity to the first half.

    Similarity is the cosine after the mean over stimuli is subtracted. The share of a
    stimulus in top-k is 1 if it is a hit, minus the number of other stimuli that would
    be hits without this candidate, plus a constant. The mean share is top-k. The
    variance of shares, divided by N, estimates the sampling variance of top-k, because
    a stimulus is a query and a candidate of all other queries.

    Args:
        first: Mean signal [N, F] of one half of the repetitions of each stimulus.
        second: Mean signal [N, F] of the other half.

    Returns:
        Shares [N] of the stimuli in `top1` and `top5`, the noise ceiling of retrieval.

    Source: Efron 1982 (jackknife).
    """
    # the target of query i is row i of the gallery
    queries = normalise_tokens(first - first.mean(0))
    gallery = normalise_tokens(second - second.mean(0))
    ranks = rank_targets(queries, gallery, torch.arange(len(first)))

    shares = {}
    for k in (1, 5):
        # candidates that rank before the target of queries that miss by one rank
        rows = (ranks == k + 1).nonzero()
        similarities = queries[rows[:, 0]] @ gallery.T
        is_before = similarities >= similarities.gather(1, rows) - TIE_TOLERANCE

        # the targets of these queries come before themselves, which the 1 makes up for
        influence = (ranks <= k + 1).double() - is_before.sum(0)
        top_k = (ranks <= k).double().mean()
        shares[f"top{k}"] = (influence - influence.mean() + top_k).numpy()
    return shares


def spearman_brown(halves: Correlation, times: float = 2.0) -> Correlation:
    """Predict the reliability of all repetitions from the reliability of a half.

    Returns times * r / (1 + (times - 1) * |r|). The published formula has r in place of
    |r|, and a pole at negative r.

    Args:
        halves: Correlations r between the means of two halves, of any shape.
        times: Number of all repetitions divided by the number in a half.

    Returns:
        Predicted correlations, in the shape of `halves`.

    Source: Spearman 1910; Brown 1910.
    """
    return times * halves / (1 + (times - 1) * abs(halves))


def unit_vectors(values: Array, axis: int = 0) -> Array:
    """Centre values along an axis, and scale them to unit length.

    Args:
        values: Values of any shape.
        axis: Axis along which the vectors extend.

    Returns:
        Unit vectors in the shape of `values`. Constant vectors become zeros.
    """
    # a sum of many float32 values is off by more than its last digit
    mean = values.mean(axis, keepdims=True, dtype=np.float64)
    centred = values - mean.astype(np.result_type(values, np.float32))
    lengths = np.linalg.norm(centred, axis=axis, keepdims=True)
    # the centre of equal values is off by rounding, whatever their unit
    rounding = np.finfo(centred.dtype).eps * np.abs(values).max(axis, keepdims=True)
    is_varied = lengths > rounding * values.shape[axis] ** 0.5
    return np.divide(centred, lengths, out=np.zeros_like(centred), where=is_varied)


def correlation_shares(first: Array, second: Array) -> Array:
    """Compute a share for each item, so that the mean share is the correlation.

    The share is the correlation plus its influence function at the item. The variance
    of shares, divided by N, estimates the sampling variance of the correlation.

    Args:
        first: First variable [N, ...] over N items, from `unit_vectors`.
        second: Second variable [N, ...] over the same items, from `unit_vectors`.

    Returns:
        Shares [N, ...] of the items.

    Source: Devlin, Gnanadesikan and Kettenring 1975 (influence function).
    """
    correlation = (first * second).sum(0)
    squares = first**2 + second**2
    influence = first * second - correlation / 2 * squares
    return np.asarray(len(first) * influence + correlation)


def correlate_without_each(first: Array, second: Array) -> Array:
    """Correlate two variables over all items, and without each item in turn.

    Args:
        first: First variable [N, ...] over N items, from `unit_vectors`.
        second: Second variable [N, ...] over the same items, from `unit_vectors`.

    Returns:
        Correlations [1 + N, ...] over all items, then over the items but one.
    """
    # sums of products around the means of the remaining items
    scale = len(first) / (len(first) - 1)
    correlation = (first * second).sum(0)
    covariances = correlation - scale * first * second
    variances = (1 - scale * first**2) * (1 - scale * second**2)

    # Smallest variance, as a share of the variance of all items, that is not rounding.
    min_variance = 1e-12
    # two items, or an item with all of the variance, leave nothing to correlate
    is_varied = variances > min_variance
    without_each = covariances / np.sqrt(np.where(is_varied, variances, 1))
    without_each = np.where(is_varied, without_each, correlation)
    return np.concatenate([correlation[None], without_each])


def predict_reliability(correlations: Array, times: float) -> Float64:
    """Predict the mean reliability of all repetitions from correlations of halves.

    The prediction of Spearman and Brown is not linear, so it is made for each feature,
    and then averaged. Noise biases it, so correlations are first shrunk to their mean,
    by half of what gives them the variance that they have without noise. The jackknife
    corrects the bias that is left.

    Args:
        correlations: Correlations [1 + N, F] of halves for F features, over all items,
            then without each item (see `correlate_without_each`).
        times: Number of all repetitions divided by the number in a half.

    Returns:
        Shares [N] of the items in the reliability, which is their mean. Their variance,
        divided by N, estimates its sampling variance.

    Source: Efron 1982 (jackknife and its pseudo-values); Louis 1984 (shrinkage).
    """
    # share of the spread over features that is not noise
    n_items = len(correlations) - 1
    centres = correlations.mean(1, keepdims=True)
    deviations = correlations - centres
    variance = deviations[0].var()
    noise_variance = (n_items - 1) * deviations[1:].var(0).mean()
    signal_share = 1 - min(1, noise_variance / variance) if variance else 1
    weight = (1 + signal_share**0.5) / 2

    shrunk = centres + weight * deviations
    estimates = spearman_brown(shrunk, times).mean(1, dtype=np.float64)
    shares = n_items * estimates[0] - (n_items - 1) * estimates[1:]
    # the correction of the bias must not pass the limits of correlations
    mean = shares.mean()
    return np.asarray(shares - mean + np.clip(mean, -1, 1))


def correlate(pairs: Iterable[tuple[Array, Array]]) -> Float64:
    """Compute the correlation of two variables, with one item in memory at a time.

    Args:
        pairs: Values [...] of the first and of the second variable for each item.

    Returns:
        Correlation [...] over items at each position. 0 if a variable is constant.
    """
    # sums over items of both variables, of their squares and of their product; without
    # the values of the first item, because offsets would hide the variance
    count = 0
    sums = np.zeros(())
    for first_values, second_values in pairs:
        pair = np.stack([first_values, second_values]).astype(np.float64)
        if not count:
            origin = pair
        first, second = pair - origin
        moments = [first, second, first * first, second * second, first * second]
        sums = sums + np.stack(moments)
        count += 1

    # covariance divided by the product of the standard deviations
    first_mean, second_mean, first_square, second_square, product = sums / count
    first_variance = np.maximum(first_square - first_mean**2, 0)
    second_variance = np.maximum(second_square - second_mean**2, 0)
    spread = np.sqrt(first_variance * second_variance)
    covariance = product - first_mean * second_mean
    return np.divide(covariance, spread, out=np.zeros_like(spread), where=spread > 0)


def noise_ceiling(trials: Callable[[], Repetitions], counts: Int64) -> Float64:
    """Estimate the percentage of variance of the stimulus means that is not noise.

    The ceiling is 100 * s / (s + 1/n) for n repetitions and the ratio s of signal to
    noise variance. Signals drift between sessions, so the r-th repetitions of all
    stimuli are z-scored. Repetitions that some stimuli lack share a standard deviation.

    Args:
        trials: Function that yields the repetitions [R, ...] of each stimulus.
        counts: Number [N] of repetitions of each stimulus, at least 2.

    Returns:
        Ceilings [...] in percent.

    Source: Allen et al. 2022 (NSD) and Hebart et al. 2023 (THINGS-MEG), for equal
    counts.
    """
    # sums of each repetition over the stimuli that have it
    n_stimuli = (np.arange(counts.max()) < counts[:, None]).sum(0)  # [R]
    shape = next(iter(trials())).shape[1:]
    sums = np.zeros((len(n_stimuli), *shape))
    squares = np.zeros_like(sums)
    for stimulus in trials():
        values = np.asarray(stimulus, np.float64)
        sums[: len(values)] += values
        squares[: len(values)] += values**2

    # mean and standard deviation of each repetition, or common deviation if incomplete
    broadcast_shape = (len(n_stimuli),) + (1,) * len(shape)
    n_values = n_stimuli.reshape(broadcast_shape)
    mean = sums / n_values  # [R, ...]
    scatter = np.maximum(squares - sums * mean, 0)
    common_variance = scatter.sum(0) / max(1, (n_stimuli - 1).sum())
    is_complete = n_values == len(counts)
    spread = np.sqrt(np.where(is_complete, scatter / n_values, common_variance))
    spread = np.where(spread > 0, spread, 1)

    # sums over stimuli: variance between repetitions (the noise), means, squared means
    noise = np.zeros(shape)
    total = np.zeros(shape)
    power = np.zeros(shape)
    for stimulus in trials():
        scaled = (stimulus - mean[: len(stimulus)]) / spread[: len(stimulus)]
        average = scaled.mean(0)
        noise += scaled.var(0, ddof=1)
        total += average
        power += average**2

    # share of the signal in the variance of the means
    noise_of_means = noise / len(counts) * (1 / counts).mean()
    variance_of_means = power / len(counts) - (total / len(counts)) ** 2
    signal = np.maximum(variance_of_means - noise_of_means, 0)
    variance = signal + noise_of_means
    return np.divide(100 * signal, variance, out=np.zeros(shape), where=variance > 0)
