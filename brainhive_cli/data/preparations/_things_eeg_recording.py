"""One recording of raw THINGS-EEG2, mapped: its channels, its rate and the pictures that were shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.stores import hdf5, pickles

RATE_HZ = 1000
"""Of all published recordings."""
KEYS = ("raw_eeg_data", "ch_names", "ch_types", "sfreq")
SOURCE = "get raw_eeg of THINGS-EEG2 at https://osf.io/crxs4, and image_metadata.npy at https://osf.io/qkgtf"
"""Where the files are, for errors; as the README of NeuroBridge (feroooooo/NeuroBridge) and others say."""


@dataclass(frozen=True)
class Recorded:
    """One recording, mapped.

    Attributes:
        signal: [channels, samples] in volts.
        rows: The row of each channel that is used.
        onsets: [events] samples at which the stimulus channel is not zero.
        codes: [events] its values.
    """

    signal: NDArray[np.float64]
    rows: tuple[int, ...]
    onsets: NDArray[np.int64]
    codes: NDArray[np.int64]

    @property
    def samples(self) -> int:
        """Length of the recording."""
        return int(self.signal.shape[1])

    def channel(self, index: int) -> NDArray[np.float64]:
        """Read the samples of one channel."""
        samples = np.array(self.signal[self.rows[index]], np.float64)
        hdf5.release_pages(self.signal)
        return samples

    @classmethod
    def open(cls, path: Path, channels: Sequence[str]) -> Self:
        """Open a recording and read its events.

        Raises:
            BrainhiveError: if it lacks a channel, has no events, or is none of THINGS-EEG2.
        """
        content = pickles.load(path)
        if not isinstance(content, Mapping) or any(key not in content for key in KEYS):
            raise BrainhiveError(f"{path} is no dict of {', '.join(KEYS)}", SOURCE)
        try:
            signal, names, types = content["raw_eeg_data"], *([*map(str, content[key])] for key in KEYS[1:3])
            rate_hz = float(content["sfreq"])
        except (TypeError, ValueError) as error:
            raise BrainhiveError(
                f"{path}: its {', '.join(KEYS[1:])} are no lists and a number", SOURCE
            ) from error
        is_array = isinstance(signal, np.ndarray) and signal.ndim == 2 and signal.dtype.kind in "fiu"
        if not is_array or not len(signal) == len(names) == len(types):
            raise BrainhiveError(
                f"{path}: signals {list(np.shape(signal))} come with {len(names)} channels", SOURCE
            )
        if rate_hz != RATE_HZ:
            raise BrainhiveError(
                f"{path} has {rate_hz:g} samples a second, the published recordings {RATE_HZ}",
                "use the recordings as published; preparation.kind=recording reads those of other rates",
            )
        if absent := [name for name in channels if name not in names]:
            raise BrainhiveError(
                f"{path} has no channel {', '.join(absent)}",
                f"preparation.channels=[...] of those it has: {', '.join(names)}",
            )
        if types.count("stim") != 1:
            raise BrainhiveError(f"{path} has {types.count('stim')} stimulus channels, not 1", SOURCE)
        stimulus = np.array(signal[types.index("stim")])
        onsets = np.flatnonzero(stimulus)
        if not len(onsets):
            raise BrainhiveError(
                f"{path}: the stimulus channel {names[types.index('stim')]} has no events", SOURCE
            )
        codes = stimulus[onsets]
        if not (np.isfinite(codes) & (codes == np.round(codes))).all():
            raise BrainhiveError(
                f"{path}: the stimulus channel holds other values than numbers of pictures", SOURCE
            )
        return cls(signal, tuple(map(names.index, channels)), onsets, codes.astype(np.int64))
