"""Decoding: pictures of every depth become RGB of 8 bits, or are refused."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from brainhive_cli.data.datasets import FORMATS, BadPicture, decode
from brainhive_cli.data.media.decoding import digest_pixels
from brainhive_cli.data.stores.ids import PICTURES

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


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_decoded_as_it_is_seen(tmp_path: Path, ending: str, orientation: int) -> None:
    path, exif = tmp_path / f"photo.{ending}", Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 32, 3), np.uint8))
    stored.save(path, exif=exif, **({"lossless": True} if ending == "webp" else {}))
    with Image.open(path) as opened:
        seen = ImageOps.exif_transpose(opened).convert("RGB")

    decoded = decode(str(path), path)
    assert decoded.size == seen.size == ((32, 16) if orientation < 5 else (16, 32))
    assert np.array_equal(np.asarray(decoded), np.asarray(seen))
    assert (digest_pixels(decoded) == digest_pixels(stored)) == (orientation == 1 and ending != "jpg")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_turns_nothing(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (4, 2), "red").save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")

    assert decode(str(path), path).size == (4, 2)


def test_pictures_are_read_by_every_ending_that_pillow_registers() -> None:
    registered = Image.registered_extensions().items()
    assert {ending for ending, kind in registered if kind in FORMATS} == PICTURES
