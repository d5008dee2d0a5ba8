"""Handwritten sixes and nines with fMRI (van Gerven et al. 2010), as folders that
commands read.
"""

import gzip
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from brainhive_cli.core.arrays import UInt8
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import Line
from brainhive_cli.core.files import atomic_write

FILE = "69dataset2.mat"
DIGITS = {1: "six", 2: "nine"}
"""Name of each label of the file; also the folder of its pictures."""
AREAS = ("V1", "V2", "V3")
VOXEL_MM = 2.0
"""The file states no voxel size and no affine; nothing is computed from this one."""


def write_folders(root: Path) -> str:
    """Convert the file of a folder into pictures, betas, masks of areas and further
    digits below it.

    `images/train/{six,nine}` are the pictures that were shown, `betas` the response
    amplitudes as NIfTI with masks and a table of trials, `further/train/digit` digits
    that were not shown.

    Args:
        root: The folder that holds the file.

    Returns:
        What was written, for people.

    Raises:
        MissingData: if the file is damaged.
    """
    import nibabel
    from scipy.io import loadmat

    done = root / "betas/sub-01_ses-01_trials.csv"
    if done.is_file():
        return "there already"

    # arrays of the MATLAB file; a damaged one ends in the way out of `reading`
    with report_damage(root / FILE, f"delete it, then: {Line('fetch', 'digits69')}"):
        content = loadmat(root / FILE)
        labels = content["stimulus_label"].ravel().tolist()
        # [N, H, W]
        shown = _unfold_pictures(content["X"])
        further = _unfold_pictures(content["X_prior"])
        betas = np.asarray(content["Y"], np.float32)  # [N, V]
        names = [
            str(name[0]).removesuffix(".nii")
            for name in content["region_of_interest_label"].ravel()
        ]
        masks = [
            np.asarray(mask) > 0 for mask in content["region_of_interest_mask"].ravel()
        ]
        regions = dict(zip(names, masks, strict=True))
        # [X, Y, Z], its voxels are those of the betas in MATLAB's order
        brain = regions["primary"]
        # each area is the union of both hemispheres, dorsal and ventral
        areas = {
            area: brain
            & np.any(
                [
                    regions[f"{side}.{area}{half}"]
                    for side in ("lh", "rh")
                    for half in "dv"
                ],
                0,
            )
            for area in AREAS
        }
        digits = [DIGITS[label] for label in labels]
        # volumes in MATLAB's order, in which the columns of the betas count voxels
        volumes = np.zeros((brain.size, len(betas)), np.float32)
        volumes[brain.ravel(order="F")] = betas.T

    # one folder a digit, named by it
    paths = [
        f"train/{digit}/{digit}_{number:03d}.png" for number, digit in enumerate(digits)
    ]
    _save_pictures(root / "images", paths, shown)
    _save_pictures(
        root / "further",
        (f"train/digit/{n:04d}.png" for n in range(len(further))),
        further,
    )

    # NIfTI files of the masks and the betas; without a time stamp, so that bytes repeat
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    images = {
        f"sub-01_{area}": mask.astype(np.uint8)
        for area, mask in {"mask": brain, **areas}.items()
    }
    images["sub-01_ses-01_betas"] = volumes.reshape(
        (*brain.shape, len(betas)), order="F"
    )
    for name, values in images.items():
        with atomic_write(root / f"betas/{name}.nii.gz") as path:
            path.write_bytes(
                gzip.compress(nibabel.Nifti1Image(values, affine).to_bytes(), mtime=0)
            )
    with atomic_write(done) as path:  # the last, so that it says that all is there
        path.write_text("\n".join(["picture", *paths]) + "\n", encoding="utf-8")
    return (
        f"{len(shown)} pictures, {betas.shape[1]} voxels, {len(further)} further digits"
    )


def _unfold_pictures(rows: UInt8) -> UInt8:
    """Bring pictures [N, pixels], column by column as MATLAB keeps them, to [N, H,
    W].
    """
    side = round(rows.shape[1] ** 0.5)
    return rows.reshape(len(rows), side, side).transpose(0, 2, 1)


def _save_pictures(root: Path, names: Iterable[str], pictures: UInt8) -> None:
    for name, pixels in zip(names, pictures, strict=True):
        with atomic_write(root / name, is_lasting=False) as path:
            Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB").save(path)
