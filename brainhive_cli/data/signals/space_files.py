"""Values of voxels, vertices or sensors as files that other programs open: NIfTI, GIFTI
or a table.
"""

import csv
import gzip
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Array, Float32
from brainhive_cli.core.files import atomic_write
from brainhive_cli.data.signals.spaces import (
    Grid,
    Sensors,
    Surface,
    Voxels,
    look_up_positions,
)


def write_maps(
    folder: Path, stem: str, maps: Mapping[str, Array], space: Sensors | Voxels
) -> list[Path]:
    """Write maps where their values were measured.

    Voxels become `STEM_NAME.nii.gz` on the grid of the signals, vertices a
    `STEM_hemi-L_NAME.func.gii` and `STEM_hemi-R_NAME.func.gii`: NaN where there are
    none. Sensors become `STEM.tsv`: a row each with its position in metres, where it is
    known, and a column a map; so do voxels without positions.

    Args:
        folder: Where the files go.
        stem: Beginning of their names, as `sub-01`.
        maps: [V] or [C] by name, of all of the space; NaN where there is no value.
        space: What was measured.

    Returns:
        The files.
    """
    values = {
        re.sub(r"\W+", "_", name).strip("_"): np.asarray(map_values, np.float32)
        for name, map_values in maps.items()
    }
    files = {}
    if isinstance(space, Sensors) or space.grid is space.surface is None:
        files[f"{stem}.tsv"] = _write_table(values, space)
    elif space.grid is not None:
        for name, map_values in values.items():
            files[f"{stem}_{name}.nii.gz"] = _write_volume(map_values, space.grid)
    elif space.surface is not None:
        for name, map_values in values.items():
            for side, letter in enumerate("LR"):
                content = _write_surface(map_values, space.surface, side)
                files[f"{stem}_hemi-{letter}_{name}.func.gii"] = content

    for name, content in files.items():
        with atomic_write(folder / name, is_lasting=False) as part:
            part.write_bytes(content)
    return [folder / name for name in files]


def _write_volume(values: Float32, grid: Grid) -> bytes:
    """Write values [V] as compressed NIfTI."""
    from nibabel import Nifti1Image

    volume = np.full(grid.shape, np.nan, np.float32)
    volume[tuple(grid.indices.T)] = values
    image = Nifti1Image(volume, grid.affine)
    image.header.set_xyzt_units("mm")
    # without the time, so that equal maps are equal files
    return gzip.compress(image.to_bytes(), mtime=0)


def _write_surface(values: Float32, surface: Surface, side: int) -> bytes:
    """Write those of values [V] that are of one hemisphere as GIFTI."""
    from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiMetaData

    mesh = np.full(surface.sizes[side], np.nan, np.float32)
    rows = surface.vertices[:, 0] == side
    mesh[surface.vertices[rows, 1]] = values[rows]
    # viewers find the hemisphere in the metadata
    about = {"AnatomicalStructurePrimary": ("CortexLeft", "CortexRight")[side]}
    array = GiftiDataArray(mesh, datatype="NIFTI_TYPE_FLOAT32")
    return bytes(GiftiImage(meta=GiftiMetaData(about), darrays=[array]).to_bytes())


def _write_table(maps: Mapping[str, Float32], space: Sensors | Voxels) -> bytes:
    """Write a row for each sensor, or voxel by its index from 0."""
    columns: dict[str, Any] = {}
    if isinstance(space, Sensors):
        positions = space.positions
        if positions is None:
            positions = look_up_positions(space.names)
        columns["name"] = space.names
        columns |= dict(zip("xyz", np.asarray(positions).T.tolist(), strict=True))
    else:
        columns["voxel"] = range(len(next(iter(maps.values()))))
    columns |= {name: values.tolist() for name, values in maps.items()}

    # BIDS writes n/a for what is not known
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    table.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        cells = (f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row)
        table.writerow(["n/a" if cell == "nan" else cell for cell in cells])
    return text.getvalue().encode()
