"""Data sets of stimuli and the recordings made with them."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import Field

from brainhive_cli.core.base import BrainhiveError, Line, MissingData, RecipeError
from brainhive_cli.core.files import Input, documents
from brainhive_cli.core.recipes import Paths
from brainhive_cli.data.files import Names
from brainhive_cli.data.media import StimulusSet
from brainhive_cli.data.signals import SEPARATE_TEST, Holdout, Trials
from brainhive_cli.measurement import (
    GroupingCriterion,
    Items,
    StimulusGrouping,
    describe_claims,
)

SPLIT_FOLDERS = {
    "train": ("train",),
    "validation": ("validation", "val"),
    "test": ("test",),
}
"""Folder names by split. The first name that exists counts."""
ROOT_FIELD: Any = Field(
    "", description="folder of the data set; default: its name below paths.data"
)
"""Key `root` of data sets."""


@runtime_checkable
class HasUsualEncoders(Protocol):
    """Config of a data set that chooses the encoders of a recipe without encoders."""

    @property
    def usual_encoders(self) -> Sequence[Any]:
        """Names or configs of the encoders, or empty for the general default."""


@runtime_checkable
class HasOfflineEncoders(Protocol):
    """Config of a data set that replaces default encoders whose weights are absent."""

    offline_encoders: ClassVar[Sequence[Any]]
    """Names or configs of encoders that need no weights of the hub."""


@runtime_checkable
class HasFewPictures(Protocol):
    """Config of a data set for which a ridge may be usual."""

    def few_pictures(self, paths: Paths) -> int:
        """Return the largest number of pictures for a ridge, or 0 if there are more."""


@runtime_checkable
class HasTarget(Protocol):
    """Config of a data set of categories, with a choice of targets."""

    target: str
    """Source of the target: "label", "name" or "exemplars" (pictures)."""


@dataclass(frozen=True)
class PublishedFacts:
    """Published facts about a data set, known without its files.

    Attributes:
        stimuli: Number of pictures or clips by split.
        voxels: Number of voxels by subject.
        frames: Frames of each clip, or None for pictures.
        captions: Captions of each stimulus.
        subject_bytes: Size of a subject's published recordings in bytes, without
            headers and pictures.
        cites: Keys of its papers in reports/references.bib.
    """

    stimuli: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    voxels: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    frames: int | None = None
    captions: int = 0
    subject_bytes: int | None = None
    cites: tuple[str, ...] = ()


PUBLISHED_FACTS = documents.read(
    Path(__file__).with_name("numbers.yaml"), dict[str, PublishedFacts]
)
"""Published facts by name of the data set."""


def list_dataset_papers(names: Iterable[str | None]) -> list[str]:
    """List the citation keys of published data sets, each data set once."""
    papers: list[str] = []
    for name in dict.fromkeys(names):
        if name in PUBLISHED_FACTS:
            papers += PUBLISHED_FACTS[name].cites
    return papers


def list_stimuli(dataset: "Dataset", split: str) -> StimulusSet:
    """List the stimuli of a split, or a stand-in for each published stimulus.

    Stand-ins have numbered ids and `missing_error`, and must not be opened.

    Raises:
        MissingData: if the files are absent and their number is not published.
    """
    try:
        return dataset.images(split)
    except MissingData as error:
        missing_error = error
        facts = dataset.published_sizes
        if facts is None or split not in facts.stimuli:
            raise

    ids = Names.of(f"{split}/{index}" for index in range(facts.stimuli[split]))
    stand_in: Any = ids.__getitem__
    annotation = stand_in if facts.frames else None
    return StimulusSet(
        dataset.name,
        split,
        image_ids=ids,
        concepts=ids,
        open=stand_in,
        captions=stand_in if facts.captions else None,
        captions_each=facts.captions,
        frames=facts.frames,
        masks=annotation,
        labels=annotation,
        missing_error=missing_error,
    )


def list_pictures(dataset: "Dataset", split: str) -> list[Input]:
    """List the picture files of a split, or all pictures as a single input."""
    files = list(dataset.files(split, "pixels"))
    return files or list_split_pictures(dataset.name, split, dataset.images)


def list_split_pictures(
    name: str, split: str, images: Callable[[str], StimulusSet]
) -> list[Input]:
    """List the pictures of a split as a single input, with an error if they are absent.

    Args:
        name: Name of the data set.
        split: Name of the split.
        images: Function that lists the stimuli of a split.

    Returns:
        The input, or [] if the stimuli have no pictures.
    """
    label = f"{name}: {split} pictures"
    try:
        stimuli = images(split)
    except BrainhiveError as error:
        return [Input(label, None, error)]
    if not stimuli.has_pictures:
        return []
    return [Input(label, None, stimuli.missing_error)]


@dataclass(frozen=True)
class Dataset:
    """Stimuli and recordings of a data set, made by its Config.

    A data set without `open_recording` has the signals that `prepare` stored.

    Attributes:
        splits: Splits that exist, or all possible splits if there are no files.
        images: Lists the stimuli of a split. Raises MissingData if they are absent, or
            if the split is not in `splits`.
        recorded_as: Name of the stored signals, by default `name`.
        pictured_as: Name of the pictures, such as "nsd" for the subset "nsd-1", by
            default `recorded_as`.
        people: Name of the data set whose subjects 1, 2 … are the same people, by
            default `recorded_as`.
        subjects: Recorded subjects, or () if the stores list them.
        open_recording: Opens the recording of a subject and split.
        find_recording: Finds the files of a subject, without reading them. Raises
            MissingData.
        is_simulated: True if the signals are simulated. Results carry a caveat then.
        channels: Default channels of decoding, or None for all.
        lists: Files that divide the pictures into splits.
        alike_by: Property shared by stimuli that statistics group.
        shows_clips: True if stimuli are clips, also where no film joins them.
        are_categories: True if events name whole categories, not picture files.
        published_sizes: Published facts, which need no files.
        holdout: Choice of the tested trials of `train`, by default the split `test`.
        files: Lists the files of a split with "pixels", "captions", "masks" or
            "labels".
        same_person: Lists all subjects who are the same person as a subject.
        crosses_studies: True if mode inter trains on the tested person's recordings of
            other studies only.
        stimulus: Kind of the stimuli.
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
    alike_by: GroupingCriterion = "concept"
    shows_clips: bool = False
    are_categories: bool = False
    published_sizes: PublishedFacts | None = None
    holdout: Holdout = SEPARATE_TEST
    files: Callable[[str, str], Sequence[Input]] = lambda split, reads: ()
    same_person: Callable[[int], Collection[int]] = lambda subject: (subject,)
    crosses_studies: bool = False
    stimulus: Literal["picture", "clip", "category"] = field(init=False)

    def __post_init__(self) -> None:
        """Set default names and the kind of stimuli, and check splits in `images`."""
        recorded_as = self.recorded_as or self.name
        stimulus = "picture"
        if self.are_categories:
            stimulus = "category"
        elif self.shows_clips or self.alike_by == "neighbours":
            stimulus = "clip"
        # a frozen dataclass cannot be assigned to
        vars(self).update(
            recorded_as=recorded_as,
            pictured_as=self.pictured_as or recorded_as,
            people=self.people or recorded_as,
            images=partial(_list_split, self.name, self.splits, self.images),
            stimulus=stimulus,
        )

    def list_excluded_subjects(self, tested_subjects: Iterable[int]) -> set[int]:
        """List the subjects that a model tested on new subjects must not train on.

        These are the tested subjects. Unless `crosses_studies` is set, all subjects who
        are the same people are added.
        """
        excluded = set()
        for subject in tested_subjects:
            excluded.add(subject)
            if not self.crosses_studies:
                excluded.update(self.same_person(subject))
        return excluded

    def choose_training_subjects(
        self, subjects: Iterable[int], tested_subject: int
    ) -> tuple[int, ...]:
        """Choose the subjects on which mode inter trains.

        These are other people, or the same person if `crosses_studies` is set.
        """
        person = self.same_person(tested_subject)
        return tuple(
            subject
            for subject in subjects
            if subject != tested_subject and (subject in person) == self.crosses_studies
        )

    def recording(self, subject: int, split: str) -> Trials:
        """Open the recording of a subject and split.

        Raises:
            MissingData: if it is absent, or if the data set has pictures only.
        """
        if self.open_recording is None:
            raise MissingData(
                f"{self.name} has no recordings, only pictures",
                f"{Line('prepare', ('from', 'recording'))}, or dataset.kind=simulated",
            )
        return self.open_recording(subject, split)


def _list_split(
    name: str, splits: Sequence[str], images: Callable[[str], StimulusSet], split: str
) -> StimulusSet:
    """List the stimuli of a split, or raise MissingData if the split is unknown."""
    if split not in splits:
        raise MissingData(
            f"{name} has no split {split!r}", f"it has: {', '.join(splits)}"
        )
    return images(split)


def require_split(dataset: Dataset, split: str, key: str) -> None:
    """Raise an error if a data set has no such split.

    Args:
        dataset: Data set.
        split: Split of the data set or of its holdout.
        key: Recipe key of the split, for the message.

    Raises:
        RecipeError: if the split does not exist.
    """
    if dataset.holdout.name_stored_split(split) not in dataset.splits:
        raise RecipeError(
            f"{key}: {dataset.name} has no split {split!r}",
            f"it has: {', '.join(dataset.splits)}",
        )


def make_grouping(
    dataset: Dataset, image_ids: Iterable[str], concepts: Iterable[str]
) -> StimulusGrouping:
    """Make the rules that group alike stimuli of a split.

    Args:
        dataset: Data set.
        image_ids: Image ids [N] in the order of the data set.
        concepts: Concept [N] of each stimulus.
    """
    medium = "clip" if dataset.stimulus == "clip" else "picture"
    concept_of = dict(zip(image_ids, concepts, strict=True))
    return StimulusGrouping(dataset.alike_by, concept_of, medium)


def group_rows(dataset: Dataset, stimuli: Any, rows: Iterable[Iterable[int]]) -> Items:
    """Group alike stimuli of each subject.

    Args:
        dataset: Data set.
        stimuli: Stimuli with `image_ids` and `concepts`, such as a target store.
        rows: Rows [N] of the stimuli of each subject.
    """
    grouping = make_grouping(dataset, stimuli.image_ids, stimuli.concepts)
    ids = []
    for subject_rows in rows:
        ids.append([stimuli.image_ids[row] for row in subject_rows])
    return grouping.make_items(ids)


def describe_test_claims(dataset: Dataset, n_subjects: int) -> str:
    """Describe the stimuli and people for which test results will hold.

    Returns:
        A sentence, or "" without test stimuli.
    """
    split = dataset.holdout.name_stored_split("test")
    try:
        stimuli = dataset.images(split)
        grouping = make_grouping(dataset, stimuli.image_ids, stimuli.concepts)
    except BrainhiveError:  # `--check` reports absent files among the inputs
        return ""
    if dataset.holdout.has_seen_pictures:
        return dataset.holdout.describe_claims(len(stimuli), n_subjects)
    if not grouping.concept_of:
        return ""
    items = grouping.make_items([list(grouping.concept_of)])
    return describe_claims(items, n_subjects)
