"""Design of a study: the trials of all its people in one line of time."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from brainhive_cli.core.base import Array, Float64, Int64
from brainhive_cli.core.results import NOT_INTERLEAVED, ORDER_UNKNOWN
from brainhive_cli.data.signals.holdout import Holdout
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.measurement import (
    LabelDesign,
    Timeline,
    describe_pictures,
    describe_trials,
    number_names,
)

MAX_CATEGORIES = 64
"""Largest number of labels of held-out trials that are alike only if they are equal."""


class StudyDesign(NamedTuple):
    """Design of a study, with the units whose labels are exchanged.

    Attributes:
        design: Odds of the labels of the units.
        units: Number of the unit of each stored trial, or of each stored stimulus if
            stimuli are held out, by subject. -1 if it is not tested.
        caveats: Caveats of all numbers of the study.
        concepts: Odds of the concepts of stimuli, and the unit [I] there of each unit,
            or None if no stimuli share a concept.
    """

    design: LabelDesign
    units: Mapping[int, Int64]
    caveats: tuple[str, ...] = ()
    concepts: tuple[LabelDesign, Int64] | None = None


def describe_study(
    holdout: Holdout,
    recordings: Mapping[int, Mapping[str, Trials]],
    stimuli: Mapping[str, Any],
    split: str,
    find_features: Callable[[], Mapping[str, Array]],
    *,
    is_film: bool = False,
) -> StudyDesign:
    """Describe the design of a study by the trials of all subjects.

    - If stimuli are held out, a stimulus is a unit, with its trials of all people.
    - If trials are held out, a trial is a unit. If a series of trials with one label is
      less predictable, the series is a unit.

    Args:
        holdout: Choice of the tested trials.
        recordings: Recordings of each subject, by stored split. The tested one is
            first.
        stimuli: Target store of each stored split, with the concepts of its stimuli.
        split: Tested split.
        find_features: Returns the features [M, E] of each stored split.
        is_film: True if stimuli follow one another as clips of a film, whose order
            is no choice of the study.
    """
    # number the stimuli, and find their concepts and features
    number_of: dict[str, int] = {}
    concepts: list[str] = []
    sources: list[tuple[str, int]] = []
    for name, recording in _list_recordings(recordings):
        image_ids = list(map(str, recording.pictures))
        rows = stimuli[name].find_rows(image_ids).tolist()
        for image_id, row in zip(image_ids, rows, strict=True):
            if image_id not in number_of:
                number_of[image_id] = len(number_of)
                concepts.append(stimuli[name].concepts[row] if row >= 0 else image_id)
                sources.append((name, row))
    features = None
    if not holdout.has_seen_pictures or len(number_of) > MAX_CATEGORIES:
        features = _collect_features(find_features(), sources)

    # number the units of the tested split
    tables = []
    unit_of: dict[Hashable, int] = {}
    fold_of_unit = []
    units: dict[int, Int64] = {}
    is_ordered = True
    for person, splits in recordings.items():
        for name, recording in splits.items():
            rows = recording.picture_of_trial  # [n]
            image_ids = list(map(str, recording.pictures))
            unit = np.full(len(rows), -1)
            if person not in units:
                folds = holdout.number_folds(
                    recording, stimuli[name], split, f"subject {person}"
                ).tolist()
                keys: list[Hashable] = list(image_ids)
                if holdout.has_seen_pictures:
                    keys = [(person, trial) for trial in range(len(rows))]
                numbers = np.full(len(keys), -1)
                for index, (key, fold) in enumerate(zip(keys, folds, strict=True)):
                    if fold < 0:
                        continue
                    if key not in unit_of:
                        unit_of[key] = len(unit_of)
                        fold_of_unit.append(fold)
                    numbers[index] = unit_of[key]
                units[person] = numbers
                unit = numbers if holdout.has_seen_pictures else numbers[rows]
            stimulus = np.array([number_of[image_id] for image_id in image_ids])
            tables.append(_tabulate(person, recording, stimulus[rows], unit))
            is_ordered &= recording.times_in_run is not None

    # sort by person, session, run and time, and number runs over all sessions
    table = np.concatenate(tables, 1)
    table = table[:, np.lexsort(table[3::-1])]
    timeline = Timeline(
        stimulus=table[4].astype(np.int64),
        unit=table[5].astype(np.int64),
        person=table[0].astype(np.int64),
        session=np.unique(table[:2], axis=1, return_inverse=True)[1].reshape(-1),
        run=np.unique(table[:3], axis=1, return_inverse=True)[1].reshape(-1),
        is_ordered=is_ordered,
        features=features,
        concept=number_names([concepts])[0],
    )
    fold = np.array(fold_of_unit, np.int64)
    if not holdout.has_seen_pictures:
        design = describe_pictures(timeline, fold)
        concepts_exchange = describe_concepts(timeline, fold)
        caveats = (NOT_INTERLEAVED,) * design.tells
        return StudyDesign(design, units, caveats, concepts_exchange)

    design, series = describe_trials(
        timeline, fold, is_free=is_film, has_common_candidates=True
    )
    for person, numbers in units.items():
        units[person] = np.where(numbers >= 0, series[numbers], -1)
    caveats = (NOT_INTERLEAVED,) * design.tells
    return StudyDesign(design, units, caveats + (ORDER_UNKNOWN,) * (not is_ordered))


def describe_concepts(
    timeline: Timeline, fold: Int64
) -> tuple[LabelDesign, Int64] | None:
    """Find the odds of the concepts of units, or of series of units of a concept.

    Args:
        timeline: Trials of the study. Stimuli are units.
        fold: Fold [I] of each unit.
    """
    is_tested = timeline.unit >= 0
    concept = timeline.concept[timeline.stimulus]
    if len(np.unique(concept[is_tested])) == len(fold):
        return None
    by_concept = timeline._replace(
        stimulus=concept, features=None, concept=np.arange(1 + concept.max())
    )
    if is_tested.sum() == len(fold):
        return describe_trials(by_concept, fold)
    return describe_pictures(by_concept, fold), np.arange(len(fold))


def _list_recordings(
    recordings: Mapping[int, Mapping[str, Trials]],
) -> Iterator[tuple[str, Trials]]:
    """Yield the recordings of all subjects, with their split."""
    for splits in recordings.values():
        yield from splits.items()


def _collect_features(
    features: Mapping[str, Array], sources: list[tuple[str, int]]
) -> Array:
    """Collect the features [S, E] of stimuli by split and row, or 0."""
    width = next(iter(features.values())).shape[1]
    collected = np.zeros((len(sources), width), np.float32)
    for values, (name, row) in zip(collected, sources, strict=True):
        if row >= 0:
            values[:] = features[name][row]
    return collected


def _tabulate(person: int, recording: Trials, stimulus: Int64, unit: Int64) -> Float64:
    """List person, session, run, time, stimulus and unit [6, n] of the trials."""
    rows = [np.full(len(stimulus), person)]
    for values in (recording.sessions, recording.runs, recording.times_in_run):
        if values is None:
            rows.append(np.zeros(len(stimulus)))
        else:
            rows.append(values)
    return np.array([*rows, stimulus, unit], np.float64)
