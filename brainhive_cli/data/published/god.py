"""Generic Object Decoding and Deep Image Reconstruction: pictures, and tables of
samples in bdpy's HDF5.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

from brainhive_cli.core.arrays import Array, Bool
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.files.published_files import fetch_line, find_below, find_file
from brainhive_cli.data.fmri.betas import (
    PublishedBetas,
    PublishedSteps,
    Subject,
)
from brainhive_cli.data.signals.spaces import Voxels

SPLITS = {1: "train", 2: "test", 3: "imagery"}
"""Split of a sample by its DataType."""
PICTURES = ("stimulus_name", "stimulus_id", "Label")
"""Keys that name the picture; the first that is there counts. Of several columns of
`Label`, the second is the number of the picture.
"""
LABELS = {*PICTURES, "DataType", "Run"}
FIRST_SYNSET = 1740
"""Number of WordNet's first noun; no picture of ImageNet has a lower one."""
NOTHING = "samples of no picture"
AGAIN = "training samples of the picture before, which subjects were to notice"


class Averages(PublishedSteps):
    """Generic Object Decoding, from tables of samples in bdpy's HDF5, Subject{1…5}.h5.

    Samples are averages of blocks; imagined pictures are `imagery`.

    Attributes:
        forms: Each form in which the set was published: patterns of a subject's files,
            each a session, and the split of samples that do not say it. The first form
            that is there is read.
    """

    name = "god"
    unit = "block average"
    forms: ClassVar[Sequence[Mapping[str, str]]] = [{"Subject{subject}.h5": "train"}]

    def build(self, paths: Paths) -> PublishedBetas:
        """Point at the data; nothing is read yet."""
        return PublishedBetas(
            self,
            paths.dataset(self.name, self.root),
            patterns=[name for form in self.forms for name in form],
        )

    def open_subject(self, root: Path, subject: int) -> Subject:
        """Read the labels of all samples; each file is a session."""
        # the files of the first form that is there
        forms = [
            {name.format(subject=subject): split for name, split in form.items()}
            for form in self.forms
        ]
        form = next(
            (form for form in forms if any(find_below(root, name) for name in form)),
            forms[0],
        )
        source = fetch_line(self.name)
        paths = [find_file(root, name, source) for name in form]

        # labels of all samples; no voxel is read
        trials = []
        regions: dict[str, Bool] = {}  # masks [V], the same in all files
        for session, (path, split) in enumerate(
            zip(paths, form.values(), strict=True), 1
        ):
            with hdf5.open_file(path, source) as file:
                # the column of each label, [n]
                samples, columns = _open_samples(file)
                labels = {}
                for key in LABELS & columns.keys():
                    rows = np.flatnonzero(columns[key])
                    column = rows[:2][-1] if key == "Label" else rows[0]
                    labels[key] = samples[:, column].tolist()

                # names of pictures: those that the file lists, or those that ImageNet's
                # numbers stand for
                key = next((key for key in PICTURES if key in labels), PICTURES[0])
                group = file.get(f"vmap/{key}", {})
                names = {
                    float(number): str(np.asarray(group[number]).astype(str))
                    for number in group
                }
                if not names and samples.dtype.itemsize < 8:
                    raise ValueError(
                        f"{key} is {samples.dtype}, which rounds the numbers of "
                        "pictures"
                    )
                pictures = [names.get(n) or _name_picture(n) for n in labels[key]]
                is_voxel = columns["VoxelData"]

            keys = [key for key in columns if key.startswith("ROI_")]
            regions = {key.removeprefix("ROI_"): columns[key][is_voxel] for key in keys}

            # split and run of each sample; repeated training pictures are left out
            types = [SPLITS.get(kind, NOTHING) for kind in labels.get("DataType", ())]
            types = types or [split] * len(pictures)
            for index, (before, picture) in enumerate(pairwise(["", *pictures])):
                is_again = types[index] == "train" and picture == before
                reason = AGAIN if is_again else types[index]
                run = int(labels["Run"][index]) if "Run" in labels else 1
                trials.append((picture, reason if picture else NOTHING, session, run))

        def read(session: int) -> Array:
            with hdf5.open_file(paths[session - 1], source) as file:
                samples, columns = _open_samples(file)
                return np.asarray(samples[:])[:, columns["VoxelData"]]  # [n, V]

        return Subject(paths, Voxels(regions), int(is_voxel.sum()), trials, read)


def _open_samples(file: h5py.File) -> tuple[h5py.Dataset, dict[str, Bool]]:
    """Open the samples [n, columns], and read a mask of the columns of each key."""
    # names in newer and older files of bdpy
    data, metadata = (
        ("dataset", "metadata") if "dataset" in file else ("dataSet", "metaData")
    )
    keys = hdf5.find_dataset(file, f"{metadata}/key")[:].astype(str).tolist()
    masks = hdf5.open_numbers(file, f"{metadata}/value", "f")[:] == 1
    return hdf5.open_numbers(file, data, "f"), dict(zip(keys, masks, strict=True))


def _name_picture(number: float) -> str:
    """Name a picture of ImageNet: 1443537.022563 is n01443537_22563; nothing, where it
    is no such number.
    """
    synset, _, picture = f"{number:.6f}".partition(".")
    return f"n{int(synset):08d}_{int(picture)}" if number >= FIRST_SYNSET else ""
