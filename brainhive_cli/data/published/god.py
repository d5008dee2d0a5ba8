"""Samples of Generic Object Decoding and Deep Image Reconstruction, in bdpy's HDF5."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

from brainhive_cli.core.base import Array, Bool
from brainhive_cli.core.recipes import Paths
from brainhive_cli.data.files import fetch_line, find_below, find_file, hdf5
from brainhive_cli.data.fmri import PublishedBetas, PublishedSteps, Subject
from brainhive_cli.data.signals import Voxels

PICTURE_KEYS = ("stimulus_name", "stimulus_id", "Label")
"""Keys of the picture, of which the first that is there counts. If `Label` has several
columns, the second is the number of the picture.
"""
NOTHING = "samples of no picture"


class Averages(PublishedSteps):
    """Generic Object Decoding, from tables of samples in bdpy's HDF5, Subject{1…5}.h5.

    Samples are averages of blocks. Imagined pictures are `imagery`.

    Attributes:
        forms: Published forms of the data set, of which the first that is there is
            read. A form has a file per session: its pattern, and the split of samples
            without a DataType.
    """

    name = "god"
    unit = "block average"
    forms: ClassVar[Sequence[Mapping[str, str]]] = [{"Subject{subject}.h5": "train"}]

    def build(self, paths: Paths) -> PublishedBetas:
        """Make the preparation. No file is read yet."""
        patterns: list[str] = []
        for form in self.forms:
            patterns += form
        return PublishedBetas(
            self, paths.dataset(self.name, self.root), patterns=patterns
        )

    def open_subject(self, root: Path, subject: int) -> Subject:
        """Read the labels of all samples. Each file is a session."""
        form = self._find_form(root, subject)
        hint = fetch_line(self.name)
        paths = []
        trials = []
        regions: dict[str, Bool] = {}  # masks [V] in the last file
        # Split of a sample by its DataType.
        split_of_type = {1.0: "train", 2.0: "test", 3.0: "imagery"}
        again = "training samples of the picture before, which subjects were to notice"
        for session, (pattern, default_split) in enumerate(form.items(), 1):
            path = find_file(root, pattern.format(subject=subject), hint)
            paths.append(path)
            with hdf5.open_file(path, hint) as file:
                samples, columns = _open_samples(file)
                labels = _read_labels(samples, columns)
                pictures = _read_pictures(file, labels, samples.dtype.itemsize)
            is_voxel = columns["VoxelData"]
            regions = {}
            for key, is_inside in columns.items():
                if key.startswith("ROI_"):
                    regions[key.removeprefix("ROI_")] = is_inside[is_voxel]

            # repeated training pictures and samples of no picture are left out
            splits = [default_split] * len(pictures)
            if "DataType" in labels:
                splits = [
                    split_of_type.get(number, NOTHING) for number in labels["DataType"]
                ]
            runs = labels.get("Run", [1.0] * len(pictures))
            previous = ""
            for picture, split, run_number in zip(pictures, splits, runs, strict=True):
                if split == "train" and picture == previous:
                    split = again
                if not picture:
                    split = NOTHING
                trials.append((picture, split, session, int(run_number)))
                previous = picture

        def read_session(session: int) -> Array:
            with hdf5.open_file(paths[session - 1], hint) as file:
                samples, columns = _open_samples(file)
                return np.asarray(samples[:])[:, columns["VoxelData"]]  # [n, V]

        width = int(is_voxel.sum())
        return Subject(paths, Voxels(regions), width, trials, read_session)

    def _find_form(self, root: Path, subject: int) -> Mapping[str, str]:
        """Find the first form with any file of a subject, or return the first form."""
        for form in self.forms:
            for pattern in form:
                if find_below(root, pattern.format(subject=subject)):
                    return form
        return self.forms[0]


def _open_samples(file: h5py.File) -> tuple[h5py.Dataset, dict[str, Bool]]:
    """Open the samples [n, columns], and read the mask [columns] of each key."""
    # HDF5 names of the samples [n, columns] and of the keys of the columns, in newer
    # and older files of bdpy.
    tables = (("dataset", "metadata"), ("dataSet", "metaData"))
    data, metadata = tables[0] if tables[0][0] in file else tables[1]
    keys = hdf5.find_dataset(file, f"{metadata}/key")[:].astype(str).tolist()
    masks = hdf5.open_numbers(file, f"{metadata}/value", "f")[:] == 1
    return hdf5.open_numbers(file, data, "f"), dict(zip(keys, masks, strict=True))


def _read_labels(
    samples: h5py.Dataset, columns: Mapping[str, Bool]
) -> dict[str, list[float]]:
    """Read the labels [n] of all samples, by key."""
    labels = {}
    for key in PICTURE_KEYS + ("DataType", "Run"):
        if key in columns:
            numbers = np.flatnonzero(columns[key])
            is_second = key == "Label" and len(numbers) > 1
            column = numbers[1] if is_second else numbers[0]
            labels[key] = samples[:, column].tolist()
    return labels


def _read_pictures(
    file: h5py.File, labels: Mapping[str, Sequence[float]], itemsize: int
) -> list[str]:
    """Read the names of the pictures [n], from the file or from ImageNet's numbers.

    Args:
        file: Open file.
        labels: Labels of the samples by key.
        itemsize: Bytes of a label. ImageNet's numbers need 8.
    """
    keys = [key for key in PICTURE_KEYS if key in labels]
    if not keys:
        raise ValueError(f"it has none of the keys {', '.join(PICTURE_KEYS)}")
    key = keys[0]
    group = file.get(f"vmap/{key}", {})
    names = {}
    for number in group:
        names[float(number)] = str(np.asarray(group[number]).astype(str))
    if not names and itemsize < 8:
        raise ValueError(
            f"{key} has {itemsize} bytes a number, which rounds the numbers of pictures"
        )
    return [names.get(number) or _name_picture(number) for number in labels[key]]


def _name_picture(number: float) -> str:
    """Name a picture of ImageNet: 1443537.022563 is n01443537_22563.

    Other numbers have no name, "".
    """
    # Number of WordNet's first noun. No picture of ImageNet has a lower one.
    if not number >= 1740:  # also True for NaN
        return ""
    synset, _, picture = f"{number:.6f}".partition(".")
    return f"n{int(synset):08d}_{int(picture)}"
