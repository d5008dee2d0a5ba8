"""NSD as MindEye1 distributes it: the repetitions of each picture together, z-scored by session."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations._nsd_design import PICTURES, image_id
from brainhive_cli.data.preparations._nsd_prepared import (
    SPLITS,
    Prepared,
    Sample,
    Wanted,
    array,
    require,
    samples,
    voxels,
)
from brainhive_cli.data.stores.recordings import Recording, Sliced

FOLDERS = {"train": ("train", "val"), "test": ("test",)}
"""Where the pictures of a split lie; `val` is 300 training pictures."""
SIGNAL, PICTURE, COUNT, TRIALS = "nsdgeneral.npy", "coco73k.npy", "num_uniques.npy", "trial.npy"
SOURCE = "hf download pscotti/naturalscenesdataset --repo-type dataset --include 'webdataset_avg_split/*'"


class Config(parts.Config):
    """MindEye1's NSD: webdataset_avg_split/{train,val,test}/*_subj0N_*.tar, 8,859 and 982 pictures.

    Fewer than three repetitions are repeated in the files, and kept once here. Regions are named by nsddata
    below root or below the data set nsd.
    """

    root: str = Field("", description="folder of the files; default: naturalscenesdataset below paths.data")

    def build(self, paths: Paths) -> "MindEye1":
        """Point at the data; nothing is read yet."""
        return MindEye1(paths.dataset("naturalscenesdataset", self.root), paths.dataset("nsd"))


TINY = Config(root="naturalscenesdataset")


@dataclass(frozen=True)
class MindEye1(Prepared):
    """The files below one root."""

    line = SOURCE

    def wanted(self, subject: int) -> list[Wanted]:
        """Name the tars of a subject; those of `val` may be left out."""
        folders = (folder for split in SPLITS for folder in FOLDERS[split])
        return [Wanted(_tars(subject, folder), is_optional=folder == "val") for folder in folders]

    def recording(self, subject: int, split: str) -> Recording:
        """Open the pictures of a split, in the order of the files."""
        tars = [path for each in FOLDERS[split] for path in sorted(self.root.glob(_tars(subject, each)))]
        found = [(path, sample) for path in tars for sample in samples(path, SOURCE)]
        require([path for path, _ in found], f"samples in {self.root} of subject {subject}", SOURCE)
        pictures = [_picture(*each) for each in found]
        chosen = [_repetitions(*each) for each in found]
        counts = np.array([len(each) for each in chosen], np.int64)
        most, first = int(counts.max()), array(*found[0], SIGNAL, SOURCE)
        width = first.shape[-1]

        def read(part: slice) -> NDArray[Any]:
            signal = np.zeros((len(found[part]), most, width, 1), first.dtype)
            for target, (path, sample), rows in zip(signal, found[part], chosen[part], strict=True):
                values = array(path, sample, SIGNAL, SOURCE)
                if values.ndim != 2 or values.shape[1] != width or max(rows) >= len(values):
                    raise BrainhiveError(f"{path}: signals {list(values.shape)} are not [R, {width}]", SOURCE)
                if not np.isfinite(values).all():
                    raise BrainhiveError(f"{path} has signals that are not finite", SOURCE)
                target[: len(rows), :, 0] = values[rows]
            return signal

        return Recording(
            Sliced(found[0][0].parents[1], (len(found), most, width, 1), first.dtype, read),
            [image_id(row) for row in pictures],
            voxels(subject, width, (self.root, self.nsd), SOURCE),
            np.zeros(1),
            None,
            "z-score",
            {"source": "webdataset_avg_split"},
            counts,
        )


def _tars(subject: int, folder: str) -> str:
    return f"webdataset_avg_split/{folder}/{folder}_subj{subject:02d}_*.tar"


def _picture(path: Path, sample: Sample) -> int:
    values = array(path, sample, PICTURE, SOURCE).ravel()
    if len(values) != 1 or not 0 <= (row := int(values[0])) < PICTURES:
        raise BrainhiveError(f"{path}: {PICTURE} is no picture of NSD", SOURCE)
    return row


def _repetitions(path: Path, sample: Sample) -> list[int]:
    """Say which rows of a sample's signal are trials of their own, in the order of time."""
    count = int(array(path, sample, COUNT, SOURCE).ravel()[0])
    trials = array(path, sample, TRIALS, SOURCE).ravel() if TRIALS in sample else np.arange(count)
    _, first = np.unique(trials, return_index=True)
    if count < 1 or len(first) != count:
        raise BrainhiveError(f"{path}: {len(first)} trials of a picture, {COUNT} says {count}", SOURCE)
    return [int(place) for place in first]
