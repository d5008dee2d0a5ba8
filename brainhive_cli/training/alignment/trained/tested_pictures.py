"""Pictures of a test, compared with the pictures that the tested models saw."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np

from brainhive_cli.core.base import Bool, BrainhiveError, Int64
from brainhive_cli.core.results import (
    SEEN_CONCEPTS,
    SEEN_COPIES,
    TWINS,
    UNKNOWN_NETWORK,
    UNKNOWN_PICTURES,
    SeenPictures,
)
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.media import COPIES, Likeness
from brainhive_cli.data.stores import (
    ComparePair,
    LearnedPictures,
    RowPair,
    TargetStore,
    TrainingHistory,
    find_equal_embeddings,
    find_similar_pictures,
    get_stimuli_and_pixels,
    has_unknown_pictures,
    hash_concepts,
    make_empty_hashes,
)

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
        sources = sources or {}
        if has_seen_pictures:
            models = dict.fromkeys(models, ())
            sources = {}
        histories = list(chain.from_iterable(models.values()))
        learned = [history.pictures for history in chain(histories, sources.values())]
        self._similar = self._find_similar(learned, compare)

        # pictures that are left out
        self.seen_by_subject: dict[int, Bool] = {}
        for subject, subject_histories in models.items():
            is_seen = self._make_mask()
            for history in subject_histories:
                is_seen |= self._find_seen(history.pictures)
            self.seen_by_subject[subject] = is_seen
        self.seen_by_source = {
            name: self._find_seen(history.pictures) for name, history in sources.items()
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
        # Caveats of all numbers if a picture has the warning.
        warning_caveats = {COPY_WARNING: SEEN_COPIES, CONCEPT_WARNING: SEEN_CONCEPTS}
        for warning, mask in self.masks_by_warning.items():
            if warning in warning_caveats and mask.any():
                self.caveats.append(warning_caveats[warning])
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
        # Warning of pictures that are left out.
        seen_warning = (
            "were seen in training (same name, same pixels or a near-copy),"
            " and are not tested"
        )
        masks = {seen_warning: self.is_seen, EQUAL_WARNING: self.has_equal_embedding}
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
            BrainhiveError: if more than a fifth of the pictures were seen.
        """
        masks = {model: self.seen_by_subject[subject]} | self.seen_by_source
        shown_rows = np.unique(rows)
        is_left_out = np.zeros(len(rows), bool)
        # Largest share of the tested pictures that may be left out. A fifth fewer
        # items make intervals 12 % wider. A larger share means that the split
        # itself is wrong.
        max_seen_share = 0.2
        for source, is_seen in masks.items():
            n_seen = is_seen[shown_rows].sum()
            if n_seen > max_seen_share * len(shown_rows):
                raise BrainhiveError(
                    f"{source} was trained on {n_seen} of the {len(shown_rows)} "
                    f"{self.title} that it is tested on (same name, same pixels or a "
                    f"near-copy). At most {max_seen_share:.0%} can be left out",
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
    known_concepts = make_empty_hashes()
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
