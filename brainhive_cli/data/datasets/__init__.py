"""Data sets: stimuli, and the recordings made with them."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import Field

from brainhive_cli.core import documents
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import (
    BrainhiveError,
    Line,
    MissingData,
    RecipeError,
)
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.signals.holdout import SEPARATE_TEST, Holdout
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.measurement.units import (
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
"""Names of the folder of each split."""
ROOT_FIELD: Any = Field(
    "", description="folder of the data set; default: its name below paths.data"
)
"""The key `root` of data sets."""


@runtime_checkable
class HasUsualEncoders(Protocol):
    """Config of a data set that chooses the encoders of a recipe without encoders."""

    @property
    def usual_encoders(self) -> Sequence[Any]:
        """Names or configs of the encoders, or empty for the general default."""


@runtime_checkable
class HasOfflineEncoders(Protocol):
    """Config of a data set that chooses encoders for when the default's are absent."""

    offline_encoders: ClassVar[Sequence[Any]]
    """Names or configs of encoders that need no weights of the hub."""


@dataclass(frozen=True)
class PublishedFacts:
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


PUBLISHED_FACTS = documents.read(
    Path(__file__).with_name("numbers.yaml"), dict[str, PublishedFacts]
)
"""Published facts by the name of the data set."""


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
        dataset.name,
        split,
        ids,
        ids,
        id_of,
        *numbers,
        *annotated,
        missing_error=missing,
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
    return [Input(label, None, stimuli.missing_error)] if stimuli.has_pictures else []


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
    alike_by: GroupingCriterion = "concept"
    are_categories: bool = False
    published_sizes: PublishedFacts | None = None
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

    def list_excluded_subjects(self, tested: Iterable[int]) -> set[int]:
        """List the subjects that a model must not have learned from, to be tested on
        some as new ones.
        """
        people = {subject: self.same_person(subject) for subject in tested}
        return {*people}.union(*([] if self.crosses_studies else people.values()))

    def choose_training_subjects(
        self, among: Iterable[int], tested: int
    ) -> tuple[int, ...]:
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
    if dataset.holdout.name_stored_split(split) not in dataset.splits:
        known = ", ".join(dataset.splits)
        raise RecipeError(
            f"{key}: {dataset.name} has no split {split!r}", f"it has: {known}"
        )


def make_grouping(
    dataset: Dataset, image_ids: Iterable[str], concepts: Iterable[str]
) -> StimulusGrouping:
    """Group the stimuli of a split, listed in the order of the data set, by what makes
    them alike.
    """
    # only clips, cut from films, have neighbours
    medium = "clip" if dataset.alike_by == "neighbours" else "picture"
    return StimulusGrouping(
        dataset.alike_by, dict(zip(image_ids, concepts, strict=True)), medium
    )


def group_rows(dataset: Dataset, stimuli: Any, rows: Iterable[Iterable[int]]) -> Items:
    """Group stimuli by their rows in a target store, one list a subject, by what makes
    them alike.
    """
    alike = make_grouping(dataset, stimuli.image_ids, stimuli.concepts)
    return alike.make_items(
        [[stimuli.image_ids[row] for row in listed] for listed in rows]
    )


def describe_test_claims(dataset: Dataset, subjects: int) -> str:
    """Describe the statements that tests on so many subjects allow; empty where no test
    stimuli are here.
    """
    # held-out trials are of the pictures in `train`
    stored, holdout = dataset.holdout.name_stored_split("test"), dataset.holdout
    if stored not in dataset.splits:
        return ""
    try:
        stimuli = dataset.images(stored)
        alike = make_grouping(dataset, stimuli.image_ids, stimuli.concepts)
    except BrainhiveError:  # which the inventory of pictures says
        return ""
    # pictures that were also shown in training allow other statements
    if holdout.has_seen_pictures:
        return holdout.describe_claims(len(stimuli), subjects)
    return (
        describe_claims(alike.make_items([list(alike.concept_of)]), subjects)
        if alike.concept_of
        else ""
    )
