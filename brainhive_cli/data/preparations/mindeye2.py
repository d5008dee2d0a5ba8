"""NSD as MindEye2 distributes it: all trials of nsdgeneral, z-scored in each session by training trials."""

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Array
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations._nsd import (
    LAST_SESSIONS,
    PICTURES,
    REGION_MASKS,
    SESSION_TRIALS,
    SESSIONS,
    SUBJECTS,
    name_voxels,
)
from brainhive_cli.data.preparations._prepared import Files, FilesByRow, PreparedFiles, list_samples
from brainhive_cli.data.published_data import PUBLISHED, name_nsd_picture
from brainhive_cli.data.stores import hdf5
from brainhive_cli.data.trials import Lazy, Trials, gather_trials, group_trials

BETAS = "betas_all_subj{subject:02d}_fp32_renorm.hdf5"
TARS = "wds/subj{subject:02d}/%s/*.tar"
BYTES = {n: 4 * SESSIONS[n - 1] * SESSION_TRIALS * PUBLISHED["nsd"].voxels[n] for n in SUBJECTS}
"""Size of the betas in float32."""
BEHAVIOUR = "behav.npy"
ROW, SESSION, TRIAL, IS_SHARED = 0, 2, 5, 16
"""Columns of BEHAVIOUR: picture counted from 0, session from 1, row of betas from 0, whether all saw the
picture; -1 is not known."""
TEST_FOLDERS = {1000: ("new_test",), 982: ("new_test", "test")}
"""Folders that name the test trials; `test` lacks those of the sessions that were held back."""
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

    def build(self, paths: Paths) -> PreparedFiles:
        """Point at the data; nothing is read yet."""
        root = paths.dataset("mindeyev2", self.root)
        files = {
            "betas": Files((BETAS,), BYTES),
            "train": Files((TARS % "train",)),
            "test": Files(tuple(TARS % folder for folder in TEST_FOLDERS[self.test_pictures])),
            "masks": Files((REGION_MASKS,), is_optional=True),
        }
        read = partial(_read, (root, paths.dataset("nsd")), self.test_pictures)
        return PreparedFiles("nsd", root, f"{SOURCE} --local-dir {root}", files, read)


TINY = Config(root="mindeyev2")


def _read(
    roots: tuple[Path, Path], test_pictures: Literal[982, 1000], files: FilesByRow, subject: int, split: str
) -> Trials:
    """Open the trials of a split, grouped by picture in the order of time."""
    # shape of the betas [trials, V], which stay on disk
    path = files["betas"][0]
    with hdf5.open_file(path, SOURCE) as file:
        stored = hdf5.open_numbers(file, "betas", "f")
        if stored.ndim != 2:
            raise ValueError(f"betas {list(stored.shape)} are not [trials, V]")
        count, width = stored.shape
        dtype = np.dtype(stored.dtype)

    # trials of the split in the order of time
    rows = []
    for sample in list_samples(files[split], SOURCE):
        values = sample.array(BEHAVIOUR).ravel()
        if len(values) <= IS_SHARED or not np.isfinite(values).all():
            raise BrainhiveError(f"{sample.path}: a sample's behaviour is not 17 numbers", SOURCE)
        row, session, trial, is_shared = (int(values[n]) for n in (ROW, SESSION, TRIAL, IS_SHARED))
        if not (0 <= row < PICTURES and 1 <= session <= max(SESSIONS) and 0 <= trial < count):
            problem = f"{sample.path} names picture {row}, session {session}, trial {trial} of {count}"
            raise BrainhiveError(problem, SOURCE)
        if is_shared >= 0 and bool(is_shared) != (split == "test"):
            raise BrainhiveError(f"{sample.path} has trials of the other split than {split}", SOURCE)
        rows.append(values)
    behaviour = np.array(rows).astype(np.int64)  # [trials, 17]
    behaviour = behaviour[behaviour[:, SESSION] <= LAST_SESSIONS[test_pictures]]
    if not len(behaviour):
        raise BrainhiveError(f"{roots[0]} names no {split} trials of subject {subject}", SOURCE)
    behaviour = behaviour[np.argsort(behaviour[:, TRIAL], kind="stable")]
    if (np.diff(behaviour[:, TRIAL]) == 0).any():
        raise BrainhiveError(f"{roots[0]} names {split} trials of subject {subject} twice", SOURCE)

    # trials and sessions [N, R] of each picture; -1 where it has fewer repetitions
    pictures, table, counts = group_trials(behaviour[:, ROW])
    is_there = table >= 0
    trials, sessions = (np.where(is_there, behaviour[table, column], -1) for column in (TRIAL, SESSION))

    def read(part: slice) -> Array:
        with hdf5.open_file(path, SOURCE) as file:
            return gather_trials(trials, (width, 1), dtype, lambda row: file["betas"][row][:, None])(part)

    return Trials(
        Lazy(path, (*trials.shape, width, 1), dtype, read),
        [name_nsd_picture(row) for row in pictures.tolist()],
        name_voxels(subject, width, roots, SOURCE),
        np.zeros(1),
        None,
        "z-score",
        {"source": path.name, "test_pictures": test_pictures},
        counts,
        np.where(is_there, sessions - 1, -1).astype(np.int8),
    )
