"""Decoding of picture files into pixels."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from io import BytesIO

from PIL import Image, ImageOps, UnidentifiedImageError

from brainhive_cli.core.base import BrainhiveError, first_line
from brainhive_cli.core.files import (
    DAMAGE_EXCEPTIONS,
    UnfitFile,
    is_machine_error,
    open_regular,
)


class BadPicture(BrainhiveError):
    """A picture that cannot be decoded."""


def decode(source: str | BytesIO, name: object) -> Image.Image:
    """Decode a picture as RGB, upright.

    Args:
        source: Path of the file, or its content.
        name: Name of the picture in the error message.

    Raises:
        BadPicture: if it cannot be decoded, or has 32 bits per grey value.
    """
    with report_bad_picture(name):
        # opening a pipe or device could wait forever
        file = open_regular(source) if isinstance(source, str) else nullcontext(source)
        # Formats that PIL may decode, whatever the file's ending. PIL would run
        # programs for others, such as Ghostscript for EPS.
        formats = "AVIF BMP DIB GIF ICO JPEG JPEG2000 PNG PPM TIFF WEBP".split()
        with file as content, Image.open(content, formats=formats) as picture:
            # only `verify` checks a PNG's checksums, and it ends the use of a picture
            if picture.format == "PNG":
                with Image.open(content, formats=("PNG",)) as duplicate:
                    duplicate.verify()

            if picture.mode in ("I", "F"):
                raise ValueError("32 bits per pixel, with an unknown range of values")
            # PIL would clip 16-bit grey levels to 255
            if picture.mode.startswith("I;16"):
                upright = turn_upright(picture)
                scaled = upright.point(lambda level: level * (1 / 256))
                return scaled.convert("L").convert("RGB")
            return turn_upright(picture).convert("RGB")


def turn_upright(picture: Image.Image) -> Image.Image:
    """Rotate a picture in place by its EXIF orientation. Damaged EXIF is ignored."""
    picture.load()
    with suppress(*DAMAGE_EXCEPTIONS):
        ImageOps.exif_transpose(picture, in_place=True)
    return picture


@contextmanager
def report_bad_picture(name: object) -> Iterator[None]:
    """Context manager that reports a picture that cannot be decoded.

    Errors of the machine, such as a lack of memory, pass through unchanged.

    Args:
        name: Name of the picture in the message.

    Raises:
        BadPicture: if the block raises another error.
    """
    try:
        yield
    except (*DAMAGE_EXCEPTIONS, Image.DecompressionBombError) as error:
        # the picture itself may be sound, so it must not count as bad
        if is_machine_error(error):
            raise
        if isinstance(error, UnfitFile):
            reason = str(error.strerror)
        elif isinstance(error, UnidentifiedImageError):
            # Pillow's message has the number of the open file
            reason = "Pillow does not recognise its format"
        else:
            reason = first_line(error)
        raise BadPicture(
            f"{name} cannot be decoded: {reason}",
            "replace the file (embed leaves out such pictures with --skip-bad)",
        ) from error
