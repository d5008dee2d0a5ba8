"""Repetitions of stimuli in the space of the sensors, and their averages."""

from collections.abc import Iterator

import numpy as np

from brainhive_cli.core.arrays import Array, Float32, Float64, Int64
from brainhive_cli.data.signals.trials import MAX_STIMULI_PER_READ, Trials
from brainhive_cli.measurement.reliability import average_parts
from brainhive_cli.measurement.repetitions import separate_repetitions

WHITENED_UNIT = "whitened"
"""Unit of signals after multivariate noise normalisation."""


def separate_in_time(trials: Trials) -> tuple[Int64, Int64]:
    """Divide the repetitions of each stimulus into parts far apart in time.

    Returns:
        Part of the recording [N, R] of each repetition, from 0, and the number of parts
        [N]. The numbers follow time only if each part is a run of its own.

    Raises:
        BrainhiveError: if repetitions follow one another (`separate_repetitions`).
    """
    is_there = trials.is_there
    sessions = trials.sessions
    runs = trials.runs
    times = trials.times_in_run
    parts = separate_repetitions(is_there, sessions, runs, times)
    counts = 1 + np.where(is_there, parts, 0).max(1)
    if sessions is None and runs is None and times is None:
        return parts, counts

    # run of each repetition over all sessions
    run_numbers = np.zeros(is_there.shape, np.int64)
    if sessions is not None:
        run_numbers += sessions.astype(np.int64) * 2**16
    if runs is not None:
        run_numbers += runs.astype(np.int64)

    # if parts share a run, their order is drawn: a stimulus whose first repetition is
    # late has late further repetitions, too
    rng = np.random.default_rng(0)
    for row, count in enumerate(counts):
        columns = np.flatnonzero(is_there[row])
        if len(np.unique(run_numbers[row, columns])) < count:
            part_order = rng.permutation(count)
            parts[row, columns] = part_order[parts[row, columns]]
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
            # padding is zero
            sums = _read_sensors(trials, stimuli).sum(1)
            averages = sums / trials.counts[stimuli][:, None, None]
            yield averages.astype(np.float32)


def read_repetitions(trials: Trials, is_mixed: bool = False) -> Iterator[Float32]:
    """Yield the repetitions [R, E, T] of each stimulus.

    `is_mixed` is as in `average_repetitions`.
    """
    for stimuli in _slice_stimuli(trials):
        if is_mixed:
            singles = trials.read(stimuli, as_singles=True)
        else:
            singles = _read_sensors(trials, stimuli)
        for repetitions, count in zip(singles, trials.counts[stimuli], strict=True):
            yield repetitions[:count]


def average_trials(trials: Trials) -> Float64:
    """Average all repetitions of all stimuli: [E, T], in sensor space."""
    total = 0.0
    for repetitions in read_repetitions(trials):  # [R, E, T]
        total = total + repetitions.sum(0, dtype=np.float64)
    return np.asarray(total / trials.counts.sum(), np.float64)


def average_by_part(
    trials: Trials, parts: Int64, is_mixed: bool = False
) -> Iterator[Array]:
    """Yield the averages [P, E, T] of each stimulus in the parts of the recording.

    Args:
        trials: Trials of a subject and split.
        parts: Part [N, R] of each repetition.
        is_mixed: As in `average_repetitions`.
    """
    all_repetitions = read_repetitions(trials, is_mixed)
    for repetitions, numbers in zip(all_repetitions, parts, strict=True):
        yield average_parts(repetitions, numbers[: len(repetitions)])


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
        sessions = _read_session_numbers(trials.recorded or trials, stimuli)
        is_in_session = sessions[..., None] == np.arange(count)  # [n, R, S]
        weights = is_in_session / trials.counts[stimuli][:, None, None]
        signal = _read_sensors(trials, stimuli)
        yield np.einsum("nrs,nret->nset", weights, signal), weights.sum(1)


def _slice_stimuli(trials: Trials) -> list[slice]:
    """Divide the stimuli into chunks that fit into memory."""
    starts = range(0, len(trials.signal), MAX_STIMULI_PER_READ)
    return [slice(start, start + MAX_STIMULI_PER_READ) for start in starts]


def _read_sensors(trials: Trials, stimuli: slice) -> Float32:
    """Read repetitions [n, R, E, T] without whitening or scale. Padding is zero."""
    recorded = trials.recorded or trials
    channels = slice(None) if trials.rows is None else trials.rows
    signal = np.asarray(recorded.signal[stimuli])[..., trials.samples]
    signal = signal.astype(np.float32)
    if recorded.whiteners is None:
        is_there = trials.is_there[stimuli]
        return np.where(is_there[..., None, None], signal[:, :, channels], 0)

    # a whitener mixes all channels of its session
    unmixed = np.zeros_like(signal)
    sessions = _read_session_numbers(recorded, stimuli)
    for number, whitener in enumerate(recorded.whiteners):
        inverse = np.linalg.inv(whitener).astype(np.float32)
        is_in_session = sessions == number
        unmixed[is_in_session] = inverse @ signal[is_in_session]
    return unmixed


def _read_session_numbers(recording: Trials, stimuli: slice) -> Int64:
    """Return the session [n, R] of each repetition, with -1 as padding."""
    # unknown sessions count as a single session
    if recording.sessions is None:
        return np.where(recording.is_there[stimuli], 0, -1)
    return recording.sessions[stimuli].astype(int)
