"""Anatomy and mean BOLD below maps of voxels."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from brainhive_cli.data.fmri.underlays import (
    average_bold,
    find_anatomy,
    read_anatomy,
)

AFFINE = np.array([[-0.8, 0, 0, 12], [0, 0.8, 0, -9], [0, 0, 3, 5], [0, 0, 0, 1.0]])


def write_volume(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), AFFINE), path)
    return path


def find_centre_mm(values, affine):
    """Return the centre of mass of a volume in mm."""
    indices = np.argwhere(values > 0)
    weights = values[tuple(indices.T)].astype(float)
    centre = np.average(indices, 0, weights)
    return affine[:3, :3] @ centre + affine[:3, 3]


def test_small_voxels_are_averaged_and_stay_in_their_place(tmp_path):
    values = np.zeros((8, 10, 4))
    values[2:6, 4:8, 1:3] = np.random.default_rng(0).uniform(50, 100, (4, 4, 2))
    mask = write_volume(tmp_path / "mask.nii.gz", values > 0)
    # the brightest voxels are the skull
    image = write_volume(tmp_path / "T1w.nii.gz", np.where(values > 0, values, 1e4))
    underlay = read_anatomy(image, mask)

    assert underlay.source == "T1w"
    assert underlay.values.dtype == np.uint8
    assert underlay.values.shape == (4, 5, 4)
    assert underlay.values.max() > 250
    np.testing.assert_allclose(
        find_centre_mm(underlay.values, underlay.affine),
        find_centre_mm(values, AFFINE),
        atol=0.02,
    )


def test_the_mean_bold_is_the_mean_of_the_first_volumes(tmp_path):
    series = np.random.default_rng(0).uniform(0, 900, (5, 4, 3, 20))
    series[..., 10:] = 1e6
    series[0] = np.nan
    path = write_volume(tmp_path / "bold.nii.gz", series)
    underlay = average_bold(path)

    mean = np.nan_to_num(series[..., :10].mean(3))
    assert underlay.source == "mean BOLD"
    assert not underlay.values[0].any()
    assert np.corrcoef(underlay.values.ravel(), mean.ravel())[0, 1] > 0.9999
    np.testing.assert_allclose(underlay.affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize(
    ("space", "name"),
    (
        ("T1w", "sub-01/ses-2/anat/sub-01_ses-2_desc-preproc_T1w.nii.gz"),
        ("MNI:res-2", "sub-01/anat/sub-01_space-MNI_desc-preproc_T1w.nii.gz"),
        ("other", None),
    ),
)
def test_the_anatomy_lies_in_the_space_of_the_bold(tmp_path, space, name):
    for file in (
        "sub-01/anat/sub-01_space-MNI_desc-preproc_T1w.nii.gz",
        "sub-01/anat/sub-01_space-MNI_desc-brain_mask.nii.gz",
        "sub-01/anat/sub-01_space-other_desc-preproc_T1w.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_desc-preproc_T1w.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_desc-brain_mask.nii.gz",
        "sub-02/anat/sub-02_desc-preproc_T1w.nii.gz",
    ):
        write_volume(tmp_path / file, np.ones((2, 2, 2)))
    anatomy = find_anatomy(tmp_path, Path("sub-01"), space)
    if name is None:
        assert anatomy is None  # it has no mask
    else:
        mask = name.replace("desc-preproc_T1w", "desc-brain_mask")
        assert anatomy == (tmp_path / name, tmp_path / mask)
