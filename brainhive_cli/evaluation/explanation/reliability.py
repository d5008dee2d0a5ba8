"""How reliable recordings are: split halves, noise ceilings, and how well any model could predict them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Metric
from brainhive_cli.data.stores.recordings import Recording
from brainhive_cli.measurement.statistics import measure, spearman_brown
from brainhive_cli.measurement.units import Alike, Items

STIMULI = 1000
"""Stimuli that are measured, drawn with a seed where there are more: so many give correlations to .03."""
DRAWS = 10
"""Random halves of the repetitions that a reliability is the mean of."""
PROTOCOL = "halves of repetitions"
"""How retrieval's ceiling is measured: the mean of some repetitions is looked for among means of others."""

Means = NDArray[np.float32]
Values = NDArray[np.float64]
Counts = NDArray[np.int64]
Repetitions = Iterable[NDArray[np.floating]]
"""The repetitions [R, E, T] of each stimulus."""
Halves = Callable[[int], NDArray[np.bool_]]
"""Draws halves [D, R] of so many repetitions: which are in the second half."""


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
    evoked: Values
    field_power: Values
    split_half: Values
    ceiling: Values
    retrieval: dict[int, Metric]


def measure_reliability(
    recording: Recording, split: str, seed: int = 0, alike: Alike | None = None
) -> Reliability:
    """Measure how reliable a recording is; each stimulus is read once.

    Args:
        recording: One subject's recording of a split.
        split: Its name, for the metrics.
        seed: Of the draw of stimuli and halves.
        alike: Which stimuli are; None: none.

    Raises:
        BrainhiveError: if fewer than three stimuli were shown twice.
    """
    # stimuli that were shown twice at least, drawn where there are more than are measured
    random = np.random.default_rng(seed)
    count, most, *places = recording.signal.shape
    counts = np.full(count, most) if recording.repetitions is None else recording.repetitions
    rows = np.flatnonzero(counts > 1)
    if len(rows) < 3:
        raise BrainhiveError(
            f"{len(rows)} {split} stimuli were shown twice or more: reliability needs three", "another split"
        )
    rows = np.sort(random.permutation(rows)[:STIMULI])
    counts, shape = counts[rows], (len(rows), *places)  # [N], and N, C, T

    # sums over trials: by session that has a whitener, of halves, and of the noise
    whiteners, sessions = recording.whiteners, recording.sessions
    if whiteners is None or sessions is None:
        sessions = np.zeros(recording.signal.shape[:2], np.int8)
    sums = np.zeros((1 if whiteners is None else len(whiteners), *places))
    halves, means, noise = np.zeros((5, DRAWS, *places)), np.empty(shape, np.float32), np.zeros(places)
    doubled = [2**n for n in range(int(counts.min() // 2).bit_length())]
    pairs = {size: np.empty((2, *shape), np.float32) for size in doubled}
    for place, (row, count) in enumerate(zip(rows.tolist(), counts.tolist(), strict=True)):
        trials = np.asarray(recording.signal[row][:count], np.float32)  # [R, C, T]
        orders = [random.permutation(count) for _ in range(DRAWS)]
        np.add.at(sums, sessions[row, :count].astype(int), trials)
        means[place] = trials.mean(0)
        noise += trials.var(0, ddof=1) / len(rows)
        for draw, order in enumerate(orders):
            halves[:, draw] += moments(*_two_means(trials, order, count // 2))
        for size, pair in pairs.items():
            pair[:, place] = _two_means(trials, orders[0], size)
    evoked = (sums if whiteners is None else np.linalg.solve(whiteners, sums)).sum(0) / counts.sum()
    times = counts.sum() / (counts // 2).sum()

    # 100 s / (s + 1/n), with s the variance of the signal over the noise of one repetition
    noise_of_mean = noise * (1 / counts).mean()
    signal = np.maximum(means.var(0, ddof=1, dtype=np.float64) - noise_of_mean, 0)
    total = signal + noise_of_mean
    items = (alike or Alike()).items([[recording.image_ids[row] for row in rows.tolist()]])
    return Reliability(
        stimuli=len(rows),
        repetitions=(int(counts.min()), int(counts.max())),
        evoked=evoked,
        field_power=evoked.std(0),
        split_half=spearman_brown(correlate(halves, len(rows)).mean(0), times),
        ceiling=np.divide(100 * signal, total, out=np.zeros_like(total), where=total > 0),
        retrieval={
            size: find_by_means(pair[0], pair[1], split, (seed,), items) for size, pair in pairs.items()
        },
    )


def find_by_means(
    first: Means, second: Means, split: str, seeds: Sequence[int] = (), items: Items | None = None
) -> Metric:
    """Measure how often the nearest of the second means is the stimulus' own, by correlation.

    Units share one pool, yet their hits vary about as independent ones do: Wilson's interval over units holds
    (`benchmarks/simulated_statistics.py` prints how often).

    Args:
        first: [N, C, T] means of some repetitions of each stimulus.
        second: [N, C, T] means of others.
        split: Name of the split.
        seeds: Of the draw of the repetitions.
        items: The stimuli, and which of them are alike; None: none.
    """
    flat = [_standard(part.reshape(len(part), -1)) for part in (first, second)]
    is_first = (flat[0] @ flat[1].T).argmax(1) == np.arange(len(first))
    hits, pool = [is_first.astype(float)], len(first)
    context: Any = {"protocol": PROTOCOL, "split": split, "pool": pool, "chance": 1 / pool, "seeds": seeds}
    return measure("top1", hits, items=items, limits=(0, 1), **context)


def _two_means(trials: Means, order: Counts, size: int) -> tuple[Means, Means]:
    """Average the first `size` repetitions in an order, and as many that follow."""
    return trials[order[:size]].mean(0), trials[order[size : 2 * size]].mean(0)


def _standard(values: Means) -> Means:
    """Give each row mean 0 and length 1, after the mean over rows, which all stimuli share, is subtracted."""
    values = values - values.mean(0)
    values -= values.mean(1, keepdims=True)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def random_halves(seed: int, draws: int = DRAWS) -> Halves:
    """Draw halves anew for each stimulus."""
    random = np.random.default_rng(seed)

    def draw(count: int) -> NDArray[np.bool_]:
        order = np.argsort(random.random((draws, count)), 1)
        return np.asarray(order >= count - count // 2)

    return draw


def half_ceilings(trials: Repetitions, predicted: Values, halves: Halves) -> tuple[Values, Values, Values]:
    """Correlate halves of the repetitions with a prediction, with each other, and with all, over stimuli.

    The last is far from 0 on noise, of which a half is a part: claims are made by the lower ceiling.

    Args:
        trials: [R, E, T] of each of N stimuli.
        predicted: [N, E, T].
        halves: Which repetitions are the second half.

    Returns:
        [E, T] each, means over draws: the prediction with a half, the lower and the upper ceiling.

    Source: Gifford et al. 2022 (THINGS-EEG2).
    """
    sums = np.zeros(())
    for stimulus, prediction in zip(trials, predicted, strict=True):
        chosen = halves(len(stimulus)).astype(float)  # [D, R]
        flat = np.asarray(stimulus, np.float64).reshape(len(stimulus), -1)
        second = chosen @ flat / chosen.sum(1, keepdims=True)
        first = (1 - chosen) @ flat / (1 - chosen).sum(1, keepdims=True)  # [D, E T]
        whole, guess = (np.broadcast_to(x.reshape(-1), first.shape) for x in (flat.mean(0), prediction))
        pairs = ((guess, first), (first, second), (first, whole))
        sums = sums + np.stack([moments(*pair) for pair in pairs], 1)  # [5, 3, D, E T]
    correlation = correlate(sums, len(predicted)).mean(1)
    against_half, lower, upper = correlation.reshape(3, *predicted.shape[1:])
    return against_half, lower, upper


def moments(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """Give what is summed to correlate two values: both, their squares, and their product; [5, ...]."""
    return np.stack([one, other, one * one, other * other, one * other])


def correlate(sums: Values, count: int) -> Values:
    """Correlate two values over stimuli by sums of their `moments` [5, ...]; 0 where one is constant."""
    one, other, one_squared, other_squared, product = sums / count
    spread = np.sqrt(np.maximum(one_squared - one**2, 0) * np.maximum(other_squared - other**2, 0))
    return np.divide(product - one * other, spread, out=np.zeros_like(spread), where=spread > 0)


def explainable_variance(trials: Callable[[], Repetitions]) -> Values:
    """Estimate the percentage [E, T] of the variance of the stimuli's means that is not noise.

    Repetitions are z-scored over stimuli; 100 s / (s + 1/n), where s is the variance of the signal over that
    of the noise of one repetition. Of stimuli that were shown more often, the first repetitions count.

    Args:
        trials: Gives [R, E, T] of each stimulus; it is called four times.

    Source: Allen et al. 2022 (NSD); Hebart et al. 2023 (THINGS-MEG).
    """
    counts = [len(stimulus) for stimulus in trials()]
    count, least = len(counts), min(counts)

    def repetitions() -> Iterator[Values]:
        return (np.asarray(stimulus[:least], np.float64) for stimulus in trials())

    mean = sum(repetitions(), np.zeros(())) / count  # [R, E, T]
    square = sum((stimulus**2 for stimulus in repetitions()), np.zeros(())) / count
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    spread = np.where(spread > 0, spread, 1)
    scaled = ((stimulus - mean) / spread for stimulus in repetitions())
    noise = sum((stimulus.var(0, ddof=1) for stimulus in scaled), np.zeros(())) / count
    ratio = np.maximum(1 - noise, 0) / np.maximum(noise, 1e-12)
    return np.asarray(100 * ratio / (ratio + 1 / least))
