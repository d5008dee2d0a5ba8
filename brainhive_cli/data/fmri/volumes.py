"""Images of brains that nibabel reads, and volumes that are read through a mask."""

import gzip
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Array, Bool, Float64
from brainhive_cli.core.damage import refuse_inflation, report_damage
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.files import open_regular
from brainhive_cli.data.signals.spaces import Grid, Surface

NIFTI_ENDINGS = (".nii.gz", ".nii")
IMAGE_ENDINGS = (*NIFTI_ENDINGS, ".mgz", ".mgh", ".gii")
CIFTI_ENDINGS = (
    ".dscalar.nii",
    ".dlabel.nii",
    ".dtseries.nii",
    ".pscalar.nii",
    ".ptseries.nii",
)
"""Endings of CIFTI, of grayordinates or parcels."""
CIFTI_CORTEX = {
    "left": "CIFTI_STRUCTURE_CORTEX_LEFT",
    "right": "CIFTI_STRUCTURE_CORTEX_RIGHT",
}
"""Its names of the vertices of the hemispheres."""
BLOCK_BYTES = 2**20
AFFINE_MM = 1e-3
"""Largest difference between affines of one space: they are written as float32."""
PROBABLE, PERCENT = 0.5, 50
"""Least probability at which a voxel is inside, as a share or in percent."""
ROUNDING = 1e-3
"""Largest distance from whole numbers, at which labels and masks are these."""
PARCELS, GRADIENT = 0.6, 0.35
"""Shares of neighbours with one value: more in a map of labels, less in one of
probabilities in percent.
"""


def open_image(path: Path, way_out: str) -> Any:
    """Open the header of a file that nibabel reads, and all of a GIFTI file.

    Args:
        path: The file; only the formats of `ENDINGS`, as others name further files.
        way_out: One line on how to get a sound one.

    Raises:
        MissingData: if the file is damaged, names other files, has values that are no
            real numbers, or claims more than its size allows.
    """
    import nibabel

    # it writes what it corrects in headers to the terminal
    nibabel.imageglobals.logger.disabled = True
    with report_damage(path, way_out, exceptions=(Exception,)):
        if not path.name.endswith(IMAGE_ENDINGS):
            raise ValueError(f"it is none of {', '.join(IMAGE_ENDINGS)}")
        # the only encoding by which a GIFTI file names another file, which nibabel
        # would read
        if path.suffix == ".gii":
            with open_regular(path) as file:
                if b"ExternalFileBinary" in file.read():
                    raise ValueError("its values are in another file")

        # real values, of a size that the file may have
        image: Any = nibabel.load(path)
        if path.suffix != ".gii":
            dtype = image.get_data_dtype()
            if dtype.kind not in "iuf":
                raise ValueError(f"its values are {dtype}, not real numbers")
            refuse_inflation(
                math.prod(image.shape) * dtype.itemsize,
                path.stat().st_size,
                "its values",
            )
        return image


def find_vertices(paths: Sequence[Path], way_out: str) -> Surface | None:
    """Find which vertices the rows of GIFTI or CIFTI are; None of other files, and of
    parcels.

    Args:
        paths: GIFTI of the left and the right hemisphere; or CIFTI.
        way_out: One line on how to get sound ones.
    """
    if not paths[0].name.endswith((".gii", *CIFTI_ENDINGS)):
        return None
    from nibabel.cifti2 import BrainModelAxis

    images = [open_image(path, way_out) for path in paths]
    with report_damage(paths[0], way_out, exceptions=(Exception,)):
        # GIFTI has all vertices of a hemisphere, in arrays [V] or [V, T]
        if paths[0].suffix == ".gii":
            sizes = tuple(len(image.darrays[0].data) for image in images)
            hemisphere = np.repeat(range(len(sizes)), sizes)
            vertex = np.concatenate([np.arange(size) for size in sizes])
        # CIFTI lists them, mostly without the medial wall
        else:
            axis = images[0].header.get_axis(1)
            if not isinstance(axis, BrainModelAxis):
                return None
            hemisphere = np.full(len(axis), -1)
            for side, name in enumerate(CIFTI_CORTEX.values()):
                hemisphere[axis.name == name] = side
            vertex = np.where(hemisphere < 0, -1, axis.vertex)
            sizes = tuple(axis.nvertices.get(name, 0) for name in CIFTI_CORTEX.values())
        return Surface(np.stack([hemisphere, vertex], 1).astype(np.int32), sizes)


@contextmanager
def open_volumes(path: Path, way_out: str) -> Iterator[Any]:
    """Open a NIfTI or MGH image, of which the block reads values; raises as
    `open_image`.

    A compressed file is unpacked once, from one end to the other, and its checksum
    compared where the block
    ends: nibabel stops before the checksum.
    """
    form = type(open_image(path, way_out))
    unpack: Any = gzip.open if path.suffix in (".gz", ".mgz") else open
    with report_damage(path, way_out), unpack(path, "rb") as file:
        yield form.from_stream(file)
        # to the end, where the checksum is compared
        while file.read(BLOCK_BYTES):
            pass


def read_volume(path: Path, way_out: str) -> Array:
    """Read a NIfTI volume [X, Y, Z], or maps [X, Y, Z, n]; raises as `open_image`."""
    with open_volumes(path, way_out) as image:
        values = np.asarray(image.dataobj)
    # FSL, AFNI and SPM write masks as [X, Y, Z, 1]
    return values.reshape(
        *values.shape[:3], *(size for size in values.shape[3:] if size > 1)
    )


def round_labels(values: Array) -> Array:
    """Round values that are whole numbers apart from errors of scaling and resampling.

    Other values are returned as they are, and so are those that would all become 0.
    """
    rounded = np.rint(values)
    is_near = np.allclose(values, rounded, 1e-6, ROUNDING, equal_nan=True)
    return rounded if is_near and np.nan_to_num(rounded).any() else values


def find_threshold(
    values: Array, path: Path, key: str, threshold: float | None = None
) -> tuple[float, str]:
    """Find what the values of a file are, and from which value on voxels or vertices
    are inside.

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
    if threshold is not None:
        return threshold, f"{threshold:g} and more"
    # masks have one value, probabilities fractions up to 1
    shown = np.unique(values[np.isfinite(values) & (values != 0)])
    is_whole = bool((shown == np.rint(shown)).all())
    positive = shown[shown > 0]
    high = shown.max(initial=0)
    # -1: outside, of NSD
    is_negative = bool((shown < 0).any() and not (is_whole and shown.min() == -1))
    if len(positive) <= 1 and not is_negative:
        return 0, "mask"
    if not is_whole and not is_negative and high <= 1 + 1e-6:
        return PROBABLE, f"probabilities, {PROBABLE} and more"

    # whole numbers: labels, or percent
    if is_whole and not is_negative:
        if not PERCENT <= high <= 100:
            return 0, "labels"
        # neighbours: labels are mostly equal, probabilities differ from voxel to voxel
        pairs = [
            (np.delete(values, -1, axis), np.delete(values, 0, axis))
            for axis in range(values.ndim)
        ]
        alike = np.concatenate(
            [(one == other)[(one > 0) & (other > 0)] for one, other in pairs]
        )
        share = alike.sum() / max(1, len(alike))
        if share >= PARCELS and np.gcd.reduce(positive.astype(np.int64)) == 1:
            return 0, "labels"
        if len(alike) and share <= GRADIENT:
            return PERCENT, f"percent, {PERCENT} and more"

    # neither is clear: the recipe has to say it
    kind = "are neither a mask, labels nor probabilities"
    kind = (
        "may be labels, or probabilities in percent"
        if is_whole and not is_negative
        else kind
    )
    problem = f"{path}: its {len(shown)} values from {shown.min():g} to {high:g} {kind}"
    way = (
        f"preparation.thresholds.{key}=LEAST takes voxels from a value on; labels need "
        "a table of names"
    )
    raise BrainhiveError(problem, f"{way}, {path.name.partition('.')[0]}.tsv")


def find_inside(values: Array, threshold: float) -> Bool:
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
        compares_affines: Whether other images must lie in the same space, besides
            having the same shape; not where a publisher is known to have resampled all,
            and headers may say less.
        kind: What its values were taken for.
        width: Number of voxels, V.
        grid: Positions of the voxels.
    """

    path: Path
    inside: Bool
    affine: Float64
    way_out: str
    compares_affines: bool = True
    kind: str = "mask"
    width: int = field(init=False)
    grid: Grid = field(init=False)

    def __post_init__(self) -> None:
        """Count and locate the voxels."""
        positions = np.argwhere(self.inside).astype(np.int16)
        object.__setattr__(self, "width", len(positions))
        object.__setattr__(
            self, "grid", Grid(positions, self.inside.shape, self.affine)
        )

    @classmethod
    def open(
        cls,
        path: Path,
        way_out: str,
        exclusive_threshold: float | None = None,
        threshold: float | None = None,
    ) -> "Mask":
        """Read a mask, labels, or probabilities of which half and more is inside.

        Args:
            path: The file.
            way_out: Hint on how to get a sound one.
            above: Limit of a map above which voxels are inside, whatever its values
                are.
            least: Threshold from which on they are.

        Raises:
            BrainhiveError: if it is no volume, or empty, or it is not clear what its
                values are.
        """
        values = read_volume(path, way_out)
        if exclusive_threshold is not None:
            kind = f"above {exclusive_threshold}"
            inside = values > exclusive_threshold
        else:
            if threshold is None:
                values = round_labels(values)
            lowest, kind = find_threshold(values, path, "mask", threshold)
            inside = find_inside(values, lowest)
        if inside.ndim != 3 or not inside.any():
            raise BrainhiveError(f"{path} is no mask [X, Y, Z] of voxels", way_out)
        return cls(
            path,
            inside,
            np.asarray(open_image(path, way_out).affine, np.float64),
            way_out,
            kind=kind,
        )

    def require_same_grid(self, path: Path) -> Any:
        """Open an image [X, Y, Z] or [X, Y, Z, n]; refuse one of another shape, or in
        another space.

        Args:
            path: The image.

        Raises:
            BrainhiveError: naming both files.
        """
        image = open_image(path, self.way_out)
        if tuple(image.shape[:3]) != self.inside.shape:
            problem = (
                f"{path} is {list(image.shape[:3])}, {self.path} {[*self.inside.shape]}"
            )
            raise BrainhiveError(problem, self.way_out)
        # equal shapes may lie in different spaces
        if self.compares_affines and not np.allclose(
            image.affine, self.affine, atol=AFFINE_MM
        ):
            problem = (
                f"{path} lies in another space than {self.path}: their affines differ"
            )
            raise BrainhiveError(problem, self.way_out)
        return image

    def open_series(self, path: Path) -> Any:
        """Open a series of volumes [X, Y, Z, n] on the same grid; values stay on
        disk.
        """
        image = self.require_same_grid(path)
        if image.ndim != 4:
            raise BrainhiveError(
                f"{path} is {list(image.shape)}, not [X, Y, Z, n]", self.way_out
            )
        return image

    def read_values(self, path: Path) -> Array:
        """Read the values [V] of a volume on the same grid."""
        self.require_same_grid(path)
        return read_volume(path, self.way_out)[self.inside]

    def read_series(self, path: Path, volumes: Sequence[int] | None = None) -> Array:
        """Read a series of volumes [n, V], or a part of it; one volume is in memory at
        a time.

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

            # [n, V]
            indices = np.nonzero(self.inside)
            series = np.empty((len(rows), self.width), dtype)
            for row, values in zip(rows, series, strict=True):
                values[:] = image.dataobj[..., row][indices]
            return series
