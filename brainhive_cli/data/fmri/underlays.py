"""Anatomy or mean BOLD of a subject, on which maps of voxels are drawn."""

from pathlib import Path

import numpy as np

from brainhive_cli.core.base import Array, Float64
from brainhive_cli.data.files import BidsIndex, read_entities
from brainhive_cli.data.fmri.bids_bold import COPY_HINT
from brainhive_cli.data.fmri.volumes import (
    NIFTI_ENDINGS,
    Mask,
    open_volumes,
    read_volume,
)
from brainhive_cli.data.signals import Underlay


def find_anatomy(
    derivatives: Path, subject_folder: Path, space: str
) -> tuple[Path, Path] | None:
    """Find fMRIPrep's T1-weighted image of a subject in the space of the BOLD.

    Args:
        derivatives: Folder of fMRIPrep's derivatives.
        subject_folder: Folder of the subject below it, such as `sub-01`.
        space: Space of the BOLD, such as `T1w` or `MNI152NLin2009cAsym:res-2`.

    Returns:
        The `desc-preproc_T1w` and its `desc-brain_mask`, or None without both.
    """
    # resolutions of a space share its coordinates
    name = space.partition(":")[0]
    # fMRIPrep leaves the space of a subject's own anatomy out of anatomical names.
    anatomy_space = "" if name == "T1w" else name
    folder = derivatives / subject_folder
    for anatomy_folder in [folder / "anat", *sorted(folder.glob("ses-*/anat"))]:
        paths = BidsIndex(derivatives).list_files(anatomy_folder)
        for path in paths:
            mask_name = path.name.replace("_desc-preproc_T1w.", "_desc-brain_mask.")
            mask_path = path.with_name(mask_name)
            if (
                mask_path != path
                and mask_path in paths
                and path.name.endswith(NIFTI_ENDINGS)
                and read_entities(path).get("space", "") == anatomy_space
            ):
                return path, mask_path
    return None


def read_anatomy(path: Path, mask_path: Path) -> Underlay:
    """Read the brain of a T1-weighted image, with voxels of at most 2 mm.

    The face is left out, because pages and runs are shared.
    """
    mask = Mask.open(mask_path, COPY_HINT)
    img = mask.require_same_grid(path)
    values = np.where(mask.inside, read_volume(path, COPY_HINT), 0)
    affine = np.asarray(img.affine, np.float64)

    # average blocks of voxels, whose centre lies between their centres
    voxel_mm = np.linalg.norm(affine[:3, :3], axis=0)
    # Largest voxel to which an anatomy is reduced. A figure shows about 1.5 mm a pixel.
    max_voxel_mm = 2.0
    factors = np.maximum(1, (max_voxel_mm / voxel_mm + 1e-6).astype(int))
    sizes = values.shape[:3] // factors
    cropped = values[tuple(map(slice, sizes * factors))]
    blocks = cropped.reshape(np.stack([sizes, factors], 1).ravel())
    reduced = blocks.mean((1, 3, 5))
    scaling = np.diag([*factors, 1.0])
    scaling[:3, 3] = (factors - 1) / 2
    return Underlay(scale_brightness(reduced), affine @ scaling, "T1w")


def average_bold(path: Path) -> Underlay:
    """Average up to 10 volumes at the beginning of a run."""
    with open_volumes(path, COPY_HINT) as img:
        # Largest number of volumes in the mean BOLD, which is only drawn.
        n_volumes = min(10, img.shape[3])
        total: Float64 = np.zeros(img.shape[:3])
        for volume in range(n_volumes):
            total += img.dataobj[..., volume]
        affine = np.asarray(img.affine, np.float64)
    return Underlay(scale_brightness(total / n_volumes), affine, "mean BOLD")


def scale_brightness(values: Array) -> Array:
    """Scale values to whole numbers from 0 (0 and below) to 255."""
    finite_values = np.nan_to_num(values, posinf=0, neginf=0)
    positive_values = finite_values[finite_values > 0]
    brightest = 1.0
    if positive_values.size:
        # Percentile of the positive values that is white. Fat and vessels
        # may be brighter.
        brightest = float(np.percentile(positive_values, 99.8))
    brightness = np.clip(finite_values / brightest, 0, 1)
    return np.rint(255 * brightness).astype(np.uint8)
