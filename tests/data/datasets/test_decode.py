"""Decoding: pictures of every depth become RGB of 8 bits, or are refused."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.data.datasets import BadPicture, decode

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_grey_of_16_bits_is_as_bright_as_grey_of_8(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"grey.{ending}"
    Image.fromarray(LEVELS.astype(np.uint16) * 257).save(path)

    assert np.array_equal(np.asarray(decode(str(path), path)), np.stack([LEVELS] * 3, axis=2))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_numbers_of_no_known_range_are_refused(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "numbers.tif"
    Image.fromarray(LEVELS.astype(dtype)).save(path)

    with pytest.raises(BadPicture, match=r"numbers\.tif cannot be decoded: 32 bits a pixel"):
        decode(str(path), path)


def test_what_is_transparent_keeps_its_colour(tmp_path: Path) -> None:
    path = tmp_path / "clear.png"
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(path)

    assert decode(str(path), path).getpixel((0, 0)) == (10, 20, 30)


def test_an_error_of_the_machine_is_no_bad_picture(monkeypatch):
    def refuse(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        decode(BytesIO(), "a")
