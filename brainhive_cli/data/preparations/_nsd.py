"""Parts that all forms of the Natural Scenes Dataset share: the design of its trials, and masks of voxels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Self

import numpy as np

from brainhive_cli.core.arrays import Bool, Int64
from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import files_called, is_file
from brainhive_cli.data.preparations._brain_images import NIFTI, Mask
from brainhive_cli.data.published_data import fetch_line
from brainhive_cli.data.spaces import Voxels
from brainhive_cli.data.stores import hdf5

SESSIONS = (40, 40, 32, 30, 40, 32, 40, 30)
"""Sessions of subjects 1 to 8."""
SUBJECTS = range(1, len(SESSIONS) + 1)
SESSION_TRIALS = 750
"""Trials of a session."""
FIRST_RELEASE = 37
"""Sessions of the first release: 982 of the shared pictures were seen in them, and 8,859 others."""
LAST_SESSIONS = {982: FIRST_RELEASE, 1000: max(SESSIONS)}
"""The last session by the number of test pictures."""
SHARED, PICTURES = 1000, 73000
"""Pictures that all subjects were to see, and pictures in all."""
MATRIX = "nsd_expdesign.mat"
DESIGN_FOLDER = "nsddata/experiments/nsd"
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
"""Masks, and names of the labels 1, 2, … of each; 0 and -1 are no region."""
GENERAL = "nsdgeneral"
"""The mask whose voxels all prepared files hold, in C order."""
EARLY, HIGHER = "prf-visualrois", "higher_vis"
"""The mask of early visual areas, and the region of all kept voxels outside them, as MindEye2 calls it."""
REGION_MASKS, GENERAL_OF_MINDEYE = "brain_region_masks.hdf5", "nsd_general"
"""MindEye2's file of each subject's nsd_general and masks of its voxels."""
PERCENT = 300
"""Factor by which betas are multiplied in the files."""
SPACE = "draw or resample it on the volumes of preparation.space, of the same subject"
SOURCE = fetch_line("nsd")


def find_design(root: Path) -> Path:
    """Find the design below a root; MissingData where it is not there."""
    usual = root / DESIGN_FOLDER / MATRIX
    for path in [usual] if is_file(usual) else files_called(MATRIX, root):
        return path
    raise MissingData(f"nsd: no {usual}", SOURCE)


@dataclass(frozen=True)
class Design:
    """The trials of a subject in the order of time, over all sessions that were planned.

    Attributes:
        rows: [30000] the picture of each, as a row of imgBrick counted from 0.
        is_test: [30000] whether it is one of those that all subjects were to see.
    """

    rows: Int64
    is_test: Bool

    @classmethod
    def open(cls, path: Path, subject: int) -> Self:
        """Read the design.

        Raises:
            BrainhiveError: if the file is damaged, or numbers pictures that do not exist.
        """
        from scipy.io import loadmat

        with reading(path, SOURCE, raised=(Exception,)):
            content = loadmat(path, variable_names=("masterordering", "subjectim"))
            order = np.asarray(content["masterordering"]).ravel().astype(np.int64)  # [30000]
            pictures = np.asarray(content["subjectim"]).astype(np.int64)  # [subjects, 10000]

        # all sessions, with numbers of pictures that exist
        is_complete = pictures.ndim == 2 and len(pictures) >= subject and order.size % SESSION_TRIALS == 0
        limits = [(order, pictures.shape[-1]), (pictures, PICTURES)] if is_complete else []
        if not limits or any(
            not values.size or values.min() < 1 or values.max() > most for values, most in limits
        ):
            problem = f"{path} is not NSD's design: its numbers go beyond its pictures"
            raise BrainhiveError(problem, SOURCE)
        return cls(pictures[subject - 1, order - 1] - 1, order <= SHARED)


def find_volume(folder: Path, name: str, endings: Sequence[str] = NIFTI) -> Path | None:
    """Find a file of one of several formats; None where there is none."""
    return next((path for ending in endings if is_file(path := folder / f"{name}{ending}")), None)


@dataclass(frozen=True)
class Masks:
    """The masks of one subject, below nsddata/ppdata/subjXX/func1pt8mm/roi.

    Attributes:
        files: Each mask that is there, by its name.
        base: The mask whose voxels are kept.
        drawn: Names of the user's own masks.
    """

    files: Mapping[str, Path]
    base: str
    drawn: frozenset[str] = frozenset()

    @classmethod
    def below(cls, folder: Path, base: str, drawn: Mapping[str, Path] = MappingProxyType({})) -> "Masks":
        """List masks, and the user's own by their names.

        Raises:
            MissingData: if the one whose voxels are kept is missing, or one of the user's own.
        """
        # the user's own masks must be there
        for name, mask in drawn.items():
            if not mask.is_file():
                way = f"preparation.masks.{name}: a NIfTI file for each subject"
                raise MissingData(f"no mask {mask}", way)

        # NSD's masks may be missing, but for the base
        names = dict.fromkeys([base, *ATLASES])
        files = {name: path for name in names if (path := find_volume(folder, name)) is not None} | {**drawn}
        if base not in files:
            way = f"preparation.voxels=NAME, of {', '.join(files)}" if files else SOURCE
            raise MissingData(f"nsd: no mask {folder / base}.nii.gz", way)
        return cls(files, base, frozenset(drawn))

    def mask(self) -> Mask:
        """Read the mask of the voxels that are kept."""
        return replace(Mask.open(self.files[self.base], SOURCE), compares_affines=False)

    def voxels(self, mask: Mask) -> Voxels:
        """Read the regions of kept voxels.

        A region that a subject does not have is there, and empty, so that all subjects have the same list.
        """
        regions = {}
        for name, path in self.files.items():
            # only the user's own masks must name the same space in their headers
            is_own = name in self.drawn
            way_out = SPACE if is_own else SOURCE
            labels = replace(mask, way_out=way_out, compares_affines=is_own).read(path)
            regions[name] = labels > 0
            if is_own and not regions[name].any():
                raise BrainhiveError(f"{path} has none of the voxels that {mask.path.name} keeps", SPACE)
            regions |= {label: labels == number for number, label in enumerate(ATLASES.get(name, ()), 1)}
        if EARLY in regions:
            regions[HIGHER] = ~regions[EARLY]
        return Voxels(regions, grid=mask.grid)


def name_voxels(subject: int, width: int, roots: Sequence[Path], source: str) -> Voxels:
    """Name the regions of prepared files' voxels: by NSD's masks, else by MindEye2's, else as nsdgeneral.

    Args:
        subject: Counted from 1.
        width: V, which the masks must have.
        roots: Folders below which nsddata, or MindEye2's file of masks, may lie.
        source: How to get the prepared files.
    """
    # NSD's own masks
    group, everywhere = f"subj{subject:02d}", {GENERAL: np.ones(width, bool)}
    for root in roots:
        if (folder := root / f"nsddata/ppdata/{group}/func1pt8mm/roi").is_dir():
            masks = Masks.below(folder, GENERAL)
            mask = masks.mask()
            if mask.width != width:
                problem = f"{mask.path} has {mask.width} voxels, the signals {width}"
                raise BrainhiveError(problem, source)
            return masks.voxels(mask)

    # MindEye2's masks, of which nsd_general marks the kept voxels
    for path in filter(is_file, (root / REGION_MASKS for root in roots)):
        with hdf5.open_file(path, source) as file:
            regions = {
                name: hdf5.open_numbers(file, f"{group}/{name}", "fiub")[:] > 0 for name in file[group]
            }
            general = regions.pop(GENERAL_OF_MINDEYE)
            if any(mask.shape != general.shape for mask in regions.values()):
                raise ValueError("its masks have several shapes")
        if (count := int(general.sum())) != width:
            raise BrainhiveError(f"{path} has {count} voxels of {group}, the signals {width}", source)
        return Voxels(everywhere | {name: mask[general] for name, mask in regions.items()})
    return Voxels(everywhere)
