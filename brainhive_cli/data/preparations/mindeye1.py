"""NSD as MindEye1 distributes it: the repetitions of each picture together, z-scored by session."""

from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Array
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.lines import Line
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations._nsd import PICTURES, name_voxels
from brainhive_cli.data.preparations._prepared import Files, FilesByRow, PreparedFiles, list_samples
from brainhive_cli.data.published_data import name_nsd_picture
from brainhive_cli.data.trials import Lazy, Trials

TARS = "webdataset_avg_split/{0}/{0}_subj{{subject:02d}}_*.tar"
FILES = {name: Files((TARS.format(name),), is_optional=name == "val") for name in ("train", "val", "test")}
FOLDERS = {"train": ("train", "val"), "test": ("test",)}
"""Folders with the pictures of a split; `val` is 300 training pictures."""
SIGNAL, PICTURE, COUNT, TRIALS = "nsdgeneral.npy", "coco73k.npy", "num_uniques.npy", "trial.npy"
SOURCE = "hf download pscotti/naturalscenesdataset --repo-type dataset --include 'webdataset_avg_split/*'"


class Config(parts.Config):
    """MindEye1's NSD: webdataset_avg_split/{train,val,test}/*_subj0N_*.tar, 8,859 and 982 pictures.

    Fewer than three repetitions are repeated in the files, and kept once here. Regions are named by nsddata
    below root or below the data set nsd.
    """

    root: str = Field("", description="folder of the files; default: naturalscenesdataset below paths.data")
    needs_regions: bool = Field(False, description="refuse signals whose regions no mask of NSD names")

    def build(self, paths: Paths) -> PreparedFiles:
        """Point at the data; nothing is read yet."""
        root = paths.dataset("naturalscenesdataset", self.root)
        read = partial(_read, (root, paths.dataset("nsd")), self.needs_regions)
        return PreparedFiles("nsd", root, f"{SOURCE} --local-dir {root}", FILES, read)


TINY = Config(root="naturalscenesdataset")


def _read(
    roots: tuple[Path, Path], needs_regions: bool, files: FilesByRow, subject: int, split: str
) -> Trials:
    """Open the pictures of a split, in the order of the files."""
    # one sample for each picture
    samples = list(list_samples((path for name in FOLDERS[split] for path in files[name]), SOURCE))
    image_ids = []
    for sample in samples:
        row = sample.array(PICTURE).ravel()
        if len(row) != 1 or not 0 <= int(row[0]) < PICTURES:
            raise BrainhiveError(f"{sample.path}: {PICTURE} is no picture of NSD", SOURCE)
        image_ids.append(name_nsd_picture(int(row[0])))

    # rows of each signal that are trials of their own, in the order of time
    repetitions = []
    for sample in samples:
        count = int(sample.array(COUNT).ravel()[0])
        trials = sample.array(TRIALS).ravel() if TRIALS in sample.members else np.arange(count)
        _, first_rows = np.unique(trials, return_index=True)
        if count < 1 or len(first_rows) != count:
            problem = f"{sample.path}: {len(first_rows)} trials of a picture, {COUNT} says {count}"
            raise BrainhiveError(problem, SOURCE)
        repetitions.append(first_rows.tolist())
    counts = np.array([len(rows) for rows in repetitions], np.int64)
    first = samples[0].array(SIGNAL)
    most, width = int(counts.max()), first.shape[-1]

    voxels = name_voxels(subject, width, roots, SOURCE)
    if needs_regions and len(voxels.regions) == 1:
        raise MissingData(f"no masks of NSD below {roots[1]}, which name regions", Line("fetch", "nsd"))

    def read(part: slice) -> Array:
        signal = np.zeros((len(samples[part]), most, width, 1), first.dtype)  # [n, R, V, 1]
        for target, sample, rows in zip(signal, samples[part], repetitions[part], strict=True):
            values, path = sample.array(SIGNAL), sample.path
            if values.ndim != 2 or values.shape[1] != width or max(rows) >= len(values):
                raise BrainhiveError(f"{path}: signals {list(values.shape)} are not [R, {width}]", SOURCE)
            if not np.isfinite(values).all():
                raise BrainhiveError(f"{path} has signals that are not finite", SOURCE)
            target[: len(rows), :, 0] = values[rows]
        return signal

    return Trials(
        Lazy(samples[0].path.parents[1], (len(samples), most, width, 1), first.dtype, read),
        image_ids,
        voxels,
        np.zeros(1),
        None,
        "z-score",
        {"source": "webdataset_avg_split"},
        counts,
    )
