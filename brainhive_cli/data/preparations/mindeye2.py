"""NSD as MindEye2 distributes it: all trials of nsdgeneral, z-scored in each session by training trials."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations._nsd_design import (
    FIRST_RELEASE,
    PICTURES,
    SESSION_TRIALS,
    SESSIONS,
    image_id,
)
from brainhive_cli.data.preparations._nsd_prepared import (
    MASKS,
    SPLITS,
    Prepared,
    Wanted,
    array,
    samples,
    voxels,
)
from brainhive_cli.data.published_data import PUBLISHED
from brainhive_cli.data.stores import hdf5
from brainhive_cli.data.stores.recordings import Recording, Sliced, gather_trials, group_trials

BEHAVIOUR = "behav.npy"
ROW, SESSION, TRIAL, IS_SHARED = 0, 2, 5, 16
"""Columns of BEHAVIOUR: picture counted from 0, session from 1, row of betas from 0, whether all saw the
picture; -1 is not known."""
FOLDERS = {"train": ("train",), "test": ("new_test", "test")}
"""Where the trials of a split are named; `test` lacks those of the sessions that were held back."""
SOURCE = (
    "hf download pscotti/mindeyev2 --repo-type dataset --include 'betas_all_*' --include 'wds/*' "
    "--include 'brain_region_*'"
)


class Config(parts.Config):
    """MindEye2's NSD: betas_all_subj0N_fp32_renorm.hdf5 and wds/subj0N/{train,new_test}/*.tar.

    Regions are named by nsddata below root or below the data set nsd, else by brain_region_masks.hdf5.
    """

    root: str = Field("", description="folder of the files; default: mindeyev2 below paths.data")
    test_pictures: Literal[982, 1000] = Field(
        1000, description="test pictures: all, or those of the first 37 sessions; later ones are left out"
    )

    def build(self, paths: Paths) -> "MindEye2":
        """Point at the data; nothing is read yet."""
        return MindEye2(paths.dataset("mindeyev2", self.root), paths.dataset("nsd"), self)


TINY = Config(root="mindeyev2")


@dataclass(frozen=True)
class MindEye2(Prepared):
    """The files below one root."""

    config: Config
    line = SOURCE

    def wanted(self, subject: int) -> list[Wanted]:
        """Name the betas of all trials, in float32, the tars that name the trials, and the masks."""
        size = 4 * SESSIONS[subject - 1] * SESSION_TRIALS * PUBLISHED["nsd"].voxels[subject]
        tars = [Wanted(self._tars(subject, split)) for split in SPLITS]
        return [Wanted(self._betas(subject).name, size), *tars, MASKS]

    def recording(self, subject: int, split: str) -> Recording:
        """Open the trials of a split, grouped by picture in the order of time."""
        path = self._betas(subject)
        with hdf5.open_file(path, SOURCE) as file:
            stored = hdf5.open_numbers(file, "betas", "f")
            if stored.ndim != 2:
                raise ValueError(f"betas {list(stored.shape)} are not [trials, V]")
            count, width = stored.shape
            dtype = np.dtype(stored.dtype)
        trials = self._trials(subject, split, count)
        pictures, table, counts = group_trials(trials[:, ROW])
        is_there = table >= 0
        rows, sessions = (np.where(is_there, trials[table, column], -1) for column in (TRIAL, SESSION))

        def read(part: slice) -> NDArray[Any]:
            with hdf5.open_file(path, SOURCE) as file:
                return gather_trials(rows, (width, 1), dtype, lambda row: file["betas"][row][:, None])(part)

        return Recording(
            Sliced(path, (*rows.shape, width, 1), dtype, read),
            [image_id(row) for row in pictures.tolist()],
            voxels(subject, width, (self.root, self.nsd), SOURCE),
            np.zeros(1),
            None,
            "z-score",
            {"source": path.name, "test_pictures": self.config.test_pictures},
            counts,
            np.where(is_there, sessions - 1, -1).astype(np.int8),
        )

    def _betas(self, subject: int) -> Path:
        return self.root / f"betas_all_subj{subject:02d}_fp32_renorm.hdf5"

    def _tars(self, subject: int, split: str) -> str:
        """Give the pattern of a split's tars: of the first folder that has any."""
        folders = FOLDERS[split] if self.config.test_pictures == 982 else FOLDERS[split][:1]
        names = [f"wds/subj{subject:02d}/{folder}/*.tar" for folder in folders]
        return next((name for name in names if any(self.root.glob(name))), names[0])

    def _trials(self, subject: int, split: str, count: int) -> NDArray[np.int64]:
        """Read the behaviour [n, 17] of the trials of a split, in the order of time."""
        found = []
        for path in sorted(self.root.glob(self._tars(subject, split))):
            found += [self._behaviour(path, sample, split, count) for sample in samples(path, SOURCE)]
        trials = np.array(found, np.int64).reshape(len(found), -1)
        last = FIRST_RELEASE if self.config.test_pictures == 982 else max(SESSIONS)
        trials = trials[trials[:, SESSION] <= last] if len(trials) else trials
        if not len(trials):
            raise BrainhiveError(f"{self.root} names no {split} trials of subject {subject}", SOURCE)
        trials = trials[np.argsort(trials[:, TRIAL], kind="stable")]
        if (np.diff(trials[:, TRIAL]) == 0).any():
            raise BrainhiveError(f"{self.root} names {split} trials of subject {subject} twice", SOURCE)
        return trials

    def _behaviour(self, path: Path, sample: Any, split: str, count: int) -> NDArray[np.int64]:
        values = array(path, sample, BEHAVIOUR, SOURCE).ravel()
        if len(values) <= IS_SHARED or not np.isfinite(values).all():
            raise BrainhiveError(f"{path}: a sample's behaviour is not 17 numbers", SOURCE)
        row, session, trial, is_shared = (int(values[n]) for n in (ROW, SESSION, TRIAL, IS_SHARED))
        if not (0 <= row < PICTURES and 1 <= session <= max(SESSIONS) and 0 <= trial < count):
            raise BrainhiveError(
                f"{path} names picture {row}, session {session}, trial {trial} of {count}", SOURCE
            )
        if is_shared >= 0 and bool(is_shared) != (split == "test"):
            raise BrainhiveError(f"{path} has trials of the other split than {split}", SOURCE)
        return values.astype(np.int64)
