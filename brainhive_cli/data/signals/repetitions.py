"""Repetitions of stimuli in the space of the sensors: averages, reliability, scale."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from brainhive_cli.core.base import Array, BrainhiveError, Float32, Float64, Int64
from brainhive_cli.data.signals.trials import (
    MAX_STIMULI_PER_READ,
    Trials,
    sum_by_picture,
)
from brainhive_cli.measurement import (
    average_parts,
    average_random_halves,
    correlate,
    noise_ceiling,
    separate_repetitions,
    spearman_brown,
)

WHITENED_UNIT = "whitened"
"""Unit of signals after multivariate noise normalisation."""
MAX_MEASURED_STIMULI = 1000
"""Largest number of stimuli that are measured. Correlations are then precise to .03."""
MIN_MEASURED_STIMULI = 3
"""Smallest number of repeated stimuli whose reliability is measured."""
SCALED_UNITS = (WHITENED_UNIT, "z-score", "IQR")
"""Units of signals whose spread is 1 already."""
MAX_OFFSET = 100.0
"""Largest mean of a channel in its standard deviations. Beyond it, float32 has less
than five digits for the signal, and networks do not learn.
"""


def separate_in_time(trials: Trials) -> tuple[Int64, Int64]:
    """Divide the repetitions of each stimulus into parts far apart in time.

    Returns:
        Part of the recording [n] of each trial, from 0, and the number of parts [N] of
        each stimulus. The numbers follow time only if each part is a run of its own.

    Raises:
        BrainhiveError: if repetitions follow one another (`separate_repetitions`).
    """
    sessions = trials.sessions
    runs = trials.runs
    times = trials.times_in_run
    picture_of_trial = trials.picture_of_trial
    parts = separate_repetitions(picture_of_trial, sessions, runs, times)
    counts = np.zeros(len(trials.counts), np.int64)
    np.maximum.at(counts, picture_of_trial, parts + 1)
    if sessions is None and runs is None and times is None:
        return parts, counts

    # run of each trial over all sessions
    run_numbers = np.zeros(len(parts), np.int64)
    if sessions is not None:
        run_numbers += sessions.astype(np.int64) * 2**16
    if runs is not None:
        run_numbers += runs.astype(np.int64)

    # if parts share a run, their order is drawn: a stimulus whose first repetition is
    # late has late further repetitions, too
    rng = np.random.default_rng(0)
    for picture, count in enumerate(counts):
        rows = trials.find_trials([picture])
        if len(np.unique(run_numbers[rows])) < count:
            part_order = rng.permutation(count)
            parts[rows] = part_order[parts[rows]]
    return parts, counts


def average_repetitions(trials: Trials, is_mixed: bool = False) -> Iterator[Float32]:
    """Yield averages over repetitions, in chunks [n, E, T] of stimuli.

    Averages are in sensor space and not scaled.

    Args:
        trials: Trials of a subject and split.
        is_mixed: If True, channels are unknown mixtures of sensors, and the signals of
            the model are averaged instead.
    """
    for stimuli in _slice_stimuli(trials):
        if is_mixed:
            yield trials.read(stimuli)
        else:
            sums = sum_by_picture(
                _read_sensors(trials, stimuli), trials.counts[stimuli]
            )
            averages = sums / trials.counts[stimuli][:, None, None]
            yield averages.astype(np.float32)


def read_repetitions(trials: Trials, is_mixed: bool = False) -> Iterator[Float32]:
    """Yield the repetitions [R, E, T] of each stimulus.

    `is_mixed` is as in `average_repetitions`.
    """
    for stimuli in _slice_stimuli(trials):
        if is_mixed:
            singles = trials.read_trials(trials.find_trials(stimuli))
        else:
            singles = _read_sensors(trials, stimuli)
        yield from np.split(singles, np.cumsum(trials.counts[stimuli])[:-1])


def average_trials(trials: Trials) -> Float64:
    """Average all repetitions of all stimuli: [E, T], in sensor space."""
    total = 0.0
    for repetitions in read_repetitions(trials):  # [R, E, T]
        total = total + repetitions.sum(0, dtype=np.float64)
    return np.asarray(total / len(trials.signal), np.float64)


def average_by_part(
    trials: Trials, parts: Int64, is_mixed: bool = False
) -> Iterator[Array]:
    """Yield the averages [P, E, T] of each stimulus in the parts of the recording.

    Args:
        trials: Trials of a subject and split.
        parts: Part [n] of each trial.
        is_mixed: As in `average_repetitions`.
    """
    part_of_repetitions = np.split(parts, trials.first_trials[1:])
    for repetitions, numbers in zip(
        read_repetitions(trials, is_mixed), part_of_repetitions, strict=True
    ):
        yield average_parts(repetitions, numbers)


def average_by_session(trials: Trials, count: int) -> Iterator[tuple[Float64, Float64]]:
    """Yield the contribution of each session to averages, in chunks of stimuli.

    Args:
        trials: Trials of a subject and split.
        count: Number S of sessions.

    Yields:
        Parts [n, S, E, T] of the averages, which add up to them, and the share [n, S]
        of the repetitions in each session.
    """
    for stimuli in _slice_stimuli(trials):
        rows = trials.find_trials(stimuli)
        counts = trials.counts[stimuli]
        sessions = _read_session_numbers(trials, rows)
        is_in_session = sessions[:, None] == np.arange(count)  # [m, S]
        weights = is_in_session / np.repeat(counts, counts)[:, None]
        signal = _read_sensors(trials, stimuli)
        contributions = []
        for session_weights in weights.T:
            weighted = signal * session_weights[:, None, None]
            contributions.append(sum_by_picture(weighted, counts))
        yield np.stack(contributions, 1), sum_by_picture(weights, counts)


def _slice_stimuli(trials: Trials) -> list[slice]:
    """Divide the stimuli into chunks that fit into memory."""
    starts = range(0, len(trials.counts), MAX_STIMULI_PER_READ)
    return [slice(start, start + MAX_STIMULI_PER_READ) for start in starts]


def _read_sensors(trials: Trials, stimuli: slice) -> Float32:
    """Read the trials [m, E, T] of stimuli without whitening or scale."""
    recorded = trials.recorded or trials
    rows = trials.find_trials(stimuli)
    channels = slice(None) if trials.rows is None else trials.rows
    signal = np.asarray(recorded.signal[rows])[..., trials.samples]
    signal = signal.astype(np.float32)
    if recorded.whiteners is None:
        return signal[:, channels]

    # a whitener mixes all channels of its session
    unmixed = np.zeros_like(signal)
    sessions = _read_session_numbers(recorded, rows)
    for number, whitener in enumerate(recorded.whiteners):
        inverse = np.linalg.inv(whitener).astype(np.float32)
        is_in_session = sessions == number
        unmixed[is_in_session] = inverse @ signal[is_in_session]
    return unmixed


def _read_session_numbers(recording: Trials, rows: Int64) -> Int64:
    """Return the session [m] of trials. Unknown sessions count as a single one."""
    if recording.sessions is None:
        return np.zeros(len(rows), np.int64)
    return recording.sessions[rows].astype(int)


def measure_reliability(
    recording: Trials, split: str
) -> tuple[Int64, Float64, Float64, Float64]:
    """Measure the reliability of a recording by its repetitions.

    Args:
        recording: Recording of a subject and split.
        split: Name of the split, for errors.

    Returns:
        Number of repetitions [N] of each measured stimulus, at least 2.
        Mean [C, T] over all repetitions. If whiteners are known, signals before
            whitening are averaged, so channels are sites.
        Correlation [C, T] over stimuli of two halves of the repetitions, corrected to
            all of them (Spearman-Brown).
        Noise ceiling [C, T]: percent of the variance of the means of the stimuli that
            is not noise (Allen et al. 2022).

    Raises:
        BrainhiveError: if fewer than `MIN_MEASURED_STIMULI` stimuli were shown twice,
            or repetitions follow one another.
    """
    rows = np.flatnonzero(recording.counts > 1)
    if len(rows) < MIN_MEASURED_STIMULI:
        raise BrainhiveError(
            f"{len(rows)} {split} stimuli were shown twice or more: reliability needs "
            "three",
            "another split",
        )
    rng = np.random.default_rng(0)
    trials = recording.take(np.sort(rng.permutation(rows)[:MAX_MEASURED_STIMULI]))

    # keep stimuli with repetitions in several parts of the recording
    parts, part_counts = separate_in_time(trials)
    is_apart = part_counts > 1
    parts = parts[is_apart[trials.picture_of_trial]]
    trials = trials.take(is_apart)
    part_counts = part_counts[is_apart]
    shape = trials.signal.shape[1:]  # C, T

    def iterate_means() -> Iterator[Array]:
        return average_by_part(trials, parts, is_mixed=True)

    # mean over trials in the space of the sensors
    evoked = average_trials(trials)

    # agreement of halves, and share of the variance that is not noise
    generator = torch.Generator().manual_seed(0)
    halves = (average_random_halves(means, generator) for means in iterate_means())
    correlations = correlate(halves).mean(0).reshape(shape)
    times = part_counts.sum() / (part_counts // 2).sum()
    split_half = spearman_brown(correlations, times)
    ceiling = noise_ceiling(iterate_means, part_counts)
    return trials.counts, evoked, split_half, ceiling


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
    kind = _number_channel_kinds(subjects[0])
    spreads, kinds = [], []
    for trials in subjects:
        mean, spread = _measure_spread(trials, as_singles)
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


def _number_channel_kinds(trials: Trials) -> Int64:
    """Number the kind [C] of each channel, or [1] if there is only one."""
    if " and " not in trials.unit:
        return np.zeros(1, np.int64)
    # numbers of magnetometers end in 1
    is_other = [not name.endswith("1") for name in trials.channels]
    return np.array(is_other, np.int64)


def _measure_spread(trials: Trials, as_singles: bool) -> tuple[Float64, Float64]:
    """Measure mean and standard deviation [C] of evenly spaced trials."""
    n_stimuli = len(trials.counts)
    n_values = int(np.prod(trials.signal.shape[1:]))
    if as_singles:
        n_values *= trials.max_repetitions
    # Largest number of values of a subject that are measured.
    max_measured_values = 2**24
    step = 1 + n_stimuli * n_values // max_measured_values
    measured = trials.take(np.arange(0, n_stimuli, step))
    values = measured.singles if as_singles else measured.averages
    channels = values.swapaxes(0, 1).reshape(values.shape[1], -1).astype(np.float64)
    return channels.mean(1), channels.std(1)
