"""Samples of a recording, read and filtered channel by channel."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.base import Bool, Float64, Int64, naming
from brainhive_cli.data.recordings.opening import get_scales, report_unreadable
from brainhive_cli.data.signals import Band, CausalFilter, refuse_high_edges

READ_BYTES = 2**29
"""Largest block of signals in memory, unless a channel is larger. mne reads the whole
file for each block.
"""


class FlatSegments:
    """Segments of a recording in which channels are constant.

    An amplifier at its limit, for example, gives such segments.

    Args:
        n_times: Number of samples of the recording.
        rate_hz: Sampling rate.
    """

    def __init__(self, n_times: int, rate_hz: float) -> None:
        # Time for which no signal is constant, even with coarse values.
        self._length = max(2, round(0.1 * rate_hz))
        # number of constant channels in each segment
        self._counts = np.zeros(n_times // self._length, np.int64)

    def add(self, samples: Float64) -> None:
        """Add a channel [n_times]."""
        n_used = len(self._counts) * self._length
        segments = samples[:n_used].reshape(-1, self._length)
        self._counts += (segments == segments[:, :1]).all(1)

    def are_flat(self, onsets: Int64, span: tuple[int, int], n_channels: int) -> Bool:
        """Mark the trials [n] in which most channels are constant most of the time.

        Args:
            onsets: Sample [n] of each trial's onset.
            span: First and last sample of a trial, relative to its onset.
            n_channels: Number of all channels.
        """
        is_flat = self._counts > n_channels / 2
        flat_before = np.concatenate([[0], np.cumsum(is_flat)])
        starts = (onsets + span[0]) // self._length
        stops = (onsets + span[1]) // self._length
        stops = np.maximum(stops, starts + 1).clip(max=len(self._counts))
        return flat_before[stops] - flat_before[starts] > (stops - starts) / 2


def read_channels(
    raw: Any,
    path: Path,
    names: Sequence[str],
    band_hz: Band,
    phase: str,
    breaks: Iterable[tuple[int, int]],
    segments: FlatSegments,
) -> Iterator[Float64]:
    """Read, scale and filter channel by channel.

    Args:
        raw: Recording in mne.
        path: Path of its file, for errors.
        names: Names of the channels.
        band_hz: Lower and upper edge of the filter, or None for no edge.
        phase: "zero", or "forward" for a causal filter.
        breaks: Discontinuous spans, from `Header.breaks`.
        segments: Object to which each channel is added before it is filtered.

    Yields:
        Samples [n_times] in the unit of `CHANNEL_UNITS`.

    Raises:
        MissingData: if the samples cannot be read.
    """
    rate_hz = float(raw.info["sfreq"])
    with naming(path):
        refuse_high_edges(band_hz, rate_hz)
    scales = get_scales(raw.get_channel_types(list(names)))

    # read as many channels as fit into READ_BYTES in float64
    step = max(1, READ_BYTES // (8 * int(raw.n_times)))
    for start in range(0, len(names), step):
        with report_unreadable(path):
            block = raw.get_data(picks=list(names[start : start + step]))
        for samples, scale in zip(block, scales[start:], strict=False):
            segments.add(samples)
            yield filter_samples(samples * scale, rate_hz, band_hz, phase, breaks)
        del block, samples  # free the memory before the next block


def filter_samples(
    samples: Float64,
    rate_hz: float,
    band_hz: Band,
    phase: str,
    breaks: Iterable[tuple[int, int]] = (),
) -> Float64:
    """Filter the samples [n] of a channel, separately between breaks and NaN like mne.

    `band_hz`, `phase` and `breaks` are the same as in `read_channels`.
    """
    from mne.filter import filter_data

    if band_hz == (None, None):
        return samples
    is_gap = ~np.isfinite(samples)
    edges = {0, len(samples)}
    for span in breaks:
        start, stop = np.clip(span, 0, len(samples)).tolist()
        is_gap[start:stop] = True
        edges |= {start, stop}
    edges.update((1 + np.flatnonzero(np.diff(is_gap))).tolist())

    filtered = samples.copy()
    for start, stop in pairwise(sorted(edges)):
        if is_gap[start]:
            continue
        part = samples[start:stop]
        if phase == "forward":
            filtered[start:stop] = CausalFilter(band_hz, rate_hz)(part)
            continue
        # an offset would ring if the part is shorter than the filter
        offset = part.mean()
        low_hz, high_hz = band_hz
        part = filter_data(part - offset, rate_hz, low_hz, high_hz, verbose="ERROR")
        filtered[start:stop] = part + (0 if low_hz else offset)
    return filtered
