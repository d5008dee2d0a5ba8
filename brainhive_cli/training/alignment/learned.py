"""What a model learned from, kept in its folder and inherited, and compared with what it is tested on."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from brainhive_cli.core import documents, weights
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import (
    SEEN_CONCEPTS,
    SELECTED_ON_TEST,
    TRAINED_ON_SIMULATED,
    UNKNOWN_HISTORY,
    UNKNOWN_PICTURES,
    UNKNOWN_SELECTION,
    WHITENED_BY_TESTED,
    merge_caveats,
)
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.data.stores.health import DUPLICATE_COSINE, units_in_blocks
from brainhive_cli.data.stores.ids import Names
from brainhive_cli.data.stores.target_store import TargetStore, pixels_of

FILE = "learned.safetensors"
"""The file of its arrays in a model folder; all else is the block `learned` of its config. Its metadata hold
that block, too, and the digest of the weights that it is of, so that the history of a weight file is known
wherever both are copied to."""
LEARNED_FILE = "learned.json"
"""The file of that block in a folder whose config has another format."""
HARMLESS_FIRST = ("last epoch", "validation", "", "test")
"""What may have selected an epoch ("" where nothing says). Of two, the later stands for both."""
JOINED = " + "
"""Between the names of several data sets."""

MAX_SEEN = 0.2
"""Share of the tested pictures that may be left out. A fifth fewer items make intervals 12 % wider; where
more were seen in training, the split itself is at fault, and the rest of it a selection that nobody chose."""
MAX_ID_OVERLAP = 0.5
"""Share of the tested pictures that may have the ids of other pictures, as numbered ones do."""
NAMED = 5
"""Pictures that are named; the others are counted."""
NEAR_BYTES = 2**31
"""Largest store that is searched for near-duplicates: larger ones take minutes to read, for a warning."""
Hashes = NDArray[np.uint64]


def hashes_of(dataset: str, names: Sequence[str]) -> Hashes:
    """Hash the names of a data set's pictures to 64 bits each: [N]."""
    joined = b"".join(
        hashlib.blake2b(f"{dataset}\0{name}".encode(), digest_size=8).digest() for name in names
    )
    return np.frombuffer(joined, "<u8").astype(np.uint64)


def hash_concepts(concepts: Sequence[str]) -> Hashes:
    """Hash names of concepts, [N], without the numbers before them, as in `00012_owl` and `n0123_owl`."""
    return hashes_of("", [re.sub(r"^n?\d+_", "", concept).lower() for concept in concepts])


def _none() -> Hashes:
    return np.empty(0, np.uint64)


@dataclass(frozen=True, eq=False)
class LearnedPictures:
    """The pictures that a model learned from: a picture is known again by its name or by its pixels.

    Attributes:
        names: [N] `hashes_of` the pictures, ascending.
        pixels: [P] digests of their pixels, ascending; of those pictures whose target stores have them.
        has_all_pixels: Whether every picture's pixels are known.
        concepts: [K] `hash_concepts` of what they show, ascending; of the model's own training.
        start_concepts: [S] the same of what the model started from, without its own.
    """

    names: Hashes = field(default_factory=_none)
    pixels: Hashes = field(default_factory=_none)
    has_all_pixels: bool = False
    concepts: Hashes = field(default_factory=_none)
    start_concepts: Hashes = field(default_factory=_none)

    @classmethod
    def of(
        cls,
        dataset: str,
        image_ids: Sequence[str],
        pixels: Hashes | None = None,
        concepts: Sequence[str] = (),
    ) -> Self:
        """Describe pictures of a data set.

        Args:
            dataset: The name of its pictures.
            image_ids: [N].
            pixels: [N] digests of their pixels; None where no store has them.
            concepts: [N] what they show; none where that is not known.
        """
        names, known = np.unique(hashes_of(dataset, image_ids)), pixels is not None
        shown = np.unique(hash_concepts([*filter(None, concepts)]))
        return cls(names, _none() if pixels is None else np.unique(pixels), known, shown)

    def __len__(self) -> int:
        """Count the names."""
        return len(self.names)

    def after(self, before: Self) -> Self:
        """Add the pictures of what a model started from."""
        started = reduce(np.union1d, (before.concepts, before.start_concepts, self.start_concepts))
        return type(self)(
            np.union1d(self.names, before.names),
            np.union1d(self.pixels, before.pixels),
            self.has_all_pixels and before.has_all_pixels,
            self.concepts,
            np.setdiff1d(started, self.concepts),
        )

    def contain(
        self, dataset: str, image_ids: Sequence[str], pixels: Hashes | None = None
    ) -> NDArray[np.bool_]:
        """Find which pictures of a data set are among these, by name or by pixels: [N]; arguments as `of`."""
        among: NDArray[np.bool_] = np.isin(hashes_of(dataset, image_ids), self.names)
        return among if pixels is None else among | np.isin(pixels, self.pixels)

    @property
    def digest(self) -> str:
        """What identifies them."""
        arrays = (self.names, self.pixels, self.concepts, self.start_concepts)
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]


class _Pictures(BaseModel):
    count: int
    has_all_pixels: bool
    digest: str


class Block(BaseModel):
    """What a config says of a `Learned`; its attributes without the arrays."""

    model_config = ConfigDict(extra="forbid")

    selection: Literal["last epoch", "validation", "", "test"]
    dataset: str
    recordings: str
    people: dict[str, tuple[int, ...]]
    has_all_subjects: bool
    signals: dict[str, str]
    split: str
    preparation: dict[str, Any]
    is_simulated: bool
    is_whitened_by_tested: bool
    pictures: _Pictures


@dataclass(frozen=True, eq=False)
class Learned:
    """What a model learned from, with all that it started from; without arguments it is not known.

    Attributes:
        selection: What selected the kept epoch: "validation", "last epoch" or "test"; "" where it is not
            known. A test anywhere in a model's history is kept.
        dataset: Name of the data set; "" where it is not known.
        recordings: The name of the people whose signals it learned from itself, as `people_of` gives it.
        people: Subjects that it and what it started from learned from, by that name.
        has_all_subjects: Whether these are all.
        signals: What the signals are known by, by the name of their store.
        preparation: The signal section of the recipe.
        is_simulated: Whether the provenance of some of the signals says that a program made them.
        is_whitened_by_tested: Whether it says that noise of test trials had a part in their whitening.
        pictures: With those held out for validation; empty where they are not known.
        normaliser: The mean of the subjects' own, for others; None where these are normalised by themselves.
    """

    selection: str = ""
    dataset: str = ""
    recordings: str = ""
    people: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    has_all_subjects: bool = False
    signals: Mapping[str, str] = field(default_factory=dict)
    split: str = "train"
    preparation: dict[str, Any] = field(default_factory=dict)
    is_simulated: bool = False
    is_whitened_by_tested: bool = False
    pictures: LearnedPictures = field(default_factory=LearnedPictures)
    normaliser: Normaliser | None = None

    def after(self, before: Self) -> Self:
        """Add what the model that training started from had learned from."""
        datasets = dict.fromkeys(filter(None, [before.dataset, self.dataset]))
        return replace(
            self,
            selection=max(self.selection, before.selection, key=HARMLESS_FIRST.index),
            dataset=JOINED.join(datasets),
            people={
                name: tuple(sorted({*self.people.get(name, ()), *before.people.get(name, ())}))
                for name in {**before.people, **self.people}
            },
            has_all_subjects=self.has_all_subjects and before.has_all_subjects,
            signals={**before.signals, **self.signals},
            is_simulated=self.is_simulated or before.is_simulated,
            is_whitened_by_tested=self.is_whitened_by_tested or before.is_whitened_by_tested,
            pictures=self.pictures.after(before.pictures),
        )

    @property
    def subjects(self) -> tuple[int, ...]:
        """Subjects of its own data set that it, or what it started from, learned from."""
        return self.people.get(self.recordings, ())

    def refuse_subjects(self, people: str, tested: Iterable[int], model: str) -> None:
        """Refuse to test a model as on new people whom it, or anything that it started from, learned from.

        Args:
            people: The name of the people who are tested, as `people_of` gives it.
            tested: Their numbers.
            model: What the model is called.

        Raises:
            BrainhiveError: naming them.
        """
        if seen := sorted({*self.people.get(people, ())} & {*tested}):
            raise BrainhiveError(
                f"{model} is to be tested on new subjects, but it, or a model that it started from, was "
                f"trained on subject {', '.join(map(str, seen))} of {people}",
                "start from a model that was trained without them, or use mode=joint",
            )

    @property
    def caveats(self) -> list[str]:
        """Caveats of every number that depends on the model."""
        caveats = [TRAINED_ON_SIMULATED] if self.is_simulated else []
        caveats += [WHITENED_BY_TESTED] if self.is_whitened_by_tested else []
        caveats += [] if self.pictures.has_all_pixels else [UNKNOWN_PICTURES]
        caveats += {"": [UNKNOWN_SELECTION], "test": [SELECTED_ON_TEST]}.get(self.selection, [])
        caveats += [] if self.has_all_subjects else [UNKNOWN_HISTORY]
        return merge_caveats(caveats)

    def has_seen_ids(self, image_ids: Sequence[str]) -> NDArray[np.bool_]:
        """Find which image ids it learned from, in any data set: [N]; these may be other pictures."""
        seen: NDArray[np.bool_] = np.any(
            [self.pictures.contain(name, image_ids) for name in self.dataset.split(JOINED)], axis=0
        )
        return seen

    def normaliser_of(self, subject: int) -> Normaliser | None:
        """Return what normalises a subject's signals; None: it comes from the subject's training signals."""
        return None if subject in self.subjects else self.normaliser

    def save(self, folder: Path, weights_file: Path | None = None) -> dict[str, Any]:
        """Write the arrays, and whose history they are; return the block for the config.

        Args:
            folder: Where to.
            weights_file: The weights that learned from them, written before.
        """
        pictures = self.pictures
        plain = {key: value for key, value in vars(self).items() if key not in ("pictures", "normaliser")}
        known = {"has_all_pixels": pictures.has_all_pixels, "digest": pictures.digest}
        block = plain | {"pictures": {"count": len(pictures), **known}}

        arrays = {"pictures": pictures.names, "pixels": pictures.pixels}
        arrays |= {"concepts": pictures.concepts, "start_concepts": pictures.start_concepts}
        arrays |= vars(self.normaliser) if self.normaliser else {}
        about = {"learned": json.dumps(block)}
        about |= {"weights": weights.digest_of(weights_file)} if weights_file else {}
        weights.save(folder / FILE, {name: torch.as_tensor(array) for name, array in arrays.items()}, about)
        return block

    def write(self, folder: Path) -> None:
        """Write all into a folder whose config has another format, as a prior's."""
        (folder / LEARNED_FILE).write_text(json.dumps(self.save(folder), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read back what `write` wrote, as `load` does; not known where there is no such file."""
        block = folder / LEARNED_FILE
        return cls.load(folder, documents.read(block, Block)) if block.is_file() else cls()

    @classmethod
    def read_next_to(cls, weights_file: Path) -> Self:
        """Read the history that lies next to a weight file; not known where none is of these weights."""
        file = weights_file.parent / FILE
        about = weights.metadata_of(file) if file.is_file() else {}
        if "learned" not in about or about.get("weights") != (weights.digest_of(weights_file) or None):
            return cls()
        block = documents.parse(about["learned"], f"{file}: learned", dict[str, Any])
        return cls.load(file.parent, documents.check(block, f"{file}: learned", Block))

    @classmethod
    def load(cls, folder: Path, block: Block) -> Self:
        """Read back what `save` wrote.

        Raises:
            BrainhiveError: if the file is damaged, or not the one that the block was written with.
        """
        with weights.reading(folder / FILE, documents.AGAIN, BrainhiveError):
            tensors = weights.read(folder / FILE, documents.AGAIN, BrainhiveError)
            arrays = {name: value.numpy() for name, value in tensors.items()}
            names, pixels, *concepts = map(arrays.pop, ("pictures", "pixels", "concepts", "start_concepts"))
            pictures = LearnedPictures(names, pixels, block.pictures.has_all_pixels, *concepts)
            if pictures.digest != block.pictures.digest:
                raise ValueError("it does not belong to its config.json")
            normaliser = Normaliser(**arrays) if arrays else None
            return cls(**{**dict(block), "pictures": pictures, "normaliser": normaliser})


@dataclass(frozen=True, eq=False)
class TestedPictures:
    """The pictures of a split, compared with those that the models which are tested on them learned from.

    Pictures stay candidates of a gallery; what is left out are the signals that were recorded of them.

    Attributes:
        title: What they are: `test pictures of things-eeg`.
        image_ids: [M], the rows of the target stores.
        done: [M] whether they have targets.
        by_subject: [M] whether a model that is tested on a subject learned from them, by subject. All models
            of a subject share it, so that they are tested on the same items.
        by_source: [M] whether something else did, such as a prior, by what that is called.
        near: [M] whether their embeddings are those of a training picture, within rounding.
        of_seen_concepts: [M] whether a model learned from other pictures of their concept, in training of
            another data set or in that of what it started from: what its own data set holds out says nothing
            of that.
        has_pixels: Whether their target stores know their pixels.
        same_ids: Names of the data sets whose pictures, of unknown pixels, have the ids of most of them.
    """

    __test__ = False  # no test, though pytest would take it for one by its name

    title: str
    image_ids: Names
    done: NDArray[np.bool_]
    by_subject: Mapping[int, NDArray[np.bool_]]
    by_source: Mapping[str, NDArray[np.bool_]]
    near: NDArray[np.bool_]
    of_seen_concepts: NDArray[np.bool_]
    has_pixels: bool
    same_ids: tuple[str, ...] = ()

    @classmethod
    def compare(
        cls,
        title: str,
        pictured_as: str,
        stores: Mapping[str, TargetStore],
        train: Mapping[str, TargetStore],
        models: Mapping[int, Sequence[Learned]],
        sources: Mapping[str, Learned],
        is_other_dataset: bool = False,
    ) -> Self:
        """Look for the pictures of stores among those that models and other sources learned from.

        Args:
            title: What they are.
            pictured_as: The name of the data set's pictures.
            stores: The target stores of the split, by encoder.
            train: Those of the pictures that the models learned from; empty where they are not there.
            models: What the models that are tested on each subject learned from.
            sources: What else learned from pictures, by what it is called.
            is_other_dataset: Whether the models learned from another data set.
        """
        first, pixels = next(iter(stores.values())), pixels_of(stores.values())
        ids = first.image_ids

        def are_among(learned: Learned) -> NDArray[np.bool_]:
            return learned.pictures.contain(pictured_as, ids, pixels)

        every = [learned for some in models.values() for learned in some]
        by_subject = {
            subject: np.logical_or.reduce([are_among(learned) for learned in some])
            for subject, some in models.items()
        }
        by_source = {name: are_among(learned) for name, learned in sources.items()}
        seen = np.logical_or.reduce([*by_subject.values(), *by_source.values()])
        is_near = _are_near(stores, train, every, pictured_as) & first.done & ~seen
        trained = [learned.pictures for learned in every]
        started = [pictures.start_concepts for pictures in trained]
        started += [pictures.concepts for pictures in trained] if is_other_dataset else []
        of_seen = np.isin(hash_concepts(first.concepts), reduce(np.union1d, started, _none())) & first.done
        same_ids = dict.fromkeys(
            learned.dataset
            for learned in every
            if (pixels is None or not learned.pictures.has_all_pixels)
            and (learned.has_seen_ids(ids) & ~seen)[first.done].mean() > MAX_ID_OVERLAP
        )
        has_pixels = pixels is not None
        return cls(title, ids, first.done, by_subject, by_source, is_near, of_seen, has_pixels, (*same_ids,))

    def are_unseen(self, subject: int, rows: NDArray[np.int64], model: str) -> NDArray[np.bool_]:
        """Find the signals of a subject that show no picture which was seen in training: [N].

        Args:
            subject: Who.
            rows: [N] row of what each signal shows.
            model: What the subject's models are called.

        Raises:
            BrainhiveError: if more than `MAX_SEEN` of the pictures were seen.
        """
        seen = {model: self.by_subject[subject], **self.by_source}
        shown = np.unique(rows)
        for source, is_seen in seen.items():
            if len(shown) and is_seen[shown].mean() > MAX_SEEN:
                raise BrainhiveError(
                    f"{source} was trained on {is_seen[shown].sum()} of the {len(shown)} {self.title} that "
                    f"it is tested on, by name or by pixels; at most {MAX_SEEN:.0%} can be left out",
                    "evaluate on pictures that were held out, or train again on a split without them",
                )
        unseen: NDArray[np.bool_] = ~np.logical_or.reduce([is_seen[rows] for is_seen in seen.values()])
        return unseen

    @property
    def is_seen(self) -> NDArray[np.bool_]:
        """[M] whether any subject's models, or anything else, learned from them."""
        seen: NDArray[np.bool_] = np.logical_or.reduce([*self.by_subject.values(), *self.by_source.values()])
        return seen & self.done

    @property
    def caveats(self) -> list[str]:
        """Caveats of every number that depends on them; those of the models are the models' own."""
        caveats = [] if self.has_pixels else [UNKNOWN_PICTURES]
        return caveats + ([SEEN_CONCEPTS] if self.of_seen_concepts.any() else [])

    @property
    def warnings(self) -> list[str]:
        """What a reader must know, one line each."""
        lines, whole = [], f"of the {self.done.sum()} {self.title}"
        if self.is_seen.any():
            lines.append(
                f"{self.is_seen.sum()} {whole} were seen in training, by name or by pixels, and are not "
                f"tested: {self._named(self.is_seen)}"
            )
        if self.near.any():
            lines.append(
                f"{self.near.sum()} {whole} are tested though they are near-duplicates of training pictures "
                f"(embeddings of cosine 1): {self._named(self.near)}"
            )
        if self.of_seen_concepts.any():
            lines.append(
                f"{self.of_seen_concepts.sum()} {whole} show concepts of which a model saw other pictures in "
                f"earlier training, or in that of another data set: {self._named(self.of_seen_concepts)}"
            )
        lines += [
            f"pictures of {dataset} that a model was trained on have the ids of most {whole}, and pixels are "
            "unknown: if they are the same pictures, this is no test of it"
            for dataset in self.same_ids
        ]
        return lines

    def _named(self, chosen: NDArray[np.bool_]) -> str:
        names = list(self.image_ids[np.flatnonzero(chosen)])
        return ", ".join(names[:NAMED]) + (" …" if len(names) > NAMED else "")


def describe_tested(compared: Iterable[TestedPictures]) -> dict[str, Any]:
    """Write notes of one split's pictures as several runs are tested on them: what was left out, warnings."""
    runs = list(compared)
    is_seen = np.logical_or.reduce([tested.is_seen for tested in runs])
    names = list(runs[0].image_ids[np.flatnonzero(is_seen)])
    left_out = {"count": len(names), "of": int(runs[0].done.sum()), "names": names[:NAMED]}
    lines = list(dict.fromkeys(line for tested in runs for line in tested.warnings))
    return {"seen_in_training": left_out, "warnings": lines}


def _are_near(
    tested: Mapping[str, TargetStore],
    train: Mapping[str, TargetStore],
    models: Sequence[Learned],
    pictured_as: str,
) -> NDArray[np.bool_]:
    """Find tested pictures [M] that have a near-duplicate among those learned from, in all stores of vectors.

    One small network may take different pictures for one; captions and labels are alike for many.
    """
    first, encoders = next(iter(tested.values())), []
    for name, store in train.items():
        is_of_pictures = store.pixels is not None or "imported" in store.attributes
        is_of_floats = store.embedding.dtype.kind == "f"
        if is_of_pictures and is_of_floats and store.embedding.nbytes <= NEAR_BYTES:
            encoders.append(name)
    is_near = np.full(len(first.done), bool(encoders))
    for name in encoders:
        there, ours = train[name], tested[name]
        learned = np.any([model.pictures.contain(pictured_as, there.image_ids) for model in models], axis=0)
        rows, candidates = np.flatnonzero(learned & there.done), np.flatnonzero(is_near & ours.done)
        highest = np.full(len(candidates), -1.0, np.float32)
        sought = np.concatenate([*units_in_blocks(ours.embedding, candidates)])
        for block in units_in_blocks(there.embedding, rows):
            if len(block) and len(sought):
                highest = np.maximum(highest, (sought @ block.T).max(1))
        is_near = np.zeros_like(is_near)
        is_near[candidates[highest > DUPLICATE_COSINE]] = True
    return is_near
