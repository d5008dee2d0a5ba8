"""How well any model could predict signals: by halves of the repetitions, and explainable variance."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Trials = Iterable[NDArray[np.floating]]
"""The repetitions [R, E, T] of each stimulus."""
Halves = Callable[[int], NDArray[np.bool_]]
"""Draws halves [D, R] of so many repetitions: which are in the second half."""
DRAWS = 10


def random_halves(seed: int, draws: int = DRAWS) -> Halves:
    """Draw halves anew for each stimulus."""
    random = np.random.default_rng(seed)

    def draw(count: int) -> NDArray[np.bool_]:
        order = np.argsort(random.random((draws, count)), 1)
        return np.asarray(order >= count - count // 2)

    return draw


def half_ceilings(trials: Trials, predicted: Values, halves: Halves) -> tuple[Values, Values, Values]:
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
    sums: Values | None = None
    for each, prediction in zip(trials, predicted, strict=True):
        chosen = halves(len(each)).astype(float)  # [D, R]
        flat = np.asarray(each, np.float64).reshape(len(each), -1)
        second = chosen @ flat / chosen.sum(1, keepdims=True)
        first = (1 - chosen) @ flat / (1 - chosen).sum(1, keepdims=True)  # [D, E T]
        whole, guess = (np.broadcast_to(x.reshape(-1), first.shape) for x in (flat.mean(0), prediction))
        pairs = ((guess, first), (first, second), (first, whole))
        found = np.array([[a, b, a * a, b * b, a * b] for a, b in pairs])  # [3, 5, D, E T]
        sums = found if sums is None else sums + found
    assert sums is not None
    a, b, aa, bb, ab = np.moveaxis(sums / len(predicted), 1, 0)
    spread = np.sqrt(np.maximum(aa - a * a, 0) * np.maximum(bb - b * b, 0))
    correlation = np.divide(ab - a * b, spread, out=np.zeros_like(ab), where=spread > 0).mean(1)
    against_half, lower, upper = correlation.reshape(3, *predicted.shape[1:])
    return against_half, lower, upper


def explainable_variance(trials: Callable[[], Trials]) -> Values:
    """Estimate the percentage [E, T] of the variance of the stimuli's means that is not noise.

    Trials are z-scored over stimuli; 100 s / (s + 1/n), where s is the variance of the signal over that of
    the noise of one repetition. Of stimuli that were shown more often, the first repetitions count.

    Args:
        trials: Gives [R, E, T] of each stimulus; it is called four times.

    Source: Allen et al. 2022 (NSD); Hebart et al. 2023 (THINGS-MEG).
    """
    counts = [len(each) for each in trials()]
    count, least = len(counts), min(counts)
    mean = sum(_first(trials(), least), np.zeros(())) / count  # [R, E, T]
    square = sum((each**2 for each in _first(trials(), least)), np.zeros(())) / count
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    spread = np.where(spread > 0, spread, 1)
    scaled = ((each - mean) / spread for each in _first(trials(), least))
    noise = sum((each.var(0, ddof=1) for each in scaled), np.zeros(())) / count
    ratio = np.maximum(1 - noise, 0) / np.maximum(noise, 1e-12)
    return np.asarray(100 * ratio / (ratio + 1 / least))


def _first(trials: Trials, count: int) -> Iterator[Values]:
    return (np.asarray(each[:count], np.float64) for each in trials)
