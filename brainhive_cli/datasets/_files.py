"""Pictures that are files of their own, below one folder."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from brainhive_cli import datasets
from brainhive_cli.stores.ids import Names

SPLITS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
"""What the folder of each split may be called."""


def from_files(
    dataset: str, split: str, root: Path, files: Sequence[str], concepts: Sequence[str]
) -> datasets.StimulusSet:
    """Make an image set of files below an image root.

    Args:
        dataset: Its name.
        split: Which split these are.
        root: The image root.
        files: Paths of the pictures below it.
        concepts: What each shows.

    Raises:
        BrainhiveError: if two files differ in their endings only, and so have one image id.
    """
    cut = [os.path.splitext(file) for file in files]
    datasets.check_unique([stem for stem, _ in cut], lambda index: root / files[index])
    image_ids, endings = Names.of(stem for stem, _ in cut), Names.of(ending for _, ending in cut)
    return datasets.StimulusSet(
        dataset, split, image_ids, Names.of(concepts), Files(root, image_ids, endings)
    )


@dataclass(frozen=True)
class Files:
    """Opens pictures; their paths are kept in two parts, so that an image set holds the long one once."""

    root: Path
    image_ids: Names
    endings: Names

    def __call__(self, index: int) -> Image.Image:
        """Decode a picture."""
        # not a Path: it interns its parts, in a table of which each process would come to hold a copy
        path = f"{self.root}/{self.image_ids[index]}{self.endings[index]}"
        return datasets.decode(path, path)
