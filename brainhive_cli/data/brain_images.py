"""Images of brains that nibabel reads, checked before it does, and volumes that are read through a mask."""

import gzip
import math
import struct
import zlib
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from xml.parsers.expat import ParserCreate

import numpy as np

from brainhive_cli.core.arrays import Array, Bool, Float64
from brainhive_cli.core.damage import reading, refuse_inflation
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.files import open_regular
from brainhive_cli.data.spaces import Grid

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
AFFINE_MM = 1e-3
"""Largest difference between affines of one space: they are written as float32."""
PROBABLE, PERCENT = 0.5, 50
"""Least probability at which a voxel is inside, as a share or in percent."""
PARCELS, GRADIENT = 0.6, 0.35
"""Shares of neighbours with one value: more in a map of labels, less in one of probabilities in percent."""


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
        # to the end, where the checksum is compared
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
        arrays = []  # bytes in memory, and encoding
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


def read_volume(path: Path, way_out: str) -> Array:
    """Read a NIfTI volume [X, Y, Z], or maps [X, Y, Z, n]; raises as `open_image`."""
    with open_volumes(path, way_out) as image:
        values = np.asarray(image.dataobj)
    # FSL, AFNI and SPM write masks as [X, Y, Z, 1]
    return values.reshape(*values.shape[:3], *(size for size in values.shape[3:] if size > 1))


def find_threshold(values: Array, path: Path, key: str, least: float | None = None) -> tuple[float, str]:
    """Find what the values of a file are, and from which value on voxels or vertices are inside.

    Args:
        values: A volume or surface, or with a last axis of maps; 0 and NaN are outside.
        path: The file, for messages.
        key: Name of the region, or `mask`, for which the recipe may have a threshold.
        least: That threshold.

    Returns:
        The threshold, and what the values are: mask, labels, probabilities, percent.

    Raises:
        BrainhiveError: if that is not clear.
    """
    if least is not None:
        return least, f"{least:g} and more"
    # masks have one value, probabilities fractions up to 1
    shown = np.unique(values[np.isfinite(values) & (values != 0)])
    is_whole, positive = bool((shown == np.rint(shown)).all()), shown[shown > 0]
    high = shown.max(initial=0)
    is_negative = bool((shown < 0).any() and not (is_whole and shown.min() == -1))  # -1: outside, of NSD
    if len(positive) <= 1 and not is_negative:
        return 0, "mask"
    if not is_whole and not is_negative and high <= 1 + 1e-6:
        return PROBABLE, f"probabilities, {PROBABLE} and more"

    # whole numbers: labels, or percent
    if is_whole and not is_negative:
        if not PERCENT <= high <= 100:
            return 0, "labels"
        # neighbours: labels are mostly equal, probabilities differ from voxel to voxel
        pairs = [(np.delete(values, -1, axis), np.delete(values, 0, axis)) for axis in range(values.ndim)]
        alike = np.concatenate([(one == other)[(one > 0) & (other > 0)] for one, other in pairs])
        share = alike.sum() / max(1, len(alike))
        if share >= PARCELS and np.gcd.reduce(positive.astype(np.int64)) == 1:
            return 0, "labels"
        if len(alike) and share <= GRADIENT:
            return PERCENT, f"percent, {PERCENT} and more"

    # neither is clear: the recipe has to say it
    kind = "are neither a mask, labels nor probabilities"
    kind = "may be labels, or probabilities in percent" if is_whole and not is_negative else kind
    problem = f"{path}: its {len(shown)} values from {shown.min():g} to {high:g} {kind}"
    way = f"preparation.thresholds.{key}=LEAST takes voxels from a value on; labels need a table of names"
    raise BrainhiveError(problem, f"{way}, {path.name.partition('.')[0]}.tsv")


def is_inside(values: Array, threshold: float) -> Bool:
    """Tell where values are inside: at least a threshold, and neither 0 nor NaN."""
    return np.isfinite(values) & (values >= threshold) & (values != 0)


@dataclass(frozen=True)
class Mask:
    """The voxels of a volume that are kept, in C order.

    Attributes:
        path: File of the mask, for messages.
        inside: [X, Y, Z] whether a voxel is kept.
        affine: [4, 4] from indices to mm.
        way_out: Hint on how to get a sound mask.
        compares_affines: Whether other images must lie in the same space, besides having the same shape; not
            where a publisher is known to have resampled all, and headers may say less.
        kind: What its values were taken for.
    """

    path: Path
    inside: Bool
    affine: Float64
    way_out: str
    compares_affines: bool = True
    kind: str = "mask"

    @classmethod
    def open(cls, path: Path, way_out: str, above: float | None = None, least: float | None = None) -> "Mask":
        """Read a mask, labels, or probabilities of which half and more is inside.

        Args:
            path: The file.
            way_out: Hint on how to get a sound one.
            above: Limit of a map above which voxels are inside, whatever its values are.
            least: Threshold from which on they are.

        Raises:
            BrainhiveError: if it is no volume, or empty, or it is not clear what its values are.
        """
        values, kind = read_volume(path, way_out), f"above {above}"
        if above is None:
            threshold, kind = find_threshold(values, path, "mask", least)
        inside = values > above if above is not None else is_inside(values, threshold)
        if inside.ndim != 3 or not inside.any():
            raise BrainhiveError(f"{path} is no mask [X, Y, Z] of voxels", way_out)
        return cls(path, inside, np.asarray(open_image(path, way_out).affine, np.float64), way_out, kind=kind)

    @property
    def width(self) -> int:
        """Count the voxels, V."""
        return int(self.inside.sum())

    @property
    def grid(self) -> Grid:
        """Positions of the voxels."""
        return Grid(np.argwhere(self.inside).astype(np.int16), self.inside.shape, self.affine)

    def require_grid_of(self, path: Path) -> Any:
        """Open an image [X, Y, Z] or [X, Y, Z, n]; refuse one of another shape, or in another space.

        Args:
            path: The image.

        Raises:
            BrainhiveError: naming both files.
        """
        image = open_image(path, self.way_out)
        if tuple(image.shape[:3]) != self.inside.shape:
            problem = f"{path} is {list(image.shape[:3])}, {self.path} {[*self.inside.shape]}"
            raise BrainhiveError(problem, self.way_out)
        # equal shapes may lie in different spaces
        if self.compares_affines and not np.allclose(image.affine, self.affine, atol=AFFINE_MM):
            problem = f"{path} lies in another space than {self.path}: their affines differ"
            raise BrainhiveError(problem, self.way_out)
        return image

    def open_series(self, path: Path) -> Any:
        """Open a series of volumes [X, Y, Z, n] on the same grid; values stay on disk."""
        image = self.require_grid_of(path)
        if image.ndim != 4:
            raise BrainhiveError(f"{path} is {list(image.shape)}, not [X, Y, Z, n]", self.way_out)
        return image

    def read(self, path: Path) -> Array:
        """Read the values [V] of a volume on the same grid."""
        self.require_grid_of(path)
        return read_volume(path, self.way_out)[self.inside]

    def read_series(self, path: Path, volumes: Sequence[int] | None = None) -> Array:
        """Read a series of volumes [n, V], or a part of it; one volume is in memory at a time.

        Values are of the file's dtype, float32 where it scales them.

        Args:
            path: The series.
            volumes: Indices of the volumes, ascending, from 0; None for all.
        """
        self.open_series(path)
        with open_volumes(path, self.way_out) as image:
            # plain values keep their dtype, scaled ones become float32
            rows = range(image.shape[3]) if volumes is None else volumes
            is_plain = (image.dataobj.slope, image.dataobj.inter) == (1, 0)
            dtype = image.get_data_dtype().newbyteorder("=") if is_plain else np.float32

            indices, series = np.nonzero(self.inside), np.empty((len(rows), self.width), dtype)  # [n, V]
            for row, values in zip(rows, series, strict=True):
                values[:] = image.dataobj[..., row][indices]
            return series
