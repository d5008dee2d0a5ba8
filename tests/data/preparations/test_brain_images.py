"""GIFTI and CIFTI files that name other files or claim what they do not hold."""

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nibabel")

import nibabel

from brainhive_cli.core.errors import MissingData
from brainhive_cli.data.brain_images import open_image


@pytest.fixture
def surface(tmp_path: Path) -> Path:
    values = np.arange(12, dtype=np.float32)
    arrays = [
        nibabel.gifti.GiftiDataArray(values + n, "NIFTI_INTENT_TIME_SERIES")
        for n in range(3)
    ]
    path = tmp_path / "hemi-L_bold.func.gii"
    nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), path)
    return path


def refuse(path: Path, old: bytes, new: bytes, reason: str) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    with pytest.raises(MissingData, match=reason):
        open_image(path, "copy it again")


def test_values_in_another_file_are_refused_before_it_is_opened(
    surface: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    surface.write_bytes(
        surface.read_bytes().replace(
            b'ExternalFileName=""', b'ExternalFileName="pipe"', 1
        )
    )
    refuse(surface, b'"GZipBase64Binary"', b'"ExternalFileBinary"', "in another file")
