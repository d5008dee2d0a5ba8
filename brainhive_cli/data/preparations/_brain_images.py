"""Images of brains that nibabel reads, checked before it does: NIfTI, MGH, CIFTI and GIFTI."""

import gzip
import math
import struct
import zlib
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from xml.parsers.expat import ParserCreate

import numpy as np

from brainhive_cli.core.damage import reading, refuse_inflation
from brainhive_cli.core.files import open_regular

NIFTI = (".nii.gz", ".nii")
ENDINGS = (*NIFTI, ".mgz", ".mgh", ".gii")
CIFTI = (".dscalar.nii", ".dlabel.nii", ".dtseries.nii", ".pscalar.nii", ".ptseries.nii")
"""Endings of CIFTI, of grayordinates or parcels."""
CORTEX = {"left": "CIFTI_STRUCTURE_CORTEX_LEFT", "right": "CIFTI_STRUCTURE_CORTEX_RIGHT"}
"""Its names of the vertices of the hemispheres."""
NIFTI_HEADERS = {348: (108, "f"), 540: (168, "q")}
"""Bytes of a header of NIfTI-1 and -2 (its first number), and position and format of the values' offset."""
EXTENSION_BYTES = 16
"""Bytes of the smallest header extension; sizes of all extensions are multiples of it."""
CIFTI_CODE = 32
"""Code of the header extension that holds CIFTI's XML."""
GIFTI_ENCODINGS = ("ASCII", "Base64Binary", "GZipBase64Binary")
"""Encodings of the format but ExternalFileBinary."""
MIN_ARRAY_BYTES = 100
"""Fewer than the elements DataArray and Data of a GIFTI file take, without values."""
BLOCK_BYTES = 2**20


def open_image(path: Path, way_out: str) -> Any:
    """Open the header of a file that nibabel reads, and all of a GIFTI file.

    Args:
        path: The file; only the formats of `ENDINGS`, as others name further files.
        way_out: One line on how to get a sound one.

    Raises:
        MissingData: if the file is damaged, names other files, has values that are no real numbers, or claims
            more than its size allows.
    """
    import nibabel

    nibabel.imageglobals.logger.disabled = True  # it writes what it corrects in headers to the terminal
    with reading(path, way_out, raised=(Exception,)):
        # checks before nibabel trusts the file
        if not path.name.endswith(ENDINGS):
            raise ValueError(f"it is none of {', '.join(ENDINGS)}")
        if path.suffix == ".gii":
            _check_gifti(path)
        elif path.name.endswith(NIFTI):
            _check_extensions(path)

        # real values, of a size that the file may have
        image: Any = nibabel.load(path)
        if path.suffix != ".gii":
            dtype = image.get_data_dtype()
            if dtype.kind not in "iuf":
                raise ValueError(f"its values are {dtype}, not real numbers")
            refuse_inflation(math.prod(image.shape) * dtype.itemsize, path.stat().st_size, "its values")
        return image


@contextmanager
def open_volumes(path: Path, way_out: str) -> Iterator[Any]:
    """Open a NIfTI or MGH image, of which the block reads values; raises as `open_image`.

    A compressed file is unpacked once, from one end to the other, and its checksum compared where the block
    ends: nibabel stops before the checksum.
    """
    form = type(open_image(path, way_out))
    with reading(path, way_out), _open_unpacked(path) as file:
        yield form.from_stream(file)
        while file.read(BLOCK_BYTES):
            pass


def _check_extensions(path: Path) -> None:
    """Refuse an image whose header extensions reach beyond the header, or have XML that declares entities."""
    with _open_unpacked(path) as file:
        # the first number of a header is its size, which also tells the byte order
        number = file.read(4)
        order = "<" if int.from_bytes(number, "little") in NIFTI_HEADERS else ">"
        (size,) = struct.unpack(f"{order}i", number)
        if size not in NIFTI_HEADERS:
            return  # no NIfTI, as nibabel will say

        # extensions lie between the header and the values
        offset, form = NIFTI_HEADERS[size]
        header = number + file.read(size)  # with the four bytes that say whether there are extensions
        (end,) = struct.unpack_from(order + form, header, offset)
        if not header[size : size + 1].strip(b"\0"):
            return
        if not end >= file.tell():
            raise ValueError(f"its values begin at byte {end}, within the header")
        refuse_inflation(end, path.stat().st_size, "its header")

        # the size of each extension, and the XML of CIFTI's
        while file.tell() + EXTENSION_BYTES <= end:
            extension_size, code = struct.unpack(f"{order}2i", file.read(8))
            if extension_size < EXTENSION_BYTES or file.tell() - 8 + extension_size > end:
                raise ValueError(f"a header extension of {extension_size:,} bytes does not fit its header")
            content = file.read(extension_size - 8)
            if code == CIFTI_CODE:
                parser = ParserCreate()
                parser.EntityDeclHandler = _refuse_entity
                parser.Parse(content.rstrip(b"\0"), True)


def _open_unpacked(path: Path) -> Any:
    return (gzip.open if path.suffix in (".gz", ".mgz") else open)(path, "rb")


def _refuse_entity(name: str, *_: Any) -> None:
    raise ValueError(f"its XML declares an entity, {name!r}")


def _check_gifti(path: Path) -> None:
    """Refuse a GIFTI file that declares entities, names other files, or claims more values than it holds."""
    from nibabel.nifti1 import data_type_codes

    with open_regular(path) as file:
        parser = ParserCreate()
        arrays: list[tuple[int, str]] = []  # bytes in memory, and encoding
        text: list[str] = []

        def start(name: str, attributes: dict[str, str]) -> None:
            # refuse arrays whose claimed sizes add up to more than the file may hold
            text.clear()
            if name == "GIFTI":
                check_count(int(attributes.get("NumberOfDataArrays", 0)), path)
            elif name == "DataArray":
                encoding = attributes["Encoding"]
                if attributes.get("ExternalFileName") or encoding not in GIFTI_ENCODINGS:
                    raise ValueError(f"its values are in another file, or encoded as {encoding}")
                size = np.dtype(cast(Any, data_type_codes.dtype[attributes["DataType"]])).itemsize
                shape = [int(attributes[f"Dim{n}"]) for n in range(int(attributes["Dimensionality"]))]
                arrays.append((math.prod(shape) * size, encoding))
                refuse_inflation(sum(size for size, _ in arrays), path.stat().st_size, "its values")

        def end(name: str) -> None:
            # unpack no more than one byte beyond the claimed size
            size, encoding = arrays[-1] if arrays else (0, "")
            if name == "Data" and encoding != "ASCII":
                content = b64decode("".join(text))
                if encoding.startswith("GZip"):
                    stream = zlib.decompressobj()
                    content = stream.decompress(content, size + 1)
                if len(content) != size:
                    raise ValueError(f"array {len(arrays)} has not the {size:,} bytes that its Dim says")
            text.clear()

        parser.StartElementHandler, parser.EndElementHandler = start, end
        parser.CharacterDataHandler, parser.EntityDeclHandler = text.append, _refuse_entity
        parser.ParseFile(file)


def check_count(count: int, path: Path) -> int:
    """Return the number of arrays that a GIFTI file says it has, if its size allows as many."""
    if count * MIN_ARRAY_BYTES > path.stat().st_size:
        raise ValueError(f"{count:,} arrays in {path.stat().st_size:,} bytes")
    return count
