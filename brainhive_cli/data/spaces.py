"""Spaces of signals: sensors on the head, or voxels with their regions; found by name
or region.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.arrays import Bool, Float64, Int64
from brainhive_cli.core.errors import RecipeError, find_rows, guess

REGIONS = {
    "frontal": ("Fp", "AF", "F"),
    "central": ("FC", "C", "CP"),
    "temporal": ("FT", "T", "TP"),
    "parietal": ("P",),
    "occipital": ("PO", "O"),
}
"""Region > letters that its channels' names begin with, in the 10-10 system. What lies
between two regions is counted with one of them; parietal and occipital together are
BrainHiVE's 17 channels of THINGS-EEG.
"""
# lower case, as names of channels are matched without regard to it
_REGION_OF = {
    letters.lower(): region for region, all_of in REGIONS.items() for letters in all_of
}
# letters, then z or a number, as in POz, FC5 and AFF1h
_NAME = re.compile(r"([a-z]+?)(z|\d+h?)$", re.IGNORECASE)


@dataclass(frozen=True)
class Sensors:
    """Sensors that recorded the C channels of a signal.

    Attributes:
        names: [C] in the order of the signal.
        positions: [C, 3] in metres, where they are known.
    """

    names: Sequence[str]
    positions: Float64 | None = None

    def select(self, rows: Int64) -> "Sensors":
        """Keep some sensors, in this order."""
        positions = None if self.positions is None else np.asarray(self.positions)[rows]
        return Sensors([self.names[row] for row in rows], positions)


@dataclass(frozen=True)
class Grid:
    """Positions of voxels in a volume.

    Attributes:
        indices: [V, 3] of the voxels.
        shape: Of the volume, X, Y, Z.
        affine: [4, 4] from indices to mm.
    """

    indices: NDArray[np.int16]
    shape: tuple[int, ...]
    affine: Float64


@dataclass(frozen=True)
class Voxels:
    """The regions that the V voxels of a signal belong to; a voxel may lie in several,
    or in none.

    Attributes:
        regions: Mask [V] of each region, by its name.
        maps: What was measured of voxels, [V] by name, as `tsnr`, or `ncsnr`: the
            noise-ceiling signal-to-noise ratio, which is the spread of the signal over
            that of the noise.
        grid: Where they lie in a volume; None where that is not known, or they lie on a
            surface.
    """

    regions: Mapping[str, Bool]
    maps: Mapping[str, Float64] = field(default_factory=dict)
    grid: Grid | None = None

    def select(self, rows: Int64) -> "Voxels":
        """Keep some voxels, in this order."""
        return Voxels(
            {name: mask[rows] for name, mask in self.regions.items()},
            {name: values[rows] for name, values in self.maps.items()},
            None
            if self.grid is None
            else replace(self.grid, indices=self.grid.indices[rows]),
        )


def axis_lists(space: Sensors | Voxels) -> dict[str, Any]:
    """Give all that has one entry a channel, or a voxel, and is the same in all
    recordings of a subject.
    """
    if isinstance(space, Sensors):
        positions = {} if space.positions is None else {"positions": space.positions}
        return {"channels": space.names, **positions}
    indices = {} if space.grid is None else {"voxel indices": space.grid.indices}
    return {
        f"voxels in the mask of region {name}": mask
        for name, mask in space.regions.items()
    } | indices


def channel_rows(channels: Sequence[str], names: Sequence[str]) -> Int64:
    """Find channels by name or region (`occipital`), each once.

    Raises:
        RecipeError: naming what the data do not have, and the nearest name.
    """
    chosen = []
    for name in names:
        region = name.lower()
        # a region stands for all its channels, any other name for one
        if region in REGIONS:
            members = [
                row
                for row, channel in enumerate(channels)
                if region_of(channel) == region
            ]
        else:
            members = [
                row
                for row in find_rows([name], channels, "the recording")
                if row is not None
            ]
        if not members:
            there = f"there are: {' '.join(channels)}; regions: {' '.join(REGIONS)}"
            raise RecipeError(
                f"no channel {name!r} in the data",
                guess(name, [*channels, *REGIONS]) + there,
            )
        chosen += members
    # a channel by name and by region is read once
    return np.asarray(list(dict.fromkeys(chosen)))


def find_region(
    name: str, regions: Mapping[str, Any], where: str = "", expression: str = ""
) -> str:
    """Find a region's name as the data have it; `where` and `expression` say in errors
    what names it.
    """
    names = list(regions)
    if (row := find_rows([name], names, "the recording")[0]) is not None:
        return names[row]
    # a difference without spaces reads as one name with a hyphen
    spaces = (
        "a difference has spaces around its -; " if "-" in name and expression else ""
    )
    hint = f"{guess(name, names)}{spaces}regions: {' '.join(names) or 'none'}"
    raise RecipeError(f"{where}no region {name!r} in the data{expression}", hint)


def region_of(channel: str) -> str | None:
    """Name the region of a channel; None for a name that is not of the 10-10 system."""
    match = _NAME.match(channel)
    return _REGION_OF.get(match[1].lower()) if match else None


def sample_range(times_s: Float64, window_ms: tuple[float, float] | None) -> slice:
    """Find the samples whose time lies in [start, stop), in milliseconds after onset;
    all when None.

    Raises:
        RecipeError: if no sample does, or the window reaches a sample or more beyond
            the recording.
    """
    if window_ms is None:
        return slice(0, len(times_s))
    # rounded to µs, above the rounding error of seconds
    times_ms = np.round(times_s * 1000, 3)
    step_ms = (times_ms[-1] - times_ms[0]) / max(1, len(times_ms) - 1)
    # half-open, so that adjoining windows share no sample
    inside = np.flatnonzero((times_ms >= window_ms[0]) & (times_ms < window_ms[1]))
    spans = f"the recording spans {times_ms[0]:g} to {times_ms[-1]:g} ms"
    if not len(inside):
        raise RecipeError(f"no sample in the window {list(window_ms)} ms", spans)
    # the stop is exclusive, so that it may lie a step further out than the start
    is_longer = (
        window_ms[0] <= times_ms[0] - step_ms
        or window_ms[1] >= times_ms[-1] + 2 * step_ms
    )
    # one sample, as of voxels, has no step
    if is_longer and step_ms:
        raise RecipeError(
            f"the window {list(window_ms)} ms reaches beyond the recording", spans
        )
    return slice(int(inside[0]), int(inside[-1]) + 1)
