"""GIFTI and CIFTI files that name other files or claim what they do not hold."""

import gzip
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
    arrays = [nibabel.gifti.GiftiDataArray(values + n, "NIFTI_INTENT_TIME_SERIES") for n in range(3)]
    path = tmp_path / "hemi-L_bold.func.gii"
    nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), path)
    return path


def refuse(path: Path, old: bytes, new: bytes, reason: str) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    with pytest.raises(MissingData, match=reason):
        open_image(path, "copy it again")


def test_a_sound_surface_is_read(surface: Path) -> None:
    np.testing.assert_array_equal(open_image(surface, "").darrays[2].data, np.arange(12) + 2)


def test_values_in_another_file_are_refused_before_it_is_opened(surface: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    surface.write_bytes(surface.read_bytes().replace(b'ExternalFileName=""', b'ExternalFileName="pipe"', 1))
    refuse(surface, b'"GZipBase64Binary"', b'"ExternalFileBinary"', "in another file")


def test_more_values_than_the_file_can_hold_are_refused(surface: Path) -> None:
    refuse(surface, b'Dim0="12"', b'Dim0="999999999999"', "damaged or cut short")


def test_xml_that_is_cut_short_is_refused(surface: Path) -> None:
    surface.write_bytes(surface.read_bytes()[:-30])
    with pytest.raises(MissingData, match="damaged or cut short"):
        open_image(surface, "copy it again")


@pytest.mark.parametrize("form", (nibabel.Nifti1Image, nibabel.Nifti2Image))
@pytest.mark.parametrize(
    ("extension", "offset"), ((2**30, None), (2**30, 0), (16, 2**60), (-8, None), (32, None)), ids=str
)
def test_header_extensions_beyond_the_file_are_refused(tmp_path: Path, form, extension, offset) -> None:
    image = form(np.zeros((2, 2, 2), np.int16), np.eye(4))
    start = len(image.header.binaryblock) + 4
    fits = extension == 32
    image.header["vox_offset"] = (start + (32 if fits else 16)) if offset is None else offset
    content = np.array([extension, 6], "<i4").tobytes() + bytes(8 if not fits else 24)
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(image.header.binaryblock + b"\1\0\0\0" + content + bytes(16)))
    if fits:
        assert open_image(path, "").shape == (2, 2, 2)
        return
    with pytest.raises(MissingData, match="damaged or cut short"):
        open_image(path, "copy it again")
