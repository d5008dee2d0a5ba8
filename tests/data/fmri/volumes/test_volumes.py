"""Volumes that are read through a mask."""

import numpy as np
import pytest

pytest.importorskip("nibabel")

import nibabel

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.data.fmri.volumes import Mask, read_volume

SHAPE = (3, 4, 5)
VOLUMES = 6
WAY_OUT = "save it again"
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def save(path, values, affine=AFFINE, dtype=""):
    header = nibabel.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype or values.dtype)
    nibabel.save(nibabel.Nifti1Image(values, affine, header), path)
    return path


@pytest.fixture
def inside():
    inside = np.random.default_rng(0).random(SHAPE) < 0.5
    inside[0, 0, 0], inside[2, 3, 4] = False, True
    return inside


@pytest.fixture
def mask(tmp_path, inside):
    return Mask.open(save(tmp_path / "mask.nii.gz", inside.astype(np.uint8)), WAY_OUT)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("series.nii", ">f4"), ("series.nii.gz", "<i2"), ("other.nii.gz", ">i2")],
)
def test_a_series_is_read_in_c_order_for_any_byte_order(
    tmp_path, mask, inside, name, dtype
):
    values = np.random.default_rng(1).integers(0, 200, SHAPE + (VOLUMES,))
    values = values.astype(np.dtype(dtype).newbyteorder("="))
    path = save(tmp_path / name, values, dtype=dtype)
    series = mask.read_series(path)
    expected = values[inside].T  # [T, V]
    np.testing.assert_array_equal(series, expected)
    assert series.dtype.isnative
    np.testing.assert_array_equal(mask.read_series(path, [1, 4]), expected[[1, 4]])


def test_the_grid_of_a_mask_lists_the_voxels_inside(mask, inside):
    assert mask.width == inside.sum()
    np.testing.assert_array_equal(mask.grid.indices, np.argwhere(inside))
    np.testing.assert_array_equal(mask.grid.affine, AFFINE)


def test_scaled_values_of_a_file_equal_nibabel(tmp_path, mask, inside):
    values = np.random.default_rng(1).normal(100, 30, SHAPE + (VOLUMES,))
    path = save(tmp_path / "scaled.nii", values, dtype="<i2")
    expected = np.asarray(nibabel.load(path).dataobj)[inside].T
    assert nibabel.load(path).dataobj.slope != 1
    np.testing.assert_allclose(mask.read_series(path), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["series.nii", "series.nii.gz"])
def test_a_truncated_file_is_named(tmp_path, mask, name):
    values = np.random.default_rng(0).normal(size=SHAPE + (VOLUMES,))
    path = save(tmp_path / name, values.astype(np.float32))
    path.write_bytes(path.read_bytes()[:-99])
    with pytest.raises(MissingData, match=name):
        mask.read_series(path)


def test_complex_values_are_refused(tmp_path):
    path = save(tmp_path / "values.nii.gz", np.zeros(SHAPE, np.complex64))
    with pytest.raises(MissingData, match="complex64"):
        read_volume(path, WAY_OUT)


def test_images_of_another_shape_or_in_another_space_are_refused(tmp_path, mask):
    moved = AFFINE.copy()
    moved[0, 3] = 1.0
    other_grid = save(tmp_path / "moved.nii", np.zeros(SHAPE, np.float32), moved)
    with pytest.raises(BrainhiveError, match=r"moved\.nii.*mask\.nii\.gz"):
        mask.read_values(other_grid)
    small = save(tmp_path / "small.nii", np.zeros((3, 4, 6), np.float32))
    with pytest.raises(BrainhiveError, match=r"small\.nii.*\[3, 4, 6\].*\[3, 4, 5\]"):
        mask.read_values(small)
    rounded = save(tmp_path / "rounded.nii", np.ones(SHAPE, np.float32), AFFINE + 1e-5)
    assert mask.read_values(rounded).all()
