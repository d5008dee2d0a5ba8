"""Training history of a model: the pictures, signals and people that it was trained on.

A model that starts from another model inherits the history of that model.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields as dataclass_fields, replace
from functools import cached_property
from itertools import chain
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
    UNKNOWN_TRIALS,
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
    get_stimuli_and_pixels,
    has_unknown_pictures,
)
from brainhive_cli.models.pretraining import look_up_training

ARRAYS_FILE = "learned.safetensors"
"""File of a history in a model folder. It holds the arrays, and in its metadata the
block `learned` and the digest of the weights. It may be copied with the weights.
"""
BLOCK_FILE = "learned.json"
"""File of the block `learned` in a folder whose config has another format."""
EpochSelection = Literal["last epoch", "validation", "", "test"]
"""How the kept epoch was selected, or "" if unknown. Two selections are merged into the
later in this list.
"""
PICTURE_ARRAYS = ("pixels", "hashes", "concepts", "start_concepts")
"""Arrays of `LearnedPictures` in the file, besides the names."""
ARRAY_FIELDS = ("pictures", "trials", "normalisers", "normaliser", "whiteners")
"""Fields of `TrainingHistory` that are stored as arrays, not in the block."""
NORMALISER_PREFIX = "normaliser."
"""Prefix of a subject number in the names of arrays, such as `normaliser.3.mean`."""
WHITENER_PREFIX = "whitener."
"""Prefix of a subject number in the names of arrays, such as `whitener.3`."""
DATASET_SEPARATOR = " + "
"""Text between the names of several data sets."""

NameTuple = tuple[str, ...]
ComparePair = Callable[[int, int], Likeness | None]
"""Function that compares two pictures on their pixels: a tested picture, by its row,
and a learned picture, by the hash of its name. Returns None if one cannot be read.
"""
RowPair = tuple[int, int]
"""Row of a tested picture, and hash of the name of a learned picture."""
IndexedPicture = tuple[StimulusSet, int]
"""Set of pictures, and row of a picture in it."""

MAX_SEEN_SHARE = 0.2
"""Largest share of the tested pictures that may be left out. A fifth fewer items make
intervals 12 % wider. A larger share means that the split itself is wrong.
"""
MAX_NAMED_PICTURES = 5
"""Largest number of pictures that a warning names."""
ALTERED_WARNINGS: dict[Likeness | None, str] = {
    "mirrored": "are mirrored copies of training pictures",
    None: "may be near-copies of training pictures, which are not here to be compared",
}
"""Warnings of tested pictures that resemble learned pictures, by kind of likeness."""
COPY_WARNING = "are copies of training pictures, and are tested"
"""Warning of tested copies under other names."""
CONCEPT_WARNING = (
    "show concepts of which a model saw other pictures in an earlier training, or in "
    "the training on another data set"
)
"""Warning of tested pictures whose concept is not new to a model."""
EQUAL_WARNING = "have the same embeddings as another candidate"
"""Warning of candidates that a model cannot distinguish."""
SEEN_WARNING = (
    "were seen in training (same name, same pixels or a near-copy), and are not tested"
)
"""Warning of pictures that are left out."""


def hash_names(dataset: str, names: Sequence[str]) -> UInt64:
    """Hash the names of a data set's pictures to 64 bits each [N].

    The name of the data set is part of each hash, because numbered files of two data
    sets may have equal names.
    """
    digests = []
    for name in names:
        text = f"{dataset}\0{name}".encode()
        digests.append(hashlib.blake2b(text, digest_size=8).digest())
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def hash_concepts(concepts: Sequence[str]) -> UInt64:
    """Hash concepts [N], without numbers such as in `00012_owl` and `n0123_owl`."""
    names = [re.sub(r"^n?\d+_", "", concept).lower() for concept in concepts]
    return hash_names("", names)


def _make_empty_hashes() -> UInt64:
    """Make an empty array of hashes [0]."""
    return np.empty(0, np.uint64)


@dataclass(frozen=True, eq=False)
class LearnedPictures:
    """Pictures that a model was trained on, identified by name and by pixels.

    Attributes:
        names: Hashes [N] of the names, see `hash_names`, ascending.
        pixels: Digests [P] of the pixels, ascending, as far as they are known.
        has_all_pixels: True if the pixels of every picture are known.
        hashes: Hash of the name, and perceptual hash, of the pictures that have one
            [H, 25].
        concepts: Hashes [K] of the concepts of the model's own training, see
            `hash_concepts`, ascending.
        start_concepts: Hashes [S] of further concepts, which only the model that
            training started from had seen.
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
        image_ids: Sequence[str],
        pixels: UInt64 | None = None,
        concepts: Sequence[str] = (),
    ) -> Self:
        """Describe pictures of a data set.

        Args:
            dataset: Name of the set of pictures.
            image_ids: Image ids [N].
            pixels: Digests of the pixels and perceptual hashes [N, 25], or None if
                unknown.
            concepts: Concepts [N], or empty if unknown.
        """
        name_hashes = hash_names(dataset, image_ids)
        known_concepts = list(filter(None, concepts))
        concept_hashes = np.unique(hash_concepts(known_concepts))
        if pixels is None:
            return cls(np.unique(name_hashes), concepts=concept_hashes)

        # a row of zeros is not a perceptual hash
        has_hash = pixels[:, 1:].any(1)
        hashes = np.column_stack([name_hashes, pixels[:, 1:]])[has_hash]  # [H, 25]
        return cls(
            names=np.unique(name_hashes),
            pixels=np.unique(pixels[:, 0]),
            has_all_pixels=True,
            hashes=np.unique(hashes, axis=0),
            concepts=concept_hashes,
        )

    def __len__(self) -> int:
        """Count the pictures by their names."""
        return len(self.names)

    def inherit(self, start: Self) -> Self:
        """Add the pictures of the model that training started from."""
        start_concepts = np.concatenate(
            [start.concepts, start.start_concepts, self.start_concepts]
        )
        return type(self)(
            names=np.union1d(self.names, start.names),
            pixels=np.union1d(self.pixels, start.pixels),
            has_all_pixels=self.has_all_pixels and start.has_all_pixels,
            hashes=np.unique(np.concatenate([self.hashes, start.hashes]), axis=0),
            concepts=self.concepts,
            start_concepts=np.setdiff1d(start_concepts, self.concepts),
        )

    def find_members(
        self,
        dataset: str,
        image_ids: Sequence[str],
        pixels: UInt64 | None = None,
        compare: ComparePair | None = None,
        max_distance: int = MAX_DISTANCE,
    ) -> Bool:
        """Find the pictures of a data set that are among these pictures.

        Args:
            dataset: Name of the set of pictures.
            image_ids: Image ids [N].
            pixels: Digests of the pixels and perceptual hashes [N, 25]. Without them,
                only names are compared.
            compare: Compares a candidate for a near-copy. None if only equal pixels
                count as copies.
            max_distance: Largest distance of the hashes of near-copies, in bits.

        Returns:
            True [N] for each picture with the name, the pixels or a near-copy of one of
            these pictures. A candidate that cannot be compared counts as a near-copy.
        """
        is_member = np.isin(hash_names(dataset, image_ids), self.names)
        if pixels is None:
            return is_member
        is_member |= np.isin(pixels[:, 0], self.pixels)

        if compare is not None:
            similar = find_similar_pictures(
                pixels, ~is_member, [self], compare, max_distance
            )
            for likeness, pairs in similar.items():
                if likeness is None or likeness in COPIES:
                    is_member[[row for row, _ in pairs]] = True
        return is_member

    @property
    def digest(self) -> str:
        """Digest of all arrays, 16 hexadecimal digits."""
        digest = hashlib.sha256(self.names.tobytes())
        for name in PICTURE_ARRAYS:
            digest.update(getattr(self, name).tobytes())
        return digest.hexdigest()[:16]


def find_similar_pictures(
    pixels: UInt64,
    is_compared: Bool,
    pictures: Sequence[LearnedPictures],
    compare: ComparePair,
    max_distance: int = MAX_DISTANCE,
) -> dict[Likeness | None, list[RowPair]]:
    """Find tested pictures that resemble learned pictures but have other pixels.

    Candidates have similar perceptual hashes, and are then compared on their pixels.

    Args:
        pixels: Digests of the pixels and perceptual hashes [M, 25] of tested pictures.
        is_compared: True [M] for the tested pictures that are compared.
        pictures: Learned pictures of each model.
        compare: Compares a candidate on pixels.
        max_distance: Largest distance of the hashes of candidates, in bits.

    Returns:
        Pairs by likeness, with the key None for pairs that cannot be compared. All
        copies of a picture are listed. A mirrored picture is listed only if its tested
        picture has no earlier pair.
    """
    all_hashes = np.concatenate([learned.hashes for learned in pictures])
    learned_hashes = np.unique(all_hashes, axis=0)  # [H, 25]
    # a row of zeros has no candidates
    hashes = np.where(is_compared[:, None], pixels[:, 1:], 0)
    candidates = find_candidates(hashes, learned_hashes[:, 1:], max_distance)

    similar: dict[Likeness | None, list[RowPair]] = {}
    rows_with_likeness = set()
    for row, learned_row, _ in candidates:
        name = int(learned_hashes[learned_row, 0])
        likeness = compare(row, name)
        if likeness == "":
            continue
        is_copy = likeness is None or likeness in COPIES
        if is_copy or row not in rows_with_likeness:
            similar.setdefault(likeness, []).append((row, name))
        if likeness is not None:
            rows_with_likeness.add(row)
    return similar


@dataclass(eq=False)
class PixelComparison:
    """Comparison of tested pictures with learned pictures on their pixels.

    It is a `ComparePair`. Every pair is compared once, and data sets are opened when
    the first pair is compared.

    Attributes:
        image_ids: Image ids [M] of the tested pictures.
        dataset: Data set of the tested pictures.
        split: Split of the tested pictures.
        learned_sets: Data sets that may have the learned pictures.
        learned_split: Split of the learned pictures.
    """

    image_ids: Sequence[str]
    dataset: Dataset
    split: str
    learned_sets: Iterable[Dataset]
    learned_split: str = "train"
    _likenesses: dict[RowPair, Likeness | None] = field(
        init=False, default_factory=dict
    )
    _digests: dict[tuple[int, int], int] = field(init=False, default_factory=dict)
    _opened: dict[tuple[int, int], Any] = field(init=False, default_factory=dict)

    def __call__(self, row: int, name: int) -> Likeness | None:
        """Compare a tested picture with a learned picture.

        Args:
            row: Row of the tested picture.
            name: Hash of the name of the learned picture.

        Returns:
            The likeness, or None if one of the pictures is not on this machine or
            cannot be decoded.
        """
        pair = (row, name)
        if pair not in self._likenesses:
            self._likenesses[pair] = self._compare(row, name)
        return self._likenesses[pair]

    def _compare(self, row: int, name: int) -> Likeness | None:
        """Compare two pictures, or return None if one cannot be read."""
        tested = self._tested_pictures.get(self.image_ids[row])
        learned = self._learned_pictures.get(name)
        if tested is None or learned is None:
            return None
        try:
            digests = [self._digest(tested), self._digest(learned)]
            likeness = self._cache.find(digests)
            if likeness is None:
                likeness = confirm_near_copy(self._open(tested), self._open(learned))
                self._cache.keep(digests, likeness)
        except (MissingData, BadPicture):
            return None
        return likeness

    def _digest(self, picture: IndexedPicture) -> int:
        """Digest the file of a picture, or its pixels if it has no file of its own.

        A picture is read once, because decoding a clip of a long film takes time.

        Raises:
            MissingData: if the picture is missing.
            BadPicture: if the picture cannot be decoded.
        """
        images, row = picture
        key = (id(images), row)
        if key not in self._digests:
            digest = _digest_file(images, row)
            if digest is None:
                digest = digest_pixels(self._open(picture))
            self._digests[key] = digest
        return self._digests[key]

    def _open(self, picture: IndexedPicture) -> Any:
        """Open a picture, unless it is one of the last two that were opened."""
        images, row = picture
        key = (id(images), row)
        stimulus = self._opened.pop(key, None)
        if stimulus is None:
            stimulus = images.open(row)
        self._opened = {**dict(list(self._opened.items())[-1:]), key: stimulus}
        return stimulus

    @cached_property
    def _cache(self) -> KeptLikenesses:
        """Likenesses that earlier commands found."""
        return KeptLikenesses(home_folder())

    @cached_property
    def _tested_pictures(self) -> dict[str, IndexedPicture]:
        """Tested pictures by image id. Empty if the data set is missing."""
        with suppress(MissingData):
            split = self.dataset.holdout.name_stored_split(self.split)
            images = self.dataset.images(split)
            return {name: (images, row) for row, name in enumerate(images.image_ids)}
        return {}

    @cached_property
    def _learned_pictures(self) -> dict[int, IndexedPicture]:
        """Pictures of the learned data sets that are here, by hash of the name."""
        pictures: dict[int, IndexedPicture] = {}
        for dataset in self.learned_sets:
            with suppress(MissingData):
                images = dataset.images(self.learned_split)
                names = hash_names(dataset.pictured_as, images.image_ids).tolist()
                pictures |= {name: (images, row) for row, name in enumerate(names)}
        return pictures


def _digest_file(images: StimulusSet, row: int) -> int | None:
    """Digest the file of a picture, or return None if there is no readable file."""
    if images.file_of is None:
        return None
    with suppress(OSError, MissingData):
        return xxhash.xxh3_64_intdigest(read_regular(images.file_of(row)))
    return None


@checked_dataclass(
    frozen=True,
    eq=False,
    config=ConfigDict(arbitrary_types_allowed=True, extra="forbid"),
)
class TrainingHistory:
    """Training data of a model, and of all models that its training started from.

    Without arguments, the history is unknown.

    Attributes:
        selection: How the kept epoch was selected. "test" if a model in the history was
            selected on test.
        dataset: Name of the data set, or "" if unknown.
        recordings: Name of the group of people in the model's own training, see
            `Dataset.people`.
        people: Subjects in training, by name of the group of people.
        has_all_subjects: True if `people` is complete.
        signals: Identity of the signals, by name of their store.
        split: Split that was used for training.
        recorded_channels: Names [C] of the channels of the whiteners.
        is_simulated: True if some of the signals were simulated.
        is_whitened_by_tested: True if noise of test trials was used to whiten the
            signals.
        stimulus_kinds: Kinds of the data sets of all pictures, such as `things-eeg`.
            Empty if one is unknown.
        recording_kinds: Kinds of the preparations of all signals, see `Trials.made_by`.
            Empty if one is unknown, and for priors.
        pictures: Pictures that were used for training or validation. Empty if
            unknown.
        trials: Digests [K] of all training trials, ascending.
        normalisers: Normaliser of each subject of the model's own training.
        pretrained_weights: Published weights that the training started from, as
            `look_up_training` takes them.
        normaliser: Mean of these normalisers, for other subjects. None if other
            subjects are normalised by their own signals.
        whiteners: Whiteners [S, C, C] of the sessions of each subject whose signals
            were whitened before they were stored.
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
    pretrained_weights: NameTuple = ()
    pictures: InstanceOf[LearnedPictures] = field(default_factory=LearnedPictures)
    trials: UInt64 = field(default_factory=_make_empty_hashes)
    normalisers: Mapping[int, InstanceOf[Normaliser]] = field(default_factory=dict)
    normaliser: InstanceOf[Normaliser] | None = None
    whiteners: Mapping[int, Float32] = field(default_factory=dict)

    def inherit(self, start: Self) -> Self:
        """Add the history of the model that training started from."""
        people = dict(start.people)
        for name, subjects in self.people.items():
            all_subjects = set(subjects).union(people.get(name, ()))
            people[name] = tuple(sorted(all_subjects))

        # the selection later in the list of selections wins
        severity = get_args(EpochSelection).index
        selection = max(self.selection, start.selection, key=severity)
        datasets = dict.fromkeys((start.dataset, self.dataset))
        datasets.pop("", None)
        return replace(
            self,
            selection=selection,
            dataset=DATASET_SEPARATOR.join(datasets),
            people=people,
            has_all_subjects=self.has_all_subjects and start.has_all_subjects,
            signals={**start.signals, **self.signals},
            is_simulated=self.is_simulated or start.is_simulated,
            is_whitened_by_tested=self.is_whitened_by_tested
            or start.is_whitened_by_tested,
            stimulus_kinds=_merge_kinds(self.stimulus_kinds, start.stimulus_kinds),
            recording_kinds=_merge_kinds(self.recording_kinds, start.recording_kinds),
            pretrained_weights=tuple(
                sorted({*self.pretrained_weights, *start.pretrained_weights})
            ),
            pictures=self.pictures.inherit(start.pictures),
            trials=np.union1d(self.trials, start.trials),
        )

    @property
    def subjects(self) -> tuple[int, ...]:
        """Subjects of the model's own group of people that it was trained on."""
        return self.people.get(self.recordings, ())

    def require_new_subjects(
        self, dataset: Dataset, tested: Iterable[int], model: str
    ) -> None:
        """Raise an error if the model was trained on a subject that is tested as new.

        Args:
            dataset: Data set of the tested subjects.
            tested: Tested subjects.
            model: Name of the model, for the error.

        Raises:
            BrainhiveError: if the model, or a model in its history, was trained on one
                of the subjects.
        """
        # subject numbers identify people only within a group
        people = dataset.people
        excluded_subjects = dataset.list_excluded_subjects(tested)
        trained = excluded_subjects.intersection(self.people.get(people, ()))
        if trained:
            subjects = ", ".join(map(str, sorted(trained)))
            raise BrainhiveError(
                f"{model} is to be tested on new subjects, but it, or a model that it "
                f"started from, was trained on subject {subjects} of {people}",
                "start from a model that was trained without them, or use mode=joint",
            )

    def describe_subjects(self, people: str, tested: Iterable[int]) -> str:
        """Describe which tested subjects are new to the model.

        Args:
            people: Name of the group of people.
            tested: Tested subjects.

        Returns:
            A phrase such as "trained on subject 1, 2; new subject 3". Subjects are
            "perhaps trained on" if the history does not list all subjects.
        """
        trained = self.people.get(people, ())
        untrained_phrase = "perhaps trained on subject"
        if self.has_all_subjects:
            untrained_phrase = "new subject"
        subjects_of_phrase: dict[str, list[str]] = {}
        for subject in tested:
            phrase = "trained on subject" if subject in trained else untrained_phrase
            subjects_of_phrase.setdefault(phrase, []).append(str(subject))
        return "; ".join(
            f"{phrase} {', '.join(subjects)}"
            for phrase, subjects in subjects_of_phrase.items()
        )

    @property
    def caveats(self) -> list[str]:
        """Caveats of numbers on the people of the model's own training."""
        return self.list_caveats(self.recordings)

    def list_caveats(self, people: str) -> list[str]:
        """List the caveats of numbers on recordings of a group of people.

        Published weights were trained without pictures, but perhaps on recordings of
        the tested pictures.
        """
        answers = {look_up_training(name, people) for name in self.pretrained_weights}
        has_unknown_pictures = not self.pictures.has_all_pixels
        conditions = {
            UNKNOWN_TRIALS: "yes" in answers,
            TRAINED_ON_SIMULATED: self.is_simulated,
            WHITENED_BY_TESTED: self.is_whitened_by_tested,
            UNKNOWN_PICTURES: has_unknown_pictures or "not known" in answers,
            UNKNOWN_SELECTION: not self.selection,
            SELECTED_ON_TEST: self.selection == "test",
            UNKNOWN_HISTORY: not self.has_all_subjects,
        }
        return merge_caveats(
            caveat for caveat, applies in conditions.items() if applies
        )

    def normaliser_of(self, subject: int) -> Normaliser | None:
        """Return the stored normaliser of a subject's signals.

        It is None if the subject's own training signals normalise the signals.
        """
        mean = None if subject in self.subjects else self.normaliser
        return self.normalisers.get(subject, mean)

    def save(self, folder: Path, *weights_files: Path) -> dict[str, Any]:
        """Write the arrays and the digest of the weights to `ARRAYS_FILE`.

        Args:
            folder: Folder of the model.
            weights_files: Files of the weights, which must exist.

        Returns:
            The block `learned` for the config of the model.
        """
        import torch

        # the block of the config: fields without arrays
        block = dict(vars(self))
        for name in ARRAY_FIELDS:
            del block[name]
        block["pictures"] = {
            "count": len(self.pictures),
            "has_all_pixels": self.pictures.has_all_pixels,
            "digest": self.pictures.digest,
        }

        # pictures, normalisers and whiteners as arrays
        arrays: dict[str, Array] = {"pictures": self.pictures.names}
        for name in PICTURE_ARRAYS:
            arrays[name] = getattr(self.pictures, name)
        arrays["trials"] = self.trials
        normalisers = {
            f"{NORMALISER_PREFIX}{subject}.": normaliser
            for subject, normaliser in self.normalisers.items()
        }
        if self.normaliser:
            normalisers[""] = self.normaliser
        for prefix, normaliser in normalisers.items():
            arrays[f"{prefix}mean"] = normaliser.mean
            arrays[f"{prefix}matrix"] = normaliser.matrix
        for subject, matrices in self.whiteners.items():
            arrays[f"{WHITENER_PREFIX}{subject}"] = matrices

        metadata = {
            "learned": json.dumps(block),
            "weights": _digest_weights(weights_files),
        }
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        weights.save(folder / ARRAYS_FILE, tensors, metadata)
        return block

    def write_folder(self, folder: Path) -> None:
        """Write `ARRAYS_FILE` and `BLOCK_FILE` into a folder that has its weights."""
        block = self.save(folder, *_list_weights(folder))
        (folder / BLOCK_FILE).write_text(json.dumps(block, indent=2) + "\n")

    @classmethod
    def read_folder(cls, folder: Path) -> Self:
        """Read the history of a folder with `BLOCK_FILE`, see `load`.

        Without that file, the history is unknown.
        """
        block_file = folder / BLOCK_FILE
        if not block_file.is_file():
            return cls()
        block: dict[str, Any] = documents.read(block_file)
        return cls.load(block_file, block, *_list_weights(folder))

    @classmethod
    def read_next_to(cls, weights_file: Path) -> Self:
        """Read the history from the folder of a weights file, see `load`.

        Without our file `ARRAYS_FILE`, the history is unknown.
        """
        file = weights_file.parent / ARRAYS_FILE
        metadata = weights.read_metadata(file) if file.is_file() else {}
        # other programs write files of this name without our metadata
        if "learned" not in metadata:
            return cls()
        block = documents.parse(metadata["learned"], f"{file}: learned", dict[str, Any])
        return cls.load(file, block, weights_file)

    @classmethod
    def load(cls, file: Path, block: Any, *weights_files: Path) -> Self:
        """Load the history that `save` wrote.

        Args:
            file: File of the block. `ARRAYS_FILE` is in the same folder.
            block: Block `learned` of the config.
            weights_files: Files of the weights.

        Returns:
            The history. If the weights have changed since, it is marked as incomplete.

        Raises:
            BrainhiveError: if a file is damaged, or the block and the arrays do not
                belong together.
        """
        fields = documents.check(block, f"{file}: learned", dict[str, Any])
        picture_facts = documents.check(
            fields.pop("pictures", {}), f"{file}: learned.pictures", dict[str, Any]
        )
        cls._require_block_fields(fields, file)
        history: Self = documents.check(fields, f"{file}: learned", cls)

        # any damage is reported with the name of the file
        arrays_file = file.parent / ARRAYS_FILE
        with weights.reading(arrays_file, documents.DAMAGED_HINT, BrainhiveError):
            arrays = weights.read_arrays(
                arrays_file, documents.DAMAGED_HINT, BrainhiveError
            )
            picture_arrays = {name: arrays.pop(name) for name in PICTURE_ARRAYS}
            pictures = LearnedPictures(
                names=arrays.pop("pictures"),
                has_all_pixels=picture_facts["has_all_pixels"] is True,
                **picture_arrays,
            )
            if pictures.digest != picture_facts["digest"]:
                raise ValueError("it does not belong to its config.json")

            whiteners = {}
            normalisers = {}
            mean_normaliser = None
            for name, array in arrays.items():
                if name.startswith(WHITENER_PREFIX):
                    whiteners[int(name.removeprefix(WHITENER_PREFIX))] = array
                elif name.endswith("mean"):
                    prefix = name.removesuffix("mean")
                    normaliser = Normaliser(array, arrays[f"{prefix}matrix"])
                    if prefix:
                        subject = prefix.removeprefix(NORMALISER_PREFIX).rstrip(".")
                        normalisers[int(subject)] = normaliser
                    else:
                        mean_normaliser = normaliser
            history = replace(
                history,
                pictures=pictures,
                trials=arrays.get("trials", _make_empty_hashes()),
                whiteners=whiteners,
                normaliser=mean_normaliser,
                normalisers=normalisers,
            )

        # changed weights may have been trained on anything
        digest = _digest_weights(weights_files)
        if digest and weights.read_metadata(arrays_file).get("weights") == digest:
            return history
        return history.inherit(cls())

    @classmethod
    def _require_block_fields(cls, block: Mapping[str, Any], file: Path) -> None:
        """Raise an error unless a block has exactly the fields of this version."""
        names = {item.name for item in dataclass_fields(cls)}.difference(ARRAY_FIELDS)
        for name in sorted(names ^ block.keys()):
            problem = "unknown" if name in block else "missing"
            raise BrainhiveError(
                f"{file}: learned.{name} is {problem}", documents.DAMAGED_HINT
            )


def _merge_kinds(kinds: NameTuple, start_kinds: NameTuple) -> NameTuple:
    """Merge the kinds of two trainings. Empty if either training has none."""
    if not kinds or not start_kinds:
        return ()
    return tuple(sorted(set(kinds).union(start_kinds)))


def _list_weights(folder: Path) -> list[Path]:
    """List the weights files of a folder, in order of their names."""
    files = folder.rglob("*.safetensors")
    return sorted(file for file in files if file.name != ARRAYS_FILE)


def _digest_weights(files: Sequence[Path]) -> str:
    """Join the digests of weights files. Empty if a file has none or is damaged."""
    with suppress(BrainhiveError, OSError):
        digests = [weights.read_digest(file) for file in files]
        if all(digests):
            return " ".join(digests)
    return ""


class TestedPictures:
    """Pictures of a split, compared with the pictures that the tested models saw.

    Signals of seen pictures are not tested, but the pictures stay candidates. If the
    data set holds out trials of seen pictures, nothing is left out.

    Args:
        dataset: Data set of the pictures.
        split: Split of the pictures.
        fold: Fold that is tested, if the data set holds out folds.
        stores: Target stores of the split, by encoder.
        models: Histories of the models that are tested on each subject.
        compare: Compares a candidate for a near-copy.
        sources: Histories of other models, such as a prior, by name.
        allows_copies: True to test copies of learned pictures under other names.

    Attributes:
        image_ids: Image ids [M], in the order of the rows of the stores.
        is_tested: True [M] for pictures of the fold that have targets.
        title: Name of the pictures, such as `test pictures of things-eeg`.
        seen_by_subject: True [M] for pictures that a model of the subject saw. All
            models of a subject are tested on the same pictures.
        seen_by_source: True [M] for pictures that another model saw, by its name.
        is_seen: True [M] for tested pictures that any of these models saw.
        masks_by_warning: True [M] for tested pictures that resemble learned pictures,
            by the warning about them.
        has_equal_embedding: True [M] if another picture has the same embeddings.
        caveats: Caveats of every number that depends on the pictures.
        warnings: Warnings for the reader, one line each.
    """

    __test__ = False  # pytest collects classes whose names begin with Test

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        fold: int,
        stores: Mapping[str, TargetStore],
        models: Mapping[int, Sequence[TrainingHistory]],
        compare: ComparePair,
        sources: Mapping[str, TrainingHistory] | None = None,
        allows_copies: bool = False,
    ) -> None:
        first_store, self._pixels = get_stimuli_and_pixels(stores)
        self._picture_set = dataset.pictured_as
        self._allows_copies = allows_copies
        self.image_ids = first_store.image_ids
        is_in_fold = dataset.holdout.choose_stimuli(first_store, split, fold)
        self.is_tested = first_store.done & is_in_fold

        # nothing is compared if trials of seen pictures are held out
        has_seen_pictures = dataset.holdout.has_seen_pictures and split == "test"
        title = "stimuli" if has_seen_pictures else f"{split} pictures"
        self.title = f"{title} of {dataset.name}"
        histories: list[TrainingHistory] = []
        source_histories: dict[str, TrainingHistory] = {}
        if not has_seen_pictures:
            for subject_histories in models.values():
                histories.extend(subject_histories)
            source_histories.update(sources or {})
        all_histories = histories + list(source_histories.values())
        learned = [history.pictures for history in all_histories]
        self._similar = self._find_similar(learned, compare)

        # pictures that are left out
        self.seen_by_subject: dict[int, Bool] = {}
        for subject, subject_histories in models.items():
            is_seen = self._make_mask()
            if not has_seen_pictures:
                for history in subject_histories:
                    is_seen |= self._find_seen(history.pictures)
            self.seen_by_subject[subject] = is_seen
        self.seen_by_source = {
            name: self._find_seen(history.pictures)
            for name, history in source_histories.items()
        }
        self.is_seen = self._make_mask()
        for mask in chain(self.seen_by_subject.values(), self.seen_by_source.values()):
            self.is_seen |= mask
        self.is_seen &= self.is_tested

        # tested pictures that resemble learned pictures
        self.masks_by_warning: dict[str, Bool] = {}
        if learned:
            self.masks_by_warning = self._find_resemblances(learned)
            is_known = _find_known_concepts(
                first_store.concepts, histories, dataset.people
            )
            self.masks_by_warning[CONCEPT_WARNING] = is_known & self.is_tested
        self.has_equal_embedding = find_equal_embeddings(
            stores.values(), self.is_tested
        )

        # copies cannot be excluded if the pixels are unknown
        self.caveats = []
        lacks_pixels = self._pixels is None or has_unknown_pictures(stores.values())
        if lacks_pixels and not has_seen_pictures:
            self.caveats.append(UNKNOWN_PICTURES)
        if any("imported" in store.attributes for store in stores.values()):
            self.caveats.append(UNKNOWN_NETWORK)
        if self.has_equal_embedding.any():
            self.caveats.append(TWINS)
        for warning, caveat in (
            (COPY_WARNING, SEEN_COPIES),
            (CONCEPT_WARNING, SEEN_CONCEPTS),
        ):
            if np.any(self.masks_by_warning.get(warning, False)):
                self.caveats.append(caveat)
        self.warnings = self._list_warnings()

    def _make_mask(self) -> Bool:
        """Make a mask [M] that is False everywhere."""
        return np.zeros(len(self.image_ids), bool)

    def _find_similar(
        self, learned: Sequence[LearnedPictures], compare: ComparePair
    ) -> dict[Likeness | None, list[RowPair]]:
        """Find tested pictures that resemble learned pictures.

        Returns:
            Pairs by likeness, see `find_similar_pictures`.
        """
        if self._pixels is None or not learned:
            return {}
        is_member = self._make_mask()
        for pictures in learned:
            is_member |= pictures.find_members(
                self._picture_set, self.image_ids, self._pixels
            )
        is_compared = self.is_tested & ~is_member
        return find_similar_pictures(self._pixels, is_compared, learned, compare)

    def _find_copies(self, learned: LearnedPictures) -> Bool:
        """Find the pictures [M] that are copies or near-copies of learned pictures."""
        is_copy = self._make_mask()
        if self._pixels is not None:
            is_copy |= np.isin(self._pixels[:, 0], learned.pixels)
        for kind in COPIES:
            for row, name in self._similar.get(kind, ()):
                if name in learned.names:
                    is_copy[row] = True
        return is_copy

    def _find_seen(self, learned: LearnedPictures) -> Bool:
        """Find the pictures [M] that were learned. Allowed copies do not count."""
        is_seen = learned.find_members(self._picture_set, self.image_ids)
        if not self._allows_copies:
            is_seen |= self._find_copies(learned)
        return is_seen

    def _find_resemblances(self, learned: Sequence[LearnedPictures]) -> dict[str, Bool]:
        """Find tested copies and altered pictures.

        Returns:
            Masks [M] by warning.
        """
        is_copy = self._make_mask()
        for pictures in learned:
            is_copy |= self._find_copies(pictures)
        is_copy &= self.is_tested & ~self.is_seen
        masks = {COPY_WARNING: is_copy}
        for kind, warning in ALTERED_WARNINGS.items():
            is_altered = self._make_mask()
            for row, _ in self._similar.get(kind, ()):
                is_altered[row] = True
            masks[warning] = is_altered & ~self.is_seen & ~is_copy
        return masks

    def _list_warnings(self) -> list[str]:
        """List a warning for the pictures left out and for each kind of resemblance."""
        masks = {SEEN_WARNING: self.is_seen, EQUAL_WARNING: self.has_equal_embedding}
        masks.update(self.masks_by_warning)
        warnings = []
        for warning, mask in masks.items():
            if mask.any():
                names = list(self.image_ids[np.flatnonzero(mask)])
                listing = ", ".join(names[:MAX_NAMED_PICTURES])
                if len(names) > MAX_NAMED_PICTURES:
                    listing += " …"
                total = f"{len(names)} of the {self.is_tested.sum()} {self.title}"
                warnings.append(f"{total} {warning}: {listing}")
        return warnings

    def find_seen_signals(self, subject: int, rows: Int64, model: str) -> Bool:
        """Find the signals of a subject that show a picture seen in training.

        Args:
            subject: Subject.
            rows: Row [N] of the picture that each signal shows.
            model: Name of the subject's models, for the error.

        Returns:
            True [N] for each signal that is left out.

        Raises:
            BrainhiveError: if more than `MAX_SEEN_SHARE` of the pictures were seen.
        """
        masks = {model: self.seen_by_subject[subject], **self.seen_by_source}
        shown_rows = np.unique(rows)
        is_left_out = np.zeros(len(rows), bool)
        for source, is_seen in masks.items():
            if len(shown_rows) and is_seen[shown_rows].mean() > MAX_SEEN_SHARE:
                n_seen = is_seen[shown_rows].sum()
                raise BrainhiveError(
                    f"{source} was trained on {n_seen} of the {len(shown_rows)} "
                    f"{self.title} that it is tested on (same name, same pixels or a "
                    f"near-copy). At most {MAX_SEEN_SHARE:.0%} can be left out",
                    "evaluate on pictures that were held out, or train again on a "
                    "split without them. To hold out trials of seen pictures instead, "
                    "put all pictures in one folder `train` and set "
                    "dataset.holdout='{by: runs, folds: N}'. copies=allow tests copies "
                    "under other names",
                )
            is_left_out |= is_seen[rows]
        return is_left_out


def _find_known_concepts(
    concepts: Sequence[str], histories: Iterable[TrainingHistory], people: str
) -> Bool:
    """Find the pictures [M] whose concept a model saw in other pictures.

    Concepts of a model's own training count only if it was on another group of people.
    """
    known_concepts = _make_empty_hashes()
    for history in histories:
        known_concepts = np.union1d(known_concepts, history.pictures.start_concepts)
        if history.recordings != people:
            known_concepts = np.union1d(known_concepts, history.pictures.concepts)
    return np.isin(hash_concepts(concepts), known_concepts)


def summarise_tested_pictures(
    tested_pictures: Sequence[TestedPictures], warnings: Iterable[str]
) -> tuple[SeenPictures, list[str]]:
    """Summarise the pictures of a split on which several runs are tested.

    Args:
        tested_pictures: Tested pictures of each run.
        warnings: Further warnings.

    Returns:
        The pictures that any run leaves out, and all distinct warnings.
    """
    first = tested_pictures[0]
    is_seen = np.logical_or.reduce([tested.is_seen for tested in tested_pictures])
    names = list(first.image_ids[is_seen])
    seen_pictures = SeenPictures(
        count=len(names),
        of=int(first.is_tested.sum()),
        names=names[:MAX_NAMED_PICTURES],
    )
    lines = list(warnings)
    for tested in tested_pictures:
        lines.extend(tested.warnings)
    return seen_pictures, list(dict.fromkeys(lines))
