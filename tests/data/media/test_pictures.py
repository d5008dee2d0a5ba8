"""Decoding of pictures of every depth into RGB of 8 bits."""

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from brainhive_cli.data.media.picture_digests import digest_pixels
from brainhive_cli.data.media.pictures import BadPicture, decode

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_grey_of_16_bits_becomes_8_and_32_bits_are_refused(
    tmp_path,
):
    Image.fromarray(LEVELS.astype(np.uint16) * 257).save(path := tmp_path / "grey.png")
    assert np.array_equal(
        np.asarray(decode(str(path), path)), np.stack([LEVELS] * 3, axis=2)
    )

    Image.fromarray(LEVELS.astype(np.float32)).save(path := tmp_path / "numbers.tif")
    with pytest.raises(BadPicture, match=r"numbers\.tif.* 32 bits"):
        decode(str(path), path)


def test_a_picture_is_decoded_as_it_is_seen(tmp_path):
    path, exif = tmp_path / "photo.png", Image.Exif()
    stored = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (16, 32, 3), np.uint8)
    )
    for orientation in range(1, 9):
        exif[ExifTags.Base.Orientation] = orientation
        stored.save(path, exif=exif)
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")

        decoded = decode(str(path), path)
        assert (
            decoded.size == upright.size == ((32, 16) if orientation < 5 else (16, 32))
        )
        assert np.array_equal(np.asarray(decoded), np.asarray(upright))
        assert (digest_pixels(decoded) == digest_pixels(stored)) == (orientation == 1)
