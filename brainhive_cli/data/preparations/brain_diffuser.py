"""NSD as Brain-Diffuser prepares it: the mean over the repetitions of each picture, voxels of nsdgeneral."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Array, Float64
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations._nsd import (
    MATRIX,
    PERCENT,
    SESSION_TRIALS,
    SESSIONS,
    Design,
    find_design,
    name_voxels,
)
from brainhive_cli.data.preparations._prepared import Files, FilesByRow, PreparedFiles
from brainhive_cli.data.published_data import name_nsd_picture
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.trials import Lazy, Trials

MEANS = "processed_data/subj{subject:02d}/nsd_%s_fmriavg_nsdgeneral_sub{subject}.npy"
FILES = {split: Files((MEANS % split,)) for split in ("train", "test")}
CHUNK = 512
"""Pictures that are read at a time."""
SOURCE = "make them by data/prepare_nsddata.py of ozcelikfu/brain-diffuser"


class Config(parts.Config):
    """Brain-Diffuser's NSD: processed_data/subj0N/nsd_{train,test}_fmriavg_nsdgeneral_subN.npy.

    The files do not say which pictures they are of: nsd_expdesign.mat does, below root or the data set nsd,
    as do the masks that name the regions.
    """

    root: str = Field("", description="folder of processed_data; default: brain_diffuser below paths.data")
    zscore: bool = Field(
        True, description="z-score each voxel by the training pictures (ddof 1), as its authors do after"
    )

    def build(self, paths: Paths) -> PreparedFiles:
        """Point at the data; nothing is read yet."""
        roots = paths.dataset("brain_diffuser", self.root), paths.dataset("nsd")

        def design() -> Path:
            try:
                return find_design(roots[0])
            except MissingData:
                return find_design(roots[1])

        read = partial(_read, roots, design, self.zscore)
        return PreparedFiles("nsd", roots[0], SOURCE, FILES, read, (MATRIX, design))


TINY = Config(root="brain_diffuser")


def _read(
    roots: tuple[Path, Path],
    design: Callable[[], Path],
    zscore: bool,
    files: FilesByRow,
    subject: int,
    split: str,
) -> Trials:
    """Open the means of a split, in percent of signal change, or z-scored."""
    # [pictures, V]
    path = files[split][0]
    signal = _open(path)
    width = signal.shape[1]

    @cache  # at the first slice: a plan needs the shape alone
    def measure_voxels() -> tuple[Float64, Float64]:
        """Measure mean and 1 / spread [V] of training pictures [N, V]; 0 of a voxel that does not vary."""
        if not zscore:
            return np.zeros(width), np.ones(width)
        training = _open(files["train"][0])
        parts = [slice(start, start + CHUNK) for start in range(0, len(training), CHUNK)]
        mean, squares = np.zeros((2, training.shape[1]))
        for part in parts:
            mean += (training[part] / PERCENT).sum(0) / len(training)
        for part in parts:
            squares += ((training[part] / PERCENT - mean) ** 2).sum(0)
        spread = np.sqrt(squares / max(1, len(training) - 1))
        # 1e-12 percent: rounding
        return mean, np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-12)

    def read(part: slice) -> Array:
        mean, scale = measure_voxels()
        values = (np.asarray(signal[part]) / PERCENT - mean) * scale
        return values[:, None, :, None].astype(np.float32)

    return Trials(
        Lazy(path, (len(signal), 1, width, 1), np.dtype(np.float32), read),
        _list_pictures(path, design(), subject, split, len(signal)),
        name_voxels(subject, width, roots, SOURCE),
        np.zeros(1),
        None,
        "z-score" if zscore else "% signal change",
        {"source": path.name, "averaged": "over the repetitions of each picture"},
    )


def _open(path: Path) -> Array:
    signal = pickles.load(path)
    if not isinstance(signal, np.ndarray) or signal.ndim != 2 or signal.dtype.kind != "f":
        raise BrainhiveError(f"{path} is no array [pictures, V]", SOURCE)
    return signal


def _list_pictures(path: Path, matrix: Path, subject: int, split: str, count: int) -> list[str]:
    """List the pictures of a file, which are in the order of first sight.

    Raises:
        BrainhiveError: if no number of sessions shows so many.
    """
    # trials of a split at which a picture was seen for the first time, ascending
    design = Design.open(matrix, subject)
    split_trials = np.flatnonzero(design.is_test == (split == "test"))
    _, first = np.unique(design.rows[split_trials], return_index=True)
    trials = split_trials[np.sort(first)]

    # files hold the pictures of a number of complete sessions
    ends = np.arange(1, max(SESSIONS) + 1) * SESSION_TRIALS
    if count not in np.searchsorted(trials, ends):
        problem = f"{path} has {count} pictures, as no number of sessions of {matrix} has"
        raise BrainhiveError(problem, "the files of training and test may be swapped, or of another subject")
    return [name_nsd_picture(row) for row in design.rows[trials[:count]].tolist()]
