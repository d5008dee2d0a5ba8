"""Record of the training data of a model, inherited by models that start from it;
tested pictures compared with it.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields as dataclass_fields, replace
from functools import cache, reduce
from itertools import chain, compress
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import xxhash
from pydantic import ConfigDict, InstanceOf
from pydantic.dataclasses import dataclass as checked_dataclass

from brainhive_cli.core import documents, weights
from brainhive_cli.core.arrays import Array, Bool, Float32, Int64, UInt64
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.facts import SeenPictures
from brainhive_cli.core.files import home_folder, read_regular
from brainhive_cli.core.measurements import (
    SEEN_CONCEPTS,
    SEEN_COPIES,
    SELECTED_ON_TEST,
    TRAINED_ON_SIMULATED,
    TWINS,
    UNKNOWN_HISTORY,
    UNKNOWN_NETWORK,
    UNKNOWN_PICTURES,
    UNKNOWN_SELECTION,
    WHITENED_BY_TESTED,
    merge_caveats,
)
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.media.kept_likenesses import KeptLikenesses
from brainhive_cli.data.media.near_copies import (
    COPIES,
    MAX_DISTANCE,
    Likeness,
    confirm_near_copy,
    find_candidates,
)
from brainhive_cli.data.media.picture_digests import digest_pixels
from brainhive_cli.data.media.pictures import BadPicture
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.stores.target_store import (
    PIXEL_HASH_WORDS,
    TargetStore,
    find_equal_embeddings,
    first_with_pixels,
    has_unknown_pictures,
)

ARRAYS_FILE = "learned.safetensors"
"""The file of its arrays in a model folder; all else is the block `learned` of its
config. Its metadata hold that block, too, and the digest of the weights that it is of,
so that the history of a weight file is known wherever both are copied to.
"""
BLOCK_FILE = "learned.json"
"""The file of that block in a folder whose config has another format."""
EpochSelection = Literal["last epoch", "validation", "", "test"]
"""Possible selections of an epoch ("" where nothing says), harmless ones first. Of two,
the later stands for both.
"""
PICTURE_ARRAYS = ("pixels", "hashes", "concepts", "start_concepts")
"""Arrays of `LearnedPictures` besides the names, in a file."""
ARRAY_FIELDS = ("pictures", "trials", "normalisers", "normaliser", "whiteners")
"""Attributes of `Learned` that are no part of its block; the block has a digest of the
pictures.
"""
NORMALISER_PREFIX = "normaliser."
WHITENER_PREFIX = "whitener."
"""Before the number of a subject, in the names of arrays."""
Ids = Sequence[str]
DATASET_SEPARATOR = " + "
"""Between the names of several data sets."""

NameTuple = tuple[str, ...]
ComparePair = Callable[[int, int], Likeness | None]
"""Compares the pixels of the picture of a row with those of a learned one, which the
hash of its name names; None where one of them is not on this machine.
"""


IndexedPicture = tuple[StimulusSet, int]
"""A picture of a set, by its row."""
MAX_SEEN_SHARE = 0.2
"""Share of the tested pictures that may be left out. A fifth fewer items make intervals
12 % wider; where more were seen in training, the split itself is at fault, and the rest
of it a selection that nobody chose.
"""
MAX_NAMED_PICTURES = 5
"""Pictures that a warning names; further ones are counted."""
ALTERED_WARNINGS: dict[Likeness | None, str] = {
    "mirrored": "are mirrored copies of training pictures",
    None: "may be near-copies of training pictures, which are not here to be compared",
}
"""Warnings of pictures that are tested though they resemble learned ones, by the kind
of likeness.
"""
COPY_WARNING = "are copies of training pictures, and are tested"
CONCEPT_WARNING = (
    "show concepts of which a model saw other pictures in earlier training, or in that "
    "of another data set"
)
EQUAL_WARNING = "have the same embeddings as another candidate"
"""Further warnings, of copies under other names, concepts and duplicates."""


def hash_names(dataset: str, names: Ids) -> UInt64:
    """Hash the names of a data set's pictures to 64 bits each: [N]."""
    # the data set is part of the hash, since numbered files of two sets have equal
    # names
    joined = b"".join(
        hashlib.blake2b(f"{dataset}\0{name}".encode(), digest_size=8).digest()
        for name in names
    )
    return np.frombuffer(joined, "<u8").astype(np.uint64)  # [N]


def hash_concepts(concepts: Ids) -> UInt64:
    """Hash names of concepts, [N], without the numbers before them, as in `00012_owl`
    and `n0123_owl`.
    """
    return hash_names(
        "", [re.sub(r"^n?\d+_", "", concept).lower() for concept in concepts]
    )


def _make_empty_hashes() -> UInt64:
    return np.empty(0, np.uint64)


@dataclass(frozen=True, eq=False)
class LearnedPictures:
    """The pictures that a model learned from: a picture is known again by its name or
    by its pixels.

    Attributes:
        names: [N] `hash_names` the pictures, ascending.
        pixels: [P] digests of their pixels, ascending; of those pictures whose target
            stores have them.
        has_all_pixels: Whether every picture's pixels are known.
        hashes: [H, 25] name and perceptual hash of the pictures that have one.
        concepts: [K] `hash_concepts` of what they show, ascending; of the model's own
            training.
        start_concepts: [S] the same of what the model started from, without its own.
    """

    names: UInt64 = field(default_factory=_make_empty_hashes)
    pixels: UInt64 = field(default_factory=_make_empty_hashes)
    has_all_pixels: bool = False
    hashes: UInt64 = field(
        default_factory=lambda: np.empty((0, PIXEL_HASH_WORDS), np.uint64)
    )
    concepts: UInt64 = field(default_factory=_make_empty_hashes)
    start_concepts: UInt64 = field(default_factory=_make_empty_hashes)

    @classmethod
    def from_image_ids(
        cls,
        dataset: str,
        image_ids: Ids,
        pixels: UInt64 | None = None,
        concepts: Ids = (),
    ) -> Self:
        """Describe pictures of a data set.

        Args:
            dataset: The name of its pictures.
            image_ids: [N].
            pixels: [N, 25] what their pixels are known by; None where no store says it.
            concepts: [N] what they show; none where that is not known.
        """
        # hash names and concepts to 64 bits
        names = hash_names(dataset, image_ids)
        shown = np.unique(hash_concepts([*filter(None, concepts)]))
        if pixels is None:
            return cls(np.unique(names), concepts=shown)

        # perceptual hashes [H, 25] of the pictures that have one
        identified = np.column_stack([names, pixels[:, 1:]])[pixels[:, 1:].any(1)]
        return cls(
            np.unique(names),
            np.unique(pixels[:, 0]),
            True,
            np.unique(identified, axis=0),
            shown,
        )

    def __len__(self) -> int:
        """Count the pictures by their names."""
        return len(self.names)

    def inherit(self, before: Self) -> Self:
        """Add the pictures of what a model started from."""
        # concepts of earlier trainings, without those of this one
        started = reduce(
            np.union1d, (before.concepts, before.start_concepts, self.start_concepts)
        )
        return type(self)(
            np.union1d(self.names, before.names),
            np.union1d(self.pixels, before.pixels),
            self.has_all_pixels and before.has_all_pixels,
            np.unique(np.concatenate([self.hashes, before.hashes]), axis=0),
            self.concepts,
            np.setdiff1d(started, self.concepts),
        )

    def find_members(
        self,
        dataset: str,
        image_ids: Ids,
        pixels: UInt64 | None = None,
        confirm: ComparePair | None = None,
        max_distance: int = MAX_DISTANCE,
    ) -> Bool:
        """Find which pictures of a data set are among these, by name, by pixels or as
        near-copies: [N].

        Args:
            dataset: As `of` has it, and so the next two.
            image_ids: [N].
            pixels: [N, 25].
            confirm: Says what is a near-copy; without it, only equal pixels are copies.
                A picture that cannot be compared counts as one.
            max_distance: Of near-copies.
        """
        # by name, then by equal pixels, then as near-copies
        among = np.isin(hash_names(dataset, image_ids), self.names)
        if pixels is None:
            return among
        among |= np.isin(pixels[:, 0], self.pixels)

        # the rest is compared on pixels; a pair that cannot be compared counts as a
        # copy
        if confirm is not None:
            alike = find_similar_pictures(pixels, ~among, [self], confirm, max_distance)
            for kind in (*COPIES, None):
                among[[row for row, _ in alike.get(kind, ())]] = True
        return among

    @property
    def digest(self) -> str:
        """Digest of all their arrays."""
        arrays = [getattr(self, name).tobytes() for name in ("names", *PICTURE_ARRAYS)]
        return hashlib.sha256(b"".join(arrays)).hexdigest()[:16]


def find_similar_pictures(
    pixels: UInt64,
    is_sought: Bool,
    pictures: Sequence[LearnedPictures],
    confirm: ComparePair,
    max_distance: int = MAX_DISTANCE,
) -> dict[Likeness | None, list[tuple[int, int]]]:
    """Find pictures [M] that are like learned ones but have other pixels: pairs of row
    and name, by likeness.

    Wherever pictures are compared, this decides. Candidates by hash are compared on
    pixels; None is of those that cannot be, where a picture is not here.
    """
    alike: dict[Likeness | None, list[tuple[int, int]]] = {}

    # one copy settles a picture; other likenesses are listed once
    every = np.concatenate([learned_pictures.hashes for learned_pictures in pictures])
    learned = np.unique(every, axis=0)  # [H, 25]
    settled = set()
    # a row of zeros is no candidate
    hashes = np.where(is_sought[:, None], pixels[:, 1:], 0)
    for row, learned_row, _ in find_candidates(hashes, learned[:, 1:], max_distance):
        name = int(learned[learned_row, 0])
        # None: not comparable; likenesses that are no copies are listed once a picture
        likeness = confirm(row, name)
        if likeness in (None, *COPIES) or (likeness and row not in settled):
            alike.setdefault(likeness, []).append((row, name))
            if likeness:
                settled.add(row)
    return alike


def make_pair_comparison(
    image_ids: Ids,
    dataset: Dataset,
    split: str,
    learned_sets: Iterable[Dataset],
    learned_split: str = "train",
) -> ComparePair:
    """Make what compares pictures with learned ones on their pixels, where both are on
    this machine.

    Args:
        image_ids: [M] of the rows that are compared.
        dataset: The data set that these are of.
        split: The split that these are of.
        learned_sets: Data sets that learned pictures may be of.
        learned_split: The split that these are of.
    """

    @cache
    def list_pictures() -> tuple[dict[str, IndexedPicture], dict[int, IndexedPicture]]:
        tested = {}
        learned: dict[int, IndexedPicture] = {}
        # pictures of an absent set cannot be compared: `confirm` then returns None
        with suppress(MissingData):
            images = dataset.images(dataset.holdout.name_stored_split(split))
            tested = {name: (images, row) for row, name in enumerate(images.image_ids)}
        for learned_set in learned_sets:
            with suppress(MissingData):
                images = learned_set.images(learned_split)
                names = hash_names(learned_set.pictured_as, images.image_ids).tolist()
                learned |= {name: (images, row) for row, name in enumerate(names)}
        return tested, learned

    open_kept = cache(lambda: KeptLikenesses(home_folder()))

    @cache
    def confirm(row: int, name: int) -> Likeness | None:
        tested, learned = list_pictures()
        if image_ids[row] not in tested or name not in learned:
            return None
        pair = tested[image_ids[row]], learned[name]
        try:
            return _compare_cached(open_kept(), *pair)
        except (MissingData, BadPicture):
            return None

    return confirm


def _compare_cached(kept: KeptLikenesses, *pair: IndexedPicture) -> Likeness:
    """Compare a tested and a learned picture on pixels, unless a command of this home
    has compared them before.

    Raises:
        MissingData: if a picture is not here.
        BadPicture: if it cannot be decoded.
    """
    # digest files, or the pixels of pictures that have no files of their own
    files = [_digest_file(*picture) for picture in pair]
    digests = [digest for digest in files if digest is not None]
    opened = list[Any]()
    if len(digests) < len(pair):
        opened = [images.open(index) for images, index in pair]
        digests = [*map(digest_pixels, opened)]

    likeness = kept.find(digests)
    if likeness is None:
        opened = opened or [images.open(index) for images, index in pair]
        likeness = confirm_near_copy(*opened)
        kept.keep(digests, likeness)
    return likeness


def _digest_file(images: StimulusSet, index: int) -> int | None:
    """Digest the file of a picture; None where it has none, or it cannot be read."""
    if images.file_of is None:
        return None
    with suppress(OSError, MissingData):
        return xxhash.xxh3_64_intdigest(read_regular(images.file_of(index)))
    return None


@checked_dataclass(
    frozen=True,
    eq=False,
    config=ConfigDict(arbitrary_types_allowed=True, extra="forbid"),
)
class TrainingHistory:
    """Training data of a model and of all that it started from; without arguments it is
    not known.

    Attributes:
        selection: What selected the kept epoch: "validation", "last epoch" or "test";
            "" where it is not known. A test anywhere in a model's history is kept.
        dataset: Name of the data set; "" where it is not known.
        recordings: The name of the people whose signals it learned from itself, as
            `Dataset.people` has it.
        people: Subjects that it and what it started from learned from, by that name.
        has_all_subjects: Whether these are all.
        signals: What the signals are known by, by the name of their store.
        is_simulated: Whether the provenance of some of the signals says that a program
            made them.
        is_whitened_by_tested: Whether it says that noise of test trials had a part in
            their whitening.
        stimulus_kinds: Kinds of the data sets of all pictures that it and what it
            started from learned from, as `things-eeg` or `image-folder`; empty where
            one is not known. A name does not say the kind.
        recording_kinds: Kinds of the preparations of all their signals
            (`Trials.made_by`); empty where one is not known, and of priors.
        pictures: With those held out for validation; empty where they are not known.
        trials: [K] digests of all trials that it and what it started from learned from,
            ascending.
        normalisers: What normalised the signals of each subject of its own training, by
            their numbers.
        normaliser: The mean of theirs, for others; None where these are normalised by
            themselves.
        whiteners: [S, C, C] of each subject of its own training whose signals were
            whitened before they were
            stored: Σ^(-1/2) of each session, of all recorded channels.
        recorded_channels: [C] of the whiteners, in order.
    """

    selection: EpochSelection = ""
    dataset: str = ""
    recordings: str = ""
    people: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    has_all_subjects: bool = False
    signals: Mapping[str, str] = field(default_factory=dict)
    split: str = "train"
    recorded_channels: NameTuple = ()
    is_simulated: bool = False
    is_whitened_by_tested: bool = False
    stimulus_kinds: NameTuple = ()
    recording_kinds: NameTuple = ()
    pictures: InstanceOf[LearnedPictures] = field(default_factory=LearnedPictures)
    trials: UInt64 = field(default_factory=_make_empty_hashes)
    normalisers: Mapping[int, InstanceOf[Normaliser]] = field(default_factory=dict)
    normaliser: InstanceOf[Normaliser] | None = None
    whiteners: Mapping[int, Float32] = field(default_factory=dict)

    def inherit(self, before: Self) -> Self:
        """Add what the model that training started from had learned from."""

        # kinds are known only where both trainings state theirs
        def join(kinds: NameTuple, kinds_before: NameTuple) -> NameTuple:
            known = kinds and kinds_before
            return tuple(sorted({*kinds, *kinds_before})) if known else ()

        # join data sets and people, and keep the later selection
        people = dict(before.people)
        for name, subjects in self.people.items():
            people[name] = tuple(sorted({*subjects, *people.get(name, ())}))
        selections = self.selection, before.selection
        datasets = filter(None, [before.dataset, self.dataset])
        return replace(
            self,
            selection=max(selections, key=get_args(EpochSelection).index),
            dataset=DATASET_SEPARATOR.join(dict.fromkeys(datasets)),
            people=people,
            has_all_subjects=self.has_all_subjects and before.has_all_subjects,
            signals={**before.signals, **self.signals},
            is_simulated=self.is_simulated or before.is_simulated,
            is_whitened_by_tested=self.is_whitened_by_tested
            or before.is_whitened_by_tested,
            stimulus_kinds=join(self.stimulus_kinds, before.stimulus_kinds),
            recording_kinds=join(self.recording_kinds, before.recording_kinds),
            pictures=self.pictures.inherit(before.pictures),
            trials=np.union1d(self.trials, before.trials),
        )

    @property
    def subjects(self) -> tuple[int, ...]:
        """Subjects of its own data set that it, or what it started from, learned
        from.
        """
        return self.people.get(self.recordings, ())

    def require_new_subjects(
        self, dataset: Dataset, tested: Iterable[int], model: str
    ) -> None:
        """Refuse to test a model as on new people whom it, or anything that it started
        from, learned from.

        Args:
            dataset: Whose people are tested.
            tested: Their numbers.
            model: What the model is called.

        Raises:
            BrainhiveError: naming them.
        """
        # numbers identify subjects only among people of the same name
        people = dataset.people
        left_out = dataset.list_excluded_subjects(tested)
        if seen := sorted(left_out.intersection(self.people.get(people, ()))):
            raise BrainhiveError(
                f"{model} is to be tested on new subjects, but it, or a model that it "
                f"started from, was trained on subject {', '.join(map(str, seen))} of "
                f"{people}",
                "start from a model that was trained without them, or use mode=joint",
            )

    def describe_subjects(self, people: str, tested: Iterable[int]) -> str:
        """Say of tested subjects, as `refuse_subjects`, whether it or what it started
        from knows them.
        """
        # an unlisted subject is new only where the list of subjects is complete
        trained, groups = self.people.get(people, ()), dict[str, list[str]]()
        unknown = (
            "new subject" if self.has_all_subjects else "perhaps trained on subject"
        )
        for subject in tested:
            words = "trained on subject" if subject in trained else unknown
            groups.setdefault(words, []).append(str(subject))
        return "; ".join(
            f"{words} {', '.join(subjects)}" for words, subjects in groups.items()
        )

    @property
    def caveats(self) -> list[str]:
        """Caveats of every number that depends on the model."""
        # whatever is not known of the history is a caveat, too
        holds = {
            TRAINED_ON_SIMULATED: self.is_simulated,
            WHITENED_BY_TESTED: self.is_whitened_by_tested,
            UNKNOWN_PICTURES: not self.pictures.has_all_pixels,
            UNKNOWN_SELECTION: not self.selection,
            SELECTED_ON_TEST: self.selection == "test",
            UNKNOWN_HISTORY: not self.has_all_subjects,
        }
        return merge_caveats(compress(holds, holds.values()))

    def normaliser_of(self, subject: int) -> Normaliser | None:
        """Return what normalises a subject's signals; None: it comes from the subject's
        training signals.
        """
        return self.normalisers.get(
            subject, None if subject in self.subjects else self.normaliser
        )

    def save(self, folder: Path, *weights_files: Path) -> dict[str, Any]:
        """Write the arrays, and whose history they are; return the block for the
        config.

        Args:
            folder: Where to.
            weights_files: The weights that learned from them, written before.
        """
        import torch

        # the block of the config: attributes without arrays
        pictures = self.pictures
        block = {
            key: value for key, value in vars(self).items() if key not in ARRAY_FIELDS
        }
        known = {"has_all_pixels": pictures.has_all_pixels, "digest": pictures.digest}
        block["pictures"] = {"count": len(pictures), **known}

        # pictures, statistics and whitening matrices as arrays
        arrays: dict[str, Array] = {
            "pictures": pictures.names,
            **{name: getattr(pictures, name) for name in PICTURE_ARRAYS},
            "trials": self.trials,
        }
        normalisers = {
            f"{NORMALISER_PREFIX}{subject}.": normaliser
            for subject, normaliser in self.normalisers.items()
        }
        if self.normaliser:
            normalisers[""] = self.normaliser
        for before, normaliser in normalisers.items():
            arrays[f"{before}mean"] = normaliser.mean
            arrays[f"{before}matrix"] = normaliser.matrix
        for subject, matrices in self.whiteners.items():
            arrays[f"{WHITENER_PREFIX}{subject}"] = matrices

        # metadata: the block, and the digest of the weights
        about = {
            "learned": json.dumps(block),
            "weights": _digest_weights(weights_files),
        }
        weights.save(
            folder / ARRAYS_FILE,
            {name: torch.tensor(array) for name, array in arrays.items()},
            about,
        )
        return block

    def write(self, folder: Path) -> None:
        """Write all into a folder of another config, as a prior's."""
        # weights are written before, as the arrays record their digest
        block = self.save(folder, *_list_weights(folder))
        (folder / BLOCK_FILE).write_text(json.dumps(block, indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read back what `write` wrote, as `load` does; not known where there is no
        such file.
        """
        block = folder / BLOCK_FILE
        if not block.is_file():
            return cls()
        return cls.load(block, documents.read(block), *_list_weights(folder))

    @classmethod
    def read_next_to(cls, weights_file: Path) -> Self:
        """Read the history that lies next to a weight file, as `load` does; not known
        where there is none.
        """
        file = weights_file.parent / ARRAYS_FILE
        about = weights.read_metadata(file) if file.is_file() else {}
        # other programs write files of this name without our metadata
        if "learned" not in about:
            return cls()
        block = documents.parse(about["learned"], f"{file}: learned", dict[str, Any])
        return cls.load(file, block, weights_file)

    @classmethod
    def load(cls, file: Path, block: Any, *weights_files: Path) -> Self:
        """Read back what `save` wrote; of other weights than these, or changed ones, it
        is not all.

        Raises:
            BrainhiveError: if the file is damaged, or not the one that the block was
                written with.
        """
        # plain values, which stand in a config or document
        folder = file.parent
        fields = documents.check(
            {"learned": block}, str(file), dict[str, dict[str, Any]]
        )["learned"]
        about = documents.check(
            fields.pop("pictures", {}), f"{file}: learned.pictures", dict[str, Any]
        )

        # the block must have exactly the attributes of this version
        known = {one.name for one in dataclass_fields(cls)} - {*ARRAY_FIELDS}
        if wrong := sorted(fields.keys() - known) or sorted(known - fields.keys()):
            problem = (
                "which nothing reads" if wrong[0] in fields else "which it must have"
            )
            raise BrainhiveError(
                f"{file}: learned.{wrong[0]}, {problem}", documents.DAMAGED_HINT
            )
        document, kind = {"learned": fields}, dict[str, cls]  # type: ignore[valid-type]
        learned: Self = documents.check(document, str(file), kind)["learned"]

        # arrays; any damage is reported with the file's name
        with weights.reading(
            folder / ARRAYS_FILE, documents.DAMAGED_HINT, BrainhiveError
        ):
            arrays = weights.read_arrays(
                folder / ARRAYS_FILE, documents.DAMAGED_HINT, BrainhiveError
            )

            # pictures, which must be those of the block
            pictures = LearnedPictures(
                arrays.pop("pictures"),
                has_all_pixels=about["has_all_pixels"] is True,
                **{name: arrays.pop(name) for name in PICTURE_ARRAYS},
            )
            if pictures.digest != about["digest"]:
                raise ValueError("it does not belong to its config.json")

            # digests of trials, whitening matrices [S, C, C] and statistics of each
            # subject
            whiteners, statistics = {}, {}
            for name in arrays:
                if name.startswith(WHITENER_PREFIX):
                    whiteners[int(name.removeprefix(WHITENER_PREFIX))] = arrays[name]
                elif name.endswith("mean"):
                    before = name.removesuffix("mean")
                    normaliser = Normaliser(arrays[name], arrays[f"{before}matrix"])
                    statistics[before] = normaliser
            learned = replace(
                learned,
                pictures=pictures,
                trials=arrays.get("trials", _make_empty_hashes()),
                whiteners=whiteners,
                normaliser=statistics.pop("", None),
                normalisers={
                    int(name.removeprefix(NORMALISER_PREFIX).rstrip(".")): each
                    for name, each in statistics.items()
                },
            )

        # weights that another program wrote may have learned from anything since
        digest = _digest_weights(weights_files)
        if (
            digest
            and weights.read_metadata(folder / ARRAYS_FILE).get("weights") == digest
        ):
            return learned
        return learned.inherit(cls())  # an unknown history


def _list_weights(folder: Path) -> list[Path]:
    """List the weight files of a folder, in order of their names."""
    return sorted(
        path for path in folder.rglob("*.safetensors") if path.name != ARRAYS_FILE
    )


def _digest_weights(files: Sequence[Path]) -> str:
    """Join the digests of weight files; empty where one has none, as another program
    wrote it.
    """
    # whoever reads the weights says that they are damaged or absent
    with suppress(BrainhiveError, OSError):
        if all(digests := [weights.read_digest(file) for file in files]):
            return " ".join(digests)
    return ""


class TestedPictures:
    """The pictures of a split, compared with those that the models which are tested on
    them learned from.

    Pictures stay candidates of a gallery; what is left out are the signals that were
    recorded of them. Trials of seen stimuli, which a data set may hold out, leave out
    none.

    Args:
        dataset: Whose pictures are tested.
        split: Which of them.
        fold: Fold that is tested, where the data set holds out any.
        stores: The target stores of the split, by encoder.
        models: What the models that are tested on each subject learned from.
        confirm: Says whether a tested picture is a near-copy of a learned one.
        sources: What else learned from pictures, such as a prior, by what it is called.
        allows_copies: Whether copies of learned pictures under other names are tested.

    Attributes:
        image_ids: [M] the pictures, in the rows of the target stores.
        done: [M] whether they have targets, and are tested.
        title: Name of the pictures: `test pictures of things-eeg`.
        by_subject: [M] whether a model that is tested on a subject learned from them,
            by subject. All models of a subject share it, so that they are tested on the
            same items.
        by_source: [M] whether something else did, such as a prior, by what that is
            called.
        is_seen: [M] whether any subject's models, or anything else, learned from them.
        alike: [M] whether they are tested though they are like learned pictures, by the
            warning that says
            how: copies under other names, altered ones, and those of whose concept a
                model saw other
            pictures, in training of another data set or in that of what it started
            from. What its own data set holds out says nothing of that.
        twins: [M] whether another one has the same embeddings.
        caveats: Caveats of every number that depends on them; those of the models are
            the models' own.
        warnings: Warnings for the reader, one line each.
    """

    __test__ = False  # no test, though pytest would take it for one by its name

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        fold: int,
        stores: Mapping[str, TargetStore],
        models: Mapping[int, Sequence[TrainingHistory]],
        confirm: ComparePair,
        sources: Mapping[str, TrainingHistory] | None = None,
        allows_copies: bool = False,
    ) -> None:
        listed, pixels = first_with_pixels(stores)
        self.image_ids = listed.image_ids
        self.is_tested = listed.done & dataset.holdout.choose_stimuli(
            listed, split, fold
        )

        # where trials of seen stimuli are held out, nothing is compared
        has_seen_pictures = dataset.holdout.has_seen_pictures and split == "test"
        title = "stimuli" if has_seen_pictures else f"{split} pictures"
        self.title = f"{title} of {dataset.name}"
        histories = [] if has_seen_pictures else [*chain(*models.values())]
        all_sources = {} if has_seen_pictures else dict(sources or {})
        learned_pictures = [
            learned.pictures for learned in (*histories, *all_sources.values())
        ]
        nowhere = np.zeros(len(self.image_ids), bool)  # [M]

        # near-copies among the pictures that are not known by their names or pixels
        alike: dict[Likeness | None, list[tuple[int, int]]] = {}
        if pixels is not None and learned_pictures:
            known = [
                each.find_members(dataset.pictured_as, self.image_ids, pixels)
                for each in learned_pictures
            ]
            is_sought = self.is_tested & ~np.logical_or.reduce(known)
            alike = find_similar_pictures(pixels, is_sought, learned_pictures, confirm)
        near_copies = [pair for kind in COPIES for pair in alike.get(kind, ())]

        def are_copies(learned: LearnedPictures) -> Bool:
            """[M] whether pictures have the pixels of learned ones, or nearly."""
            is_copy = (
                nowhere.copy()
                if pixels is None
                else np.isin(pixels[:, 0], learned.pixels)
            )
            is_copy[[row for row, name in near_copies if name in learned.names]] = True
            return is_copy

        def are_seen(learned: LearnedPictures) -> Bool:
            """[M] whether pictures are among learned ones: by name, and copies unless
            these are allowed.
            """
            is_learned = learned.find_members(dataset.pictured_as, self.image_ids)
            return is_learned if allows_copies else is_learned | are_copies(learned)

        # what is left out: of each subject, and by what else learned from pictures
        self.seen_by_subject = {
            subject: nowhere
            if has_seen_pictures
            else np.logical_or.reduce([are_seen(learned.pictures) for learned in each])
            for subject, each in models.items()
        }
        self.seen_by_source = {
            name: are_seen(learned.pictures) for name, learned in all_sources.items()
        }
        seen = [nowhere, *self.seen_by_subject.values(), *self.seen_by_source.values()]
        self.is_seen: Bool = np.logical_or.reduce(seen) & self.is_tested

        # resemblances, which warn, exclude pictures that are left out
        self.masks_by_warning: dict[str, Bool] = {}
        if learned_pictures:
            copies = (
                np.logical_or.reduce([*map(are_copies, learned_pictures)])
                & ~self.is_seen
                & self.is_tested
            )
            self.masks_by_warning[COPY_WARNING] = copies
            for kind, warning in ALTERED_WARNINGS.items():
                is_altered = nowhere.copy()
                is_altered[[row for row, _ in alike.get(kind, ())]] = True
                self.masks_by_warning[warning] = is_altered & ~self.is_seen & ~copies

            # concepts of earlier trainings, and of this one where it was on another
            # data set
            people = dataset.people
            concepts = [
                np.empty(0, np.uint64),
                *(each.pictures.start_concepts for each in histories),
            ]
            concepts += [
                each.pictures.concepts
                for each in histories
                if each.recordings != people
            ]
            is_known = np.isin(hash_concepts(listed.concepts), np.concatenate(concepts))
            self.masks_by_warning[CONCEPT_WARNING] = is_known & self.is_tested

        # copies cannot be excluded where pixels are unknown
        are_known = has_seen_pictures or (
            pixels is not None and not has_unknown_pictures(stores.values())
        )
        self.caveats = [] if are_known else [UNKNOWN_PICTURES]
        if any("imported" in store.attributes for store in stores.values()):
            self.caveats.append(UNKNOWN_NETWORK)
        self.has_equal_embedding = find_equal_embeddings(
            stores.values(), self.is_tested
        )
        self.caveats += [TWINS] if self.has_equal_embedding.any() else []
        for warning, caveat in (
            (COPY_WARNING, SEEN_COPIES),
            (CONCEPT_WARNING, SEEN_CONCEPTS),
        ):
            self.caveats += (
                [caveat] if np.any(self.masks_by_warning.get(warning, False)) else []
            )

        # a line for what is left out, and for each kind of resemblance
        left_out = (
            "were seen in training, by name, by pixels or as near-copies, and are not "
            "tested"
        )
        self.warnings = []
        kinds = {
            left_out: self.is_seen,
            EQUAL_WARNING: self.has_equal_embedding,
            **self.masks_by_warning,
        }
        for warning, rows in kinds.items():
            if rows.any():
                names = list(self.image_ids[np.flatnonzero(rows)])
                listing = ", ".join(names[:MAX_NAMED_PICTURES]) + (
                    " …" if len(names) > MAX_NAMED_PICTURES else ""
                )
                total = f"{rows.sum()} of the {self.is_tested.sum()} {self.title}"
                self.warnings.append(f"{total} {warning}: {listing}")

    def find_seen_signals(self, subject: int, rows: Int64, model: str) -> Bool:
        """Find the signals of a subject that show a picture which was seen in training:
        [N].

        Args:
            subject: Who.
            rows: [N] row of what each signal shows.
            model: What the subject's models are called.

        Raises:
            BrainhiveError: if more than `MAX_SEEN_SHARE` of the pictures were seen.
        """
        # the subject's models, and other sources such as a prior
        seen = {model: self.seen_by_subject[subject], **self.seen_by_source}
        shown = np.unique(rows)
        for source, is_seen in seen.items():
            if len(shown) and is_seen[shown].mean() > MAX_SEEN_SHARE:
                raise BrainhiveError(
                    f"{source} was trained on {is_seen[shown].sum()} of the "
                    f"{len(shown)} {self.title} that it is tested on, by name, by "
                    f"pixels or as near-copies; at most {MAX_SEEN_SHARE:.0%} can be "
                    "left out",
                    "evaluate on pictures that were held out, or train again on a "
                    "split without them; or hold out trials of seen pictures: all "
                    "pictures in one folder `train`, and dataset.holdout='{by: runs, "
                    "folds: N}'; copies=allow tests copies under other names",
                )

        # a signal is left out if any of them saw its picture: [N]
        is_left_out: Bool = np.logical_or.reduce(
            [is_seen[rows] for is_seen in seen.values()]
        )
        return is_left_out


def summarise_tested_pictures(
    compared: Iterable[TestedPictures], warnings: Iterable[str]
) -> tuple[SeenPictures, list[str]]:
    """Describe one split's pictures as several runs are tested on them: what was left
    out, and warnings.

    Args:
        compared: The pictures, by run.
        warnings: Further ones.
    """
    # a picture counts as seen if it is so for any run
    runs = list(compared)
    is_seen = np.logical_or.reduce([tested.is_seen for tested in runs])
    names = list(runs[0].image_ids[is_seen])
    left_out = SeenPictures(
        count=len(names),
        of=int(runs[0].is_tested.sum()),
        names=names[:MAX_NAMED_PICTURES],
    )
    # runs share most warnings, each of which is shown once
    lines = list(dict.fromkeys(chain(warnings, *(tested.warnings for tested in runs))))
    return left_out, lines
