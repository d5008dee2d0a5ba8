"""Stimulus sets: the pictures or clips of a split of a data set."""

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

from brainhive_cli.core.base import BrainhiveError, MissingData, UInt8
from brainhive_cli.core.files import find_unfetched, walk
from brainhive_cli.data.files import PICTURES, Names
from brainhive_cli.data.media.pictures import decode


@dataclass(frozen=True, eq=False)
class Clip:
    """A video clip.

    Attributes:
        frames: RGB frames [F, H, W, 3], uint8.
        rate_hz: Frames per second, or None if unknown, as for a folder of frames.
    """

    frames: UInt8
    rate_hz: float | None

    def to_pictures(self) -> list[Image.Image]:
        """Convert the frames to pictures."""
        return [Image.fromarray(frame) for frame in self.frames]


@dataclass(frozen=True, eq=False)
class StimulusSet:
    """The ordered stimuli of one split.

    Attributes:
        dataset: Name of the data set.
        split: Name of the split.
        image_ids: Paths below the image root, with /, without extension.
        concepts: Concept of each stimulus.
        open: Function from index to picture or Clip, which may raise BadPicture. It is
            pickled for worker processes, so it holds no open file.
        captions: Function from index to the captions of a stimulus, if there are any.
        captions_each: Number K of captions used per stimulus.
        frames: Number of frames of each clip, or None for pictures.
        masks: Function from index to the masks of the key object, uint8 [F, H, W], or
            [1, H, W] for a picture. They are 1 inside the object.
        labels: Function from index to flags [K], uint8, for the names in `label_names`.
        label_names: Names of the labels.
        objects: Name of the key object of each stimulus, if known.
        object_names: All names that a key object may have.
        way_out: Advice on how to get missing captions, masks or labels.
        has_pictures: If False, stimuli cannot be opened: they are categories.
        missing_error: Error about absent files. The stimuli may then be placeholders.
        unread_counts: Number of files that are no pictures, keyed by extension.
        file_of: Function from index to path, if each stimulus is a file.
        open_example: Opens a picture of a category as a Pillow image, if its pictures
            are in a folder. None for other stimuli.
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
    open_example: Callable[[int], Any] | None = None
    medium: Literal["picture", "clip"] = field(init=False)

    def __post_init__(self) -> None:
        """Set the medium."""
        vars(self)["medium"] = "picture" if self.frames is None else "clip"

    def __len__(self) -> int:
        """Return the number of stimuli."""
        return len(self.image_ids)

    def get_captions(self, index: int) -> list[str]:
        """Return the K captions of a stimulus. Fewer captions are repeated.

        Raises:
            MissingData: if the stimulus has none.
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
        """Return the masks [H, W] of a clip's frames, or the mask of a picture.

        Raises:
            MissingData: if there is not a mask for each frame.
        """
        masks = self.masks(index) if self.masks else np.zeros((0, 0, 0), np.uint8)
        n_frames = self.frames or 1
        if masks.ndim != 3 or len(masks) != n_frames:
            raise self._make_count_error("masks", masks, index, f"{n_frames} frames")
        return masks[0] if self.frames is None else list(masks)

    def get_labels(self, index: int) -> UInt8:
        """Return the label flags [K] of a stimulus.

        Raises:
            MissingData: if the number of flags is not the number of label names.
        """
        flags = self.labels(index) if self.labels else np.zeros(0, np.uint8)
        n_names = len(self.label_names)
        if flags.shape != (n_names,):
            raise self._make_count_error("labels", flags, index, f"{n_names} names")
        return flags

    def _make_count_error(
        self, noun: str, values: UInt8, index: int, expected: str
    ) -> MissingData:
        """Make the error about a wrong number of masks or labels."""
        return MissingData(
            f"{self.dataset}/{self.split}: the {noun} of {self.image_ids[index]} have "
            f"the shape {list(values.shape)}, not a value for each of {expected}",
            f"get the {noun} of these stimuli",
        )

    def get_reader(
        self, annotation: Literal["captions", "masks", "labels"]
    ) -> Callable[[int], Any]:
        """Return the method that gets captions, masks or labels of a stimulus."""
        readers = {
            "captions": self.get_captions,
            "masks": self.get_masks,
            "labels": self.get_labels,
        }
        return readers[annotation]


def find_pictures(
    root: Path,
    folder: str = "",
    unread_counts: Counter[str] | None = None,
    extensions: Collection[str] = PICTURES,
) -> Iterator[str]:
    """Yield the paths of picture files in a folder and its subfolders.

    Args:
        root: Folder to which the yielded paths are relative.
        folder: Folder in `root` that is searched.
        unread_counts: Counts the other files by extension.
        extensions: Extensions of the files to yield, in lower case.
    """
    for path, entry in walk(root, folder):
        extension = os.path.splitext(path)[1].lower()
        if extension in extensions:
            # a dead link is an unfetched picture, but a folder is no picture
            if entry.is_file() or (entry.is_symlink() and not entry.is_dir()):
                yield path
        elif unread_counts is not None and entry.is_file():
            unread_counts[extension] += 1


def describe_unread(unread_counts: Mapping[str, int]) -> str:
    """Describe files that are not read, such as `4 not read: 3 .heic, 1 .txt`."""
    if not unread_counts:
        return ""
    items = sorted(unread_counts.items(), key=lambda item: (-item[1], item[0]))
    texts = []
    for extension, count in items:
        texts.append(f"{count:,} {extension or 'without ending'}")
    return f"{sum(unread_counts.values()):,} not read: {', '.join(texts)}"


def require_unique_ids(
    image_ids: Sequence[str], locate: Callable[[int], object]
) -> None:
    """Raise an error if two pictures have the same image id.

    Args:
        image_ids: Id of each picture.
        locate: Function from index to the path of a picture, for the message.
    """
    first_index_of: dict[str, int] = {}
    for index, image_id in enumerate(image_ids):
        first_index = first_index_of.setdefault(image_id, index)
        if first_index != index:
            raise BrainhiveError(
                f"{locate(index)} and {locate(first_index)} have the same image id, "
                f"{image_id!r}",
                "rename or remove either file",
            )


def make_stimulus_set(
    dataset: str,
    split: str,
    root: Path,
    files: Sequence[str],
    concepts: Sequence[str],
    unread_counts: Mapping[str, int] = MappingProxyType({}),
) -> StimulusSet:
    """Make a stimulus set of picture files.

    Args:
        dataset: Name of the data set.
        split: Name of the split.
        root: Image root.
        files: Paths below the root.
        concepts: Concept of each picture.
        unread_counts: Number of files that are no pictures, keyed by extension.

    Raises:
        BrainhiveError: if two files differ only in their extension.
    """
    stems = []
    extensions = []
    for file in files:
        stem, extension = os.path.splitext(file)
        stems.append(stem)
        extensions.append(extension)
    require_unique_ids(stems, lambda index: root / files[index])
    image_ids = Names.of(stems)
    file_of = partial(_make_path, root, image_ids, Names.of(extensions))

    # files are fetched by folder, so a sample shows whether any are absent
    paths = [f"{root}/{file}" for file in files]
    # Number of files of a split, evenly spaced, that are checked for their content.
    step = len(paths) // 1000 + 1
    missing_error = find_unfetched(paths[::step])
    if missing_error:
        missing_error = find_unfetched(paths)
    return StimulusSet(
        dataset,
        split,
        image_ids,
        Names.of(concepts),
        open=partial(_open_file, file_of),
        missing_error=missing_error,
        unread_counts=dict(unread_counts),
        file_of=file_of,
    )


def _make_path(root: Path, image_ids: Names, extensions: Names, index: int) -> str:
    """Join the path of a picture, which is not stored."""
    # a Path would intern its parts, so that each process grows a copy of all names
    return f"{root}/{image_ids[index]}{extensions[index]}"


def _open_file(file_of: Callable[[int], str], index: int) -> Image.Image:
    """Decode the picture of an index."""
    path = file_of(index)
    return decode(path, path)
