"""Spaces of signals: sensors on the head, or voxels with their regions, maps and positions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.arrays import Bool, Float64, Int64


@dataclass(frozen=True)
class Sensors:
    """Sensors that recorded the C channels of a signal.

    Attributes:
        names: [C] in the order of the signal.
        positions: [C, 3] in metres, where they are known.
    """

    names: Sequence[str]
    positions: Float64 | None = None

    @property
    def lists(self) -> dict[str, Any]:
        """All that has one entry a channel."""
        positions = {} if self.positions is None else {"positions": self.positions}
        return {"channels": self.names, **positions}

    def select(self, rows: Int64) -> "Sensors":
        """Keep some sensors, in this order."""
        positions = None if self.positions is None else np.asarray(self.positions)[rows]
        return Sensors([self.names[row] for row in rows], positions)


@dataclass(frozen=True)
class Grid:
    """Positions of voxels in a volume.

    Attributes:
        places: [V, 3] indices.
        shape: Of the volume, X, Y, Z.
        affine: [4, 4] from indices to mm.
    """

    places: NDArray[np.int16]
    shape: tuple[int, ...]
    affine: Float64


@dataclass(frozen=True)
class Voxels:
    """The regions that the V voxels of a signal belong to; a voxel may lie in several, or in none.

    Attributes:
        regions: Mask [V] of each region, by its name.
        maps: What was measured of voxels, [V] by name, as `tsnr`, or `ncsnr`: the noise-ceiling
            signal-to-noise ratio, which is the spread of the signal over that of the noise.
        grid: Where they lie in a volume; None where that is not known, or they lie on a surface.
    """

    regions: Mapping[str, Bool]
    maps: Mapping[str, Float64] = field(default_factory=dict)
    grid: Grid | None = None

    @property
    def lists(self) -> dict[str, Any]:
        """All that has one entry a voxel and is the same in all recordings of a subject."""
        places = {} if self.grid is None else {"places": self.grid.places}
        return {f"voxels in the mask of region {name}": mask for name, mask in self.regions.items()} | places

    def select(self, rows: Int64) -> "Voxels":
        """Keep some voxels, in this order."""
        return Voxels(
            {name: mask[rows] for name, mask in self.regions.items()},
            {name: values[rows] for name, values in self.maps.items()},
            None if self.grid is None else replace(self.grid, places=self.grid.places[rows]),
        )
