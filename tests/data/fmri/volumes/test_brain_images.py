"""Brain images that refer to other files, and the kinds of their values."""

import os

import numpy as np
import pytest

pytest.importorskip("nibabel")

import nibabel

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.data.fmri.volumes import find_inside, find_threshold, open_image


@pytest.fixture
def surface(tmp_path):
    values = np.arange(12, dtype=np.float32)
    arrays = [
        nibabel.gifti.GiftiDataArray(values + n, "NIFTI_INTENT_TIME_SERIES")
        for n in range(3)
    ]
    path = tmp_path / "hemi-L_bold.func.gii"
    nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), path)
    return path


def refuse(path, old_bytes, new_bytes, reason):
    content = path.read_bytes()
    assert old_bytes in content
    path.write_bytes(content.replace(old_bytes, new_bytes, 1))
    with pytest.raises(MissingData, match=reason):
        open_image(path, "copy it again")


def test_values_in_another_file_are_refused_before_it_is_opened(surface, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    surface.write_bytes(
        surface.read_bytes().replace(
            b'ExternalFileName=""', b'ExternalFileName="pipe"', 1
        )
    )
    refuse(surface, b'"GZipBase64Binary"', b'"ExternalFileBinary"', "in another file")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 1], (0, "mask")),
        ([-1, 0, 1, np.nan], (0, "mask")),
        ([0, 0.2, 1], (0.5, "probabilities")),
        # whole numbers above 100, or below 50, are labels
        ([0, 1, 101], (0, "labels")),
        ([1, 2, 49], (0, "labels")),
        ([1, 2, 50, 100], (50, "percent")),
        ([9, 9, 50, 50, 50, 50, 100, 100], (0, "labels")),
        ([10, 10, 50, 50, 50, 50, 100, 100], None),
        ([1, 1, 50, 60, 100, 100], None),
        ([-1, 0.5], None),
        ([-2, 1, 3], None),
        ([0.5, 1.5], None),
    ],
)
def test_values_say_from_which_on_a_voxel_is_inside(tmp_path, values, expected):
    array, path = np.array(values, np.float64), tmp_path / "V1.nii"
    if expected is None:
        with pytest.raises(BrainhiveError):
            find_threshold(array, path, "V1")
    else:
        threshold, kind = find_threshold(array, path, "V1")
        assert threshold == expected[0]
        assert kind.startswith(expected[1])
    assert find_threshold(array, path, "V1", 3.5)[0] == 3.5


def test_voxels_are_inside_from_the_threshold_on():
    values = np.array([np.nan, -1, 0, 0.5, 1, np.inf])
    assert find_inside(values, 0.5).tolist() == [0, 0, 0, 1, 1, 0]
    assert find_inside(values, -1).tolist() == [0, 1, 0, 1, 1, 0]
