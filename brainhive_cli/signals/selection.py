"""From a recording [N, R, C, T] to what a brain encoder sees: channels, window, mean over repetitions."""

import difflib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.errors import BrainhiveError, RecipeError
from brainhive_cli.recordings import CHUNK, Recording


def channel_rows(channels: Sequence[str], wanted: Sequence[str] | None) -> NDArray[np.int64]:
    """Find the wanted channels by name; all when None.

    Raises:
        RecipeError: naming a channel that the data do not have, and the nearest one.
    """
    rows = {name.lower(): row for row, name in enumerate(channels)}
    if wanted is None:
        return np.arange(len(channels))
    for name in wanted:
        if name.lower() not in rows:
            near = difflib.get_close_matches(name.lower(), rows, n=1)
            guess = f"did you mean {channels[rows[near[0]]]}? " if near else ""
            raise RecipeError(f"no channel {name!r} in the data", f"{guess}there are: {' '.join(channels)}")
    return np.asarray([rows[name.lower()] for name in wanted])


def sample_range(times_s: NDArray[np.float64], window_ms: tuple[float, float] | None) -> slice:
    """Find the samples whose time lies in [start, stop), in milliseconds after the picture; all when None.

    Raises:
        RecipeError: if no sample does.
    """
    if window_ms is None:
        return slice(0, len(times_s))
    times_ms = np.round(times_s * 1000, 3)
    inside = np.flatnonzero((times_ms >= window_ms[0]) & (times_ms < window_ms[1]))
    if not len(inside):
        raise RecipeError(
            f"no sample in the window {list(window_ms)} ms",
            f"the recording spans {times_ms[0]:g} to {times_ms[-1]:g} ms",
        )
    return slice(int(inside[0]), int(inside[-1]) + 1)


def average(
    recording: Recording,
    channels: Sequence[str] | None,
    window_ms: tuple[float, float] | None,
    scale: float,
    where: str,
) -> NDArray[np.float32]:
    """Average the repetitions of each picture, for the chosen channels and window.

    Args:
        recording: Signals [N, R, C, T]; read in chunks.
        channels: Channel names; all when None.
        window_ms: Start and stop after the picture, milliseconds.
        scale: What the signals are multiplied by.
        where: What the recording is, for the error.

    Returns:
        float32 [N, C, T].

    Raises:
        BrainhiveError: if a value is not finite; it names the picture and the channel.
    """
    rows, samples = channel_rows(recording.channels, channels), sample_range(recording.times_s, window_ms)
    count, most = recording.signal.shape[:2]
    repetitions = np.full(count, most) if recording.repetitions is None else recording.repetitions
    averaged = np.empty((count, len(rows), samples.stop - samples.start), np.float32)
    for start in range(0, count, CHUNK):
        part = slice(start, min(start + CHUNK, count))
        chosen = np.asarray(recording.signal[part, :, :, samples])[:, :, rows]  # [n, R, C, T]
        is_there = np.arange(most) < repetitions[part, None]
        weights = (is_there / repetitions[part, None]).astype(np.float32)
        averaged[part] = scale * np.einsum(
            "nrct,nr->nct", np.where(is_there[..., None, None], chosen, 0), weights
        )
    bad = np.argwhere(~np.isfinite(averaged).all(axis=2))
    if len(bad):
        picture, channel = recording.image_ids[bad[0][0]], recording.channels[rows[bad[0][1]]]
        raise BrainhiveError(
            f"{where}: {len(bad)} signals are not finite, the first at picture {picture}, channel {channel}",
            "repair the recording, or leave the channel out with signal.channels",
        )
    return averaged
