"""Intervals and verdicts hold for folds of pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.judging import rank_all
from brainhive_cli.data.signals.holdout import Holdout
from brainhive_cli.measurement.design import Exchange, LabelDesign
from brainhive_cli.measurement.ranks import summarise_ranks
from brainhive_cli.measurement.units import MIN_UNITS_FOR_POPULATION, StimulusGrouping
from brainhive_cli.measurement.verdict import judge

AXES: Mapping[str, Sequence[Any]] = {
    "concepts": (2, 20),
    "effect": (0.0, 0.2, 0.5),
    "drift": (0.0, 1.0),
}
COLUMNS = (
    "top-1 | coverage | width | above chance: which picture | of its concept | "
    "which concept"
)


def folds_of_pictures(
    random: Random, concepts: int, effect: float, drift: float
) -> list[Any]:
    """Test top-1 of ten by a ridge, with 100 pictures in 10 folds.

    Pictures are new in each simulation, and twenty concepts, too. Two concepts and the
    mixing of embeddings into signals stay the same. With drift, the ten pictures of
    each run, drawn at random, share an offset.
    """
    fixed = np.random.default_rng(2)
    concept = np.arange(100) * concepts // 100
    mixing = fixed.normal(size=(20, 30)) / 20**0.5
    concept_random = fixed if concepts < MIN_UNITS_FOR_POPULATION else random
    centres = concept_random.normal(size=(concepts, 20))
    embeddings = centres[concept] + random.normal(size=(100, 20))
    run_number = random.permutation(100) // 10
    offset = drift * random.normal(size=(10, 30))
    noise = random.normal(size=(100, 30))
    signals = effect * embeddings @ mixing + offset[run_number] + noise

    # ranks of all pictures, 0 for pictures of another fold
    pictures = np.arange(100)
    ranks = np.zeros((100, 100))
    fold_of = np.zeros(100, np.int64)
    holdout = Holdout(by="pictures", folds=10)
    for fold in holdout.fold_numbers:
        is_test = holdout.hold_out_pictures(
            list(map(str, pictures)), list(map(str, concept)), fold
        )
        train = signals[~is_test]
        targets = embeddings[~is_test]
        centred = train - train.mean(0)
        penalised = centred.T @ centred + 30 * np.eye(30)
        weights = np.linalg.solve(penalised, centred.T @ (targets - targets.mean(0)))
        predicted = (signals[is_test] - train.mean(0)) @ weights
        candidates = embeddings[is_test] - targets.mean(0)
        candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
        ranks[np.ix_(is_test, is_test)] = rank_all(predicted, candidates)
        fold_of[is_test] = fold

    # interval and verdicts as in an evaluation, where a random order tells nothing
    names = pictures.tolist()
    concept_of = dict(zip(names, map(str, concept), strict=True))
    items = StimulusGrouping("concept", concept_of, has_folds=True).make_items([names])
    results: list[Any] = summarise_ranks(
        [ranks.diagonal()], 10, split="test", items=items, metric_names=("top1",)
    )
    answers = judge(
        [ranks],
        items,
        names,
        concept_of,
        exchange=Exchange(LabelDesign.free(pictures, fold_of), [pictures]),
        concept_exchange=Exchange(LabelDesign.free(concept, fold_of), [pictures]),
        pool=10,
    )
    return results + [answer.side == "above chance" for answer in answers]
