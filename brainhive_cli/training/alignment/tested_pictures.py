"""Tested pictures, compared with those that models learned from; what was seen in training is left out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import numpy as np

from brainhive_cli.core.arrays import Bool, Int64, UInt64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import Seen
from brainhive_cli.core.measurements import SEEN_CONCEPTS, SEEN_COPIES, UNKNOWN_PICTURES
from brainhive_cli.data.datasets import Dataset, people_of
from brainhive_cli.data.media.near_copies import COPIES, Likeness
from brainhive_cli.data.stores.health import DUPLICATE_COSINE, units_in_blocks
from brainhive_cli.data.stores.ids import Names
from brainhive_cli.data.stores.target_store import TargetStore, are_foreign, first_with_pixels
from brainhive_cli.training.alignment.learned import (
    Confirm,
    Learned,
    LearnedPictures,
    find_alike,
    hash_concepts,
)

Stores = Mapping[str, TargetStore]
MAX_SEEN = 0.2
"""Share of the tested pictures that may be left out. A fifth fewer items make intervals 12 % wider; where
more were seen in training, the split itself is at fault, and the rest of it a selection that nobody chose."""
MAX_ID_OVERLAP = 0.5
"""Share of the tested pictures that may have the ids of other pictures, as numbered ones do."""
NAMED = 5
"""Most pictures that a warning names; further ones are counted."""
NEAR_BYTES = 2**31
"""Largest store that is searched for near-duplicates: larger ones take minutes to read, for a warning."""
ALTERED: dict[Likeness | None, str] = {
    "mirrored": "are mirrored copies of training pictures",
    None: "may be near-copies of training pictures, which are not here to be compared",
}
"""Warnings of pictures that are tested though they resemble learned ones, by the kind of likeness."""
COPIED = "are copies of training pictures, and are tested"
NEAR = "are tested though they are near-duplicates of training pictures (embeddings of cosine 1)"
SEEN_CONCEPT = (
    "show concepts of which a model saw other pictures in earlier training, or in that of another data set"
)
"""Further warnings, of copies under other names, equal embeddings and concepts."""


@dataclass(frozen=True, eq=False)
class TestedPictures:
    """The pictures of a split, compared with those that the models which are tested on them learned from.

    Pictures stay candidates of a gallery; what is left out are the signals that were recorded of them. Trials
    of seen stimuli, which a data set may hold out, leave out none.

    Attributes:
        dataset: Whose pictures are tested.
        split: Which of them.
        fold: Fold that is tested, where the data set holds out any.
        stores: The target stores of the split, by encoder.
        models: What the models that are tested on each subject learned from.
        confirm: Says whether a tested picture is a near-copy of a learned one.
        train: Stores of the pictures that the models learned from; empty where they are not there.
        sources: What else learned from pictures, such as a prior, by what it is called.
        allows_copies: Whether copies of learned pictures under other names are tested.
    """

    __test__ = False  # no test, though pytest would take it for one by its name

    dataset: Dataset
    split: str
    fold: int
    stores: Stores
    models: Mapping[int, Sequence[Learned]]
    confirm: Confirm
    train: Stores = field(default_factory=dict)
    sources: Mapping[str, Learned] = field(default_factory=dict)
    allows_copies: bool = False

    @cached_property
    def _listed(self) -> tuple[TargetStore, UInt64 | None]:
        """Store that lists the pictures, and what their pixels are known by: [M, 25]."""
        return first_with_pixels(self.stores)

    @property
    def image_ids(self) -> Names:
        """[M] the pictures, in the rows of the target stores."""
        return self._listed[0].image_ids

    @cached_property
    def done(self) -> Bool:
        """[M] whether they have targets, and are tested."""
        listed = self._listed[0]
        return listed.done & self.dataset.holdout.choose_stimuli(listed, self.split, self.fold)

    @property
    def _shows_seen(self) -> bool:
        return self.dataset.holdout.shows_seen and self.split == "test"

    @property
    def title(self) -> str:
        """Name of the pictures: `test pictures of things-eeg`."""
        what = "stimuli" if self._shows_seen else f"{self.split} pictures"
        return f"{what} of {self.dataset.name}"

    @cached_property
    def _histories(self) -> list[Learned]:
        """Histories of all models; none where trials of seen stimuli are held out."""
        return [] if self._shows_seen else [*chain(*self.models.values())]

    @cached_property
    def _learned(self) -> list[LearnedPictures]:
        """The pictures that models and other sources learned from."""
        sources = () if self._shows_seen else self.sources.values()
        return [learned.pictures for learned in (*self._histories, *sources)]

    @cached_property
    def _likenesses(self) -> dict[Likeness | None, list[tuple[int, int]]]:
        """Near-copies among the pictures that are not known by their names or pixels, see `find_alike`."""
        pixels, name = self._listed[1], self.dataset.pictured_as
        if pixels is None or not self._learned:
            return {}

        # only pictures that name and pixels do not identify are compared in full
        known = [pictures.contain(name, self.image_ids, pixels) for pictures in self._learned]
        is_sought = self.done & ~np.logical_or.reduce(known)
        return find_alike(pixels, is_sought, self._learned, self.confirm)

    def _are_copies(self, learned: LearnedPictures) -> Bool:
        """[M] whether pictures have the pixels of learned ones, or nearly."""
        pixels = self._listed[1]
        # near-copies of pictures that this model learned from
        pairs = chain.from_iterable(self._likenesses.get(kind, ()) for kind in COPIES)
        near = [row for row, name in pairs if name in learned.names]
        are_near = np.isin(np.arange(len(self.image_ids)), near)
        return are_near if pixels is None else are_near | np.isin(pixels[:, 0], learned.pixels)

    def are_seen(self, learned: LearnedPictures) -> Bool:
        """[M] whether pictures are among learned ones: by name, and copies unless these are allowed."""
        if self._shows_seen:
            return np.zeros(len(self.image_ids), bool)
        # copies under other names count, unless the user allows them
        is_learned = learned.contain(self.dataset.pictured_as, self.image_ids)
        return is_learned if self.allows_copies else is_learned | self._are_copies(learned)

    @cached_property
    def by_subject(self) -> dict[int, Bool]:
        """[M] whether a model that is tested on a subject learned from them, by subject.

        All models of a subject share it, so that they are tested on the same items.
        """
        return {
            subject: np.logical_or.reduce([self.are_seen(learned.pictures) for learned in histories])
            for subject, histories in self.models.items()
        }

    @cached_property
    def by_source(self) -> dict[str, Bool]:
        """[M] whether something else did, such as a prior, by what that is called."""
        return {name: self.are_seen(learned.pictures) for name, learned in self.sources.items()}

    @cached_property
    def alike(self) -> dict[str, Bool]:
        """[M] whether they are tested though they are like learned pictures, by the warning that says how.

        Copies under other names, altered ones, those whose embeddings are equal within rounding, and those of
        whose concept a model saw other pictures: in training of another data set, or in that of what it
        started from. What its own data set holds out says nothing of that.
        """
        if not self._learned:
            return {}
        # resemblances, which warn, exclude pictures that are left out
        listed, people = self._listed[0], people_of(self.dataset)
        copies = np.logical_or.reduce([*map(self._are_copies, self._learned)]) & ~self.is_seen & self.done
        is_new = ~(self.is_seen | copies)
        altered = {
            warning: np.isin(np.arange(len(is_new)), [row for row, _ in self._likenesses.get(kind, ())])
            & is_new
            for kind, warning in ALTERED.items()
        }

        # concepts of earlier trainings, and of this one where it was on another data set
        concepts = [np.empty(0, np.uint64), *(learned.pictures.start_concepts for learned in self._histories)]
        concepts += [each.pictures.concepts for each in self._histories if each.recordings != people]
        shows_seen_concept = np.isin(hash_concepts(listed.concepts), np.concatenate(concepts)) & self.done
        return {
            COPIED: copies,
            **altered,
            NEAR: self._find_near() & self.done & is_new,
            SEEN_CONCEPT: shows_seen_concept,
        }

    def _find_near(self) -> Bool:
        """Find pictures [M] whose embedding is that of a learned one, within rounding.

        A picture is near as long as every store of float vectors that is not too large to be read agrees: one
        small network may take different pictures for one, and captions and labels are alike for many.
        """
        # float embeddings of learned pictures, if their store is small enough to be read
        stores = [
            (store, self.stores[name])
            for name, store in self.train.items()
            if (store.pixels is not None or "imported" in store.attributes)
            and store.embedding.dtype.kind == "f"
            and store.embedding.nbytes <= NEAR_BYTES
        ]

        # every store must agree, so candidates become fewer from store to store
        is_near, name = np.full(len(self.image_ids), bool(stores)), self.dataset.pictured_as
        for there, ours in stores:
            is_learned = np.any([one.pictures.contain(name, there.image_ids) for one in self._histories], 0)
            rows, candidates = np.flatnonzero(is_learned & there.done), np.flatnonzero(is_near & ours.done)

            # highest cosine of each candidate with any learned picture
            highest = np.full(len(candidates), -1.0, np.float32)
            sought = np.concatenate([*units_in_blocks(ours.embedding, candidates)])
            for block in units_in_blocks(there.embedding, rows):
                if len(block) and len(sought):
                    highest = np.maximum(highest, (sought @ block.T).max(1))
            is_near = np.zeros_like(is_near)
            is_near[candidates[highest > DUPLICATE_COSINE]] = True
        return is_near

    @property
    def _same_ids(self) -> dict[str, None]:
        """Names of data sets whose pictures, of unknown pixels, have the ids of most of these."""
        # where pixels are unknown, equal ids are the only sign of equal pictures
        return dict.fromkeys(
            learned.dataset
            for learned in self._histories
            if (self._listed[1] is None or not learned.pictures.has_all_pixels)
            and (learned.has_seen_ids(self.image_ids) & ~self.is_seen)[self.done].mean() > MAX_ID_OVERLAP
        )

    def find_seen(self, subject: int, rows: Int64, model: str) -> Bool:
        """Find the signals of a subject that show a picture which was seen in training: [N].

        Args:
            subject: Who.
            rows: [N] row of what each signal shows.
            model: What the subject's models are called.

        Raises:
            BrainhiveError: if more than `MAX_SEEN` of the pictures were seen.
        """
        # the subject's models, and other sources such as a prior
        seen, shown = {model: self.by_subject[subject], **self.by_source}, np.unique(rows)
        for source, is_seen in seen.items():
            if len(shown) and is_seen[shown].mean() > MAX_SEEN:
                raise BrainhiveError(
                    f"{source} was trained on {is_seen[shown].sum()} of the {len(shown)} {self.title} that "
                    "it is tested on, by name, by pixels or as near-copies; "
                    f"at most {MAX_SEEN:.0%} can be left out",
                    "evaluate on pictures that were held out, or train again on a split without them; or "
                    "hold out trials of seen pictures: all pictures in one folder `train`, and "
                    "dataset.holdout='{by: runs, folds: N}'; copies=allow tests copies under other names",
                )

        # a signal is left out if any of them saw its picture: [N]
        return np.logical_or.reduce([is_seen[rows] for is_seen in seen.values()])

    @cached_property
    def is_seen(self) -> Bool:
        """[M] whether any subject's models, or anything else, learned from them."""
        return np.logical_or.reduce([*self.by_subject.values(), *self.by_source.values()]) & self.done

    @property
    def caveats(self) -> list[str]:
        """Caveats of every number that depends on them; those of the models are the models' own."""
        # copies cannot be excluded where pixels are unknown
        are_known = self._listed[1] is not None and not are_foreign(self.stores.values())
        caveats = [] if self._shows_seen or are_known else [UNKNOWN_PICTURES]
        caveat_of = {COPIED: SEEN_COPIES, SEEN_CONCEPT: SEEN_CONCEPTS}
        return caveats + [caveat_of[key] for key in caveat_of if np.any(self.alike.get(key, False))]

    @property
    def warnings(self) -> list[str]:
        """Warnings for the reader, one line each."""
        lines, total = [], f"of the {self.done.sum()} {self.title}"

        # pictures that are left out
        if self.is_seen.any():
            lines.append(
                f"{self.is_seen.sum()} {total} were seen in training, by name, by pixels or as near-copies, "
                f"and are not tested: {self._named(self.is_seen)}"
            )

        # pictures that are tested, but resemble training pictures
        lines += [
            f"{is_alike.sum()} {total} {warning}: {self._named(is_alike)}"
            for warning, is_alike in self.alike.items()
            if is_alike.any()
        ]

        # ids that were seen elsewhere
        lines += [
            f"pictures of {dataset} that a model was trained on have the ids of most {total}, and pixels are "
            "unknown: if they are the same pictures, this is no test of it"
            for dataset in self._same_ids
        ]
        return lines

    def _named(self, chosen: Bool) -> str:
        names = list(self.image_ids[np.flatnonzero(chosen)])
        return ", ".join(names[:NAMED]) + (" …" if len(names) > NAMED else "")


def describe_tested(compared: Iterable[TestedPictures], warnings: Iterable[str]) -> tuple[Seen, list[str]]:
    """Describe one split's pictures as several runs are tested on them: what was left out, and warnings.

    Args:
        compared: The pictures, by run.
        warnings: Further ones.
    """
    # a picture counts as seen if it is so for any run
    runs = list(compared)
    is_seen = np.logical_or.reduce([tested.is_seen for tested in runs])
    names = list(runs[0].image_ids[is_seen])
    left_out = Seen(count=len(names), of=int(runs[0].done.sum()), names=names[:NAMED])
    # runs share most warnings, each of which is shown once
    lines = list(dict.fromkeys(chain(warnings, *(tested.warnings for tested in runs))))
    return left_out, lines
