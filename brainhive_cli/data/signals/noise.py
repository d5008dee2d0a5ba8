"""Multivariate noise normalisation (MVNN): signals times the inverse root of the covariance of their noise.

Source: Guggenmos et al. 2018, as THINGS-EEG2's authors and NICE apply it. The covariance of each block of
observations is shrunk as in scikit-learn's discriminant analysis (Ledoit-Wolf on standardised columns), then
all are averaged. Here the blocks of a chunk are one batched product.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.arrays import Array, Float64, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.trials import group_trials

Across = Literal["epochs", "time"]
"""Observations of a block: `epochs`, the samples of one trial, so that the response itself counts as noise;
`time`, the trials of one stimulus at one time."""
CHUNK = 2**18
"""Values in a chunk of blocks: 1 MiB in float32, which stays in a CPU's cache."""
SMALLEST = 1e-9
"""Share of the largest variance below which a direction holds rounding and no signal."""
Signal = NDArray[np.floating[Any]]


def covariance(epochs: Signal, stimuli: Int64, across: Across) -> Float64:
    """Average the shrunk covariances [C, C] of blocks, with equal weight for each stimulus.

    Args:
        epochs: [trials, C, T] of one session, in a unit in which the values are near 1, as microvolts are.
        stimuli: [trials], the stimulus of each trial.
        across: Observations of a block.

    Raises:
        BrainhiveError: if no stimulus was shown twice, as `time` needs.
    """
    total = np.zeros((epochs.shape[1],) * 2)  # [C, C]
    for blocks, weights in (_trials if across == "epochs" else _times)(epochs, stimuli):
        centred = blocks - blocks.mean(2, keepdims=True)
        is_long = centred.shape[2] >= centred.shape[1]
        total += (_sum_long if is_long else _sum_short)(centred, weights)
    return total


def _trials(epochs: Signal, stimuli: Int64) -> Iterator[tuple[Signal, Float64]]:
    """Yield trials [n, C, T] and their weights [n]."""
    # each stimulus weighs the same, however often it was shown
    _, stimulus, counts = np.unique(stimuli, return_inverse=True, return_counts=True)
    weights = 1 / (counts[stimulus] * len(counts))

    step = max(1, CHUNK // epochs[0].size)
    for start in range(0, len(epochs), step):
        yield epochs[start : start + step], weights[start : start + step]


def _times(epochs: Signal, stimuli: Int64) -> Iterator[tuple[Signal, Float64]]:
    """Yield the trials of each stimulus and time as observations [n, C, R], and the weights [n]."""
    _, table, counts = group_trials(stimuli)
    blocks = int((counts > 1).sum()) * epochs.shape[2]
    if not blocks:
        raise BrainhiveError("no stimulus was shown twice in this session", "preparation.whiten=epochs")

    # stimuli with equal numbers of trials form one batch
    for repetitions in np.unique(counts[counts > 1]):
        rows = table[counts == repetitions, :repetitions]  # [S, R]
        step = max(1, CHUNK // (epochs[0].size * repetitions))
        for start in range(0, len(rows), step):
            repeated = epochs[rows[start : start + step]]  # [s, R, C, T]
            observations = repeated.transpose(0, 3, 2, 1).reshape(-1, repeated.shape[2], repetitions)
            observations = observations.astype(np.float64)  # [n, C, R]; two trials may nearly cancel
            yield observations, np.full(len(observations), 1 / blocks)


def _sum_long(centred: Signal, weights: Float64) -> Float64:
    """Sum shrunk covariances, (1 - λ) S + λ diag(S), of blocks with more observations than channels.

    Args:
        centred: [n, C, T] blocks of T observations with mean 0, each with its λ; they are overwritten.
        weights: [n].
    """
    count, channels, observations = centred.shape

    # squared correlations of channels, summed over pairs
    products = centred @ centred.transpose(0, 2, 1)  # [n, C, C]
    variances = np.diagonal(products, axis1=1, axis2=2) / observations  # [n, C]
    precisions = np.divide(1, variances, out=np.zeros_like(variances), where=variances > 0)[:, :, None]
    channel_sums = ((products * products) @ precisions).astype(np.float64)  # [n, C, 1]
    squares = (channel_sums * precisions).sum((1, 2)) / observations**2  # [n]

    # λ by the spread of the squared lengths of standardised observations
    lengths = precisions.transpose(0, 2, 1) @ np.square(centred, out=centred)  # [n, 1, T]
    shrinkage = _estimate_shrinkage(squares, lengths[:, 0], channels)  # [n]

    # (1 - λ) S in one product over blocks, λ diag(S) on the diagonal
    weight = (weights * (1 - shrinkage) / observations).astype(centred.dtype)
    total = (weight @ products.reshape(count, -1)).reshape(channels, channels)
    return total + np.diag((weights * shrinkage) @ variances)


def _sum_short(centred: Signal, weights: Float64) -> Float64:
    """Sum shrunk covariances of blocks with fewer observations; their inner products have the same squares.

    Args:
        centred: [n, C, T] blocks of T observations with mean 0, each with its λ.
        weights: [n].
    """
    # squared inner products of standardised observations, in place of those of channels
    channels, observations = centred.shape[1:]
    variances = np.einsum("nct,nct->nc", centred, centred) / observations  # [n, C]
    standard = centred / np.sqrt(np.where(variances > 0, variances, 1))[:, :, None]
    products = standard.transpose(0, 2, 1) @ standard / observations  # [n, T, T]
    squares = np.einsum("nij,nij->n", products, products, dtype=np.float64)  # [n]
    lengths = np.diagonal(products, axis1=1, axis2=2) * observations  # [n, T]
    shrinkage = _estimate_shrinkage(squares, lengths, channels)  # [n]

    # all observations side by side, each scaled by its block's weight
    factors = np.sqrt(weights * (1 - shrinkage) / observations).astype(centred.dtype)
    flat = (centred * factors[:, None, None]).transpose(1, 0, 2).reshape(channels, -1)  # [C, n T]
    return flat @ flat.T + np.diag((weights * shrinkage) @ variances)


def _estimate_shrinkage(squares: Float64, lengths: Signal, channels: int) -> Float64:
    """Estimate λ [n] of blocks with standardised channels.

    Args:
        squares: [n], the sum of the squares of their correlations.
        lengths: [n, T], the squared length of each observation.
        channels: C.
    """
    # Ledoit and Wolf 2004: the variance of the estimate over its distance from the identity
    fourth = (lengths.astype(np.float64) ** 2).mean(1)
    distance = (squares - channels) / channels
    spread = np.minimum((fourth - squares) / (channels * lengths.shape[1]), distance)
    return np.divide(spread, distance, out=np.zeros(len(squares)), where=distance > 0)


def refuse_flat(variances: Array, names: Sequence[str]) -> None:
    """Refuse channels [C] that hold no signal.

    Raises:
        BrainhiveError: naming them.
    """
    is_flat = variances <= SMALLEST * variances.max()
    if flat := [name for name, without in zip(names, is_flat, strict=True) if without]:
        problem = f"flat channels: {', '.join(flat)}"
        raise BrainhiveError(problem, "leave them out: preparation.channels=[...]")


def whitener(noise: Float64, names: Sequence[str]) -> Float64:
    """Compute Σ^(-1/2) [C, C] of a covariance of noise.

    Raises:
        BrainhiveError: naming flat channels; or if channels are sums of others, as after average reference.
    """
    refuse_flat(np.diag(noise), names)
    values, directions = np.linalg.eigh(noise)  # [C], [C, C]
    if values[0] <= SMALLEST * values[-1]:
        raise BrainhiveError(
            "the covariance of the noise is singular: channels are sums of one another",
            "leave out the reference, or bad channels that were interpolated; or preparation.whiten=no",
        )
    return (directions * values**-0.5) @ directions.T


def whiten(epochs: Signal, matrix: Signal) -> None:
    """Multiply trials [n, C, T] by a whitener [C, C], in place."""
    step, factor = max(1, CHUNK // epochs[0].size), matrix.astype(epochs.dtype)
    for start in range(0, len(epochs), step):
        epochs[start : start + step] = factor @ epochs[start : start + step]
