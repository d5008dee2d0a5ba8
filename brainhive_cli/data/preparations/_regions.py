"""Regions of voxels or vertices by name: masks, atlases and labels of surfaces, as they are published."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import home_folder, is_file, read_regular
from brainhive_cli.data.preparations._brain_images import open_image
from brainhive_cli.data.preparations._prepared import SUBJECT
from brainhive_cli.data.preparations._volumes import Mask, read_volume

WAY_OUT = "preparation.regions: {NAME: FILE}, a mask or atlas on the grid of the betas"
UNNAMED = re.compile(r"\?+|unknown|background|medial[_ ]?wall|corpuscallosum|none", re.IGNORECASE)
"""Names in atlases of voxels outside all regions."""
HEMISPHERE = re.compile(r"^(?:ctx[-_])?[lr]h[-_.]|^[LR]_|^(?:Left|Right)-|_ROI$")
"""Text around the name of a region that both hemispheres have, as in `ctx-lh-cuneus` or `L_V1_ROI`."""
WANG = (
    "V1v V1d V2v V2d V3v V3d hV4 VO1 VO2 PHC1 PHC2 TO2 TO1 LO2 LO1 V3B V3A IPS0 IPS1 IPS2 IPS3 IPS4 IPS5 "
    "SPL1 FEF"
).split()
"""Labels 1 to 25 of the probabilistic atlas of Wang et al. 2015, whose files come without names."""


def find_region_files(patterns: Mapping[str, str], subject: int, root: Path) -> dict[str, list[Path]]:
    """Find the files of a subject by the names of regions and atlases.

    Args:
        patterns: Name to a path below `root`, else below home, with `{subject}` or `{subject:02d}` and the
            wildcards of a shell; of a surface, both hemispheres, as `label/?h.aparc.annot`.
        subject: By number.
        root: The folder of the betas, or of the BIDS data set.

    Raises:
        MissingData: naming the paths that were looked for.
    """
    files = {}
    for name, pattern in patterns.items():
        # below the betas first, else below home
        path = SUBJECT.sub(lambda field: field[0].format(subject=subject), pattern)
        paths = dict.fromkeys(os.path.abspath(folder / path) for folder in (root, home_folder()))
        matches = next(filter(None, (sorted(glob(candidate)) for candidate in paths)), None)
        if matches is None:
            raise MissingData(
                f"region {name} of subject {subject}: no file {' or '.join(paths)}",
                f"preparation.regions.{name}=FILE, absolute or relative to {os.path.abspath(root)}",
            )
        files[name] = [Path(match) for match in matches]
    return files


def read_regions(
    files: Mapping[str, Sequence[Path]], space: Mask | Sequence[int]
) -> dict[str, NDArray[np.bool_]]:
    """Read the regions of masks and atlases; a region is that of both hemispheres.

    A mask becomes a region under its own name. The labels of an atlas are named by the file itself (.annot,
    .gii), by a table next to it (.tsv, .txt, .csv of the same stem, as BIDS and FreeSurfer write it), or, of
    FreeSurfer's aparc+aseg and Wang's atlas, by what they are known to be; else by their numbers. Of two
    atlases that name a region alike, that of the second is `ATLAS.REGION`.

    Args:
        files: Name to the files of it: one, or one a hemisphere, the left first.
        space: The mask of the voxels; or the number of vertices of each hemisphere, or of both together.

    Returns:
        Mask [V] of each region by its name.

    Raises:
        BrainhiveError: if a file is damaged, lies on another grid, or has nothing where there are betas.
    """
    regions: dict[str, NDArray[np.bool_]] = {}
    width = space.width if isinstance(space, Mask) else sum(space)
    for atlas, paths in files.items():
        # labels and their names, of one file or of both hemispheres
        parts = [_read_labels(path, atlas, space) for path in paths]
        counts = [0 if isinstance(space, Mask) else len(labels) for labels, _ in parts]  # 0: of all voxels
        if not isinstance(space, Mask) and sum(counts) != width:
            several = " and ".join(path.name for path in paths)
            problem = f"{paths[0].parent}: {several} have {sum(counts)} vertices, the betas {width}"
            raise BrainhiveError(problem, "preparation.regions: {NAME: ?h.FILE}, for both hemispheres")

        # a mask [V] for each name, of both hemispheres together
        masks: dict[str, NDArray[np.bool_]] = {}
        for start, (labels, names) in zip(np.cumsum([0, *counts]), parts, strict=False):
            for label, name in names.items():
                region = re.sub(r"[\s&|()]+", "_", name.strip())
                if region.strip("-") and not UNNAMED.fullmatch(region):
                    mask = masks.setdefault(region, np.zeros(width, bool))
                    mask[start : start + len(labels)] |= labels == label
        if not any(mask.any() for mask in masks.values()):
            raise BrainhiveError(f"{paths[0]} has nothing in the {width} voxels of the betas", WAY_OUT)

        regions |= {name if name not in regions else f"{atlas}.{name}": mask for name, mask in masks.items()}
    return regions


def _read_labels(
    path: Path, atlas: str, space: Mask | Sequence[int]
) -> tuple[NDArray[Any], Mapping[int, str]]:
    """Read the label of each voxel or vertex, and the name of each label."""
    # labels of vertices, or of the voxels of the mask
    names: Mapping[int, str] = {}
    if not isinstance(space, Mask):
        labels, names = _read_surface(path, space)
    elif path.suffix in (".annot", ".label", ".gii"):
        raise BrainhiveError(f"{path} is of a surface, {space.path} of a volume", WAY_OUT)
    else:
        labels = replace(space, way_out=WAY_OUT).read(path)

    # names from a table next to the file: numbers of labels, and behind each its name
    present = np.unique(labels[labels > 0])
    stem, called = re.sub(r"\.(nii|mgz|mgh)(\.gz)?$", "", path.name), f"{atlas} {path.name}".lower()
    for table in filter(is_file, (path.with_name(stem + ending) for ending in (".tsv", ".txt", ".csv"))):
        text, table_names = read_regular(table).decode("utf-8-sig", "replace"), dict[int, str]()
        for line in text.splitlines():
            if match := re.match(r'\s*"?(\d+)"?(?:\s*[\t,;]\s*([^\t,;]+)|\s+(\S+))', line):
                table_names.setdefault(int(match[1]), (match[2] or match[3]).strip(' "'))
        names = {label: name for label, name in table_names.items() if label in present}

    # names of known atlases
    if not names and len(present) > 1:  # a mask may be called wang_V1
        if re.search(r"aparc\+?aseg", called):
            from mne import read_freesurfer_lut

            lut = read_freesurfer_lut()[0]  # cortex: 1000 + k on the left, 2000 + k on the right, k up to 35
            names = {k: name for name, k in lut.items() if k // 1000 in (1, 2) and k % 1000 <= 35}
        elif re.search("wang|kastner|maxprob_(vol|surf)", called):
            names = dict(enumerate(WANG, 1))

    # an atlas without names, or a mask
    if names:
        return labels, {label: HEMISPHERE.sub("", name) for label, name in names.items()}
    if len(present) > 1 and (present == present.astype(np.int64)).all():
        return labels, {int(label): f"{atlas}-{label:.0f}" for label in present}
    return labels > 0, {1: atlas}


def _read_surface(path: Path, vertices: Sequence[int]) -> tuple[NDArray[Any], Mapping[int, str]]:
    """Read an .annot of a hemisphere, a .label, which does not say how many vertices there are, or GIFTI."""
    from nibabel.freesurfer import read_annot, read_label

    with reading(path, WAY_OUT, raised=(Exception,)):
        if path.suffix == ".annot":
            labels, _, names = read_annot(path)
            return labels, {label: name.decode() for label, name in enumerate(names)}
        if path.suffix == ".label":
            if len(vertices) == 1:
                raise ValueError(
                    f"it does not say how many of {vertices[0]} vertices are left; take an .annot"
                )
            labels = np.zeros(vertices[bool(re.search(r"(^|[._])rh[._]|hemi-R", path.name))], np.int64)
            labels[read_label(path)] = 1
            return labels, {}
        if path.suffix == ".gii":
            image = open_image(path, WAY_OUT)
            return image.darrays[0].data.ravel(), image.labeltable.get_labels_as_dict()
        return read_volume(path, WAY_OUT).ravel(), {}
