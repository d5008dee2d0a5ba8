"""Intervals and verdicts hold for folds of pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.judging import rank_all
from brainhive_cli.data.signals.holdout import Holdout
from brainhive_cli.measurement.ranks import summarise_ranks
from brainhive_cli.measurement.units import MIN_UNITS_FOR_POPULATION, StimulusGrouping
from brainhive_cli.measurement.verdict import judge

AXES: Mapping[str, Sequence[Any]] = {
    "concepts": (2, 20),
    "effect": (0.0, 0.2, 0.5),
    "drift": (0.0, 1.0),
}
COLUMNS = (
    "top-1 | coverage | width | above chance: over concepts | which picture | "
    "which concept"
)


def folds_of_pictures(
    random: Random, concepts: int, effect: float, drift: float
) -> list[Any]:
    """100 pictures in 10 folds: the same for top-1 of ten by a ridge from signals to
    embeddings.

    Pictures are new in each simulation, how signals carry embeddings is the same, and
    so are two concepts; twenty are new, too. With drift, ten pictures that were drawn
    of all were shown in each run.
    """
    fixed = np.random.default_rng(2)
    concept, mixing = (
        np.arange(100) * concepts // 100,
        fixed.normal(size=(20, 30)) / 20**0.5,
    )
    centres = (fixed if concepts < MIN_UNITS_FOR_POPULATION else random).normal(
        size=(concepts, 20)
    )
    embeddings = centres[concept] + random.normal(size=(100, 20))
    run, offset = random.permutation(100) // 10, drift * random.normal(size=(10, 30))
    signals = effect * embeddings @ mixing + offset[run] + random.normal(size=(100, 30))

    # ranks of all pictures; those of other folds have none
    names, ranked, fold_of = [*range(100)], np.zeros((100, 100)), {}
    holdout = Holdout(by="pictures", folds=10)
    for fold in holdout.fold_numbers:
        is_tested = holdout.hold_out_pictures(
            list(map(str, names)), list(map(str, concept)), fold
        )
        train, target = signals[~is_tested], embeddings[~is_tested]
        centred = train - train.mean(0)
        penalised = centred.T @ centred + 30 * np.eye(30)
        weights = np.linalg.solve(penalised, centred.T @ (target - target.mean(0)))
        predicted, candidates = (
            (signals[is_tested] - train.mean(0)) @ weights,
            embeddings[is_tested],
        )
        candidates = candidates - target.mean(0)
        candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
        ranked[np.ix_(is_tested, is_tested)] = rank_all(predicted, candidates)
        fold_of |= dict.fromkeys(np.flatnonzero(is_tested).tolist(), fold)

    # interval and verdicts, as of an evaluation
    concept_of = dict(zip(names, map(str, concept), strict=True))
    items = StimulusGrouping("concept", concept_of, has_folds=True).make_items([names])
    top1 = summarise_ranks(
        [ranked.diagonal()], 10, split="test", items=items, metric_names=("top1",)
    )
    items = replace(items, parts=fold_of)
    answers = judge([ranked], items, names, fold_of, concept_of, pool=10)
    asked = ("over concepts", "which picture", "which concept")
    sides = {each.question: each.side == "above chance" for each in answers}
    return [*top1, *(sides.get(question, np.nan) for question in asked)]
