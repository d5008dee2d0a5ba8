"""Tested pictures, compared with those that models learned from; what was seen in
training is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np

from brainhive_cli.core.arrays import Bool, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.facts import Seen
from brainhive_cli.core.measurements import SEEN_CONCEPTS, SEEN_COPIES, UNKNOWN_PICTURES
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.media.near_copies import COPIES, Likeness
from brainhive_cli.data.stores.target_store import (
    TargetStore,
    are_foreign,
    first_with_pixels,
)
from brainhive_cli.training.alignment.learned import (
    Confirm,
    Learned,
    LearnedPictures,
    find_alike,
    hash_concepts,
)

MAX_SEEN = 0.2
"""Share of the tested pictures that may be left out. A fifth fewer items make intervals
12 % wider; where more were seen in training, the split itself is at fault, and the rest
of it a selection that nobody chose.
"""
MAX_NAMES = 5
"""Pictures that a warning names; further ones are counted."""
ALTERED: dict[Likeness | None, str] = {
    "mirrored": "are mirrored copies of training pictures",
    None: "may be near-copies of training pictures, which are not here to be compared",
}
"""Warnings of pictures that are tested though they resemble learned ones, by the kind
of likeness.
"""
COPIED = "are copies of training pictures, and are tested"
SEEN_CONCEPT = (
    "show concepts of which a model saw other pictures in earlier training, or in that "
    "of another data set"
)
"""Further warnings, of copies under other names and of concepts."""


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
        models: Mapping[int, Sequence[Learned]],
        confirm: Confirm,
        sources: Mapping[str, Learned] | None = None,
        allows_copies: bool = False,
    ) -> None:
        listed, pixels = first_with_pixels(stores)
        self.image_ids = listed.image_ids
        self.done = listed.done & dataset.holdout.choose_stimuli(listed, split, fold)

        # where trials of seen stimuli are held out, nothing is compared
        shows_seen = dataset.holdout.shows_seen and split == "test"
        self.title = (
            f"{'stimuli' if shows_seen else f'{split} pictures'} of {dataset.name}"
        )
        histories = [] if shows_seen else [*chain(*models.values())]
        all_sources = {} if shows_seen else dict(sources or {})
        learned_pictures = [
            learned.pictures for learned in (*histories, *all_sources.values())
        ]
        nowhere = np.zeros(len(self.image_ids), bool)  # [M]

        # near-copies among the pictures that are not known by their names or pixels
        alike: dict[Likeness | None, list[tuple[int, int]]] = {}
        if pixels is not None and learned_pictures:
            known = [
                each.contain(dataset.pictured_as, self.image_ids, pixels)
                for each in learned_pictures
            ]
            is_sought = self.done & ~np.logical_or.reduce(known)
            alike = find_alike(pixels, is_sought, learned_pictures, confirm)
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
            is_learned = learned.contain(dataset.pictured_as, self.image_ids)
            return is_learned if allows_copies else is_learned | are_copies(learned)

        # what is left out: of each subject, and by what else learned from pictures
        self.by_subject = {
            subject: nowhere
            if shows_seen
            else np.logical_or.reduce([are_seen(learned.pictures) for learned in each])
            for subject, each in models.items()
        }
        self.by_source = {
            name: are_seen(learned.pictures) for name, learned in all_sources.items()
        }
        seen = [nowhere, *self.by_subject.values(), *self.by_source.values()]
        self.is_seen: Bool = np.logical_or.reduce(seen) & self.done

        # resemblances, which warn, exclude pictures that are left out
        self.alike: dict[str, Bool] = {}
        if learned_pictures:
            copies = (
                np.logical_or.reduce([*map(are_copies, learned_pictures)])
                & ~self.is_seen
                & self.done
            )
            self.alike[COPIED] = copies
            for kind, warning in ALTERED.items():
                is_altered = nowhere.copy()
                is_altered[[row for row, _ in alike.get(kind, ())]] = True
                self.alike[warning] = is_altered & ~self.is_seen & ~copies

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
            self.alike[SEEN_CONCEPT] = is_known & self.done

        # copies cannot be excluded where pixels are unknown
        are_known = shows_seen or (
            pixels is not None and not are_foreign(stores.values())
        )
        self.caveats = [] if are_known else [UNKNOWN_PICTURES]
        for warning, caveat in ((COPIED, SEEN_COPIES), (SEEN_CONCEPT, SEEN_CONCEPTS)):
            self.caveats += [caveat] if np.any(self.alike.get(warning, False)) else []

        # a line for what is left out, and for each kind of resemblance
        left_out = (
            "were seen in training, by name, by pixels or as near-copies, and are not "
            "tested"
        )
        self.warnings = []
        for warning, rows in {left_out: self.is_seen, **self.alike}.items():
            if rows.any():
                names = list(self.image_ids[np.flatnonzero(rows)])
                listing = ", ".join(names[:MAX_NAMES]) + (
                    " …" if len(names) > MAX_NAMES else ""
                )
                total = f"{rows.sum()} of the {self.done.sum()} {self.title}"
                self.warnings.append(f"{total} {warning}: {listing}")

    def find_seen(self, subject: int, rows: Int64, model: str) -> Bool:
        """Find the signals of a subject that show a picture which was seen in training:
        [N].

        Args:
            subject: Who.
            rows: [N] row of what each signal shows.
            model: What the subject's models are called.

        Raises:
            BrainhiveError: if more than `MAX_SEEN` of the pictures were seen.
        """
        # the subject's models, and other sources such as a prior
        seen, shown = (
            {model: self.by_subject[subject], **self.by_source},
            np.unique(rows),
        )
        for source, is_seen in seen.items():
            if len(shown) and is_seen[shown].mean() > MAX_SEEN:
                raise BrainhiveError(
                    f"{source} was trained on {is_seen[shown].sum()} of the "
                    f"{len(shown)} {self.title} that it is tested on, by name, by "
                    f"pixels or as near-copies; at most {MAX_SEEN:.0%} can be left out",
                    "evaluate on pictures that were held out, or train again on a "
                    "split without them; or hold out trials of seen pictures: all "
                    "pictures in one folder `train`, and dataset.holdout='{by: runs, "
                    "folds: N}'; copies=allow tests copies under other names",
                )

        # a signal is left out if any of them saw its picture: [N]
        return np.logical_or.reduce([is_seen[rows] for is_seen in seen.values()])


def describe_tested(
    compared: Iterable[TestedPictures], warnings: Iterable[str]
) -> tuple[Seen, list[str]]:
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
    left_out = Seen(
        count=len(names), of=int(runs[0].done.sum()), names=names[:MAX_NAMES]
    )
    # runs share most warnings, each of which is shown once
    lines = list(dict.fromkeys(chain(warnings, *(tested.warnings for tested in runs))))
    return left_out, lines
