"""cc2017 as NeuroClips distributes it: one response a voxel, cortical vertices of the fsLR 32k surface."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from brainhive_cli.core import needs, parts
from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.needs import Need
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.published_data import PUBLISHED
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.stores.recordings import Recording, Sliced, Voxels
from brainhive_cli.data.stores.tensor_rows import FOLDERS, TensorRows, find_below

FILE, FRAMES = "subj{subject:02d}_{split}_fmri.pt", "GT_{split}_3fps.pt"
NAMED = re.compile(r"subj(\d+)_train_fmri\.pt")
SOURCE = "brainhive fetch cc2017"


class Config(parts.Config):
    """Tensors [N, R, V] of subj0N_{train,test}_fmri.pt: each training clip twice, each test clip ten times.

    Each run was detrended and z-scored. Which vertices are kept is not published, so there are no regions.
    """

    root: str = Field("", description="folder of the files; default: cc2017 below paths.data")

    def build(self, paths: Paths) -> "Films":
        """Point at the data; nothing is read yet."""
        return Films(paths.dataset("cc2017", self.root))


TINY = Config()


@dataclass(frozen=True)
class Films:
    """The files below one root."""

    root: Path
    dataset: str = "cc2017"
    splits: tuple[str, ...] = ("train", "test")

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects whose training files are there."""
        names = (path.name for folder in FOLDERS for path in self.root.glob(f"{folder}subj*_train_fmri.pt"))
        return tuple(sorted({int(found[1]) for found in map(NAMED.fullmatch, names) if found}))

    def files(self, subject: int) -> Sequence[Path]:
        """List the files of both splits."""
        return [self._file(subject, split) for split in self.splits]

    def needs(self, subject: int) -> list[Need]:
        """List the files of a subject; as the publisher has them, in float32."""
        voxels, repetitions = PUBLISHED["cc2017"].voxels.get(subject, 0), {"train": 2, "test": 10}
        listed = []
        for split, count in PUBLISHED["cc2017"].stimuli.items():
            name = FILE.format(subject=subject, split=split)
            size = 4 * count * repetitions[split] * voxels or None
            listed.append(needs.files(find_below(self.root, name), name, self.root, SOURCE, size))
        return listed

    def recording(self, subject: int, split: str) -> Recording:
        """Open a split's signals; they are read, and must be finite, when they are sliced."""
        path = self._file(subject, split)
        with reading(path, SOURCE):
            signal = pickles.array(pickles.load(path))
            if signal.ndim != 3 or not signal.size or signal.dtype.kind != "f":
                raise ValueError(f"it holds {signal.dtype} {list(signal.shape)}, not signals [N, R, V]")
        self._refuse_other_clips(path, split, len(signal))
        self._refuse_other_voxels(path, subject, signal.shape[2])
        shape = (*signal.shape, 1)

        def read(part: slice) -> NDArray[np.floating]:
            return signal[part][..., None]

        return Recording(
            Sliced(path, shape, signal.dtype, read),
            [f"{split}/{index}" for index in range(len(signal))],
            Voxels({}),
            np.zeros(1),
            None,
            "z-score",
            {"source": path.name},
        )

    def _file(self, subject: int, split: str) -> Path:
        name = FILE.format(subject=subject, split=split)
        if (found := find_below(self.root, name)) is None:
            raise MissingData(f"no {self.root}/{name}", SOURCE)
        return found

    def _refuse_other_voxels(self, path: Path, subject: int, count: int) -> None:
        """Refuse responses of other voxels than those to the training clips."""
        first = self._file(subject, self.splits[0])
        *_, voxels = TensorRows(first).shape("N, R, V", SOURCE)
        if voxels != count:
            raise BrainhiveError(
                f"{path} has {count} voxels, and {first.name} has {voxels}",
                f"get both from one place: {SOURCE}",
            )

    def _refuse_other_clips(self, path: Path, split: str, count: int) -> None:
        """Refuse responses that are not as many as the clips, where these are there."""
        if films := find_below(self.root, FRAMES.format(split=split)):
            clips, *_ = TensorRows(films).shape("N, F, 3, H, W", SOURCE)
            if clips != count:
                raise BrainhiveError(
                    f"{path} has responses to {count} clips, and {films.name} has {clips}",
                    f"get both from one place: {SOURCE}",
                )
