"""Agreement of repetitions of a stimulus: random halves, what these correlate by, and
what is not noise.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainhive_cli.core.arrays import Array, Float64, Int64
from brainhive_cli.measurement.ranks import rank_targets

Correlation = TypeVar("Correlation", float, Float64)
Repetitions = Iterable[NDArray[np.floating[Any]]]
"""The repetitions [R, ...] of each stimulus."""
HALVINGS = 10
"""Random halves of the repetitions that a reliability is the mean of."""


def average_halves(
    trials: Tensor,
    available: Tensor,
    random: torch.Generator,
    parts: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Average two random halves of each stimulus' repetitions, which share no
    repetition and no part.

    Of an odd number one is left out.

    Args:
        trials: [N, R, F]; or [R, F] of one stimulus, which is halved N times.
        available: How many of the R exist, [N].
        random: Draws the halves.
        parts: [N, R] number, from 0, of the part of the recording that each repetition
            is of (see `separate_repetitions`): halves are of different parts, and as
            large. None: all parts differ.

    Returns:
        [N, F] each, and [N] how many repetitions are in a half.
    """
    # a random order of the parts of each stimulus
    count = trials.shape[-2]
    numbers = torch.arange(count).expand(len(available), -1)
    is_there = numbers < available[:, None]
    part = numbers if parts is None else parts.masked_fill(~is_there, 0)
    shown = 1 + part.masked_fill(~is_there, 0).amax(1, keepdim=True)
    drawn = torch.rand((len(available), count), generator=random)
    # [N, R]
    position = (
        drawn.masked_fill(numbers >= shown, 2).argsort(1).argsort(1).gather(1, part)
    )

    # the first ones are one half, the next ones the other; of parts that differ in size
    # as many are taken
    half = shown // 2
    sides = (
        torch.stack([position < half, (position >= half) & (position < 2 * half)], 1)
        & is_there[:, None]
    )
    if parts is not None:
        most = sides.sum(2).amin(1)[:, None, None]
        drawn = torch.rand(sides.shape, generator=random).masked_fill(~sides, 2)
        sides &= drawn.argsort(2).argsort(2) < most
    weights = sides.to(trials.dtype) / sides.sum(2, keepdim=True)  # [N, 2, R]
    first, second = torch.matmul(weights, trials).unbind(1)
    return first, second, sides[:, 0].sum(1)


def halve(repetitions: Array, random: torch.Generator) -> tuple[Array, Array]:
    """Average halves of one stimulus' repetitions [R, ...], as `average_halves` does:
    [HALVINGS, F] each.
    """
    flat = torch.from_numpy(repetitions).flatten(1)
    counts = torch.full((HALVINGS,), len(repetitions))
    first, second, _ = average_halves(flat, counts, random)
    return first.numpy(), second.numpy()


def average_parts(repetitions: Array, parts: Int64) -> Array:
    """Average one stimulus' repetitions [R, ...] within the parts [R] of a recording:
    [parts, ...].
    """
    return np.stack(
        [repetitions[parts == number].mean(0) for number in range(parts.max() + 1)]
    )


def rank_halves(first: Tensor, second: Tensor) -> Tensor:
    """Rank each stimulus' own second half among those of all by its first, [N, F] each;
    both centred.

    Stimuli share one pool, yet their hits vary about as independent ones do: Wilson's
    interval over them holds (`benchmarks/simulated_statistics` prints how often).
    """
    return rank_targets(
        first - first.mean(0), second - second.mean(0), torch.arange(len(first))
    )


def spearman_brown(halves: Correlation, times: float = 2.0) -> Correlation:
    """Predict the correlation of two halves if both had `times` as many repetitions.

    That is times · r / (1 + (times - 1) · |r|). Below zero the formula has no meaning,
    and a pole; made odd, it is one to one, so that it corrects the ends of an interval
    too, and the noise of uncorrelated halves still averages to 0.

    Args:
        halves: A correlation, or an array of any shape.
        times: Repetitions of the whole over those of a half: 2, or 3 of three that were
            halved into 1 and 1.

    Source: Spearman 1910; Brown 1910.
    """
    return times * halves / (1 + (times - 1) * abs(halves))


def unit_vectors(values: Array, axis: int = 0) -> Array:
    """Centre values along an axis and give them unit length; zeros where nothing
    varies.
    """
    # lengths of rounding alone count as 0
    centred = values - values.mean(axis, keepdims=True)
    lengths = np.linalg.norm(centred, axis=axis, keepdims=True)
    return np.divide(
        centred, lengths, out=np.zeros_like(centred), where=lengths > 1e-12
    )


def correlation_shares(first: Array, second: Array) -> Array:
    """Compute the share of each item in correlations of unit vectors [N, ...], whose
    mean is the correlation.

    Shares vary with items as the correlation does: little where both columns are nearly
    the same.

    Source: Devlin, Gnanadesikan and Kettenring 1975 (influence function of a
    correlation).
    """
    value = (first * second).sum(0)
    return np.asarray(
        len(first) * (first * second - value / 2 * (first**2 + second**2)) + value
    )


def correlate(pairs: Iterable[tuple[Array, Array]]) -> Float64:
    """Correlate two values [...] over items, which are read one by one; 0 where one is
    constant.
    """
    # sums of values, squares and products
    count = 0
    sums = np.zeros(())
    for first, second in pairs:
        moments = np.stack(
            [first, second, first * first, second * second, first * second]
        )
        sums = sums + moments.astype(np.float64)
        count += 1

    # covariance over the spreads
    first, second, first_squares, second_squares, product = sums / count
    spread = np.sqrt(
        np.maximum(first_squares - first**2, 0)
        * np.maximum(second_squares - second**2, 0)
    )
    return np.divide(
        product - first * second, spread, out=np.zeros_like(spread), where=spread > 0
    )


def noise_ceiling(trials: Callable[[], Repetitions], counts: Int64) -> Float64:
    """Estimate the percentage [...] of the variance of the stimuli's means that is not
    noise.

    100 s / (s + 1/n), where s is the variance of the signal over that of the noise of
    one repetition. First, second … repetitions are z-scored over stimuli, as signals
    drift between sessions; those that not all stimuli have are divided by one spread in
    common.

    Args:
        trials: Gives the repetitions of each stimulus, which are read twice.
        counts: How many these are, [N], two at least.

    Source: Allen et al. 2022 (NSD); Hebart et al. 2023 (THINGS-MEG). Theirs where all
    counts are equal.
    """
    # mean and spread of each repetition over the stimuli that have it
    has = (np.arange(counts.max()) < counts[:, None]).sum(0)  # [R]
    shape = next(iter(trials())).shape[1:]
    sums, squares = np.zeros((2, len(has), *shape))
    for stimulus in trials():
        values = np.asarray(stimulus, np.float64)
        sums[: len(values)] += values
        squares[: len(values)] += values**2
    stimulus_counts = has.reshape(-1, *(1 for _ in shape))  # [R, 1, ...]
    mean = sums / stimulus_counts
    scatter = np.maximum(squares - sums * mean, 0)  # [R, ...]
    common = scatter.sum(0) / max(1, (has - 1).sum())
    spread = np.sqrt(
        np.where(stimulus_counts == len(counts), scatter / stimulus_counts, common)
    )
    spread = np.where(spread > 0, spread, 1)

    # variance within stimuli, which is noise, and that of their means
    noise, total, power = np.zeros((3, *shape))
    for stimulus in trials():
        scaled = (stimulus - mean[: len(stimulus)]) / spread[: len(stimulus)]
        average = scaled.mean(0)
        noise += scaled.var(0, ddof=1)
        total += average
        power += average**2

    # share of the signal in the variance of the means
    noise_of_means = noise / len(counts) * (1 / counts).mean()
    signal = np.maximum(
        power / len(counts) - (total / len(counts)) ** 2 - noise_of_means, 0
    )
    variance = signal + noise_of_means
    return np.divide(100 * signal, variance, out=np.zeros(shape), where=variance > 0)
