"""Repetitions of stimuli in the space of the sensors, and their averages."""

from collections.abc import Iterator

import numpy as np

from brainhive_cli.core.base import Array, Float32, Float64, Int64
from brainhive_cli.data.signals.trials import (
    MAX_STIMULI_PER_READ,
    Trials,
    sum_by_picture,
)
from brainhive_cli.measurement import average_parts, separate_repetitions

WHITENED_UNIT = "whitened"
"""Unit of signals after multivariate noise normalisation."""


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
