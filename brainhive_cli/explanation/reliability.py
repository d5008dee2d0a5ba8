"""How reliable a recording is: evoked response, split-half reliability, noise ceilings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Metric
from brainhive_cli.metrics.statistics import measure
from brainhive_cli.stores.recordings import Recording

STIMULI = 1000
"""Stimuli that are measured, drawn with a seed where there are more: so many give correlations to .03."""
DRAWS = 10
"""Random halves of the repetitions that a reliability is the mean of."""
PROTOCOL = "halves of repetitions"
"""How retrieval's ceiling is measured: the mean of some repetitions is looked for among means of others."""


Mean = NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """What the repetitions of a recording say about it.

    Attributes:
        stimuli: How many were measured; those that were shown twice at least.
        repetitions: The fewest and the most that they have.
        evoked: [C, T] mean over all repetitions; where the store has the whiteners of its sessions, of the
            signals before they were whitened, so that channels are sites.
        field_power: [T] global field power: standard deviation of the evoked response over channels.
        split_half: [C, T] correlation over stimuli of two halves of the repetitions, Spearman-Brown
            corrected to all of them.
        ceiling: [C, T] percent of the variance of the stimuli's means that is not noise (Allen et al. 2022).
        retrieval: Top-1 of finding a stimulus by the mean of k repetitions among the means of as many others,
            for k = 1, 2, 4 …
    """

    stimuli: int
    repetitions: tuple[int, int]
    evoked: NDArray[np.float64]
    field_power: NDArray[np.float64]
    split_half: NDArray[np.float64]
    ceiling: NDArray[np.float64]
    retrieval: dict[int, Metric]


def measure_reliability(recording: Recording, split: str, seed: int = 0) -> Reliability:
    """Measure how reliable a recording is.

    Args:
        recording: One subject's recording of a split; read in chunks.
        split: Its name, for the metrics.
        seed: Of the draw of stimuli and halves.

    Raises:
        BrainhiveError: if fewer than three stimuli were shown twice.
    """
    count, most, *shape = recording.signal.shape
    repetitions = np.full(count, most) if recording.repetitions is None else recording.repetitions
    random = np.random.default_rng(seed)
    rows = np.flatnonzero(repetitions > 1)
    if len(rows) < 3:
        raise BrainhiveError(
            f"{len(rows)} {split} stimuli were shown twice or more: reliability needs three", "another split"
        )
    rows = np.sort(random.permutation(rows)[:STIMULI])
    chosen = repetitions[rows]
    sizes = [size for size in 2 ** np.arange(12) if 2 * size <= chosen.min()]
    sessions = recording.sessions if recording.whiteners is not None else None
    by_session = np.zeros((1 if recording.whiteners is None else len(recording.whiteners), *shape))
    means = np.empty((len(rows), *shape), np.float32)
    noise = np.zeros(shape)
    sums = np.zeros((DRAWS, 5, *shape))  # of both halves, their squares and their product
    parts = {int(size): np.empty((2, len(rows), *shape), np.float32) for size in sizes}
    for place, trials in enumerate(_trials(recording, rows, chosen)):
        own_sessions = (
            np.zeros(len(trials), int) if sessions is None else sessions[rows[place], : len(trials)]
        )
        np.add.at(by_session, own_sessions, trials)
        means[place] = trials.mean(0)
        noise += trials.var(0, ddof=1)
        orders = [random.permutation(len(trials)) for _ in range(DRAWS)]
        middle = len(trials) // 2
        for order, own in zip(orders, sums, strict=True):
            one, other = (trials[part].mean(0) for part in (order[:middle], order[middle : 2 * middle]))
            own += one, other, one * one, other * other, one * other
        for size, (first, second) in parts.items():
            first[place] = trials[orders[0][:size]].mean(0)
            second[place] = trials[orders[0][size : 2 * size]].mean(0)
    if recording.whiteners is not None:
        by_session = np.linalg.solve(recording.whiteners, by_session)  # back to sensors
    evoked = by_session.sum(0) / chosen.sum()
    correlations = [_correlation(*own / len(rows)) for own in sums]
    return Reliability(
        stimuli=len(rows),
        repetitions=(int(chosen.min()), int(chosen.max())),
        evoked=evoked,
        field_power=evoked.std(0),
        split_half=_spearman_brown(np.mean(correlations, axis=0)),
        ceiling=_ceiling(means, noise / len(rows), chosen),
        retrieval={size: _retrieval(pair[0], pair[1], split, (seed,)) for size, pair in parts.items()},
    )


def _trials(
    recording: Recording, rows: NDArray[np.int64], repetitions: NDArray[np.int64]
) -> Iterator[NDArray[np.float32]]:
    """Yield the repetitions [R, C, T] of each stimulus."""
    for row, count in zip(rows, repetitions, strict=True):
        yield np.asarray(recording.signal[row][:count], np.float32)


def _correlation(
    one: Mean, other: Mean, one_squared: Mean, other_squared: Mean, product: Mean
) -> NDArray[np.float64]:
    """Correlate, from means over stimuli; 0 where one half does not vary."""
    spread = np.sqrt(np.maximum(one_squared - one**2, 0) * np.maximum(other_squared - other**2, 0))
    return np.divide(product - one * other, spread, out=np.zeros_like(spread), where=spread > 0)


def _spearman_brown(halves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correct a correlation of halves to that of the whole; below zero, where it has no meaning, it stays."""
    return np.where(halves > 0, 2 * halves / (1 + np.abs(halves)), halves)


def _ceiling(
    means: NDArray[np.float32], noise: NDArray[np.float64], repetitions: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Compute 100 s / (s + 1/n), with s the variance of the signal over the noise of one repetition."""
    per_mean = (1 / repetitions).mean()
    signal = np.maximum(means.var(0, ddof=1, dtype=np.float64) - noise * per_mean, 0)
    total = signal + noise * per_mean
    return np.divide(100 * signal, total, out=np.zeros_like(total), where=total > 0)


def _retrieval(
    first: NDArray[np.float32], second: NDArray[np.float32], split: str, seeds: Sequence[int]
) -> Metric:
    """Measure how often the nearest of the second means is the stimulus' own, by correlation."""
    flat = [_standard(part.reshape(len(part), -1)) for part in (first, second)]
    found = (flat[0] @ flat[1].T).argmax(1) == np.arange(len(first))
    return measure(
        "top1",
        [found.astype(float)],
        protocol=PROTOCOL,
        split=split,
        pool=len(first),
        chance=1 / len(first),
        seeds=seeds,
        limits=(0, 1),
    )


def _standard(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give each row mean 0 and length 1, after the mean over rows, which all stimuli share, is subtracted."""
    values = values - values.mean(0)
    values -= values.mean(1, keepdims=True)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.where(lengths > 0, lengths, 1)).astype(np.float32)
