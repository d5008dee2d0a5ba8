"""Data sets: stimuli, and the recordings made with them."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field

from brainhive_cli.core import documents
from brainhive_cli.core.arrays import UInt8
from brainhive_cli.core.command import Input
from brainhive_cli.core.damage import RAISED, is_of_the_machine
from brainhive_cli.core.errors import (
    BrainhiveError,
    Line,
    MissingData,
    RecipeError,
    first_line,
)
from brainhive_cli.core.files import UnfitFile, find_unfetched, open_regular, walk
from brainhive_cli.data.holdout import SEPARATE_TEST, Holdout
from brainhive_cli.data.stores.ids import PICTURES, Names
from brainhive_cli.data.trials import Trials
from brainhive_cli.measurement.units import Alike, AlikeBy, Items, describe_claims

FORMATS = "AVIF BMP DIB GIF ICO JPEG JPEG2000 PNG PPM TIFF WEBP".split()
"""Formats that PIL may read, whatever a file's ending: for others it runs programs
(EPS: Ghostscript).
"""
EXAMINED_FILES = 1000
"""Files of a split, evenly over it, whose content is looked for when it is listed."""
SPLIT_FOLDERS = {
    "train": ("train",),
    "validation": ("validation", "val"),
    "test": ("test",),
}
"""Names of the folder of each split."""
ROOT: Any = Field(
    "", description="folder of the data set; default: its name below paths.data"
)
"""The key `root` of data sets."""


class BadPicture(BrainhiveError):
    """A picture that cannot be decoded."""


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


@dataclass(frozen=True)
class Published:
    """Facts published of a data set, known before its files are here.

    Attributes:
        stimuli: Number of pictures or clips of each split.
        voxels: Number of voxels V of each subject.
        frames: Frames of each clip; None where stimuli are pictures.
        captions: Captions of each stimulus.
        subject_bytes: Bytes of a subject's recordings as they are distributed, without
            headers and pictures.
        cites: Keys of its papers in reports/references.bib.
    """

    stimuli: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    voxels: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    frames: int | None = None
    captions: int = 0
    subject_bytes: int | None = None
    cites: tuple[str, ...] = ()


PUBLISHED = documents.read(
    Path(__file__).with_name("numbers.yaml"), dict[str, Published]
)
"""Published facts by the name of the data set."""


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
    missing: MissingData | None = None
    unread: Mapping[str, int] = field(default_factory=dict)
    file_of: Callable[[int], str] | None = None
    medium: Literal["picture", "clip"] = field(init=False)

    def __post_init__(self) -> None:
        """Name the medium."""
        vars(self)["medium"] = "picture" if self.frames is None else "clip"

    def __len__(self) -> int:
        """Count the stimuli."""
        return len(self.image_ids)

    def captions_of(self, index: int) -> list[str]:
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

    def masks_of(self, index: int) -> list[UInt8] | UInt8:
        """Give the mask [H, W] of each frame of a clip, or that of a picture.

        Raises:
            MissingData: if they are not one a frame.
        """
        # [F, H, W]
        masks = self.masks(index) if self.masks else np.zeros((0, 0, 0), np.uint8)
        if masks.ndim != 3 or len(masks) != (self.frames or 1):
            raise self._miscounted("masks", masks, index, f"{self.frames or 1} frames")
        return masks[0] if self.frames is None else list(masks)  # [H, W], or F of these

    def labels_of(self, index: int) -> UInt8:
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

    def reader(
        self, what: Literal["captions", "masks", "labels"]
    ) -> Callable[[int], Any]:
        """Return the function that gives captions, masks or labels of a stimulus, as
        encoders take them.
        """
        return {
            "captions": self.captions_of,
            "masks": self.masks_of,
            "labels": self.labels_of,
        }[what]


def list_stimuli(dataset: "Dataset", split: str) -> StimulusSet:
    """List the stimuli of a split; without their files, as many as are published stand
    for them.

    Raises:
        MissingData: if their files are not here, and their number is not known.
    """
    # the true stimuli, if their files are here
    try:
        return dataset.images(split)
    except MissingData as error:
        missing, published = error, dataset.published_sizes
        if published is None or split not in published.stimuli:
            raise

    # stand-ins with the published numbers, which nobody opens
    ids = Names.of(f"{split}/{index}" for index in range(published.stimuli[split]))
    # published captions and annotations have stand-ins, too
    id_of: Any = ids.__getitem__
    captions, annotations = (
        id_of if count else None for count in (published.captions, published.frames)
    )
    numbers = captions, published.captions, published.frames
    annotated = annotations, annotations
    return StimulusSet(
        dataset.name, split, ids, ids, id_of, *numbers, *annotated, missing=missing
    )


def list_pictures(dataset: "Dataset", split: str) -> list[Input]:
    """List the files of a split's pictures; the pictures themselves as one input where
    the data set does not name its files.
    """
    files = [*dataset.files(split, "pixels")]
    return files or list_split_pictures(dataset.name, split, dataset.images)


def list_split_pictures(
    name: str, split: str, images: Callable[[str], StimulusSet]
) -> list[Input]:
    """List the pictures of a split as one input.

    Args:
        name: Name of the data set.
        split: The split.
        images: Lists the pictures of a split, and raises where they are absent.
    """
    label = f"{name}: {split} pictures"
    try:
        stimuli = images(split)
    except BrainhiveError as error:
        return [Input(label, None, error)]
    # categories without exemplars have no pictures
    return [Input(label, None, stimuli.missing)] if stimuli.has_pictures else []


@dataclass(frozen=True)
class Dataset:
    """A data set, built by its part's Config: stimuli that a function lists by split,
    and recordings, if any.

    Without functions of its own, its signals are those that `prepare` kept under its
    name.

    Attributes:
        splits: The splits that are there, or all that there could be where nothing is.
        images: Split to its stimuli; raises MissingData, also where the split is none
            of `splits`.
        recorded_as: The name that signals are kept under, where the same pictures have
            several; default: `name`.
        pictured_as: The name of the pictures, of which these may be a part, as `nsd-1`
            is of `nsd`; default: that of the signals.
        people: The name of the data set whose subjects these are, of which 1 is the
            same person in all of one name; default: that of the signals.
        subjects: The subjects who saw them; none where there are pictures alone: then
            stores name them.
        open_recording: Subject and split to a recording.
        find_recording: Finds the files of a subject's recording, and reads none of
            them; raises MissingData.
        is_simulated: Whether its signals are simulated; every result on them says so.
        channels: The default channels of decoding; None is all.
        lists: Files that divide pictures into splits.
        alike_by: Property by which stimuli are alike: intervals and permutations take
            those together.
        are_categories: Whether events call stimuli by their whole names, not by ends of
            paths.
        published_sizes: Published numbers, known before their files are here.
        holdout: Part of the trials of its split `train` that is tested; default: the
            split `test` is.
        files: Split, and part of stimuli (pixels, captions, masks, labels), to the
            files of that.
        same_person: Subject to all subjects who are the same person.
        crosses_studies: Whether mode inter trains on the tested person's recordings of
            other studies, and on nobody else's.
        stimulus: Kind of stimulus that subjects saw, in the singular.
    """

    name: str
    splits: tuple[str, ...]
    images: Callable[[str], StimulusSet]
    recorded_as: str = ""
    pictured_as: str = ""
    people: str = ""
    subjects: tuple[int, ...] = ()
    open_recording: Callable[[int, str], Trials] | None = None
    find_recording: Callable[[int], object] = lambda subject: None
    is_simulated: bool = False
    channels: tuple[str, ...] | None = None
    lists: tuple[Path, ...] = ()
    alike_by: AlikeBy = "concept"
    are_categories: bool = False
    published_sizes: Published | None = None
    holdout: Holdout = SEPARATE_TEST
    files: Callable[[str, str], Sequence[Input]] = lambda split, reads: ()
    same_person: Callable[[int], Collection[int]] = lambda subject: (subject,)
    crosses_studies: bool = False
    stimulus: Literal["picture", "clip", "category"] = field(init=False)

    def __post_init__(self) -> None:
        """Name signals, pictures, people and the kind of stimulus, and have splits
        checked.
        """
        recorded_as, kind = self.recorded_as or self.name, "picture"
        if self.are_categories:
            kind = "category"
        elif self.alike_by == "neighbours":
            kind = "clip"
        # the dataclass is frozen
        vars(self).update(
            recorded_as=recorded_as,
            pictured_as=self.pictured_as or recorded_as,
            people=self.people or recorded_as,
            images=partial(_list_split, self.name, self.splits, self.images),
            stimulus=kind,
        )

    def list_left_out(self, tested: Iterable[int]) -> set[int]:
        """List the subjects that a model must not have learned from, to be tested on
        some as new ones.
        """
        people = {subject: self.same_person(subject) for subject in tested}
        return {*people}.union(*([] if self.crosses_studies else people.values()))

    def choose_others(self, among: Iterable[int], tested: int) -> tuple[int, ...]:
        """Choose whom mode inter trains on, to test a subject."""
        person = {*self.same_person(tested)} - {tested}
        return tuple(
            subject
            for subject in among
            if subject != tested and (subject in person) == self.crosses_studies
        )

    def recording(self, subject: int, split: str) -> Trials:
        """Open one subject's recording of a split; MissingData where it is absent."""
        # pictures alone: prepare or simulate signals of them
        if self.open_recording is None:
            raise MissingData(
                f"{self.name} holds pictures only and has no recordings of its own",
                f"{Line('prepare', ('from', 'recording'))}, or dataset.kind=simulated",
            )
        return self.open_recording(subject, split)


def _list_split(
    name: str, splits: Sequence[str], images: Callable[[str], StimulusSet], split: str
) -> StimulusSet:
    """List the stimuli of a split, which the data set must have."""
    if split not in splits:
        raise MissingData(
            f"{name} has no split {split!r}", f"it has: {', '.join(splits)}"
        )
    return images(split)


def require_split(dataset: Dataset, split: str, key: str) -> None:
    """Refuse a split that the data set does not have.

    Raises:
        RecipeError: naming the key of the recipe.
    """
    # a split that holdout makes lies in the stores of `train`
    if dataset.holdout.stored_split(split) not in dataset.splits:
        known = ", ".join(dataset.splits)
        raise RecipeError(
            f"{key}: {dataset.name} has no split {split!r}", f"it has: {known}"
        )


def alike_of(
    dataset: Dataset, image_ids: Iterable[str], concepts: Iterable[str]
) -> Alike:
    """Group the stimuli of a split, listed in the order of the data set, by what makes
    them alike.
    """
    # only clips, cut from films, have neighbours
    medium = "clip" if dataset.alike_by == "neighbours" else "picture"
    return Alike(dataset.alike_by, dict(zip(image_ids, concepts, strict=True)), medium)


def alike_items(dataset: Dataset, stimuli: Any, rows: Iterable[Iterable[int]]) -> Items:
    """Group stimuli by their rows in a target store, one list a subject, by what makes
    them alike.
    """
    alike = alike_of(dataset, stimuli.image_ids, stimuli.concepts)
    return alike.items([[stimuli.image_ids[row] for row in listed] for listed in rows])


def describe_test_claims(dataset: Dataset, subjects: int) -> str:
    """Describe the statements that tests on so many subjects allow; empty where no test
    stimuli are here.
    """
    # held-out trials are of the pictures in `train`
    stored, holdout = dataset.holdout.stored_split("test"), dataset.holdout
    if stored not in dataset.splits:
        return ""
    try:
        stimuli = dataset.images(stored)
        alike = alike_of(dataset, stimuli.image_ids, stimuli.concepts)
    except BrainhiveError:  # which the inventory of pictures says
        return ""
    # pictures that were also shown in training allow other statements
    if holdout.shows_seen:
        return holdout.describe_claims(len(stimuli), subjects)
    return (
        describe_claims(alike.items([list(alike.concept_of)]), subjects)
        if alike.concept_of
        else ""
    )


def pictures_below(
    root: Path,
    folder: str = "",
    unread: Counter[str] | None = None,
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
        elif unread is not None and entry.is_file():
            unread[ending] += 1


def describe_unread(unread: Mapping[str, int]) -> str:
    """Describe the files that lie among pictures and are not read, as `4 not read: 3
    .heic, 1 .txt`.
    """
    # the most frequent ending first
    counts = sorted(unread.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(
        f"{count:,} {ending or 'without ending'}" for ending, count in counts
    )
    return f"{sum(unread.values()):,} not read: {listed}" if unread else ""


def check_unique(image_ids: Sequence[str], locate: Callable[[int], object]) -> None:
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


def from_files(
    dataset: str,
    split: str,
    root: Path,
    files: Sequence[str],
    concepts: Sequence[str],
    unread: Mapping[str, int] = MappingProxyType({}),
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
    check_unique([stem for stem, _ in parts], lambda index: root / files[index])
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
        missing=missing and find_unfetched(paths),
        unread=dict(unread),
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


def decode(source: str | BytesIO, name: object) -> Image.Image:
    """Decode a picture as RGB.

    Args:
        source: A file, or its bytes.
        name: Name of the picture, for the error.

    Raises:
        BadPicture: naming the picture.
    """
    with decoding(name):
        # regular files only: opening a pipe or device could wait for ever
        opened = (
            open_regular(source) if isinstance(source, str) else nullcontext(source)
        )
        with opened as content, Image.open(content, formats=FORMATS) as picture:
            # PIL verifies the checksums of a PNG only when told to
            if picture.format == "PNG":
                with Image.open(content, formats=("PNG",)) as twin:
                    twin.verify()

            # grey of 16 bits becomes 8 bits; PIL's own conversion would turn it white
            if picture.mode in ("I", "F"):
                raise ValueError("32 bits a pixel, of no known range")
            if picture.mode.startswith("I;16"):
                eight_bits = turn_upright(picture).point(
                    lambda level: level * (1 / 256)
                )
                return eight_bits.convert("L").convert("RGB")
            return turn_upright(picture).convert("RGB")


def turn_upright(picture: Image.Image) -> Image.Image:
    """Turn a picture, in place, as the EXIF orientation of its file says, as every
    viewer does.

    An EXIF block that is damaged says nothing, to viewers neither.
    """
    picture.load()
    with suppress(*RAISED):
        ImageOps.exif_transpose(picture, in_place=True)
    return picture


@contextmanager
def decoding(name: object) -> Iterator[None]:
    """Turn what decoding a picture raises, until the block ends, into BadPicture that
    names it.

    An error of the machine is raised as it is.
    """
    try:
        yield
    except (*RAISED, Image.DecompressionBombError) as error:
        if is_of_the_machine(error):
            raise  # a gap in a store would be for good
        # UnfitFile says in strerror why a file is not read
        reason = error.strerror if isinstance(error, UnfitFile) else first_line(error)
        raise BadPicture(
            f"{name} cannot be decoded: {reason}",
            "replace the file (embed accepts the gap with --skip-bad)",
        ) from error
