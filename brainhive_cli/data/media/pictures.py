"""Decoding of picture files into pixels."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from io import BytesIO

from PIL import Image, ImageOps, UnidentifiedImageError

from brainhive_cli.core.damage import DAMAGE_EXCEPTIONS, is_machine_error
from brainhive_cli.core.errors import (
    BrainhiveError,
    first_line,
)
from brainhive_cli.core.files import UnfitFile, open_regular

FORMATS = "AVIF BMP DIB GIF ICO JPEG JPEG2000 PNG PPM TIFF WEBP".split()
"""Formats that PIL may read, whatever a file's ending: for others it runs programs
(EPS: Ghostscript).
"""


class BadPicture(BrainhiveError):
    """A picture that cannot be decoded."""


def decode(source: str | BytesIO, name: object) -> Image.Image:
    """Decode a picture as RGB.

    Args:
        source: A file, or its bytes.
        name: Name of the picture, for the error.

    Raises:
        BadPicture: naming the picture.
    """
    with report_bad_picture(name):
        # regular files only: opening a pipe or device could wait for ever
        opened = (
            open_regular(source) if isinstance(source, str) else nullcontext(source)
        )
        with opened as content, Image.open(content, formats=FORMATS) as picture:
            # PIL verifies the checksums of a PNG only when told to
            if picture.format == "PNG":
                with Image.open(content, formats=("PNG",)) as twin:
                    twin.verify()

            # grey of 16 bits becomes 8 bits; PIL's own conversion would turn it white
            if picture.mode in ("I", "F"):
                raise ValueError("32 bits a pixel, of no known range")
            if picture.mode.startswith("I;16"):
                eight_bits = turn_upright(picture).point(
                    lambda level: level * (1 / 256)
                )
                return eight_bits.convert("L").convert("RGB")
            return turn_upright(picture).convert("RGB")


def turn_upright(picture: Image.Image) -> Image.Image:
    """Turn a picture, in place, as the EXIF orientation of its file says, as every
    viewer does.

    An EXIF block that is damaged says nothing, to viewers neither.
    """
    picture.load()
    with suppress(*DAMAGE_EXCEPTIONS):
        ImageOps.exif_transpose(picture, in_place=True)
    return picture


@contextmanager
def report_bad_picture(name: object) -> Iterator[None]:
    """Turn what decoding a picture raises, until the block ends, into BadPicture that
    names it.

    An error of the machine is raised as it is.
    """
    try:
        yield
    except (*DAMAGE_EXCEPTIONS, Image.DecompressionBombError) as error:
        if is_machine_error(error):
            raise  # a gap in a store would be for good
        if isinstance(error, UnfitFile):
            reason = str(error.strerror)
        elif isinstance(error, UnidentifiedImageError):
            # Pillow's message holds the number of the open file
            reason = "Pillow does not recognise its format"
        else:
            reason = first_line(error)
        raise BadPicture(
            f"{name} cannot be decoded: {reason}",
            "replace the file (embed accepts the gap with --skip-bad)",
        ) from error
