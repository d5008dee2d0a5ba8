"""What files of NSD that others have prepared have in common: names of regions, samples of webdatasets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.needs import Need, files
from brainhive_cli.core.plain_files import is_file
from brainhive_cli.preparations._nsd_design import SUBJECTS
from brainhive_cli.preparations._nsd_volumes import Masks
from brainhive_cli.stores import hdf5, mapping, pickles
from brainhive_cli.stores.damage import described
from brainhive_cli.stores.recordings import Recording, Voxels
from brainhive_cli.stores.tar_members import members, read_at

SPLITS = ("train", "test")
GENERAL = "nsdgeneral"
"""The mask whose voxels all of them keep, in C order."""
REGION_MASKS = "brain_region_masks.hdf5"
"""Of MindEye2: for each subject nsd_general and masks of its voxels."""
GENERAL_OF_MINDEYE = "nsd_general"


@dataclass(frozen=True)
class Prepared:
    """Files of NSD that others have prepared.

    Attributes:
        is_there: Whether there are files of a subject.
        files: Lists all that are read of a subject; raises MissingData.
        recording: Opens a subject's recording of a split.
        wanted: Names all files of a subject, or patterns of them, below `root`, with their bytes where known.
        root: The folder of the files.
        source: The line that gets them into it.
    """

    is_there: Callable[[int], bool]
    files: Callable[[int], Sequence[Path]]
    recording: Callable[[int, str], Recording]
    wanted: Callable[[int], Mapping[str, int | None]]
    root: Path
    source: str
    dataset: str = "nsd"
    splits: tuple[str, ...] = SPLITS

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects of whom there are files."""
        return tuple(filter(self.is_there, SUBJECTS))

    def needs(self, subject: int) -> list[Need]:
        """List the files of a subject; regions have names without the masks, too."""
        return [
            replace(
                files(sorted(self.root.glob(name)), name, self.root, self.source, size),
                is_optional=name == REGION_MASKS,
            )
            for name, size in self.wanted(subject).items()
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
        general = mapping.numbers(file, f"{group}/{GENERAL_OF_MINDEYE}", "fiub")[:] > 0
        found = {name: mapping.numbers(file, f"{group}/{name}", "fiub")[:] > 0 for name in names}
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
    with described(path, source), path.open("rb") as file:
        for name, offset, size in members(file, path.stat().st_size):
            key, _, ending = name.rpartition("/")[2].partition(".")
            if key and ending:
                found.setdefault(key, {})[ending] = offset, size
        if not found:
            raise ValueError("it holds no samples")
    yield from found.values()


def array(path: Path, sample: Sample, ending: str, source: str) -> NDArray[Any]:
    """Read a member of a sample that is an .npy of numbers."""
    with described(path, source), path.open("rb") as file:
        if ending not in sample:
            raise ValueError(f"a sample has no {ending}")
        return pickles.numbers(read_at(file, *sample[ending]), ending)


def require(paths: Sequence[Path], what: str, source: str) -> Sequence[Path]:
    """Return files; MissingData where there are none."""
    if not paths:
        raise MissingData(f"no {what}", source)
    return paths
