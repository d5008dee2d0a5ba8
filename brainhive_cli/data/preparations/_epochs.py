"""Trials cut from a continuous recording: baseline, resampling and cut, one channel at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError

ROWS = 256
"""Trials of one channel that are cut at a time: 2 MiB, which stay in a CPU's cache."""


@dataclass(frozen=True)
class Resampling:
    """Resampling of epochs in the way of `mne.Epochs.resample`: padded with their edges, cut in frequency.

    The lengths are rounded, so that the samples do not lie quite where mne says; data that others have
    prepared have the same error.

    Attributes:
        samples: Of an epoch.
        rate_hz: Before.
        to_hz: After; not more.
    """

    samples: int
    rate_hz: float
    to_hz: float

    @property
    def padded(self) -> int:
        """Samples with padding: a power of two."""
        return 2 ** ceil(log2(self.samples + 2 * min(self.samples // 8, 100)))

    @property
    def before(self) -> int:
        """Samples of padding before the epoch."""
        return (self.padded - self.samples) // 2

    @property
    def resampled(self) -> int:
        """Samples after resampling, with the padding."""
        return max(round(self.padded * self.to_hz / self.rate_hz), 1)

    @property
    def kept(self) -> slice:
        """Those that belong to the epoch."""
        first = round(self.before * self.to_hz / self.rate_hz)
        return slice(first, first + max(round(self.samples * self.to_hz / self.rate_hz), 1))

    @property
    def time_shift(self) -> dict[str, float]:
        """How many milliseconds late the first sample lies, and the true rate."""
        if self.rate_hz == self.to_hz:
            return {"late_ms": 0.0, "rate_hz": self.rate_hz}
        step = self.padded / self.resampled  # samples before for one after
        late_ms = (self.kept.start * step - self.before) * 1000 / self.rate_hz
        return {"late_ms": round(late_ms, 3), "rate_hz": round(self.rate_hz / step, 3)}

    def __call__(self, epochs: NDArray[Any]) -> NDArray[Any]:
        """Resample [n, samples], in their own precision."""
        from scipy import fft

        if self.rate_hz == self.to_hz:
            return epochs
        after = self.padded - self.samples - self.before
        spectrum = fft.rfft(np.pad(epochs, ((0, 0), (self.before, after)), "edge"), axis=1)
        spectrum = spectrum[:, : self.resampled // 2 + 1] * (self.resampled / self.padded)
        if self.resampled % 2 == 0:
            spectrum[:, -1] *= 2 if self.resampled < self.padded else 0.5
        resampled: NDArray[Any] = fft.irfft(spectrum, self.resampled, axis=1, overwrite_x=True)
        return resampled[:, self.kept]


def cut(
    channel: Callable[[int], NDArray[Any]],
    names: Sequence[str],
    starts: NDArray[np.int64],
    resampling: Resampling,
    kept: slice,
    baseline: slice | None,
    scale: float,
) -> NDArray[np.float32]:
    """Cut trials out of a recording, one channel at a time.

    Resampling is in float32; means are subtracted before it in the precision of the recording, whose offset
    may be a thousand times the signal.

    Args:
        channel: Index of a channel to its samples.
        names: Of the channels.
        starts: [trials], the first sample of each.
        resampling: Of each trial.
        kept: Samples of the result that are kept, T.
        baseline: Samples of a trial whose mean is subtracted; None for no baseline.
        scale: Factor to the unit of the result.

    Returns:
        [trials, C, T].

    Raises:
        BrainhiveError: naming a channel with values that are not finite.
    """
    count = len(range(*kept.indices(resampling.kept.stop - resampling.kept.start)))
    epochs = np.empty((len(starts), len(names), count), np.float32)
    for index, name in enumerate(names):
        windows = sliding_window_view(channel(index), resampling.samples)
        for start in range(0, len(starts), ROWS):
            trials = windows[starts[start : start + ROWS]]  # [n, samples]
            means = trials[:, baseline or slice(None)].mean(axis=1, keepdims=True)
            centred = np.multiply(
                np.subtract(trials, means, out=trials), scale, dtype=np.float32, casting="same_kind"
            )
            block = resampling(centred)[:, kept]
            if baseline is None:  # which resampling leaves as they are
                block = block + (means * scale).astype(np.float32)
            if not np.isfinite(block).all():
                raise BrainhiveError(
                    f"channel {name} has NaN or infinite values", "leave it out: preparation.channels=[...]"
                )
            epochs[start : start + len(trials), index] = block
    return epochs
