"""Samples of a recording, read channel by channel and filtered."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Bool, Float64, Int64
from brainhive_cli.core.errors import (
    naming,
)
from brainhive_cli.data.recordings.opening import CHANNEL_UNITS, report_unreadable
from brainhive_cli.data.signals.cutting import Band, CausalFilter, refuse_high_edges

PIECE_S = 0.1
"""Seconds without any change that no signal has, however coarse its numbers are."""

READ_BYTES = 2**29
"""Limit of signals in memory, unless one channel is more; each block of channels reads
all of the file.
"""


class FlatSegments:
    """Pieces of a recording in which channels do not change at all, as those of an
    amplifier at its limit.

    Args:
        samples: Samples of the recording.
        rate_hz: Its sampling rate.
    """

    def __init__(self, samples: int, rate_hz: float) -> None:
        self._size = max(2, round(PIECE_S * rate_hz))
        # channels that stand still
        self._counts = np.zeros(samples // self._size, np.int64)

    def add(self, row: Float64) -> None:
        """Add a channel [samples]."""
        # [pieces, samples]
        pieces = row[: len(self._counts) * self._size].reshape(-1, self._size)
        self._counts += (pieces == pieces[:, :1]).all(1)

    def are_flat(self, onsets: Int64, span: tuple[int, int], channels: int) -> Bool:
        """Mark the trials [n] in most of which most channels stand still."""
        # sums over pieces in which most channels stand still, by which spans are
        # counted
        sums = np.concatenate([[0], np.cumsum(self._counts > channels / 2)])
        first, last = ((onsets + at) // self._size for at in span)
        last = np.maximum(last, first + 1).clip(max=len(self._counts))
        return sums[last] - sums[first] > (last - first) / 2


def read_channels(
    raw: Any,
    path: Path,
    names: Sequence[str],
    band_hz: Band,
    phase: str,
    breaks: Iterable[tuple[int, int]],
    pieces: FlatSegments,
) -> Iterator[Float64]:
    """Read channels one after the other, in the unit of `UNITS`, and filter them.

    Args:
        raw: As mne opened it.
        path: Its file, for errors.
        names: Those that are read, in order.
        band_hz: Lower and upper edge of a filter; None where there is none.
        phase: `zero`, or `forward`: causal.
        breaks: Breaks of the recording, as of `Header`.
        pieces: To which each channel is added before it is filtered.

    Raises:
        MissingData: if they cannot be read.
    """
    rate_hz = float(raw.info["sfreq"])
    with naming(path):
        refuse_high_edges(band_hz, rate_hz)
    scales = [
        CHANNEL_UNITS.get(kind, (1.0, ""))[0]
        for kind in raw.get_channel_types(list(names))
    ]

    # as many channels at a time as fit into READ_BYTES in float64
    step = max(1, READ_BYTES // (8 * int(raw.n_times)))
    for start in range(0, len(names), step):
        with report_unreadable(path):
            # [channels, samples]
            block = raw.get_data(picks=list(names[start : start + step]))
        for row, scale in zip(block, scales[start:], strict=False):
            pieces.add(row)
            yield filter_samples(row * scale, rate_hz, band_hz, phase, breaks)
        del block, row  # gone before the next is read


def filter_samples(
    samples: Float64,
    rate_hz: float,
    band_hz: Band,
    phase: str,
    breaks: Iterable[tuple[int, int]] = (),
) -> Float64:
    """Filter the samples [n] of one channel as `read_channels` does.

    Each stretch between breaks, and between samples that were lost (NaN), is filtered
    by itself, as mne does it.
    """
    from mne.filter import filter_data

    if band_hz == (None, None):
        return samples
    is_gap = ~np.isfinite(samples)
    edges = {0, len(samples)}
    for low, high in breaks:
        is_gap[max(0, low) : max(0, high)] = True
        edges |= {low, high}
    edges |= {*(1 + np.flatnonzero(np.diff(is_gap))).tolist()}
    filtered = samples.copy()
    for start, stop in pairwise(
        sorted(edge for edge in edges if 0 <= edge <= len(samples))
    ):
        if is_gap[start]:
            continue
        stretch = samples[start:stop]
        if phase == "forward":
            filtered[start:stop] = CausalFilter(band_hz, rate_hz)(stretch)
            continue
        # an offset would ring where a stretch is shorter than the filter
        offset = stretch.mean()
        filtered[start:stop] = filter_data(
            stretch - offset, rate_hz, *band_hz, verbose="ERROR"
        ) + (0 if band_hz[0] else offset)
    return filtered
