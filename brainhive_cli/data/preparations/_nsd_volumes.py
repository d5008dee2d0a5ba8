"""Volumes of the Natural Scenes Dataset: masks of regions, and single-trial betas as NIfTI or HDF5."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.damage import reading, refuse_inflation
from brainhive_cli.core.errors import BrainhiveError, MissingData, MissingExtra
from brainhive_cli.core.files import is_file
from brainhive_cli.data.stores import hdf5
from brainhive_cli.data.stores.recordings import Voxels

ATLASES = {
    "nsdgeneral": (),
    "prf-visualrois": ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"),
    "prf-eccrois": ("ecc0pt5", "ecc1", "ecc2", "ecc4", "ecc4p"),
    "floc-faces": ("OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"),
    "floc-words": ("OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"),
    "floc-places": ("OPA", "PPA", "RSC"),
    "floc-bodies": ("EBA", "FBA-1", "FBA-2", "mTL-bodies"),
    "streams": ("early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal"),
}
"""Masks, and what the labels 1, 2, … of each are called; 0 and -1 are no region."""
EARLY, HIGHER = "prf-visualrois", "higher_vis"
"""The mask of early visual areas, and the region of all kept voxels outside them, as MindEye2 calls it."""
PERCENT = 300
"""By which betas are multiplied in the files."""
ENDINGS = (".nii.gz", ".nii")
AFFINE_MM = 1e-3
"""By which affines of one space may differ: they are written as float32."""
SPACE = "draw or resample it on the volumes of preparation.space, of the same subject"
SOURCE = (
    "sign the agreement of naturalscenesdataset.org, then fetch nsddata and nsddata_betas into that folder"
)


def read(path: Path) -> NDArray[Any]:
    """Read a NIfTI volume [X, Y, Z].

    Raises:
        MissingExtra: if nibabel is not installed.
        MissingData: if the file is damaged.
    """
    image = _nibabel(path)
    with reading(path, SOURCE):
        refuse_inflation(int(np.prod(image.shape)) * 8, path.stat().st_size, "the volume")
        return np.asarray(image.dataobj)


def _nibabel(path: Path) -> Any:
    try:
        import nibabel
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError, ImageDataError
    except ImportError as error:
        raise MissingExtra("NIfTI files need nibabel", "pip install 'brainhive[raw]'") from error
    with reading(path, SOURCE):
        try:
            return nibabel.load(path)
        except (HeaderDataError, ImageDataError, ImageFileError) as error:
            raise ValueError(str(error)) from error


def file_of(folder: Path, name: str, endings: Sequence[str] = ENDINGS) -> Path | None:
    """Find a file of one of several formats; None where there is none."""
    return next((path for ending in endings if is_file(path := folder / f"{name}{ending}")), None)


@dataclass(frozen=True)
class Masks:
    """The masks of one subject, below nsddata/ppdata/subjXX/func1pt8mm/roi.

    Attributes:
        files: Each mask that is there, by its name.
        kept: The mask whose voxels are kept.
        own: Which of them are the user's own.
    """

    files: Mapping[str, Path]
    kept: str
    own: frozenset[str] = frozenset()

    @classmethod
    def below(cls, folder: Path, kept: str, own: Mapping[str, Path] = MappingProxyType({})) -> "Masks":
        """List masks, and the user's own by their names.

        Raises:
            MissingData: if the one whose voxels are kept is missing, or one of the user's own.
        """
        for name, mask in own.items():
            if not mask.is_file():
                way = f"preparation.masks.{name}: a NIfTI file for each subject"
                raise MissingData(f"no mask {mask}", way)
        names = dict.fromkeys([kept, *ATLASES])
        found = {name: file for name in names if (file := file_of(folder, name)) is not None} | {**own}
        if kept not in found:
            way = f"preparation.voxels=NAME, of {', '.join(found)}" if found else SOURCE
            raise MissingData(f"nsd: no mask {folder / kept}.nii.gz", way)
        return cls(found, kept, frozenset(own))

    def mask(self) -> NDArray[np.bool_]:
        """Read which voxels [X, Y, Z] are kept."""
        mask = read(self.files[self.kept]) > 0
        if mask.ndim != 3 or not mask.any():
            raise BrainhiveError(f"{self.files[self.kept]} is no mask [X, Y, Z] of voxels", SOURCE)
        return mask

    def voxels(self, mask: NDArray[np.bool_]) -> Voxels:
        """Read the regions of kept voxels, in C order over [X, Y, Z].

        A region that a subject does not have is there, and empty, so that all subjects have the same list.
        """
        regions: dict[str, NDArray[np.bool_]] = {}
        for name, path in self.files.items():
            volume = read(path)
            if volume.shape != mask.shape:
                raise BrainhiveError(
                    f"{path} is {list(volume.shape)}, {self.files[self.kept]} {list(mask.shape)}",
                    SPACE if name in self.own else SOURCE,
                )
            labels = volume[mask]
            regions[name] = labels > 0
            if name in self.own:
                self._check_own(path, regions[name])
            regions |= {label: labels == place + 1 for place, label in enumerate(ATLASES.get(name, ()))}
        if EARLY in regions:
            regions[HIGHER] = ~regions[EARLY]
        return Voxels(regions)

    def _check_own(self, path: Path, region: NDArray[np.bool_]) -> None:
        """Refuse a user's mask in another space than the kept one, or without a kept voxel."""
        kept = self.files[self.kept]
        if not np.allclose(_nibabel(path).affine, _nibabel(kept).affine, atol=AFFINE_MM):
            raise BrainhiveError(f"{path} lies in another space than {kept}: their affines differ", SPACE)
        if not region.any():
            raise BrainhiveError(f"{path} has none of the voxels that {kept.name} keeps", SPACE)


def betas(path: Path, mask: NDArray[np.bool_], trials: int) -> NDArray[np.int16]:
    """Read a session's betas [trials, V] of the voxels of a mask [X, Y, Z], in its C order; 300 is 1 percent.

    A volume (NIfTI), or a plane of voxels (HDF5), is in memory at a time.

    Raises:
        BrainhiveError: if they are of another shape or dtype, or the file is damaged.
    """
    if path.suffix == ".hdf5":
        return _from_hdf5(path, mask, trials)
    image = _nibabel(path)
    _check(path, image.shape, (*mask.shape, trials), image.get_data_dtype())
    x, y, z = np.nonzero(mask)
    places = x + mask.shape[0] * (y + mask.shape[1] * z)  # in a volume, which is in Fortran's order
    found = np.empty((trials, len(places)), np.int16)
    with reading(path, SOURCE):
        for trial, volume in enumerate(_volumes(path, image, mask.size, trials)):
            found[trial] = volume[places]
    return found


def _volumes(path: Path, image: Any, size: int, trials: int) -> Iterable[NDArray[np.int16]]:
    """Read a NIfTI file from one end to the other: a compressed one cannot be read elsewhere at once."""
    from nibabel.openers import Opener

    slope, intercept = image.dataobj.slope, image.dataobj.inter
    if (slope, intercept) != (1, 0):
        raise ValueError(f"its values are scaled by {slope} and {intercept}, those of NSD are not")
    dtype = image.get_data_dtype()
    with Opener(str(path)) as file:
        file.seek(image.dataobj.offset)
        for _ in range(trials):
            content = file.read(size * dtype.itemsize)
            if len(content) != size * dtype.itemsize:
                raise EOFError("fewer volumes than its header says")
            yield np.frombuffer(content, dtype)


def _from_hdf5(path: Path, mask: NDArray[np.bool_], trials: int) -> NDArray[np.int16]:
    """MATLAB wrote these files: their axes are [trials, Z, Y, X]."""
    x, y, z = np.nonzero(mask)
    found = np.empty((trials, len(x)), np.int16)
    with hdf5.open_file(path, SOURCE) as file:
        stored = hdf5.open_numbers(file, "betas", "i")
        _check(path, stored.shape[::-1], (*mask.shape, trials), stored.dtype)
        for plane in np.unique(z).tolist():
            own = z == plane
            found[:, own] = stored[:, plane][:, y[own], x[own]]
    return found


def _check(path: Path, shape: Sequence[int], expected: Sequence[int], dtype: np.dtype[Any]) -> None:
    if tuple(shape) != tuple(expected) or dtype.kind != "i" or dtype.itemsize != 2:
        raise BrainhiveError(
            f"{path} holds {dtype} {list(shape)}, not int16 {list(expected)} as mask and design have it",
            SOURCE,
        )
