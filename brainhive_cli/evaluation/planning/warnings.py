"""Warnings about designs whose results cannot support the claim."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from types import MappingProxyType

import numpy as np
from PIL import Image

from brainhive_cli.core.arrays import UInt64
from brainhive_cli.data.media.near_copies import Likeness, confirm_near_copy
from brainhive_cli.data.signals.overlap import TIME_TOLERANCE_S
from brainhive_cli.data.stores.learned import LearnedPictures, hash_names
from brainhive_cli.evaluation.planning.designs import Design, Question
from brainhive_cli.evaluation.planning.pilot import Pilot
from brainhive_cli.measurement.repetitions import find_shared_order
from brainhive_cli.measurement.trial_order import (
    MAX_CLUMPED_P,
    SMALLEST_P,
    p_of_clumping,
)
from brainhive_cli.measurement.units import (
    MIN_SUBJECTS_FOR_POPULATION,
    MIN_UNITS_FOR_POPULATION,
)


@dataclass(frozen=True)
class CopySearch:
    """Search for near-copies among pictures, as before an evaluation.

    Attributes:
        pixels: Digest of the pixels and perceptual hash [25] of each picture, which
            target stores hold.
        open: Opens a picture by its name.
    """

    pixels: Mapping[str, UInt64]
    open: Callable[[str], Image.Image]

    def __call__(self, train: Sequence[str], test: Sequence[str]) -> list[str]:
        """List the test pictures that are near-copies of a training picture."""
        train_pixels = np.stack([self.pixels[name] for name in train])
        test_pixels = np.stack([self.pixels[name] for name in test])
        pictures = LearnedPictures.from_image_ids("", train, train_pixels)
        train_names = dict(zip(hash_names("", train).tolist(), train, strict=True))
        compare = partial(self._compare, train_names, test)
        is_copy = pictures.find_members("", test, test_pixels, compare)
        return list(compress(test, is_copy))

    def _compare(
        self, train_names: Mapping[int, str], test: Sequence[str], row: int, name: int
    ) -> Likeness:
        """Compare a test picture, by its row, with a training picture, by its hash."""
        return confirm_near_copy(self.open(test[row]), self.open(train_names[name]))


def list_warnings(
    designs: Sequence[Design],
    question: Question,
    pictures: Sequence[str] = (),
    concept_of: Mapping[str, str] = MappingProxyType({}),
    split: tuple[list[str], list[str]] | None = None,
    likeness: Callable[[Sequence[str], Sequence[str]], list[str]] | None = None,
    pilot: Pilot | None = None,
    window_ms: tuple[float, float] | None = None,
) -> list[str]:
    """List the problems that no analysis can repair after the recording.

    Args:
        designs: Designs of the study.
        question: Claim that the study shall support.
        pictures: Names of all pictures that can be shown.
        concept_of: Concept of each picture. A picture without one is its own concept.
        split: Training and test pictures, if they are chosen.
        likeness: Lists the test pictures that are near-copies of training pictures,
            such as a `CopySearch`.
        pilot: Recording of which the study is a continuation.
        window_ms: Start and stop of the analysed window after onset. The default is the
            window of the pilot.

    Returns:
        Sentences, the most decisive first.
    """
    warnings = [] if pilot is None else _list_order_warnings(pilot)
    if split is not None:
        warnings += _list_split_warnings(split, concept_of, likeness)

    # windows
    if window_ms is None and pilot is not None:
        window_ms = pilot.window_ms
    intervals_s = [design.onset_interval_s for design in designs]
    shortest_s = min(intervals_s)
    if window_ms is not None and window_ms[1] / 1000 > shortest_s + TIME_TOLERANCE_S:
        warnings.append(
            f"The window of signals ends {window_ms[1]:g} ms after the onset, and the "
            f"next picture is shown after {1000 * shortest_s:g} ms. The response to a "
            "picture is then mixed with the next."
        )

    # items and people
    tested = pictures if split is None else split[1]
    concepts = {concept_of.get(name, name) for name in tested}
    n_concepts = min(design.test_pictures for design in designs)
    if concepts:
        n_concepts = min(n_concepts, len(concepts))
    if n_concepts < MIN_UNITS_FOR_POPULATION:
        warnings.append(
            f"The test shows {n_concepts} concepts. Results of fewer than "
            f"{MIN_UNITS_FOR_POPULATION} concepts hold for these concepts only."
        )
    people = min(design.people for design in designs)
    if question.new_people and people < MIN_SUBJECTS_FOR_POPULATION:
        warnings.append(
            f"A claim about new people needs {MIN_SUBJECTS_FOR_POPULATION} people or "
            f"more. It cannot stand with {people}."
        )
    elif people == 1:
        warnings.append("A study of one person says nothing about other people.")
    if min(design.test_repetitions for design in designs) == 1:
        warnings.append(
            "Test pictures that are shown once give no noise ceiling, so the room for "
            "better decoders stays unknown."
        )
    return warnings


def _list_order_warnings(pilot: Pilot) -> list[str]:
    """List the problem of the order of a pilot that confounds pictures with time."""
    for order in pilot.orders:
        # blocks first, since blocks of runs often agree too
        whole_recording = np.zeros_like(order.run)
        is_blocked = p_of_clumping(order, whole_recording) <= MAX_CLUMPED_P
        by_trial = order.label_each_trial()
        if is_blocked or p_of_clumping(by_trial, order.run) <= SMALLEST_P:
            return [
                f"{pilot.name} showed concepts or pictures in blocks, so signals "
                "and time cannot be distinguished. Interleave them."
            ]
        shared = find_shared_order(order)
        if shared:
            return [
                f"{pilot.name} showed pictures in the same order in all {shared}, so "
                "signals and time cannot be distinguished. Draw an order for each run."
            ]
    return []


def _list_split_warnings(
    split: tuple[list[str], list[str]],
    concept_of: Mapping[str, str],
    likeness: Callable[[Sequence[str], Sequence[str]], list[str]] | None,
) -> list[str]:
    """List the concepts and near-copies that training and test pictures share."""
    train, test = split
    warnings = []
    learned = {concept_of.get(name, name) for name in train}
    shared = [name for name in test if concept_of.get(name, name) in learned]
    if shared:
        warnings.append(
            f"The concepts of {len(shared)} of {len(test)} test pictures are in the "
            f"training, such as {shared[0]}. A test on new concepts is impossible then."
        )
    copies = [] if likeness is None else likeness(train, test)
    if copies:
        warnings.append(
            f"{len(copies)} of {len(test)} test pictures are near-copies of training "
            f"pictures, such as {copies[0]}. Remove them."
        )
    return warnings
