"""Handwritten sixes and nines with fMRI, converted to folders that commands read.

Source: van Gerven et al. 2010.
"""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from brainhive_cli.core.base import Array, Line, UInt8
from brainhive_cli.core.files import atomic_write, report_damage

FILE = "69dataset2.mat"
"""Array of the file, by MATLAB variable: `X` pictures that were shown [N, pixels],
`X_prior` further digits, `Y` betas [N, V], `stimulus_label` labels, and
`region_of_interest_label` and `region_of_interest_mask` names and masks of regions.
"""


def write_folders(root: Path) -> str:
    """Convert the MATLAB file of a folder, unless the converted files exist.

    Writes the shown pictures to `images/train/{six,nine}`, betas, masks of areas and a
    table of trials to `betas`, and further digits to `further/train/digit`.

    Returns:
        Summary of the files for the user.

    Raises:
        MissingData: if the file is damaged.
    """
    import nibabel
    from scipy.io import loadmat

    # the table is written last, so the other files exist if it exists
    table_path = root / "betas/sub-01_ses-01_trials.csv"
    if table_path.is_file():
        return "there already"

    with report_damage(root / FILE, f"delete it, then: {Line('fetch', 'digits69')}"):
        content = loadmat(root / FILE)
        pictures = _unfold_pictures(content["X"])  # [N, H, W]
        further_pictures = _unfold_pictures(content["X_prior"])
        betas = np.asarray(content["Y"], np.float32)  # [N, V]
        regions = {}
        for name, mask in zip(
            content["region_of_interest_label"].ravel(),
            content["region_of_interest_mask"].ravel(),
            strict=True,
        ):
            regions[str(name[0]).removesuffix(".nii")] = np.asarray(mask) > 0
        # Region whose voxels, in MATLAB's order, are the columns of the betas.
        brain = regions["primary"]  # [X, Y, Z]
        images: dict[str, Array] = {"sub-01_mask": brain.astype(np.uint8)}
        for area in ("V1", "V2", "V3"):
            # Regions of an area: dorsal and ventral, in both hemispheres.
            masks = [
                regions[region.format(area)]
                for region in ("lh.{}d", "lh.{}v", "rh.{}d", "rh.{}v")
            ]
            area_mask = brain & np.any(masks, 0)
            images[f"sub-01_{area}"] = area_mask.astype(np.uint8)
        volumes = np.zeros((brain.size, len(betas)), np.float32)
        volumes[brain.ravel(order="F")] = betas.T
        paths = []
        # Name by label. It also names the folder of the pictures.
        digits = {1: "six", 2: "nine"}
        for number, label in enumerate(content["stimulus_label"].ravel().tolist()):
            digit = digits[label]
            paths.append(f"train/{digit}/{digit}_{number:03d}.png")
    shape = brain.shape + (len(betas),)
    images["sub-01_ses-01_betas"] = volumes.reshape(shape, order="F")

    _write_pictures(root / "images", paths, pictures)
    further_paths = [
        f"train/digit/{number:04d}.png" for number in range(len(further_pictures))
    ]
    _write_pictures(root / "further", further_paths, further_pictures)
    # Voxel size in the NIfTI files. The MATLAB file has no voxel size and no affine,
    # and nothing is computed from this size.
    voxel_mm = 2.0
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    for name, values in images.items():
        img = nibabel.Nifti1Image(values, affine)
        # equal content gives equal bytes without a time stamp
        with atomic_write(root / f"betas/{name}.nii.gz") as path:
            path.write_bytes(gzip.compress(img.to_bytes(), mtime=0))
    with atomic_write(table_path) as path:
        path.write_text("\n".join(["picture"] + paths) + "\n", encoding="utf-8")
    return (
        f"{len(pictures)} pictures, {betas.shape[1]} voxels, "
        f"{len(further_pictures)} further digits"
    )


def _unfold_pictures(rows: UInt8) -> UInt8:
    """Reshape square pictures [N, pixels] in MATLAB's order to [N, H, W]."""
    side = round(rows.shape[1] ** 0.5)
    return rows.reshape(len(rows), side, side).transpose(0, 2, 1)


def _write_pictures(folder: Path, paths: Sequence[str], pictures: UInt8) -> None:
    """Write pictures [N, H, W] as PNG files."""
    for relative_path, pixels in zip(paths, pictures, strict=True):
        with atomic_write(folder / relative_path, is_lasting=False) as path:
            Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB").save(path)
