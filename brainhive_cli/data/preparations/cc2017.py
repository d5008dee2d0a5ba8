"""cc2017 as NeuroClips distributes it: one response a voxel, cortical vertices of the fsLR 32k surface."""

from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations._prepared import Files, FilesByRow, PreparedFiles
from brainhive_cli.data.published_data import FOLDERS, PUBLISHED, TensorRows, fetch_line, find_below
from brainhive_cli.data.spaces import Voxels
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.trials import Lazy, Trials

FILE, FRAMES = "subj{subject:02d}_{split}_fmri.pt", "GT_{split}_3fps.pt"
REPETITIONS = {"train": 2, "test": 10}
SOURCE = fetch_line("cc2017")
"""Hint on how to get the files."""


class Config(parts.Config):
    """Tensors [N, R, V] of subj0N_{train,test}_fmri.pt: each training clip twice, each test clip ten times.

    Each run was detrended and z-scored. Which vertices are kept is not published, so there are no regions.
    """

    root: str = Field("", description="folder of the files; default: cc2017 below paths.data")

    def build(self, paths: Paths) -> PreparedFiles:
        """Point at the data; nothing is read yet."""
        root, published, files = paths.dataset("cc2017", self.root), PUBLISHED["cc2017"], {}
        for split, count in published.stimuli.items():
            patterns = tuple(folder + FILE.replace("{split}", split) for folder in FOLDERS)
            row_bytes = 4 * count * REPETITIONS[split]  # as the publisher has them, in float32
            files[split] = Files(patterns, {n: row_bytes * width for n, width in published.voxels.items()})
        return PreparedFiles("cc2017", root, SOURCE, files, partial(_read, root))


TINY = Config()


def _read(root: Path, files: FilesByRow, subject: int, split: str) -> Trials:
    """Open the responses of a split; as many as clips, and voxels as in training."""
    path = files[split][0]
    with reading(path, SOURCE):
        signal = pickles.array(pickles.load(path))
        if signal.ndim != 3 or not signal.size or signal.dtype.kind != "f":
            raise ValueError(f"it holds {signal.dtype} {list(signal.shape)}, not signals [N, R, V]")

    # as many clips as the frames, if these are here
    if films := find_below(root, FRAMES.format(split=split)):
        clips, *_ = TensorRows(films).shape("N, F, 3, H, W", SOURCE)
        if clips != len(signal):
            difference = f"{path} has responses to {len(signal)} clips, and {films.name} has {clips}"
            raise BrainhiveError(difference, f"get both from one place: {SOURCE}")

    # the same voxels in training and test
    training = files["train"][0]
    *_, width = TensorRows(training).shape("N, R, V", SOURCE)
    if width != signal.shape[2]:
        difference = f"{path} has {signal.shape[2]} voxels, and {training.name} has {width}"
        raise BrainhiveError(difference, f"get both from one place: {SOURCE}")

    return Trials(
        Lazy(path, (*signal.shape, 1), signal.dtype, lambda part: signal[part][..., None]),
        [f"{split}/{index}" for index in range(len(signal))],
        Voxels({}),
        np.zeros(1),
        None,
        "z-score",
        {"source": path.name},
    )
