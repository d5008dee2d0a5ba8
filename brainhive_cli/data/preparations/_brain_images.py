"""Images of brains that nibabel reads, checked before it does: NIfTI, MGH, CIFTI and GIFTI."""

import gzip
import math
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
NIFTI2 = (540, int.from_bytes((540).to_bytes(4, "big"), "little"))
"""Size of the header of NIfTI-2, its first number, in both orders of bytes."""
CIFTI_CODE = 32
"""Of the header extension that holds CIFTI's XML."""
GIFTI_ENCODINGS = ("ASCII", "Base64Binary", "GZipBase64Binary")
"""Those of the format but ExternalFileBinary."""
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
        if not path.name.endswith(ENDINGS):
            raise ValueError(f"it is none of {', '.join(ENDINGS)}")
        if path.suffix == ".gii":
            _check_gifti(path)
        elif path.name.endswith(NIFTI):
            _check_extensions(path)
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
    """Refuse a NIfTI-2 image, as CIFTI is, whose XML declares entities."""
    import nibabel

    with _open_unpacked(path) as file:
        is_nifti2 = int.from_bytes(file.read(4), "little") in NIFTI2
        file.seek(0)
        extensions = nibabel.Nifti2Image.from_stream(file).header.extensions if is_nifti2 else ()
    for extension in extensions:
        if extension.get_code() == CIFTI_CODE:
            parser = ParserCreate()
            parser.EntityDeclHandler = _refuse_entity
            parser.Parse(extension.content, True)


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
