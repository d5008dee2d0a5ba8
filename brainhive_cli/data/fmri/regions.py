"""Regions of voxels or vertices by name: masks, atlases and labels of surfaces, as they
are published.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from brainhive_cli.core.arrays import Array, Bool
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import expand_pattern, home_folder, is_file, read_lines
from brainhive_cli.core.only_match import choose_only
from brainhive_cli.data.fmri.volumes import (
    CIFTI_CORTEX,
    CIFTI_ENDINGS,
    Mask,
    find_inside,
    find_threshold,
    open_image,
    read_volume,
    round_labels,
)
from brainhive_cli.data.recordings.contract import fill_subject
from brainhive_cli.data.signals.spaces import Surface, Voxels

WAY_OUT = "preparation.regions: {NAME: FILE}, a mask or atlas on the grid of the betas"
Thresholds = Annotated[
    dict[str, float],
    Field(
        description="least value that is inside, by name of a region's file, or "
        "`mask`, as {V1: 0.3}; default: 0.5 of probabilities, 50 of those "
        "in percent, above 0 of masks and labels",
        examples=["{V1: 0.3}"],
    ),
]
"""Key of preparations with regions of a lab's own."""
UNNAMED = re.compile(
    r"\?+|unknown|background|medial[_ ]?wall|corpuscallosum|none", re.IGNORECASE
)
"""Names in atlases of voxels outside all regions."""
HEMISPHERE = re.compile(r"^(?:ctx[-_])?[lr]h[-_.]|^[LR]_|^(?:Left|Right)-|_ROI$")
"""Text around the name of a region that both hemispheres have, as in `ctx-lh-cuneus` or
`L_V1_ROI`.
"""
WANG = (
    "V1v V1d V2v V2d V3v V3d hV4 VO1 VO2 PHC1 PHC2 TO2 TO1 LO2 LO1 V3B V3A IPS0 IPS1 "
    "IPS2 IPS3 IPS4 IPS5 SPL1 FEF"
).split()
"""Labels 1 to 25 of the probabilistic atlas of Wang et al. 2015, whose files come
without names.
"""


Maps = tuple[Array, Array, Sequence[Mapping[int, str]]]
"""Maps of a file of regions: their values [V, n] of voxels or vertices, the same with
their neighbours in a volume, and names of labels of each map; none where the file has
none.
"""


def find_region_files(
    patterns: Mapping[str, str], subject: int, root: Path, label: str = ""
) -> dict[str, list[Path]]:
    """Find the files of a subject by the names of regions and atlases.

    Args:
        patterns: Name to a path below `root`, else below home, with `{subject}`,
            `{subject:02d}` or `{label}` and the wildcards of a shell; of a surface,
            both hemispheres, as `label/?h.aparc.annot`.
        subject: By number.
        root: The folder of the betas, or of the BIDS data set.
        label: Of the subject in the names of files, without `sub-`.

    Raises:
        MissingData: naming the paths that were looked for.
    """
    files = {}
    for name, pattern in patterns.items():
        # below the betas first, else below home
        path = fill_subject(pattern, subject, label)
        paths = dict.fromkeys(
            os.path.abspath(folder / path) for folder in (root, home_folder())
        )
        files[name] = next(filter(None, map(expand_pattern, paths)), [])
        if not files[name]:
            raise MissingData(
                f"region {name} of subject {subject}: no file {' or '.join(paths)}",
                f"preparation.regions.{name}=FILE, absolute or relative to "
                f"{os.path.abspath(root)}",
            )
    return files


def read_regions(
    files: Mapping[str, Sequence[Path]],
    space: Mask | Surface | Mapping[str, int],
    thresholds: Mapping[str, float],
) -> tuple[Voxels, dict[str, str]]:
    """Name the regions of voxels, or of vertices, whose hemispheres are regions, too.

    A mask, or a map of probabilities from half on, becomes a region under its own name,
    and each of several maps one of `NAME-1`, `NAME-2` … The labels of an atlas, and
    several maps, are named by the file itself (.annot, .gii, .dlabel.nii), by a table
    next to it (.tsv, .txt, .csv of the same stem, as BIDS and FreeSurfer write it), or,
    of FreeSurfer's aparc+aseg and Wang's atlas, by what they are known to be; else by
    their numbers. Of two atlases that name a region alike, that of the second is
    `ATLAS.REGION`.

    Args:
        files: Name to the files of it: one, or one a hemisphere, the left first; a
            region is that of both.
        space: The mask of the voxels, or their vertices; or the number of vertices of
            each hemisphere, by name, or of both.
        thresholds: Least value that is inside, by name of the file.

    Returns:
        The voxels, and what each file was taken for by its name.

    Raises:
        BrainhiveError: if a file is damaged, lies on another grid, has nothing where
            there are betas, or it is not clear what its values are.
    """
    regions = dict[str, Bool]()
    readings = dict[str, str]()
    grid = surface = None
    if isinstance(space, Surface):
        surface = space
        space = count_hemisphere_rows(space)
    if isinstance(space, Mask):
        width = space.width
        grid = space.grid
    else:
        sides = np.repeat([*space], [*space.values()])  # [V]
        width = len(sides)
        regions = {side: sides == side for side in space if side in CIFTI_CORTEX}

    # a threshold without a file would have no effect
    if unknown := {*thresholds} - {*files, "mask"}:
        raise BrainhiveError(
            f"preparation.thresholds.{min(unknown)}: no region is called so",
            f"there are: {', '.join(files)}",
        )
    for atlas, paths in files.items():
        # regions and their names, of one file or of both hemispheres
        parts = [
            _read_parts(path, atlas, space, thresholds.get(atlas)) for path in paths
        ]
        # 0: of all voxels
        counts = [0 if isinstance(space, Mask) else count for count, *_ in parts]
        if not isinstance(space, Mask) and sum(counts) != width:
            several = " and ".join(path.name for path in paths)
            raise BrainhiveError(
                f"{paths[0].parent}: {several} have {sum(counts)} vertices, the betas "
                f"{width}",
                "preparation.regions: {NAME: ?h.FILE}, for both hemispheres",
            )

        # a mask [V] for each name, of both hemispheres together
        masks: dict[str, Bool] = {}
        for start, (count, region_names, _) in zip(
            np.cumsum([0, *counts]), parts, strict=False
        ):
            for name, inside in region_names:
                # no spaces and operators in names, as sets of regions are written with
                # them
                region = re.sub(r"[\s&|()]+", "_", name.strip())
                if region.strip("-") and not UNNAMED.fullmatch(region):
                    mask = masks.setdefault(region, np.zeros(width, bool))
                    mask[start : start + count] |= inside
        if not any(mask.any() for mask in masks.values()):
            raise BrainhiveError(
                f"{paths[0]} has nothing in the {width} voxels of the betas", WAY_OUT
            )

        readings[atlas] = ", ".join(dict.fromkeys(reading for *_, reading in parts))
        # names that an earlier atlas has are prefixed by this atlas
        regions |= {
            name if name not in regions else f"{atlas}.{name}": mask
            for name, mask in masks.items()
        }
    return Voxels(regions, grid=grid, surface=surface), readings


def count_hemisphere_rows(surface: Surface) -> dict[str, int]:
    """Count the rows of each hemisphere, by its name, and under an empty name those
    that are no vertices, where there are any.
    """
    counts = [int((surface.vertices[:, 0] == side).sum()) for side in (0, 1, -1)]
    sides = dict(zip((*CIFTI_CORTEX, ""), counts, strict=True))
    return {side: count for side, count in sides.items() if side or count}


def _read_parts(
    path: Path, atlas: str, space: Mask | Mapping[str, int], least: float | None
) -> tuple[int, list[tuple[str, Bool]], str]:
    """Read the number of voxels or vertices of a file, its regions with their names,
    and what it is.
    """
    maps, volume, labels = _read_maps(path, space)
    if least is None:
        maps = round_labels(maps)
        volume = round_labels(volume)
    count, several = maps.shape
    # what names the labels: the file, the table next to it, or an atlas that is known
    table = _read_table(path)
    source = "of the file"
    present = np.unique(maps[np.isfinite(maps) & (maps > 0)])
    # one map of whole numbers may be an atlas
    if several == 1 and not any(labels) and (present == np.rint(present)).all():
        labels = [{k: name for k, name in table.items() if k in present}]
        source = "of the table next to it"
        if not any(labels) and len(present) > 1:  # a mask may be called wang_V1
            labels = [_name_known_labels(f"{atlas} {path.name}".lower(), present)]
            source = "of a known atlas"

    # labels become masks; names of several maps begin with the map's number
    if least is None and any(labels):
        regions = [
            (f"{number}." * (several > 1) + HEMISPHERE.sub("", name), values == label)
            for number, (values, names) in enumerate(
                zip(maps.T, labels, strict=True), 1
            )
            for label, name in names.items()
        ]
        return count, regions, f"labels with the names {source}"

    # a mask, labels without names, or probabilities
    threshold, kind = find_threshold(volume, path, atlas, least)
    if several == 1 and kind == "labels":
        regions = [(f"{atlas}-{label:.0f}", maps[:, 0] == label) for label in present]
        return count, regions, "labels without names"
    if several == 1:
        return count, [(atlas, find_inside(maps[:, 0], threshold))], kind

    # several masks, or maps of probabilities, numbered from 0 or 1 in the table
    if kind == "labels" and any(
        len(np.unique(values[values > 0])) > 1 for values in maps.T
    ):
        raise BrainhiveError(
            f"{path} has {several} maps of labels without names",
            "preparation.regions={NAME: FILE} of one map each, or "
            f"thresholds.{atlas}=LEAST",
        )
    first = min(1, *table) if table else 1
    regions = [
        (table.get(first + row, f"{atlas}-{row + 1}"), inside)
        for row, inside in enumerate(find_inside(maps, threshold).T)
    ]
    return count, regions, f"{several} maps, {kind}"


def _name_known_labels(called: str, present: Array) -> Mapping[int, str]:
    """Name the labels of an atlas whose file or region is called as FreeSurfer's or
    Wang's.
    """
    if re.search(r"aparc\+?aseg", called):
        from mne import read_freesurfer_lut

        # cortex: 1000 + k on the left, 2000 + k on the right, k up to 35
        lut = read_freesurfer_lut()[0]
        return {
            k: name for name, k in lut.items() if k // 1000 in (1, 2) and k % 1000 <= 35
        }
    is_wang = re.search(
        "wang|kastner|maxprob_(vol|surf)", called
    ) and present.max() <= len(WANG)
    return dict(enumerate(WANG, 1)) if is_wang else {}


def _read_table(path: Path) -> dict[int, str]:
    """Read the table next to a file: numbers of labels or maps, and behind each its
    name.
    """
    stem = re.sub(r"\.(nii|mgz|mgh)(\.gz)?$", "", path.name)
    tables = (path.with_name(stem + ending) for ending in (".csv", ".txt", ".tsv"))
    readings: dict[str, dict[int, str]] = {}
    for table in filter(is_file, tables):
        names: dict[int, str] = {}
        for line in read_lines(table, errors="replace"):
            # number and name, by tab, comma, semicolon or spaces; other lines are
            # headers
            if match := re.match(
                r'\s*"?(\d+)"?(?:\s*[\t,;]\s*([^\t,;]+)|\s+(\S+))', line
            ):
                names.setdefault(int(match[1]), (match[2] or match[3]).strip(' "'))
        if names:
            readings[table.name] = names
    return choose_only(readings, f"labels of {path}", "remove one table") or {}


def _read_maps(path: Path, space: Mask | Mapping[str, int]) -> Maps:
    """Read a volume through the mask; or of a surface .annot, CIFTI, GIFTI, or a
    .label, without its size.
    """
    from nibabel.freesurfer import read_annot, read_label

    # volumes lie on the grid of the betas, and are read through their mask
    if isinstance(space, Mask):
        if path.suffix in (".annot", ".label", ".gii"):
            raise BrainhiveError(
                f"{path} is of a surface, {space.path} of a volume", WAY_OUT
            )
        replace(space, way_out=WAY_OUT).require_same_grid(path)
        volume = read_volume(path, WAY_OUT)
        if volume.ndim not in (3, 4):
            raise BrainhiveError(
                f"{path} is {[*volume.shape]}, not [X, Y, Z] or [X, Y, Z, maps]",
                WAY_OUT,
            )
        return volume[space.inside].reshape(space.width, -1), volume, []

    labels: Sequence[Mapping[int, str]] = []
    sizes = [*space.values()]
    with report_damage(path, WAY_OUT, exceptions=(Exception,)):
        if path.suffix == ".annot":
            values, _, names = read_annot(path)
            values = values[:, None]
            labels = [{label: name.decode() for label, name in enumerate(names)}]
        elif path.suffix == ".label":
            if len(sizes) == 1:
                raise ValueError(
                    f"it does not say how many of {sizes[0]} vertices are left; take "
                    "an .annot"
                )
            # a .label lists the vertices of a region; its name says of which hemisphere
            values = np.zeros(
                (sizes[bool(re.search(r"(^|[._])rh[._]|hemi-R", path.name))], 1),
                np.int64,
            )
            values[read_label(path)] = 1
        elif path.suffix == ".gii":
            image = open_image(path, WAY_OUT)
            # [V, n]
            values = np.stack([array.data.ravel() for array in image.darrays], 1)
            known = image.labeltable.get_labels_as_dict()
            # Workbench writes ??? into any file
            if not all(map(UNNAMED.fullmatch, known.values())):
                labels = [known] * values.shape[1]
        elif path.name.endswith(CIFTI_ENDINGS):
            image = open_image(path, WAY_OUT)
            rows = image.header.get_axis(0)
            axis = image.header.get_axis(1)
            values = np.asarray(image.dataobj).T  # [V, n]
            # with other grayordinates than those of the cortex
            if len(values) != sum(sizes):
                values = np.concatenate(
                    [values[axis.name == name] for name in CIFTI_CORTEX.values()]
                )
                values = np.pad(values, [(0, sum(sizes[2:])), (0, 0)])
            labels = [
                {key: name for key, (name, _) in table.items()}
                for table in getattr(rows, "label", ())
            ]
        else:
            raise ValueError("it is of a volume, and the betas are of a surface")
    return values, values, labels
