"""Brain images that nibabel reads, and masks of their voxels."""

import gzip
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.base import Array, Bool, BrainhiveError, Float64
from brainhive_cli.core.files import open_regular, refuse_inflation, report_damage
from brainhive_cli.data.signals import Grid, Surface

NIFTI_ENDINGS = (".nii.gz", ".nii")
CIFTI_ENDINGS = (
    ".dscalar.nii",
    ".dlabel.nii",
    ".dtseries.nii",
    ".pscalar.nii",
    ".ptseries.nii",
)
"""Endings of CIFTI files of grayordinates or parcels."""
CIFTI_CORTEX = {
    "left": "CIFTI_STRUCTURE_CORTEX_LEFT",
    "right": "CIFTI_STRUCTURE_CORTEX_RIGHT",
}
"""CIFTI's names of the vertices of each hemisphere."""


def open_image(path: Path, way_out: str) -> Any:
    """Open a file with nibabel, and read its header, or all of a GIFTI file.

    Args:
        path: File with an ending of NIfTI, MGH or GIFTI.
        way_out: Advice on how to get an undamaged file.

    Raises:
        MissingData: if the file has another ending, is damaged, refers to another file,
            has no real values, or claims more values than its size allows.
    """
    import nibabel

    # keep nibabel's notes on corrected headers off the terminal
    nibabel.imageglobals.logger.disabled = True
    with report_damage(path, way_out, exceptions=(Exception,)):
        image_endings = (".nii.gz", ".nii", ".mgz", ".mgh", ".gii")
        if not path.name.lower().endswith(image_endings):
            raise ValueError(f"its name ends in none of {', '.join(image_endings)}")
        # nibabel would read the other file to which this encoding refers
        if path.suffix == ".gii":
            with open_regular(path) as file:
                if b"ExternalFileBinary" in file.read():
                    raise ValueError("its values are in another file")

        img: Any = nibabel.load(path)
        if path.suffix != ".gii":
            dtype = img.get_data_dtype()
            if dtype.kind not in "iuf":
                raise ValueError(f"its values are {dtype}, not real numbers")
            n_bytes = math.prod(img.shape) * dtype.itemsize
            refuse_inflation(n_bytes, path.stat().st_size, "its values")
        return img


def find_vertices(paths: Sequence[Path], way_out: str) -> Surface | None:
    """Find the hemisphere and vertex of each row of GIFTI or CIFTI files.

    Args:
        paths: GIFTI files of the left and the right hemisphere, or a CIFTI file.
        way_out: Advice on how to get undamaged files.

    Returns:
        The surface, or None for files of another format and for CIFTI parcels.
    """
    is_gifti = paths[0].suffix == ".gii"
    if not is_gifti and not paths[0].name.endswith(CIFTI_ENDINGS):
        return None
    from nibabel.cifti2 import BrainModelAxis

    images = [open_image(path, way_out) for path in paths]
    with report_damage(paths[0], way_out, exceptions=(Exception,)):
        if is_gifti:
            # GIFTI has all vertices of a hemisphere, in arrays [V] or [V, T]
            sizes = tuple(len(img.darrays[0].data) for img in images)
            hemispheres = np.repeat(range(len(sizes)), sizes)
            vertices = np.concatenate(list(map(np.arange, sizes)))
        else:
            # CIFTI lists its vertices, mostly without the medial wall
            axis = images[0].header.get_axis(1)
            if not isinstance(axis, BrainModelAxis):
                return None
            hemispheres = np.full(len(axis), -1)
            for hemisphere, name in enumerate(CIFTI_CORTEX.values()):
                hemispheres[axis.name == name] = hemisphere
            vertices = np.where(hemispheres < 0, -1, axis.vertex)
            n_vertices = axis.nvertices
            sizes = tuple(n_vertices.get(name, 0) for name in CIFTI_CORTEX.values())
        return Surface(np.stack([hemispheres, vertices], 1).astype(np.int32), sizes)


@contextmanager
def open_volumes(path: Path, way_out: str) -> Iterator[Any]:
    """Open a NIfTI or MGH image as a context manager.

    At the end, it compares the checksum of a compressed file, unlike nibabel.

    Args:
        path: The image.
        way_out: Advice on how to get an undamaged image.

    Raises:
        MissingData: as `open_image`, or if the checksum differs.
    """
    image_class = type(open_image(path, way_out))
    is_packed = path.suffix.lower() in (".gz", ".mgz")
    unpack: Any = gzip.open if is_packed else open
    with report_damage(path, way_out), unpack(path, "rb") as file:
        yield image_class.from_stream(file)
        unpacked_bytes = 2**20
        while file.read(unpacked_bytes):
            pass


def read_volume(path: Path, way_out: str) -> Array:
    """Read a volume [X, Y, Z] or maps [X, Y, Z, n], with the errors of `open_image`."""
    with open_volumes(path, way_out) as img:
        values = np.asarray(img.dataobj)
    # FSL, AFNI and SPM write masks as [X, Y, Z, 1]
    map_axes = tuple(size for size in values.shape[3:] if size > 1)
    return values.reshape(values.shape[:3] + map_axes)


def round_labels(values: Array) -> Array:
    """Round values that are whole numbers but for errors of scaling and resampling.

    Other values, and values that would all become 0, are returned unchanged.
    """
    rounded = np.rint(values)
    # Largest distance of labels and masks from whole numbers.
    max_rounding_error = 1e-3
    is_near = np.allclose(
        values, rounded, rtol=1e-6, atol=max_rounding_error, equal_nan=True
    )
    return rounded if is_near and np.nan_to_num(rounded).any() else values


def find_threshold(
    values: Array, path: Path, key: str, threshold: float | None = None
) -> tuple[float, str]:
    """Find the smallest value of voxels or vertices inside a region.

    Args:
        values: Values of the file, in which 0 and NaN are outside.
        path: The file, for errors.
        key: Name of the region, or `mask`, for errors.
        threshold: Smallest value that the recipe names.

    Returns:
        The smallest value, and the kind of the values: `mask`, `labels`, or a
        description of probabilities, percent or the recipe's threshold.

    Raises:
        BrainhiveError: if the kind is ambiguous.
    """
    if threshold is not None:
        return threshold, f"{threshold:g} and more"
    distinct = np.unique(values[np.isfinite(values) & (values != 0)])
    is_whole = bool((distinct == np.rint(distinct)).all())
    positive = distinct[distinct > 0]
    high = distinct.max(initial=0)
    has_negative = bool((distinct < 0).any())
    if is_whole and has_negative and distinct.min() == -1:
        has_negative = False  # NSD writes -1 outside
    if len(positive) <= 1 and not has_negative:
        return 0, "mask"
    if not is_whole and not has_negative and high <= 1 + 1e-6:
        min_probability = 0.5
        return min_probability, f"probabilities, {min_probability} and more"

    if is_whole and not has_negative:
        # Smallest probability of a voxel inside a region, as a share or in percent.
        min_percent = 50
        if not min_percent <= high <= 100:
            return 0, "labels"
        # labels mostly have equal neighbours and no common divisor, percentages do not
        n_equal, n_pairs = _count_equal_neighbours(values)
        share = n_equal / max(1, n_pairs)
        divisor = np.gcd.reduce(positive.astype(np.int64))
        min_equal_neighbours_in_labels = 0.6
        if share >= min_equal_neighbours_in_labels and divisor == 1:
            return 0, "labels"
        # Shares of neighbours with equal values. Maps of labels have more, maps of
        # probabilities in percent fewer.
        if n_pairs and share <= 0.35:
            return min_percent, f"percent, {min_percent} and more"
        problem = "may be labels, or probabilities in percent"
    else:
        problem = "are neither a mask, labels nor probabilities"
    raise BrainhiveError(
        f"{path}: its {len(distinct)} values from {distinct.min():g} to {high:g} "
        f"{problem}",
        f"set the smallest value inside with preparation.thresholds.{key}=VALUE, or "
        f"write names of labels into {path.name.partition('.')[0]}.tsv",
    )


def _count_equal_neighbours(values: Array) -> tuple[int, int]:
    """Count the pairs of positive neighbours with equal values, and all such pairs."""
    n_equal = n_pairs = 0
    for axis in range(values.ndim):
        voxels = np.delete(values, -1, axis)
        neighbours = np.delete(values, 0, axis)
        is_pair = (voxels > 0) & (neighbours > 0)
        n_equal += int((voxels == neighbours)[is_pair].sum())
        n_pairs += int(is_pair.sum())
    return n_equal, n_pairs


def find_inside(values: Array, threshold: float) -> Bool:
    """Mark finite values of at least a threshold that are not 0."""
    return np.isfinite(values) & (values >= threshold) & (values != 0)


@dataclass(frozen=True)
class Mask:
    """Voxels of a volume, in C order.

    Attributes:
        path: File of the mask, for errors.
        inside: True [X, Y, Z] for voxels of the mask.
        affine: Affine [4, 4] from indices to mm.
        way_out: Advice on how to get a matching mask, for errors.
        compares_affines: If False, other images need the same shape, but not the same
            affine. For publishers who resample all images, but write other affines.
        kind: Kind of the file's values, as `find_threshold` returns it.
        width: Number of voxels V.
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
        """Read a mask, labels, or probabilities.

        Args:
            path: The file.
            way_out: Advice on how to get an undamaged file.
            exclusive_threshold: Voxels with larger values are inside.
            threshold: Voxels with this value or more are inside.

        Raises:
            BrainhiveError: if it is no volume, has no voxel inside, or the kind of its
                values is ambiguous.
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
            raise BrainhiveError(
                f"{path} is no volume [X, Y, Z] with voxels inside", way_out
            )
        return cls(
            path,
            inside,
            np.asarray(open_image(path, way_out).affine, np.float64),
            way_out,
            kind=kind,
        )

    def require_same_grid(self, path: Path) -> Any:
        """Open an image [X, Y, Z] or [X, Y, Z, n] on the grid of the mask.

        Raises:
            BrainhiveError: if its shape or its affine differs.
        """
        img = open_image(path, self.way_out)
        shape = list(img.shape[:3])
        mask_shape = list(self.inside.shape)
        if shape != mask_shape:
            raise BrainhiveError(
                f"{path} is {shape}, {self.path} {mask_shape}", self.way_out
            )
        # Largest difference between affines of the same space, stored as float32.
        max_affine_difference_mm = 1e-3
        if self.compares_affines and not np.allclose(
            img.affine, self.affine, atol=max_affine_difference_mm
        ):
            raise BrainhiveError(
                f"{path} lies in another space than {self.path}: their affines differ",
                self.way_out,
            )
        return img

    def open_series(self, path: Path) -> Any:
        """Open volumes [X, Y, Z, n] on the same grid, without reading values."""
        img = self.require_same_grid(path)
        if img.ndim != 4:
            raise BrainhiveError(
                f"{path} is {list(img.shape)}, not [X, Y, Z, n]", self.way_out
            )
        return img

    def read_values(self, path: Path) -> Array:
        """Read the values [V] of a volume on the same grid."""
        self.require_same_grid(path)
        return read_volume(path, self.way_out)[self.inside]

    def read_series(self, path: Path, volumes: Sequence[int] | None = None) -> Array:
        """Read the selected voxels of volumes [n, V], a whole volume at a time.

        Args:
            path: Volume [X, Y, Z] or volumes [X, Y, Z, n] on the same grid.
            volumes: Ascending indices of the volumes, all by default.

        Returns:
            Values in the file's dtype, or in float32 if the header scales them.
        """
        self.require_same_grid(path)
        with open_volumes(path, self.way_out) as img:
            map_shape = img.shape[3:]
            if volumes is None:
                volumes = range(math.prod(map_shape))
            dtype = np.dtype(np.float32)
            if (img.dataobj.slope, img.dataobj.inter) == (1, 0):
                dtype = img.get_data_dtype().newbyteorder("=")

            indices = np.nonzero(self.inside)
            series = np.empty((len(volumes), self.width), dtype)
            for volume, values in zip(volumes, series, strict=True):
                # AFNI writes [X, Y, Z, 1, n]
                position = np.unravel_index(volume, map_shape)
                values[:] = img.dataobj[(..., *position)][indices]
            return series
