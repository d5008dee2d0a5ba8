"""Generic Object Decoding and Deep Image Reconstruction, from tables of samples in bdpy's HDF5."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.preparations._betas import BetaSteps
from brainhive_cli.data.preparations._published import PublishedBetas, Subject
from brainhive_cli.data.published_data import WAY_OUT, find_file
from brainhive_cli.data.stores import hdf5
from brainhive_cli.data.stores.recordings import Voxels

SPLITS = {1: "train", 2: "test", 3: "imagery"}
"""By DataType."""
PICTURES = ("stimulus_name", "stimulus_id", "Label")
"""Columns that say which picture it was; the first that is there counts."""
LABELS = {*PICTURES, "DataType", "Run"}
FIRST_SYNSET = 1740
"""The number of WordNet's first noun; below it is none of a picture of ImageNet."""
NOTHING = "samples of no picture"
AGAIN = "training samples of the picture before, which subjects were to notice"


class Config(BetaSteps):
    """Subject{1…5}.h5 of Generic Object Decoding: averages of blocks; imagined pictures are `imagery`.

    Attributes:
        name: Of the data set.
        patterns: Of a subject's files, each a session, and the split of those that do not say it.
    """

    name: ClassVar[str] = "god"
    patterns: ClassVar[Mapping[str, str]] = {"Subject{subject}.h5": "train"}

    root: str = Field("", description="folder of the files; default: the data set's name below paths.data")

    def build(self, paths: Paths) -> PublishedBetas:
        """Point at the data; nothing is read yet."""
        root, first = paths.dataset(self.name, self.root), next(iter(self.patterns))
        return PublishedBetas(self, root, dataset=self.name, pattern=first, find=_find, unit="block average")


TINY = Config()


def _find(config: Config, root: Path, subject: int) -> Subject:
    """Read the labels of all samples; each file is a session."""
    trials: list[tuple[str, str, int, int]] = []
    paths = [find_file(root, pattern.format(subject=subject)) for pattern in config.patterns]
    for session, (path, split) in enumerate(zip(paths, config.patterns.values(), strict=True), 1):
        with hdf5.open_file(path, WAY_OUT) as file:
            samples, columns = _open_samples(file)
            labels = {key: samples[:, int(columns[key].argmax())].tolist() for key in LABELS & columns.keys()}
            key = next((key for key in PICTURES if key in labels), PICTURES[0])
            group: Any = file.get(f"vmap/{key}", {})
            names = {float(number): str(np.asarray(group[number]).astype(str)) for number in group}
            if not names and samples.dtype.itemsize < 8:
                raise ValueError(f"{key} is {samples.dtype}, which rounds the numbers of pictures")
            pictures = ["", *(names.get(number) or _name_picture(number) for number in labels[key])]
        types = [SPLITS.get(one, NOTHING) for one in labels.get("DataType", ())] or [split] * len(pictures)
        for place, (before, picture) in enumerate(pairwise(pictures)):
            is_again = types[place] == "train" and picture == before
            reason = AGAIN if is_again else types[place]
            run = int(labels["Run"][place]) if "Run" in labels else 1
            trials.append((picture, reason if picture else NOTHING, session, run))

    def read(session: int) -> NDArray[Any]:
        with hdf5.open_file(paths[session - 1], WAY_OUT) as file:
            samples, columns = _open_samples(file)
            return np.asarray(samples[:])[:, columns["VoxelData"]]

    is_voxel = columns["VoxelData"]
    regions = {key[4:]: mask[is_voxel] for key, mask in columns.items() if key.startswith("ROI_")}
    return Subject(paths, Voxels(regions), int(is_voxel.sum()), trials, read)


def _open_samples(file: h5py.File) -> tuple[h5py.Dataset, dict[str, NDArray[np.bool_]]]:
    """Open the samples [n, columns], and read which columns each key has."""
    data, metadata = ("dataset", "metadata") if "dataset" in file else ("dataSet", "metaData")
    keys = hdf5.find_dataset(file, f"{metadata}/key")[:].astype(str).tolist()
    masks = hdf5.open_numbers(file, f"{metadata}/value", "f")[:] == 1
    return hdf5.open_numbers(file, data, "f"), dict(zip(keys, masks, strict=True))


def _name_picture(number: float) -> str:
    """Name a picture of ImageNet: 1443537.022563 is n01443537_22563; nothing, where it is no such number."""
    synset, _, picture = f"{number:.6f}".partition(".")
    return f"n{int(synset):08d}_{int(picture)}" if number >= FIRST_SYNSET else ""
