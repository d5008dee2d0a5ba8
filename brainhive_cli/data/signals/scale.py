"""Factors that give the signals of a training a spread of 1, whatever their unit."""

from collections.abc import Sequence

import numpy as np

from brainhive_cli.core.base import BrainhiveError, Float64, Int64
from brainhive_cli.data.signals.repetitions import WHITENED_UNIT
from brainhive_cli.data.signals.trials import Trials

SCALED_UNITS = (WHITENED_UNIT, "z-score", "IQR")
"""Units of signals whose spread is 1 already."""


def measure_scale(subjects: Sequence[Trials], as_singles: bool) -> tuple[float, ...]:
    """Measure the factors of signals that give each kind of channel a spread of 1.

    The spread of a kind is the median standard deviation of its channels, so that a
    bad channel does not change it.

    Args:
        subjects: Training trials of each subject, with equal channels.
        as_singles: True to measure single trials instead of averages.

    Returns:
        Factors [C], or a factor [1] if all channels are of one kind.

    Raises:
        BrainhiveError: if the channels of a kind are constant, or far from 0.
    """
    kind = _number_kinds(subjects[0])
    spreads, kinds = [], []
    for trials in subjects:
        mean, spread = _measure(trials, as_singles)
        is_live = spread > 0
        if not is_live.any():
            raise BrainhiveError(
                f"the signals of {trials.where} are constant",
                "check them; float16 turns values below 6e-8, as of volts, into 0",
            )
        offset = float(np.median(np.abs(mean[is_live]) / spread[is_live]))
        # Largest mean of a channel in its standard deviations. Beyond it, float32 has
        # less than five digits for the signal, and networks do not learn.
        if offset > 100.0:
            raise BrainhiveError(
                f"the signals of {trials.where} have an offset of {offset:,.0f} times "
                "their spread",
                "remove it: signal.normalise=channel, or a baseline or high-pass "
                "filter before",
            )
        spreads.append(spread[is_live])
        kinds.append(np.broadcast_to(kind, spread.shape)[is_live])
    all_spreads, all_kinds = np.concatenate(spreads), np.concatenate(kinds)
    factors = np.ones(1 + kind.max())
    for number in np.unique(all_kinds):
        factors[number] = 1 / np.median(all_spreads[all_kinds == number])
    return tuple(factors[kind].tolist())


def _number_kinds(trials: Trials) -> Int64:
    """Number the kind [C] of each channel, or [1] if there is only one."""
    if " and " not in trials.unit:
        return np.zeros(1, np.int64)
    # numbers of magnetometers end in 1
    is_other = [not name.endswith("1") for name in trials.channels]
    return np.array(is_other, np.int64)


def _measure(trials: Trials, as_singles: bool) -> tuple[Float64, Float64]:
    """Measure mean and standard deviation [C] of evenly spaced trials."""
    n_stimuli = len(trials.counts)
    n_values = int(np.prod(trials.signal.shape[1:]))
    if as_singles:
        n_values *= trials.max_repetitions
    # Largest number of values of a subject that are measured.
    max_values = 2**24
    step = 1 + n_stimuli * n_values // max_values
    measured = trials.take(np.arange(0, n_stimuli, step))
    values = measured.singles if as_singles else measured.averages
    channels = values.swapaxes(0, 1).reshape(values.shape[1], -1).astype(np.float64)
    return channels.mean(1), channels.std(1)
