"""What files of NSD that others have prepared have in common: names of regions, samples of webdatasets."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.archives import read_at, tar_members
from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import is_file
from brainhive_cli.core.needs import Need, files
from brainhive_cli.data.preparations._nsd_design import SUBJECTS
from brainhive_cli.data.preparations._nsd_volumes import Masks
from brainhive_cli.data.stores import hdf5, pickles
from brainhive_cli.data.stores.recordings import Voxels

SPLITS = ("train", "test")
GENERAL = "nsdgeneral"
"""The mask whose voxels all of them keep, in C order."""
REGION_MASKS = "brain_region_masks.hdf5"
"""Of MindEye2: for each subject nsd_general and masks of its voxels."""
GENERAL_OF_MINDEYE = "nsd_general"


class Wanted(NamedTuple):
    """Files that are read of a subject."""

    name: str  # or a pattern of names, below the root
    size: int | None = None  # in bytes, where it is known
    is_optional: bool = False


MASKS = Wanted(REGION_MASKS, is_optional=True)
"""Regions have names without them, too."""


@dataclass(frozen=True)
class Prepared(ABC):
    """Files of NSD that others have prepared.

    Attributes:
        root: Their folder.
        nsd: Folder below which NSD's own design and masks may lie.
        line: The line that gets them.
    """

    root: Path
    nsd: Path
    line: ClassVar[str]
    dataset: ClassVar[str] = "nsd"
    splits: ClassVar[tuple[str, ...]] = SPLITS

    @abstractmethod
    def wanted(self, subject: int) -> list[Wanted]:
        """Name all files of a subject; who has the first of them is there."""

    @property
    def source(self) -> str:
        """The line that gets the files into their folder."""
        return f"{self.line} --local-dir {self.root}" if self.line.startswith("hf ") else self.line

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects of whom there are files."""
        return tuple(each for each in SUBJECTS if any(self.root.glob(self.wanted(each)[0].name)))

    def files(self, subject: int) -> Sequence[Path]:
        """List all files of a subject; MissingData where one is missing that must be there."""
        listed: list[Path] = []
        for name, _, is_optional in self.wanted(subject):
            paths = sorted(self.root.glob(name))
            listed += paths if is_optional else require(paths, str(self.root / name), self.source)
        return listed

    def needs(self, subject: int) -> list[Need]:
        """List the same, where they are missing too."""
        return [
            replace(files(sorted(self.root.glob(name)), name, self.root, self.source, size), is_optional=left)
            for name, size, left in self.wanted(subject)
        ]


def voxels(subject: int, width: int, roots: Sequence[Path], source: str) -> Voxels:
    """Name the regions of V voxels: by NSD's masks, else by MindEye2's, else as nsdgeneral alone.

    Args:
        subject: Counted from 1.
        width: V, which the masks must have.
        roots: Folders below which nsddata, or MindEye2's file of masks, may lie.
        source: Where the files are had.
    """
    for root in roots:
        if (folder := root / f"nsddata/ppdata/subj{subject:02d}/func1pt8mm/roi").is_dir():
            masks = Masks.below(folder, GENERAL)
            mask = masks.mask()
            if (count := int(mask.sum())) != width:
                raise BrainhiveError(
                    f"{masks.files[GENERAL]} has {count} voxels, the signals {width}", source
                )
            return masks.voxels(mask)
    for root in roots:
        if is_file(path := root / REGION_MASKS):
            return Voxels(_regions(path, subject, width, source))
    return Voxels({GENERAL: np.ones(width, bool)})


def _regions(path: Path, subject: int, width: int, source: str) -> Mapping[str, NDArray[np.bool_]]:
    group = f"subj{subject:02d}"
    with hdf5.open_file(path, source) as file:
        names = [name for name in file[group] if name != GENERAL_OF_MINDEYE]
        general = hdf5.open_numbers(file, f"{group}/{GENERAL_OF_MINDEYE}", "fiub")[:] > 0
        found = {name: hdf5.open_numbers(file, f"{group}/{name}", "fiub")[:] > 0 for name in names}
        if any(mask.shape != general.shape for mask in found.values()):
            raise ValueError("its masks have several shapes")
        found = {GENERAL: np.ones(int(general.sum()), bool)} | {n: mask[general] for n, mask in found.items()}
    if len(found[GENERAL]) != width:
        raise BrainhiveError(
            f"{path} has {len(found[GENERAL])} voxels of {group}, the signals {width}", source
        )
    return found


Sample = dict[str, tuple[int, int]]
"""A sample of a webdataset tar: ending of each member to its byte offset and size."""


def samples(path: Path, source: str) -> Iterator[Sample]:
    """Yield the samples of a webdataset tar in order: members with one name up to the first dot."""
    found: dict[str, Sample] = {}
    with reading(path, source), path.open("rb") as file:
        for name, offset, size in tar_members(file, path.stat().st_size):
            key, _, ending = name.rpartition("/")[2].partition(".")
            if key and ending:
                found.setdefault(key, {})[ending] = offset, size
        if not found:
            raise ValueError("it holds no samples")
    yield from found.values()


def array(path: Path, sample: Sample, ending: str, source: str) -> NDArray[Any]:
    """Read a member of a sample that is an .npy of numbers."""
    with reading(path, source), path.open("rb") as file:
        if ending not in sample:
            raise ValueError(f"a sample has no {ending}")
        return pickles.numbers(read_at(file, *sample[ending]), ending)


def require(paths: Sequence[Path], what: str, source: str) -> Sequence[Path]:
    """Return files; MissingData where there are none."""
    if not paths:
        raise MissingData(f"no {what}", source)
    return paths
