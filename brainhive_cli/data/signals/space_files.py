"""Maps of voxels, vertices or sensors as NIfTI, GIFTI or table files."""

import csv
import gzip
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.base import Array, Float32, Float64
from brainhive_cli.core.files import atomic_write
from brainhive_cli.data.signals.spaces import (
    Grid,
    Sensors,
    Surface,
    Underlay,
    Voxels,
)

HEMISPHERES = {"L": "CortexLeft", "R": "CortexRight"}
"""Names of the hemispheres in GIFTI metadata, where viewers find them, keyed by the
letter in BIDS file names.
"""


def write_maps(
    folder: Path, stem: str, maps: Mapping[str, Array], space: Sensors | Voxels
) -> list[Path]:
    """Write maps in the space in which their values were measured.

    - Voxels on a grid: `STEM_NAME.nii.gz`, with NaN in all other voxels.
    - Vertices: `STEM_hemi-L_NAME.func.gii` and `STEM_hemi-R_NAME.func.gii`, with NaN in
      all other vertices.
    - Sensors and other voxels: `STEM.tsv` with a row for each, their position in metres
      if known, and a column for each map.

    Args:
        folder: Folder of the files.
        stem: First part of the file names, such as "sub-01".
        maps: Values [V] or [C] by the name of the map. NaN marks absent values.
        space: Voxels or sensors of the values.

    Returns:
        Paths of the files.
    """
    values_of = {}
    for name, values in maps.items():
        file_name = re.sub(r"\W+", "_", name).strip("_")
        values_of[file_name] = np.asarray(values, np.float32)
    contents = {}
    if space.grid is not None:
        for name, values in values_of.items():
            contents[f"{stem}_{name}.nii.gz"] = _format_volume(values, space.grid)
    elif space.surface is not None:
        for name, values in values_of.items():
            for hemisphere, letter in enumerate(HEMISPHERES):
                content = _format_surface(values, space.surface, hemisphere)
                contents[f"{stem}_hemi-{letter}_{name}.func.gii"] = content
    else:
        contents[f"{stem}.tsv"] = _format_table(values_of, space)

    for name, content in contents.items():
        with atomic_write(folder / name, is_lasting=False) as part_path:
            part_path.write_bytes(content)
    return [folder / name for name in contents]


def write_underlay(path: Path, underlay: Underlay) -> None:
    """Write the picture below maps of voxels as compressed NIfTI."""
    content = _compress_volume(underlay.values, underlay.affine)
    with atomic_write(path, is_lasting=False) as part_path:
        part_path.write_bytes(content)


def _format_volume(values: Float32, grid: Grid) -> bytes:
    """Format values [V] as compressed NIfTI."""
    volume = np.full(grid.shape, np.nan, np.float32)
    volume[tuple(grid.indices.T)] = values
    return _compress_volume(volume, grid.affine)


def _compress_volume(values: Array, affine: Float64) -> bytes:
    """Format a volume [X, Y, Z] as compressed NIfTI."""
    from nibabel import Nifti1Image

    img = Nifti1Image(values, affine)
    img.header.set_xyzt_units("mm")
    # without the time of writing, equal maps are equal files
    return gzip.compress(img.to_bytes(), mtime=0)


def _format_surface(values: Float32, surface: Surface, hemisphere: int) -> bytes:
    """Format the values [V] of a hemisphere (0 left, 1 right) as GIFTI."""
    from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiMetaData

    mesh = np.full(surface.sizes[hemisphere], np.nan, np.float32)
    is_in_hemisphere = surface.vertices[:, 0] == hemisphere
    mesh[surface.vertices[is_in_hemisphere, 1]] = values[is_in_hemisphere]
    structure = list(HEMISPHERES.values())[hemisphere]
    meta = GiftiMetaData({"AnatomicalStructurePrimary": structure})
    array = GiftiDataArray(mesh, datatype="NIFTI_TYPE_FLOAT32")
    return bytes(GiftiImage(meta=meta, darrays=[array]).to_bytes())


def _format_table(maps: Mapping[str, Float32], space: Sensors | Voxels) -> bytes:
    """Format a table with a row for each sensor, or voxel by its index from 0."""
    columns: dict[str, Any] = {}
    if space.has_names:
        positions = np.asarray(space.locate())
        columns["name"] = space.names
        columns |= dict(zip("xyz", positions.T.tolist(), strict=True))
    else:
        columns["voxel"] = range(len(next(iter(maps.values()))))
    columns |= {name: values.tolist() for name, values in maps.items()}

    # BIDS writes n/a for absent values
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    table.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        cells = (f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row)
        table.writerow(["n/a" if cell == "nan" else cell for cell in cells])
    return text.getvalue().encode()
