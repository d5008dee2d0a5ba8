"""NSD as Brain-Diffuser prepares it: the mean over the repetitions of each picture, voxels of nsdgeneral."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.needs import Need
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations._nsd_design import MATRIX, SESSIONS, Design, image_id, path_of
from brainhive_cli.data.preparations._nsd_prepared import SPLITS, Prepared, Wanted, voxels
from brainhive_cli.data.preparations._nsd_volumes import PERCENT
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.stores.recordings import Recording, Sliced

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

    def build(self, paths: Paths) -> "BrainDiffuser":
        """Point at the data; nothing is read yet."""
        return BrainDiffuser(paths.dataset("brain_diffuser", self.root), paths.dataset("nsd"), self)


TINY = Config(root="brain_diffuser")


@dataclass(frozen=True)
class BrainDiffuser(Prepared):
    """The files below one root, and the design."""

    config: Config
    line = SOURCE

    def wanted(self, subject: int) -> list[Wanted]:
        """Name the means of both splits."""
        return [Wanted(str(self._path(subject, split).relative_to(self.root))) for split in SPLITS]

    def files(self, subject: int) -> Sequence[Path]:
        """List the means of both splits, and the design."""
        return [*super().files(subject), self._design()]

    def needs(self, subject: int) -> list[Need]:
        """List the same, where they are missing too."""
        return [*super().needs(subject), Need.of(MATRIX, self._design)]

    def recording(self, subject: int, split: str) -> Recording:
        """Open the means of a split, in percent of signal change, or z-scored."""
        path, signal = self._open(subject, split)
        width = signal.shape[1]

        @cache  # at the first slice: a plan needs the shape alone
        def statistics() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            return self._statistics(subject) if self.config.zscore else (np.zeros(width), np.ones(width))

        def read(part: slice) -> NDArray[Any]:
            mean, scale = statistics()
            values = (np.asarray(signal[part]) / PERCENT - mean) * scale
            return values[:, None, :, None].astype(np.float32)

        return Recording(
            Sliced(path, (len(signal), 1, width, 1), np.dtype(np.float32), read),
            [image_id(row) for row in self._pictures(subject, split, len(signal))],
            voxels(subject, width, (self.root, self.nsd), SOURCE),
            np.zeros(1),
            None,
            "z-score" if self.config.zscore else "% signal change",
            {"source": path.name, "averaged": "over the repetitions of each picture"},
        )

    def _path(self, subject: int, split: str) -> Path:
        folder = self.root / f"processed_data/subj{subject:02d}"
        return folder / f"nsd_{split}_fmriavg_nsdgeneral_sub{subject}.npy"

    def _design(self) -> Path:
        try:
            return path_of(self.root)
        except MissingData:
            return path_of(self.nsd)

    def _open(self, subject: int, split: str) -> tuple[Path, NDArray[Any]]:
        path = self._path(subject, split)
        signal = pickles.load(path)
        if not isinstance(signal, np.ndarray) or signal.ndim != 2 or signal.dtype.kind != "f":
            raise BrainhiveError(f"{path} is no array [pictures, V]", SOURCE)
        return path, signal

    def _statistics(self, subject: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Measure mean and 1 / spread [V] of the training pictures; 0 of a voxel that does not vary."""
        _, signal = self._open(subject, "train")
        parts = [slice(start, start + CHUNK) for start in range(0, len(signal), CHUNK)]
        mean, squares = np.zeros((2, signal.shape[1]))
        for part in parts:
            mean += (signal[part] / PERCENT).sum(axis=0) / len(signal)
        for part in parts:
            squares += ((signal[part] / PERCENT - mean) ** 2).sum(axis=0)
        spread = np.sqrt(squares / max(1, len(signal) - 1))
        return mean, np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-12)

    def _pictures(self, subject: int, split: str, count: int) -> Sequence[int]:
        """Say which pictures the files are of: they are in the order of first sight.

        Raises:
            BrainhiveError: if no number of sessions shows so many.
        """
        path = self._design()
        design, place = Design.open(path, subject), SPLITS.index(split)
        if count not in {design.seen(sessions)[place] for sessions in range(1, max(SESSIONS) + 1)}:
            raise BrainhiveError(
                f"{self._path(subject, split)} has {count} pictures, as no number of sessions of {path} has",
                "the files of training and test may be swapped, or of another subject",
            )
        return design.in_order_of_first_sight(split == "test")[:count]
