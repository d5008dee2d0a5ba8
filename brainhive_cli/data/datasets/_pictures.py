"""Data sets of pictures alone, in files of their own or packed, many to a file."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Protocol

from PIL import Image

from brainhive_cli.core.damage import RAISED
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.needs import Need
from brainhive_cli.data import datasets
from brainhive_cli.data.published_data import Published
from brainhive_cli.data.stores.ids import Names
from brainhive_cli.data.stores.recordings import Recording
from brainhive_cli.measurement.units import AlikeBy

SPLITS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
"""What the folder of each split may be called."""


@dataclass(frozen=True)
class Pictures:
    """Pictures, without files of recordings: signals are those that `prepare` kept under the data set's name.

    Attributes:
        splits: The splits that are there, or all that there could be where nothing is.
        listed: Split to its pictures; raises MissingData.
        recordings: The name that signals are kept under; default: `name`.
        lists: Files that say which pictures are in which split.
        alike_by: What they are alike by.
        published_sizes: What is known of them before their files are here.
        files: Split, and what of stimuli is read (pixels, captions, masks, labels), to the files of that.
    """

    name: str
    splits: tuple[str, ...]
    listed: Callable[[str], datasets.StimulusSet]
    recordings: str = ""
    channels: tuple[str, ...] | None = None
    is_simulated: bool = False
    lists: tuple[Path, ...] = ()
    alike_by: AlikeBy = "concept"
    subjects: tuple[int, ...] = ()
    published_sizes: Published | None = None
    files: Callable[[str, str], Sequence[Need]] = lambda split, reads: ()

    def images(self, split: str) -> datasets.StimulusSet:
        """List the pictures of a split."""
        return self.listed(split)

    @property
    def recorded_as(self) -> str:
        """The name that signals would be kept under."""
        return self.recordings or self.name

    @property
    def pictured_as(self) -> str:
        """The name of the pictures, whichever of them these are."""
        return self.recorded_as

    def require(self, subject: int) -> None:
        """Refuse, as `recording` does."""
        self.recording(subject, "")

    def recording(self, subject: int, split: str) -> Recording:
        """Refuse: there are pictures only."""
        raise MissingData(
            f"{self.name} holds pictures only and has no recordings of its own",
            "brainhive prepare --from recording keeps yours; or dataset.kind=simulated",
        )


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


class Archive(Protocol):
    """Files that hold encoded pictures; it is pickled into worker processes and holds no open file."""

    def path(self, index: int) -> Path:
        """Say which file holds a picture."""

    def read(self, index: int) -> bytes:
        """Read an encoded picture; one of RAISED when it cannot be."""


@dataclass(frozen=True)
class Listing:
    """What lies in an archive.

    Attributes:
        names: Each picture's name there, without ending.
        labels: Each picture's class there: a number or a name, empty when it has none.
    """

    names: list[str]
    labels: list[str]
    archive: Archive


@dataclass(frozen=True)
class Packed:
    """Opens the pictures of an archive."""

    image_ids: Names
    archive: Archive

    def __call__(self, index: int) -> Image.Image:
        """Decode a picture."""
        name = f"{self.image_ids[index]} in {self.archive.path(index)}"
        try:
            data = self.archive.read(index)
        except RAISED as error:
            raise datasets.bad_picture(name, error) from error
        return datasets.decode(BytesIO(data), name)
