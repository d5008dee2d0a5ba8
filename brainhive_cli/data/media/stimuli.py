"""Stimuli of a data set: pictures and clips, listed by split."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from PIL import Image

from brainhive_cli.core.arrays import UInt8
from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingData,
)
from brainhive_cli.core.files import find_unfetched, walk
from brainhive_cli.data.files.ids import PICTURES, Names
from brainhive_cli.data.media.pictures import decode

EXAMINED_FILES = 1000
"""Files of a split, evenly over it, whose content is looked for when it is listed."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A video clip.

    Attributes:
        frames: [F, H, W, 3], uint8, RGB.
        rate_hz: Frames a second; None where nothing says it, as of a folder of frames.
    """

    frames: UInt8
    rate_hz: float | None

    def to_pictures(self) -> list[Image.Image]:
        """Turn the frames into pictures."""
        return [Image.fromarray(frame) for frame in self.frames]


@dataclass(frozen=True, eq=False)
class StimulusSet:
    """The ordered stimuli of one split.

    Attributes:
        image_ids: Path below the image root, POSIX, without extension.
        concepts: Concept of each stimulus.
        open: Index to picture, or to Clip; raises BadPicture. It is pickled into worker
            processes, and holds no open file.
        captions: Index to the captions of a stimulus; None where there are none at all.
        captions_each: Number of captions that are used, K.
        frames: Frames of each clip; None where the stimuli are pictures.
        masks: Index to the masks of the key object, uint8 [F, H, W], [1, H, W] of a
            picture: 1 where it is.
        labels: Index to flags for `label_names`, uint8 [K].
        label_names: Names of the labels.
        objects: Name of each stimulus' key object; None where nothing says it.
        object_names: All names that an object may have.
        way_out: How to get captions, masks or labels that are not there.
        has_pictures: Whether stimuli can be opened: categories without exemplars are
            names.
        missing: Why files are not here; without any, as many stimuli as are published
            stand for them.
        unread: Number of files that lie among the pictures and are none, by ending.
        file_of: Index to the path of the file that holds the picture and nothing else;
            None where there are no such files.
        medium: Kind of the stimuli.
    """

    dataset: str
    split: str
    image_ids: Names
    concepts: Names
    open: Callable[[int], Any]
    captions: Callable[[int], Sequence[str]] | None = None
    captions_each: int = 0
    frames: int | None = None
    masks: Callable[[int], UInt8] | None = None
    labels: Callable[[int], UInt8] | None = None
    label_names: tuple[str, ...] = ()
    objects: Names | None = None
    object_names: tuple[str, ...] = ()
    way_out: str = ""
    has_pictures: bool = True
    missing_error: MissingData | None = None
    unread_counts: Mapping[str, int] = field(default_factory=dict)
    file_of: Callable[[int], str] | None = None
    medium: Literal["picture", "clip"] = field(init=False)

    def __post_init__(self) -> None:
        """Name the medium."""
        vars(self)["medium"] = "picture" if self.frames is None else "clip"

    def __len__(self) -> int:
        """Count the stimuli."""
        return len(self.image_ids)

    def get_captions(self, index: int) -> list[str]:
        """Give the K captions of a stimulus; one that has fewer repeats them.

        Raises:
            MissingData: if it has none.
        """
        captions = self.captions(index) if self.captions else []
        if not captions:
            raise MissingData(
                f"{self.dataset}/{self.split} has no captions of "
                f"{self.image_ids[index]}",
                "complete the file of captions, or use an encoder that reads pixels",
            )
        return [captions[index % len(captions)] for index in range(self.captions_each)]

    def get_masks(self, index: int) -> list[UInt8] | UInt8:
        """Give the mask [H, W] of each frame of a clip, or that of a picture.

        Raises:
            MissingData: if they are not one a frame.
        """
        # [F, H, W]
        masks = self.masks(index) if self.masks else np.zeros((0, 0, 0), np.uint8)
        if masks.ndim != 3 or len(masks) != (self.frames or 1):
            raise self._miscounted("masks", masks, index, f"{self.frames or 1} frames")
        return masks[0] if self.frames is None else list(masks)  # [H, W], or F of these

    def get_labels(self, index: int) -> UInt8:
        """Give the labels [K] of a stimulus.

        Raises:
            MissingData: if they are not one a name.
        """
        flags = self.labels(index) if self.labels else np.zeros(0, np.uint8)  # [K]
        if flags.shape != (len(self.label_names),):
            raise self._miscounted(
                "labels", flags, index, f"{len(self.label_names)} names"
            )
        return flags

    def _miscounted(
        self, what: str, values: UInt8, index: int, needed: str
    ) -> MissingData:
        return MissingData(
            f"{self.dataset}/{self.split}: the {what} {list(values.shape)} of "
            f"{self.image_ids[index]} are not one for each of {needed}",
            f"get the {what} of these stimuli",
        )

    def get_reader(
        self, what: Literal["captions", "masks", "labels"]
    ) -> Callable[[int], Any]:
        """Return the function that gives captions, masks or labels of a stimulus, as
        encoders take them.
        """
        return {
            "captions": self.get_captions,
            "masks": self.get_masks,
            "labels": self.get_labels,
        }[what]


def find_pictures(
    root: Path,
    folder: str = "",
    unread_counts: Counter[str] | None = None,
    endings: Collection[str] = PICTURES,
) -> Iterator[str]:
    """Yield the picture files in a folder of `root`, as POSIX paths below `root`; see
    `walk`.

    Args:
        root: The folder below which paths are.
        folder: One in it.
        unread: Gets the number of all other files, by ending.
        endings: Of those that are listed, in lower case.
    """
    for path, entry in walk(root, folder):
        if (ending := os.path.splitext(path)[1].lower()) in endings:
            # a folder may be called like a picture; a link to nowhere is a picture that
            # was not fetched
            if entry.is_file() or (entry.is_symlink() and not entry.is_dir()):
                yield path
        elif unread_counts is not None and entry.is_file():
            unread_counts[ending] += 1


def describe_unread(unread_counts: Mapping[str, int]) -> str:
    """Describe the files that lie among pictures and are not read, as `4 not read: 3
    .heic, 1 .txt`.
    """
    # the most frequent ending first
    counts = sorted(unread_counts.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(
        f"{count:,} {ending or 'without ending'}" for ending, count in counts
    )
    return (
        f"{sum(unread_counts.values()):,} not read: {listed}" if unread_counts else ""
    )


def require_unique_ids(
    image_ids: Sequence[str], locate: Callable[[int], object]
) -> None:
    """Refuse two pictures with the same image id.

    Args:
        image_ids: Id of each picture.
        locate: Index to the path of the picture, for the error.
    """
    first: dict[str, int] = {}
    for index, image_id in enumerate(image_ids):
        # the index of the first picture with this id
        if (other := first.setdefault(image_id, index)) != index:
            raise BrainhiveError(
                f"{locate(index)} and {locate(other)} have one image id, {image_id!r}",
                "rename or remove one",
            )


def make_stimulus_set(
    dataset: str,
    split: str,
    root: Path,
    files: Sequence[str],
    concepts: Sequence[str],
    unread_counts: Mapping[str, int] = MappingProxyType({}),
) -> StimulusSet:
    """Make an image set of files below an image root.

    Args:
        dataset: Name of the data set.
        split: Name of the split.
        root: The image root.
        files: Paths of the pictures below it.
        concepts: Concept of each picture.
        unread: Number of files that lie among the pictures and are none, by ending.

    Raises:
        BrainhiveError: if two files differ in their endings only, and so have one image
            id.
    """
    # an id is a path without its ending, so cat.jpg and cat.png would have one id
    parts = [os.path.splitext(file) for file in files]
    require_unique_ids([stem for stem, _ in parts], lambda index: root / files[index])
    image_ids = Names.of(stem for stem, _ in parts)
    file_of = partial(_name_file, root, image_ids, Names.of(end for _, end in parts))

    # content that was not fetched lacks by folders: of many files some are looked at
    paths = [f"{root}/{file}" for file in files]
    missing = find_unfetched(paths[:: len(paths) // EXAMINED_FILES + 1])
    return StimulusSet(
        dataset,
        split,
        image_ids,
        Names.of(concepts),
        partial(_open_file, file_of),
        missing_error=missing and find_unfetched(paths),
        unread_counts=dict(unread_counts),
        file_of=file_of,
    )


def _name_file(root: Path, image_ids: Names, endings: Names, index: int) -> str:
    """Give the path of a picture, which is kept in two parts, so that an image set
    holds the long one once.
    """
    # not a Path: it interns its parts, in a table of which each process would come to
    # hold a copy
    return f"{root}/{image_ids[index]}{endings[index]}"


def _open_file(file_of: Callable[[int], str], index: int) -> Image.Image:
    path = file_of(index)
    return decode(path, path)
