"""Named regions of voxels or vertices, from masks, atlases and surface labels."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import (
    Array,
    Bool,
    BrainhiveError,
    MissingData,
    choose_only,
)
from brainhive_cli.core.files import (
    expand_pattern,
    home_folder,
    is_file,
    read_lines,
    report_damage,
)
from brainhive_cli.data.fmri.volumes import (
    CIFTI_CORTEX,
    CIFTI_ENDINGS,
    Mask,
    find_inside,
    find_threshold,
    find_vertices,
    open_image,
    read_volume,
    round_labels,
)
from brainhive_cli.data.recordings import fill_subject
from brainhive_cli.data.signals import Surface, Voxels

WAY_OUT = "preparation.regions: {NAME: FILE}, a mask or atlas on the grid of the betas"
Thresholds = Annotated[
    dict[str, float],
    Field(
        description="smallest value inside a region, by its name or `mask`, as "
        "{V1: 0.3}; default: 0.5 for probabilities, 50 for percent, above 0 for masks "
        "and labels",
        examples=["{V1: 0.3}"],
    ),
]
"""Type of the recipe key `thresholds`."""
BACKGROUND_NAME = re.compile(
    r"\?+|unknown|background|medial[_ ]?wall|corpuscallosum|none", re.IGNORECASE
)
"""Names that atlases give to voxels outside all regions."""
WANG_REGIONS = (
    "V1v V1d V2v V2d V3v V3d hV4 VO1 VO2 PHC1 PHC2 TO2 TO1 LO2 LO1 V3B V3A IPS0 IPS1 "
    "IPS2 IPS3 IPS4 IPS5 SPL1 FEF"
).split()
"""Regions of the labels 1 to 25 of the probabilistic atlas of Wang et al. 2015, whose
files have no names.
"""


class RegionMaps(NamedTuple):
    """Maps of a file of regions.

    Attributes:
        values: Values [V, n] of voxels or vertices in n maps.
        volume: Values of the whole volume, or `values` for a surface.
        names: Names of the labels of each map, empty if the file has no names.
    """

    values: Array
    volume: Array
    names: Sequence[Mapping[int, str]]


class FileRegions(NamedTuple):
    """Regions of a file.

    Attributes:
        size: Number of voxels or vertices.
        masks: Name and mask [size] of each region.
        kind: Description of the file's values.
    """

    size: int
    masks: Sequence[tuple[str, Bool]]
    kind: str


def find_region_files(
    patterns: Mapping[str, str], subject: int, root: Path, label: str = ""
) -> dict[str, list[Path]]:
    """Find the files of a subject's regions and atlases.

    Args:
        patterns: Path of each region or atlas below `root` or else the home folder,
            such as `sub-{label}/?h.aparc.annot` for both hemispheres. `{subject}`
            and `{subject:02d}` are allowed.
        subject: Subject number.
        root: Folder of the betas or of the BIDS data set.
        label: Subject label in file names, without `sub-`.

    Returns:
        Sorted files by name of the region or atlas.

    Raises:
        MissingData: if a pattern finds no file.
    """
    region_files = {}
    for name, pattern in patterns.items():
        path = fill_subject(pattern, subject, label)
        folders = (root, home_folder())
        paths = dict.fromkeys(os.path.abspath(folder / path) for folder in folders)
        files: list[Path] = []
        for candidate in paths:
            files = expand_pattern(candidate)
            if files:
                break
        if not files:
            raise MissingData(
                f"region {name} of subject {subject}: no file {' or '.join(paths)}",
                f"preparation.regions.{name}=FILE, absolute or relative to "
                f"{os.path.abspath(root)}",
            )
        region_files[name] = files
    return region_files


def read_regions(
    files: Mapping[str, Sequence[Path]],
    space: Mask | Surface | Mapping[str, int],
    thresholds: Mapping[str, float],
) -> tuple[Voxels, dict[str, str]]:
    """Read the regions of voxels or vertices.

    Names of regions come from the file, a table next to it, or a known atlas. Without
    them, a mask is NAME, and labels and maps are `NAME-1`, `NAME-2` …. A name that is
    taken gets a prefix, as in `ATLAS.REGION`.

    Args:
        files: File of each region or atlas by NAME, or its files of the left and the
            right hemisphere.
        space: Mask of voxels, or vertices, or the number of vertices by hemisphere.
            Hemispheres named `left` and `right` become regions.
        thresholds: Smallest value inside a region, by NAME.

    Returns:
        The voxels, and the kind of each file's values, by NAME.

    Raises:
        BrainhiveError: if a file is damaged, has another grid, has no region in the
            voxels, or holds values of an ambiguous kind.
    """
    regions = dict[str, Bool]()
    kinds = dict[str, str]()
    grid = surface = None
    if isinstance(space, Mask):
        width = space.width
        grid = space.grid
    else:
        surface = space if isinstance(space, Surface) else None
        sizes = _count_rows(space)
        hemispheres = np.repeat(list(sizes), list(sizes.values()))  # [V]
        width = len(hemispheres)
        for hemisphere in sizes:
            if hemisphere in CIFTI_CORTEX:
                regions[hemisphere] = hemispheres == hemisphere

    # a threshold without a file would have no effect
    unknown = set(thresholds) - set(files) - {"mask"}
    if unknown:
        raise BrainhiveError(
            f"preparation.thresholds.{min(unknown)}: there is no region of this name",
            f"choose from {', '.join(files)}",
        )
    for atlas, paths in files.items():
        contents = []
        for path in paths:
            contents.append(_read_file(path, atlas, space, thresholds.get(atlas)))
        n_vertices = sum(content.size for content in contents)
        if not isinstance(space, Mask) and n_vertices != width:
            names = " and ".join(path.name for path in paths)
            raise BrainhiveError(
                f"{paths[0].parent}: {names} have {n_vertices} vertices, the betas "
                f"{width}",
                "preparation.regions: {NAME: ?h.FILE}, for both hemispheres",
            )

        masks = _join_hemispheres(contents, width, isinstance(space, Mask))
        if not any(mask.any() for mask in masks.values()):
            raise BrainhiveError(
                f"{paths[0]} has no region in the {width} voxels of the betas", WAY_OUT
            )
        kinds[atlas] = ", ".join(dict.fromkeys(content.kind for content in contents))
        for name, mask in masks.items():
            region = name
            while region in regions:
                region = f"{atlas}.{region}"
            regions[region] = mask
    return Voxels(regions, grid=grid, surface=surface), kinds


def _join_hemispheres(
    contents: Sequence[FileRegions], width: int, is_volume: bool
) -> dict[str, Bool]:
    """Join the regions of the same name in both hemispheres to a mask [width].

    Args:
        contents: Regions of each file.
        width: Number of voxels or vertices.
        is_volume: If True, each file has all voxels.
    """
    masks: dict[str, Bool] = {}
    start = 0
    for content in contents:
        for name, inside in content.masks:
            # spaces and operators would end the name in a set of regions
            region = re.sub(r"[\s&|()]+", "_", name.strip())
            if region.strip("-") and not BACKGROUND_NAME.fullmatch(region):
                mask = masks.setdefault(region, np.zeros(width, bool))
                mask[start : start + content.size] |= inside
        if not is_volume:
            start += content.size
    return masks


def count_hemisphere_rows(surface: Surface) -> dict[str, int]:
    """Count the rows of `left` and `right`, and any other rows under ""."""
    hemispheres = surface.vertices[:, 0]
    counts = {}
    for index, name in enumerate(CIFTI_CORTEX):
        counts[name] = int((hemispheres == index).sum())
    if (hemispheres == -1).any():
        counts[""] = int((hemispheres == -1).sum())
    return counts


def _count_rows(space: Surface | Mapping[str, int]) -> Mapping[str, int]:
    return count_hemisphere_rows(space) if isinstance(space, Surface) else space


def _read_file(
    path: Path,
    atlas: str,
    space: Mask | Surface | Mapping[str, int],
    threshold: float | None,
) -> FileRegions:
    """Read the regions of a file.

    Args:
        path: The file.
        atlas: Name of the region or atlas in the recipe.
        space: Mask of the voxels, vertices, or number of vertices by hemisphere.
        threshold: Smallest value inside that the recipe names.
    """
    maps, volume, labels = _read_maps(path, space)
    if threshold is None:
        maps = round_labels(maps)
        volume = round_labels(volume)
    size, n_maps = maps.shape

    # the labels of a single map may be named by a table or a known atlas
    table = _read_table(path)
    source = "of the file"
    values = np.unique(maps[np.isfinite(maps) & (maps > 0)])
    if n_maps == 1 and not any(labels) and (values == np.rint(values)).all():
        labels = [{label: name for label, name in table.items() if label in values}]
        source = "of the table next to it"
        # a mask of a single label may be called wang_V1
        if not any(labels) and len(values) > 1:
            labels = [_name_known_labels(f"{atlas} {path.name}".lower(), values)]
            source = "of a known atlas"

    regions: list[tuple[str, Bool]] = []
    if threshold is None and any(labels):
        for number, names in enumerate(labels):
            prefix = f"{number + 1}." if n_maps > 1 else ""
            for label, name in names.items():
                # Text around the name of a region, as in `ctx-lh-cuneus` or `L_V1_ROI`.
                region = prefix + re.sub(
                    r"^(?:ctx[-_])?[lr]h[-_.]|^[LR]_|^(?:Left|Right)-|_ROI$", "", name
                )
                regions.append((region, maps[:, number] == label))
        return FileRegions(size, regions, f"labels with the names {source}")

    # a mask, labels without names, or probabilities
    min_value, kind = find_threshold(volume, path, atlas, threshold)
    if n_maps == 1 and kind == "labels":
        for label in values:
            regions.append((f"{atlas}-{label:.0f}", maps[:, 0] == label))
        return FileRegions(size, regions, "labels without names")
    if n_maps == 1:
        regions.append((atlas, find_inside(maps[:, 0], min_value)))
        return FileRegions(size, regions, kind)

    # several masks or maps of probabilities, numbered from 0 or 1 in the table
    if kind == "labels" and any(
        len(np.unique(column[column > 0])) > 1 for column in maps.T
    ):
        raise BrainhiveError(
            f"{path} has {n_maps} maps of labels without names",
            "preparation.regions={NAME: FILE} with files of a single map, or "
            f"preparation.thresholds.{atlas}=VALUE",
        )
    first_number = 0 if 0 in table else 1
    for row, inside in enumerate(find_inside(maps, min_value).T):
        name = table.get(first_number + row, f"{atlas}-{row + 1}")
        regions.append((name, inside))
    return FileRegions(size, regions, f"{n_maps} maps, {kind}")


def _name_known_labels(file_name: str, labels: Array) -> Mapping[int, str]:
    """Name the labels of FreeSurfer's aparc+aseg or Wang's atlas.

    Args:
        file_name: Lower-case name of the region and its file.
        labels: Labels in the file.

    Returns:
        Names by label, empty for another atlas.
    """
    if re.search(r"aparc\+?aseg", file_name):
        from mne import read_freesurfer_lut

        names = {}
        # Largest number of a region of aparc, without thousands.
        max_freesurfer_region = 35
        for name, label in read_freesurfer_lut()[0].items():
            thousands, region = divmod(label, 1000)
            # Thousands of the labels of the left and right cortex
            # in FreeSurfer's table.
            if thousands in (1, 2) and region <= max_freesurfer_region:
                names[label] = name
        return names
    is_wang = re.search("wang|kastner|maxprob_(vol|surf)", file_name)
    if is_wang and labels.max() <= len(WANG_REGIONS):
        return dict(enumerate(WANG_REGIONS, 1))
    return {}


def _read_table(path: Path) -> dict[int, str]:
    """Read the table next to a file, with lines such as `1 V1`.

    Returns:
        Names by number of the label or map, empty without a table.

    Raises:
        BrainhiveError: if two tables disagree.
    """
    stem = re.sub(r"\.(nii|mgz|mgh)(\.gz)?$", "", path.name)
    readings: dict[str, dict[int, str]] = {}
    # Number and name, separated by a tab, comma, semicolon or spaces.
    label_line = r'\s*"?(\d+)"?(?:\s*[\t,;]\s*([^\t,;]+)|\s+(\S+))'
    for ending in (".csv", ".txt", ".tsv"):
        table = path.with_name(stem + ending)
        if not is_file(table):
            continue
        names: dict[int, str] = {}
        for line in read_lines(table, errors="replace"):
            match = re.match(label_line, line)
            if match:  # other lines are headers
                number, name_with_spaces, name_without_spaces = match.groups()
                name = (name_with_spaces or name_without_spaces).strip(' "')
                names.setdefault(int(number), name)
        if names:
            readings[table.name] = names
    return choose_only(readings, f"labels of {path}", "remove one table") or {}


def _read_maps(path: Path, space: Mask | Surface | Mapping[str, int]) -> RegionMaps:
    """Read a volume, or a .annot, .label, GIFTI or CIFTI file of a surface."""
    if isinstance(space, Mask):
        return _read_volume_maps(path, space)

    from nibabel.freesurfer import read_annot, read_label

    names: Sequence[Mapping[int, str]] = []
    sizes = list(_count_rows(space).values())
    with report_damage(path, WAY_OUT, exceptions=(Exception,)):
        if path.suffix == ".annot":
            labels, _, label_names = read_annot(path)
            values = labels[:, None]
            names = [dict(enumerate(name.decode() for name in label_names))]
        elif path.suffix == ".label":
            if len(sizes) == 1:
                raise ValueError(
                    f"it does not say how many of {sizes[0]} vertices are in the left "
                    "hemisphere; use an .annot"
                )
            # the file lists vertices, and only its name says of which hemisphere
            is_right = re.search(r"(^|[._])rh[._]|hemi-R", path.name) is not None
            values = np.zeros((sizes[int(is_right)], 1), np.int64)
            values[read_label(path)] = 1
        elif path.suffix == ".gii":
            img = open_image(path, WAY_OUT)
            values = np.stack([array.data.ravel() for array in img.darrays], 1)
            label_names = img.labeltable.get_labels_as_dict()
            # Workbench writes ??? into any file
            if not all(map(BACKGROUND_NAME.fullmatch, label_names.values())):
                names = [label_names] * values.shape[1]
        elif path.name.endswith(CIFTI_ENDINGS):
            values, names = _read_cifti_maps(path, space)
        else:
            raise ValueError("it is of a volume, and the betas are of a surface")
    return RegionMaps(values, values, names)


def _read_volume_maps(path: Path, mask: Mask) -> RegionMaps:
    """Read a volume through a mask."""
    if path.suffix in (".annot", ".label", ".gii"):
        raise BrainhiveError(
            f"{path} is of a surface, {mask.path} of a volume", WAY_OUT
        )
    replace(mask, way_out=WAY_OUT).require_same_grid(path)
    volume = read_volume(path, WAY_OUT)
    if volume.ndim not in (3, 4):
        raise BrainhiveError(
            f"{path} is {list(volume.shape)}, not [X, Y, Z] or [X, Y, Z, maps]", WAY_OUT
        )
    values = volume[mask.inside].reshape(mask.width, -1)
    return RegionMaps(values, volume, [])


def _read_cifti_maps(
    path: Path, space: Surface | Mapping[str, int]
) -> tuple[Array, Sequence[Mapping[int, str]]]:
    """Read the values [V, n] of CIFTI, and the names of the labels of each map.

    Rows belong to the same vertices as those of the betas. Grayordinates outside of the
    cortex have no vertices, and match if their number is equal.

    Raises:
        ValueError: if the surfaces have other numbers of vertices.
    """
    from nibabel.cifti2 import LabelAxis

    img = open_image(path, WAY_OUT)
    map_axis = img.header.get_axis(0)
    values = np.asarray(img.dataobj).T
    surface = find_vertices([path], WAY_OUT)
    if isinstance(space, Surface) and surface is not None:
        if any(a != b for a, b in zip(surface.sizes, space.sizes, strict=True) if a):
            raise ValueError(f"its surfaces have {surface.sizes} vertices")
        row_of = {}
        for row, vertex in enumerate(surface.vertices.tolist()):
            row_of[tuple(vertex)] = row
        rows = np.array([row_of.get(tuple(v), -1) for v in space.vertices.tolist()])
        is_other = space.vertices[:, 0] < 0
        other_rows = np.flatnonzero(surface.vertices[:, 0] < 0)
        has_same_others = len(other_rows) == is_other.sum()
        rows[is_other] = other_rows if has_same_others else -1
        values = np.where(rows[:, None] < 0, 0, values[rows])
    names = []
    if isinstance(map_axis, LabelAxis):
        for table in map_axis.label:
            names.append({label: name for label, (name, _) in table.items()})
    return values, names
