"""Which part of a recording [N, R, C, T] a brain model sees: channels or regions, window, repetitions."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError, RecipeError, guess
from brainhive_cli.data.signals.normalisation import Normaliser
from brainhive_cli.data.stores.recordings import COPIED_STIMULI, Recording, Sensors, Voxels

REGIONS = {
    "frontal": ("Fp", "AF", "F"),
    "central": ("FC", "C", "CP"),
    "temporal": ("FT", "T", "TP"),
    "parietal": ("P",),
    "occipital": ("PO", "O"),
}
"""Region > letters that its channels' names begin with, in the 10-10 system. What lies between two regions is
counted with one of them; parietal and occipital together are BrainHiVE's 17 channels of THINGS-EEG."""
_REGION_OF = {letters.lower(): region for region, all_of in REGIONS.items() for letters in all_of}
_NAME = re.compile(r"([a-z]+?)(z|\d+h?)$", re.IGNORECASE)
CLOSE_MS = 1e-6
"""Times closer than this are one: above the rounding of seconds to milliseconds."""
Content = Literal["averages", "trials"]
"""The average over the repetitions of each stimulus [N, C, T], or each repetition by itself [N, R, C, T]."""
Chunk = tuple[slice, NDArray[np.float32]]
"""Rows of the whole, and the signals of these stimuli."""


def space_rows(space: Sensors | Voxels, width: int, names: Sequence[str] | None) -> NDArray[np.int64]:
    """Find channels, or the voxels of regions, each once; all of `width` when None.

    Channels come in the order of `names`, voxels in that of the data.

    Raises:
        RecipeError: naming what the data do not have, and the nearest name.
    """
    if names is None:
        return np.arange(width)
    return (
        channel_rows(space.names, names) if isinstance(space, Sensors) else voxel_rows(space.regions, names)
    )


def voxel_rows(regions: Mapping[str, NDArray[np.bool_]], names: Sequence[str]) -> NDArray[np.int64]:
    """Find the voxels that lie in at least one of several regions, ascending.

    Raises:
        RecipeError: naming a region that the data do not have or that is empty, and the nearest name.
    """
    known = {name.lower(): name for name in regions}
    masks = []
    for name in names:
        if name.lower() not in known:
            hint = f"{guess(name, known.values())}regions: {' '.join(regions) or 'none'}"
            raise RecipeError(f"no region {name!r} in the data", hint)
        masks.append(regions[known[name.lower()]])
    rows = np.flatnonzero(np.any(masks, axis=0))
    if not len(rows):
        raise RecipeError(f"no voxel lies in {', '.join(names)}", f"regions: {' '.join(regions)}")
    return rows


def channel_rows(channels: Sequence[str], names: Sequence[str]) -> NDArray[np.int64]:
    """Find channels by name or region (`occipital`), each once.

    Raises:
        RecipeError: naming what the data do not have, and the nearest name.
    """
    rows = {name.lower(): row for row, name in enumerate(channels)}
    known = {**{name.lower(): name for name in channels}, **{region: region for region in REGIONS}}
    chosen: list[int] = []
    for name in names:
        members = channels_in(name.lower(), channels) if name.lower() in REGIONS else [name]
        if not members or members[0].lower() not in rows:
            there = f"there are: {' '.join(channels)}; regions: {' '.join(REGIONS)}"
            raise RecipeError(f"no channel {name!r} in the data", guess(name, known.values()) + there)
        chosen += [rows[member.lower()] for member in members]
    return np.asarray(list(dict.fromkeys(chosen)))


def region_of(channel: str) -> str | None:
    """Name the region of a channel; None for a name that is not of the 10-10 system."""
    match = _NAME.match(channel)
    return _REGION_OF.get(match[1].lower()) if match else None


def channels_in(region: str, channels: Sequence[str]) -> list[str]:
    """List the channels that lie in a region, in the order of the data."""
    return [channel for channel in channels if region_of(channel) == region]


def sample_range(times_s: NDArray[np.float64], window_ms: tuple[float, float] | None) -> slice:
    """Find the samples whose time lies in [start, stop), in milliseconds after onset; all when None.

    Raises:
        RecipeError: if no sample does, or the window reaches a sample or more beyond the recording.
    """
    if window_ms is None:
        return slice(0, len(times_s))
    times_ms = np.round(times_s * 1000, 3)
    step_ms = (times_ms[-1] - times_ms[0]) / max(1, len(times_ms) - 1)
    inside = np.flatnonzero((times_ms >= window_ms[0]) & (times_ms < window_ms[1]))
    spans = f"the recording spans {times_ms[0]:g} to {times_ms[-1]:g} ms"
    if not len(inside):
        raise RecipeError(f"no sample in the window {list(window_ms)} ms", spans)
    is_longer = window_ms[0] <= times_ms[0] - step_ms or window_ms[1] >= times_ms[-1] + 2 * step_ms
    if is_longer and step_ms:
        raise RecipeError(f"the window {list(window_ms)} ms reaches beyond the recording", spans)
    return slice(int(inside[0]), int(inside[-1]) + 1)


def window_starts(
    times_ms: NDArray[np.floating], width_ms: float, step_ms: float, key: str = "sliding"
) -> list[float]:
    """List where windows begin: from the first sample, as long as they end within the signal.

    Args:
        times_ms: [T].
        width_ms: Of each window.
        step_ms: From window to window.
        key: The block of the recipe that the width is from, for the error.

    Raises:
        RecipeError: if the window is wider than the signal.
    """
    step = (times_ms[-1] - times_ms[0]) / max(1, len(times_ms) - 1)
    last = times_ms[-1] + step - width_ms
    if last < times_ms[0] - CLOSE_MS:
        raise RecipeError(
            f"{key}.width_ms {width_ms:g} is wider than the signal "
            f"({times_ms[0]:g} to {times_ms[-1] + step:g} ms)",
            "take a narrower window",
        )
    return list(np.arange(times_ms[0], last + CLOSE_MS, step_ms))


def inside(times_ms: NDArray[np.floating], start_ms: float, width_ms: float) -> NDArray[np.bool_]:
    """Mark the samples of a window: [T]."""
    is_late_enough: NDArray[np.bool_] = times_ms >= start_ms - CLOSE_MS
    return is_late_enough & (times_ms < start_ms + width_ms - CLOSE_MS)


def region_masks(regions: Mapping[str, Sequence[int]], voxels: int) -> dict[str, NDArray[np.bool_]]:
    """Mark the voxels of each region that has any, by name: [V, 1]."""
    masks = {name: np.zeros((voxels, 1), np.bool_) for name, places in regions.items() if places}
    for name, mask in masks.items():
        mask[list(regions[name])] = True
    return masks


@dataclass(frozen=True)
class Selection:
    """The chosen stimuli, channels or voxels, and samples of a recording, scaled and normalised.

    Attributes:
        pictures: [N] which stimuli of the recording, ascending.
        rows: [C] which channels, or [V] which voxels.
        samples: Which T samples.
        where: What the recording is, for errors.
        sets: Mask [V] of all voxels of the recording, by name: those that streams of a model read.
    """

    recording: Recording
    pictures: NDArray[np.int64]
    rows: NDArray[np.int64]
    samples: slice
    scale: float
    where: str
    normaliser: Normaliser | None = None
    sets: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        recording: Recording,
        channels: Sequence[str] | None,
        window_ms: tuple[float, float] | None,
        scale: float,
        where: str,
        sets: Mapping[str, NDArray[np.bool_]] = MappingProxyType({}),
    ) -> Self:
        """Choose channels by name or region, or voxels by region (all when None), and a window in ms.

        Where there are sets of voxels, all that lie in one of them are chosen.
        """
        rows = space_rows(recording.space, recording.signal.shape[2], channels)
        if sets:
            rows = np.flatnonzero(np.any(list(sets.values()), axis=0))
        samples = sample_range(recording.times_s, window_ms)
        pictures = np.arange(len(recording.signal))
        return cls(recording, pictures, rows, samples, scale, where, sets=sets)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the chosen channels; () for voxels."""
        space = self.recording.space
        return tuple(space.names[row] for row in self.rows) if isinstance(space, Sensors) else ()

    @property
    def regions(self) -> dict[str, tuple[int, ...]]:
        """Places among the chosen voxels, by region or set; empty for sensors."""
        space = self.recording.space
        if isinstance(space, Sensors):
            return {}
        masks = {**space.regions, **self.sets}
        return {name: tuple(np.flatnonzero(mask[self.rows]).tolist()) for name, mask in masks.items()}

    @property
    def times_s(self) -> NDArray[np.float64]:
        """[T] seconds of the chosen samples."""
        return self.recording.times_s[self.samples]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, R, C, T of what is chosen."""
        most, samples = self.recording.signal.shape[1], self.samples.stop - self.samples.start
        return len(self.pictures), most, len(self.rows), samples

    @property
    def repetitions(self) -> NDArray[np.int64]:
        """[N] how many repetitions of each picture there are."""
        counts = self.recording.repetitions
        return np.full(self.shape[0], self.shape[1]) if counts is None else counts[self.pictures]

    def fingerprint(self) -> str:
        """Digest what is chosen of the recording (10 hexadecimal digits)."""
        chosen = hashlib.sha256(f"{self.samples} {self.scale!r}".encode())
        arrays = (self.normaliser.mean, self.normaliser.matrix) if self.normaliser else ()
        for array in (self.pictures, self.rows, *arrays):
            chosen.update(array.tobytes())
        return chosen.hexdigest()[:10]

    def shape_of(self, content: Content) -> tuple[int, ...]:
        """Give the shape of what `read` yields, all together."""
        count, most, *shape = self.shape
        return (count, *shape) if content == "averages" else (count, most, *shape)

    def read(self, content: Content) -> Iterator[Chunk]:
        """Yield where, and the averages or the trials of some stimuli; raises as these do."""
        return self.averages() if content == "averages" else self.trials()

    def averages(self) -> Iterator[Chunk]:
        """Yield where, and the averages of the repetitions of some stimuli [n, C, T].

        Raises:
            BrainhiveError: if a value is not finite; it names the picture and the channel.
        """
        for part, chosen, repetitions in self._read():
            share = (self.scale / repetitions[:, None, None]).astype(np.float32)
            yield part, self._finish(chosen.sum(1) * share, part)

    def trials(self) -> Iterator[Chunk]:
        """Yield where, and the single repetitions of some stimuli [n, R, C, T]; missing ones are zeros.

        Raises:
            BrainhiveError: if a value is not finite; it names the picture and the channel.
        """
        for part, chosen, _ in self._read():
            yield part, self._finish(chosen * np.float32(self.scale), part)

    def _read(self) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.int64]]]:
        """Yield where, what was chosen [n, R, C, T] (0 where nothing is), and how many there are [n]."""
        for start in range(0, len(self.pictures), COPIED_STIMULI):
            part = slice(start, min(start + COPIED_STIMULI, len(self.pictures)))
            pictures, repetitions = self.pictures[part], self.repetitions[part]
            among = slice(pictures[0], pictures[-1] + 1)  # a slice is read at once
            chosen = np.asarray(self.recording.signal[among, :, :, self.samples])[:, :, self.rows]
            chosen = chosen.astype(np.float32, copy=False)  # before sums, for which float16 is too coarse
            if len(chosen) > len(pictures):
                chosen = chosen[pictures - pictures[0]]
            if (repetitions < chosen.shape[1]).any():
                is_there = np.arange(chosen.shape[1]) < repetitions[:, None]
                chosen = np.where(is_there[..., None, None], chosen, 0)
            yield part, chosen, repetitions

    def _finish(self, signal: NDArray[np.float32], part: slice) -> NDArray[np.float32]:
        if not np.isfinite(signal).all():
            place, *_, row, _ = np.argwhere(~np.isfinite(signal))[0]
            picture = self.recording.image_ids[self.pictures[part.start + place]]
            which = f"channel {self.channels[row]}" if self.channels else f"voxel {self.rows[row]}"
            raise BrainhiveError(
                f"{self.where}: a signal is not finite, of picture {picture}, {which}",
                "repair the recording, or leave the channel out with signal.channels",
            )
        return self.normaliser(signal) if self.normaliser else signal
