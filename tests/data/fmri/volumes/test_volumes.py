"""Volumes that are read through a mask."""

import numpy as np
import pytest

pytest.importorskip("nibabel")

import nibabel

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.data.fmri.volumes import Mask, read_volume

SHAPE, VOLUMES, WAY = (3, 4, 5), 6, "save it again"
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
    return Mask.open(save(tmp_path / "mask.nii.gz", inside.astype(np.uint8)), WAY)


def test_a_series_is_read_in_c_order_for_any_byte_order(tmp_path, mask, inside):
    for name, dtype in (
        ("series.nii", ">f4"),
        ("series.nii.gz", "<i2"),
        ("other.nii.gz", ">i2"),
    ):
        values = np.random.default_rng(1).integers(0, 200, tuple(SHAPE) + (VOLUMES,))
        values = values.astype(np.dtype(dtype).newbyteorder("="))
        path = save(tmp_path / name, values, dtype=dtype)
        expected = np.stack([values[..., volume][inside] for volume in range(VOLUMES)])
        series = mask.read_series(path)
        np.testing.assert_array_equal(series, expected)
        assert series.dtype.isnative
        np.testing.assert_array_equal(mask.read_series(path, [1, 4]), expected[[1, 4]])
    assert (
        inside[tuple(mask.grid.indices.T)].all()
        and mask.width == len(mask.grid.indices) == inside.sum()
    )
    np.testing.assert_array_equal(mask.grid.affine, AFFINE)


def test_scaled_values_of_a_file_equal_nibabel(tmp_path, mask, inside):
    values = np.random.default_rng(1).normal(100, 30, tuple(SHAPE) + (VOLUMES,))
    path = save(tmp_path / "scaled.nii", values, dtype="<i2")
    expected = np.asarray(nibabel.load(path).dataobj)[inside].T
    assert nibabel.load(path).dataobj.slope != 1
    np.testing.assert_allclose(mask.read_series(path), expected, rtol=1e-6)


def test_a_truncated_or_complex_file_is_named(tmp_path, mask):
    for name in ("series.nii", "series.nii.gz"):
        values = (
            np.random.default_rng(0)
            .normal(size=tuple(SHAPE) + (VOLUMES,))
            .astype(np.float32)
        )
        path = save(tmp_path / name, values)
        path.write_bytes(path.read_bytes()[:-99])
        with pytest.raises(MissingData, match=name):
            mask.read_series(path)
    with pytest.raises(MissingData, match="complex64"):
        read_volume(
            save(tmp_path / "values.nii.gz", np.zeros(SHAPE, np.complex64)), WAY
        )


def test_images_of_another_shape_or_in_another_space_are_refused(tmp_path, mask):
    moved = AFFINE.copy()
    moved[0, 3] = 1.0
    other_save = save(tmp_path / "moved.nii", np.zeros(SHAPE, np.float32), moved)
    with pytest.raises(BrainhiveError, match=r"moved\.nii.*mask\.nii\.gz"):
        mask.read_values(other_save)
    small = save(tmp_path / "small.nii", np.zeros((3, 4, 6), np.float32))
    with pytest.raises(BrainhiveError, match=r"small\.nii.*\[3, 4, 6\].*\[3, 4, 5\]"):
        mask.read_values(small)
    rounded = save(tmp_path / "rounded.nii", np.ones(SHAPE, np.float32), AFFINE + 1e-5)
    assert mask.read_values(rounded).all()
