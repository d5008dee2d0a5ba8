"""Tested pictures, compared with those that models learned from; what was seen in training is left out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Self

import numpy as np

from brainhive_cli.core.arrays import Bool, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import SEEN_CONCEPTS, SEEN_COPIES, UNKNOWN_PICTURES
from brainhive_cli.data.datasets import Dataset
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

    Pictures stay candidates of a gallery; what is left out are the signals that were recorded of them.

    Attributes:
        title: What they are: `test pictures of things-eeg`.
        image_ids: [M], the rows of the target stores.
        done: [M] whether they have targets.
        by_subject: [M] whether a model that is tested on a subject learned from them, by subject. All models
            of a subject share it, so that they are tested on the same items.
        by_source: [M] whether something else did, such as a prior, by what that is called.
        has_pixels: Whether their pixels and those that other sources learned from are known, and all
            targets were made of them.
        same_ids: Names of the data sets whose pictures, of unknown pixels, have the ids of most of them.
        alike: [M] whether they are tested though they are like learned pictures, by the warning that says
            how: copies under other names, altered ones, those whose embeddings are equal within rounding, and
            those of whose concept a model saw other pictures, in training of another data set or in that of
            what it started from: what its own data set holds out says nothing of that.
    """

    __test__ = False  # no test, though pytest would take it for one by its name

    title: str
    image_ids: Names
    done: Bool
    by_subject: Mapping[int, Bool]
    by_source: Mapping[str, Bool]
    has_pixels: bool = True
    same_ids: Iterable[str] = ()
    alike: Mapping[str, Bool] = field(default_factory=dict)

    @classmethod
    def compare(
        cls,
        dataset: Dataset,
        split: str,
        stores: Stores,
        models: Mapping[int, Sequence[Learned]],
        *,
        fold: int = 1,
        train: Stores | None = None,
        sources: Mapping[str, Learned] | None = None,
        is_other_dataset: bool = False,
        confirm: Confirm,
        allows_copies: bool = False,
    ) -> Self:
        """Look for the pictures of stores among those that models and other sources learned from.

        Args:
            dataset: Whose pictures are tested.
            split: Which of them.
            stores: The target stores of the split, by encoder.
            models: What the models that are tested on each subject learned from.
            fold: Fold that is tested, where the data set holds out any.
            train: Stores of the pictures that the models learned from; empty where they are not there.
            sources: What else learned from pictures, by what it is called.
            is_other_dataset: Whether the models learned from another data set.
            confirm: Says whether a tested picture is a near-copy of a learned one.
            allows_copies: Whether copies of learned pictures under other names are tested.
        """
        # a holdout of trials tests stimuli that were seen in other trials
        if dataset.holdout.shows_seen and split == "test":
            first = next(iter(stores.values()))
            none = np.zeros(len(first.image_ids), bool)
            seen_by = dict.fromkeys(models, none)
            return cls(f"stimuli of {dataset.name}", first.image_ids, first.done, seen_by, {})

        # pictures of all models and other sources
        (first, pixels), sources, pictured_as = first_with_pixels(stores), sources or {}, dataset.pictured_as
        ids, every = first.image_ids, [*chain(*models.values())]
        pictures = [learned.pictures for learned in (*every, *sources.values())]

        # near-copies are looked for among those that are not known by their names or pixels
        known = [learned_pictures.contain(pictured_as, ids, pixels) for learned_pictures in pictures]
        done = first.done & dataset.holdout.choose_stimuli(first, split, fold)
        is_sought = done & ~np.logical_or.reduce([np.zeros(len(ids), bool), *known])
        alike = {} if pixels is None else find_alike(pixels, is_sought, pictures, confirm)

        def are_copies(learned_pictures: LearnedPictures) -> Bool:
            pairs = chain.from_iterable(alike.get(kind, ()) for kind in COPIES)
            near = [row for row, name in pairs if name in learned_pictures.names]
            are_near = np.isin(np.arange(len(ids)), near)
            return are_near if pixels is None else are_near | np.isin(pixels[:, 0], learned_pictures.pixels)

        def are_seen(learned_pictures: LearnedPictures) -> Bool:
            named = learned_pictures.contain(pictured_as, ids)
            return named if allows_copies else named | are_copies(learned_pictures)

        # what is left out, and copies that are not
        by_subject = {
            subject: np.logical_or.reduce([are_seen(learned.pictures) for learned in subject_models])
            for subject, subject_models in models.items()
        }
        by_source = {name: are_seen(learned.pictures) for name, learned in sources.items()}
        seen = np.logical_or.reduce([*by_subject.values(), *by_source.values()])
        copies = np.logical_or.reduce([*map(are_copies, pictures)]) & ~seen & done

        # what is tested with a warning: altered copies, equal embeddings, concepts and ids seen elsewhere
        is_new = ~(seen | copies)
        altered = {
            warning: np.isin(np.arange(len(ids)), [row for row, _ in alike.get(kind, ())]) & is_new
            for kind, warning in ALTERED.items()
        }

        # a picture is near as long as every store of float vectors that is not too large to be read agrees:
        # one small network may take different pictures for one, and captions and labels are alike for many
        near_stores = [
            (store, stores[name])
            for name, store in (train or {}).items()
            if (store.pixels is not None or "imported" in store.attributes)
            and store.embedding.dtype.kind == "f"
            and store.embedding.nbytes <= NEAR_BYTES
        ]
        is_near = np.full(len(ids), bool(near_stores))
        for there, ours in near_stores:
            is_learned = np.any([one.pictures.contain(pictured_as, there.image_ids) for one in every], 0)
            rows, candidates = np.flatnonzero(is_learned & there.done), np.flatnonzero(is_near & ours.done)

            # highest cosine of each candidate with any learned picture
            highest = np.full(len(candidates), -1.0, np.float32)
            sought = np.concatenate([*units_in_blocks(ours.embedding, candidates)])
            for block in units_in_blocks(there.embedding, rows):
                if len(block) and len(sought):
                    highest = np.maximum(highest, (sought @ block.T).max(1))
            is_near = np.zeros_like(is_near)
            is_near[candidates[highest > DUPLICATE_COSINE]] = True

        # concepts of earlier trainings, and of this one where it was on another data set
        concepts = [np.empty(0, np.uint64), *(learned.pictures.start_concepts for learned in every)]
        concepts += [learned.pictures.concepts for learned in every] if is_other_dataset else []
        shows_seen_concept = np.isin(hash_concepts(first.concepts), np.concatenate(concepts)) & done

        # data sets that share most ids with the tested pictures, while pixels are unknown
        same_ids = dict.fromkeys(
            learned.dataset
            for learned in every
            if (pixels is None or not learned.pictures.has_all_pixels)
            and (learned.has_seen_ids(ids) & ~seen)[done].mean() > MAX_ID_OVERLAP
        )
        are_known = pixels is not None and not are_foreign(stores.values())
        resembling = {
            COPIED: copies,
            **altered,
            NEAR: is_near & done & is_new,
            SEEN_CONCEPT: shows_seen_concept,
        }
        title = f"{split} pictures of {dataset.name}"
        return cls(title, ids, done, by_subject, by_source, are_known, same_ids, resembling)

    def are_unseen(self, subject: int, rows: Int64, model: str) -> Bool:
        """Find the signals of a subject that show no picture which was seen in training: [N].

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

        # leave out the signals of seen pictures
        return ~np.logical_or.reduce([is_seen[rows] for is_seen in seen.values()])

    @property
    def is_seen(self) -> Bool:
        """[M] whether any subject's models, or anything else, learned from them."""
        return np.logical_or.reduce([*self.by_subject.values(), *self.by_source.values()]) & self.done

    @property
    def caveats(self) -> list[str]:
        """Caveats of every number that depends on them; those of the models are the models' own."""
        caveats = [] if self.has_pixels else [UNKNOWN_PICTURES]
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
            for dataset in self.same_ids
        ]
        return lines

    def _named(self, chosen: Bool) -> str:
        names = list(self.image_ids[np.flatnonzero(chosen)])
        return ", ".join(names[:NAMED]) + (" …" if len(names) > NAMED else "")


def describe_tested(compared: Iterable[TestedPictures], warnings: Iterable[str]) -> dict[str, Any]:
    """Write notes of one split's pictures as several runs are tested on them: what was left out, warnings.

    Args:
        compared: The pictures, by run.
        warnings: Further ones.
    """
    # a picture counts as seen if it is so for any run
    runs = list(compared)
    is_seen = np.logical_or.reduce([tested.is_seen for tested in runs])
    names = list(runs[0].image_ids[is_seen])
    left_out = {"count": len(names), "of": int(runs[0].done.sum()), "names": names[:NAMED]}
    lines = list(dict.fromkeys(chain(warnings, *(tested.warnings for tested in runs))))
    return {"seen_in_training": left_out, "warnings": lines}
