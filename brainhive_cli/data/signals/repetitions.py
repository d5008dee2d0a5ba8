"""Repetitions of stimuli as the sensors recorded them, and their averages."""

from collections.abc import Iterator

import numpy as np

from brainhive_cli.core.arrays import Array, Float32, Float64, Int64
from brainhive_cli.data.signals.trials import MAX_STIMULI_PER_READ, Trials
from brainhive_cli.measurement.reliability import average_parts
from brainhive_cli.measurement.repetitions import separate_repetitions

WHITENED_UNIT = "whitened"
"""Unit of signals after multivariate noise normalisation."""


def separate_in_time(trials: Trials) -> tuple[Int64, Int64]:
    """Find the repetitions of stimuli that are far apart in time.

    Returns:
        [N, R] number of the part of the recording that each repetition belongs to, and
        [N] how many parts there are. Numbers follow time only if each part is a run of
        its own.

    Raises:
        BrainhiveError: as `separate_repetitions`.
    """
    is_there = trials.is_there
    known = (trials.sessions, trials.runs, trials.times_in_run)
    parts = separate_repetitions(is_there, *known)

    # parts count from 0
    counts = 1 + np.where(is_there, parts, 0).max(1)

    # in one run the first repetitions of stimuli whose first is late are late, too:
    # their order is drawn
    if any(values is not None for values in known):
        sessions, runs = (
            0 if values is None else values.astype(np.int64) for values in known[:2]
        )
        run = np.zeros(is_there.shape, np.int64) + sessions * 2**16 + runs
        random = np.random.default_rng(0)
        for numbers, mask, shown_in, count in zip(
            parts, is_there, run, counts, strict=True
        ):
            if len(np.unique(shown_in[mask])) < count:
                numbers[mask] = random.permutation(count)[numbers[mask]]
    return parts, counts


def average_repetitions(trials: Trials, is_mixed: bool = False) -> Iterator[Float32]:
    """Average the repetitions of stimuli in chunks [n, E, T].

    Averages are in sensor space and not scaled.

    Args:
        trials: One subject's trials of a split.
        is_mixed: Channels are unknown mixtures of sensors: average what a model reads.
    """
    for part in _slice_stimuli(trials):
        if is_mixed:
            yield trials.read(part)
        else:
            # zeros of missing repetitions add nothing
            averaged = (
                _read_sensors(trials, part).sum(1) / trials.counts[part][:, None, None]
            )
            yield averaged.astype(np.float32)


def read_repetitions(trials: Trials, is_mixed: bool = False) -> Iterator[Float32]:
    """Yield the repetitions [R, E, T] of each stimulus, read as by
    `average_repetitions`.
    """
    for part in _slice_stimuli(trials):
        singles = (
            trials.read(part, as_singles=True)
            if is_mixed
            else _read_sensors(trials, part)
        )
        for single, count in zip(singles, trials.counts[part], strict=True):
            yield single[:count]  # without padding


def average_by_part(
    trials: Trials, parts: Int64, is_mixed: bool = False
) -> Iterator[Array]:
    """Average the repetitions of each stimulus within the parts [N, R] of the
    recording: [parts, E, T].
    """
    for stimulus, numbers in zip(
        read_repetitions(trials, is_mixed), parts, strict=True
    ):
        yield average_parts(stimulus, numbers[: len(stimulus)])


def _slice_stimuli(trials: Trials) -> list[slice]:
    """Divide the stimuli into chunks that fit into memory."""
    return [
        slice(start, start + MAX_STIMULI_PER_READ)
        for start in range(0, len(trials.signal), MAX_STIMULI_PER_READ)
    ]


def _read_sensors(trials: Trials, part: slice) -> Float32:
    """Read repetitions [n, R, E, T] as their sensors recorded them, not scaled; missing
    ones are zeros.
    """
    recorded = trials.recorded or trials
    channels = slice(None) if trials.rows is None else trials.rows
    signal = np.asarray(recorded.signal[part])[..., trials.samples].astype(np.float32)
    if recorded.whiteners is None:
        return np.where(
            trials.is_there[part][..., None, None], signal[:, :, channels], 0
        )

    # whiteners mix all channels, session by session
    unmixed = np.zeros_like(signal)
    session = _read_session_numbers(recorded, part)
    for number, whitener in enumerate(recorded.whiteners):
        unmixed[session == number] = (
            np.linalg.inv(whitener).astype(np.float32) @ signal[session == number]
        )
    return unmixed


def average_by_session(trials: Trials, count: int) -> Iterator[tuple[Float64, Float64]]:
    """Yield, of each chunk of stimuli, the part of each of S sessions in the averages
    [n, S, E, T], and its share of the repetitions [n, S].
    """
    for part in _slice_stimuli(trials):
        # [n, R, S]
        is_of = _read_session_numbers(trials.recorded or trials, part)[
            ..., None
        ] == np.arange(count)
        weights = is_of / trials.counts[part][:, None, None]
        yield (
            np.einsum("nrs,nret->nset", weights, _read_sensors(trials, part)),
            weights.sum(1),
        )


def _read_session_numbers(recording: Trials, part: slice) -> Int64:
    """Return the session of each repetition [n, R], -1 where there is none."""
    # one session, to which all repetitions belong
    if recording.sessions is None:
        return np.where(recording.is_there[part], 0, -1)
    return recording.sessions[part].astype(int)
