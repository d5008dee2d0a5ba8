"""Maps of voxels in files, which pages draw on slices of the brain."""

from pathlib import Path

import numpy as np

from brainhive_cli.core.base import Array
from brainhive_cli.core.runs import BrainMap
from brainhive_cli.data.signals import Voxels, write_maps, write_underlay


def write_brain_map(
    root: Path,
    stem: str,
    name: str,
    values: Array,
    space: Voxels,
    *,
    title: str,
    value: str,
    note: str,
    folder: str = "artifacts",
    threshold: float | None = None,
    is_diverging: bool = False,
    section: str = "",
) -> BrainMap:
    """Write a map of voxels and the anatomy below it as NIfTI files.

    Slices are cut at the largest value, which the note of the map says.

    Args:
        root: Folder of the run or page, below which the files lie.
        stem: First part of the file names, such as `sub-01`.
        name: Name of the map in the file name.
        values: Values [V]. NaN marks voxels that are not drawn.
        space: Voxels with positions on a grid.
        title: Title of the map.
        value: Name and unit of the values.
        note: Sentences below the map, which explain the threshold.
        folder: Folder of the files below `root`.
        threshold: Smallest absolute value that is drawn, or None for all.
        is_diverging: True for different colours of negative and positive values.
        section: Heading above the map.
    """
    assert space.grid is not None
    (root / folder).mkdir(parents=True, exist_ok=True)
    (path,) = write_maps(root / folder, stem, {name: values}, space)
    underlay = ""
    background = "empty, because the signals have no picture of the brain"
    if space.underlay is not None:
        underlay = f"{folder}/{stem}_underlay.nii.gz".removeprefix("/")
        write_underlay(root / underlay, space.underlay)
        background = space.underlay.source

    heights = np.abs(values) if is_diverging else values
    peak = int(np.nanargmax(heights))
    affine = space.grid.affine
    peak_mm = affine[:3, :3] @ space.grid.indices[peak] + affine[:3, 3]
    x_mm, y_mm, z_mm = peak_mm.round(1).tolist()
    largest = "largest absolute value" if is_diverging else "largest value"
    sentences = [
        note,
        f"Cut at the {largest} (x, y, z = {x_mm:g}, {y_mm:g}, {z_mm:g} mm), which was "
        "picked among all voxels.",
        f"Background: {background}.",
    ]
    return BrainMap(
        title,
        volume=path.relative_to(root).as_posix(),
        peak_mm=(x_mm, y_mm, z_mm),
        underlay=underlay,
        value=value,
        threshold=threshold,
        is_diverging=is_diverging,
        section=section,
        note=" ".join(filter(None, sentences)),
    )
