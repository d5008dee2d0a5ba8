"""Pictures that a model was trained on, identified by name and by pixels."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Self

import numpy as np

from brainhive_cli.core.base import Bool, MissingData, UInt64
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.media import (
    COPIES,
    MAX_DISTANCE,
    BadPicture,
    Likeness,
    StimulusSet,
    confirm_near_copy,
    find_candidates,
)
from brainhive_cli.data.stores.target_store import (
    PIXEL_HASH_WORDS,
)

ComparePair = Callable[[int, int], Likeness | None]
"""Function that compares two pictures on their pixels: a tested picture, by its row,
and a learned picture, by the hash of its name. Returns None if one cannot be read.
"""
RowPair = tuple[int, int]
"""Row of a tested picture, and hash of the name of a learned picture."""
IndexedPicture = tuple[StimulusSet, int]
"""Set of pictures, and row of a picture in it."""


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


def make_empty_hashes() -> UInt64:
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

    names: UInt64 = field(default_factory=make_empty_hashes)
    pixels: UInt64 = field(default_factory=make_empty_hashes)
    has_all_pixels: bool = False
    hashes: UInt64 = field(
        default_factory=lambda: np.empty((0, PIXEL_HASH_WORDS), np.uint64)
    )
    concepts: UInt64 = field(default_factory=make_empty_hashes)
    start_concepts: UInt64 = field(default_factory=make_empty_hashes)

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
    _open: Callable[[StimulusSet, int], Any] = field(init=False)

    def __post_init__(self) -> None:
        """Keep the last two pictures: a tested picture has several candidates."""
        self._open = lru_cache(2)(lambda images, row: images.open(row))

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
        with suppress(MissingData, BadPicture):
            return confirm_near_copy(self._open(*tested), self._open(*learned))
        return None

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
