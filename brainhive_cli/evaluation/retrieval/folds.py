"""Folds pooled into one test, and what tests of seen categories need: confusions,
balance, AUC.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Metric, index_by_name
from brainhive_cli.evaluation.retrieval.scopes import ALONE, CORRECTIONS, REPETITIONS
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.ranks import summarise_ranks
from brainhive_cli.measurement.retrieval import Gallery, Scores
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.measurement.units import Items
from brainhive_cli.training.alignment.cells import Cell

ROUNDING = 1e-9
"""Shares closer than this are equal."""

POOLED = (CORRECTIONS, REPETITIONS, ALONE)
"""Beginnings of further scopes that are pooled over folds."""
Measured = tuple[Gallery, dict[int, Scores]]
"""What was measured on a cell: its candidates, and the scores of each subject."""


def merge_folds(cells: Mapping[Cell, Measured]) -> dict[Cell, Measured]:
    """Pool the folds of each training: every item was tested once, by a model that had
    not learned from it.

    Args:
        cells: What was measured on each cell.

    Returns:
        The same by cells that have the name of all their folds.

    Raises:
        BrainhiveError: if folds have different numbers of candidates.
    """
    # chance is that of one number of candidates
    pools = sorted({len(gallery.image_ids) for gallery, _ in cells.values()})
    if len(pools) > 1:
        problem = (
            f"folds have {pools[0]} to {pools[-1]} candidates, so no common chance"
        )
        raise BrainhiveError(problem, "gallery=test, without only_shown")

    # cells of one training, fold by fold
    folds = defaultdict(list)
    for cell in cells:
        folds[cell.name_over_folds].append(cell)

    # a cell for all folds of a training, and the candidates of all
    merged = {}
    for name, members in folds.items():
        galleries, tables = zip(*map(cells.__getitem__, members), strict=True)
        if len(members) == 1:
            merged[members[0]] = galleries[0], tables[0]
            continue

        # candidates of all folds, each once
        concept_of = dict(
            chain(
                *(zip(each.image_ids, each.concepts, strict=True) for each in galleries)
            )
        )
        pictures = replace(
            galleries[0],
            rows={},
            image_ids=[*concept_of],
            concepts=[*concept_of.values()],
        )
        # a subject may lack trials of some folds
        subjects = {}
        for subject in dict.fromkeys(chain(*tables)):
            of_fold = {
                cell.fold: table[subject]
                for cell, table in zip(members, tables, strict=True)
                if subject in table
            }
            subjects[subject] = _merge([*of_fold.values()], [*of_fold])
        merged[replace(members[0], name=name)] = pictures, subjects
    return merged


def _merge(folds: Sequence[Scores], numbers: Sequence[int]) -> Scores:
    """Put the items of all folds one behind the other."""
    # columns; the fold is the group where trials have none; draws are joined as far as
    # all folds have them
    lists = ("image_ids", "labels", "concepts", "nearest_concepts", "auc_parts")
    columns: Any = {
        name: [*chain(*(getattr(fold, name) for fold in folds))] for name in lists
    }
    numbered = zip(folds, numbers, strict=True)
    groups = [
        fold.groups or [f"fold {number}"] * len(fold.labels)
        for fold, number in numbered
    ]
    draws = None if folds[0].ranks.ndim == 1 else min(len(fold.ranks) for fold in folds)

    # ranks of all candidates; one has none, 0, by signals of other folds, which are not
    # compared
    candidates = dict.fromkeys(chain(*(fold.verdict_ids for fold in folds)))
    column = {name: number for number, name in enumerate(candidates)}
    tables = [
        np.zeros((len(fold.verdict_ranks), len(column)), np.uint16) for fold in folds
    ]
    for fold, table in zip(folds, tables, strict=True):
        # uint16 holds ranks up to 65,535, and 0 for none
        table[:, [column[name] for name in fold.verdict_ids]] = fold.verdict_ranks

    # controls are averaged by the items of each fold; signals of other folds are no
    # candidates of a picture
    sizes = [len(fold.labels) for fold in folds]
    first = folds[0]
    return Scores(
        **columns,
        groups=[*chain(*groups)],
        interleaving=Interleaving.join([fold.interleaving for fold in folds]),
        is_trialwise=all(fold.is_trialwise for fold in folds),
        ranks=np.concatenate([fold.ranks[:draws] for fold in folds], axis=-1),
        pool=first.pool,
        values={
            name: np.concatenate([fold.values[name] for fold in folds])
            for name in first.values
        },
        relevant=np.concatenate([fold.relevant for fold in folds]),
        train_similarities=np.concatenate([fold.train_similarities for fold in folds]),
        verdict_ids=[*column],
        verdict_ranks=np.vstack(tables),
        control={
            name: np.average(
                [fold.control[name] for fold in folds], axis=0, weights=sizes
            )
            for name in first.control
        },
        scopes={
            name: _merge([fold.scopes[name] for fold in folds], numbers)
            for name in first.scopes
            if name.startswith(POOLED) and all(name in fold.scopes for fold in folds)
        },
        description=first.description,
    )


def measure_classes(
    groups: Sequence[Sequence[Scores]], context: Mapping[str, Any]
) -> dict[str, Metric]:
    """Measure what single trials of seen categories need besides accuracy, which is
    top-1.

    Args:
        groups: The cells of each subject.
        context: Of the metrics, with the items.

    Returns:
        `balanced_accuracy` where categories were tested unequally often, and `auc`
        where there are two.

    Source: DeLong, DeLong and Clarke-Pearson 1988 (variance of an AUC by its parts).
    """
    # categories of each subject's items, and independent hits that a mean over these is
    # worth (Kish 1965) [N] each
    labels = [np.unique(group[0].labels, return_inverse=True)[1] for group in groups]
    counts = [np.bincount(numbers) for numbers in labels]  # [K] each
    worth = float(sum(len(sizes) ** 2 / (1 / sizes).sum() for sizes in counts))

    # trials that are units of their own vary within their category
    items: Items = context["items"]
    if items.are_independent:
        items = replace(items, strata=[numbers.tolist() for numbers in labels])

    def measure_mean(
        name: str, values_of: Callable[[Scores], Any], chance: float
    ) -> Metric:
        """Measure the mean over categories, by values [S, N] that have this mean and
        its variance.
        """
        linear = []
        for group, numbers, sizes in zip(groups, labels, counts, strict=True):
            values = np.array([values_of(scores) for scores in group], np.float64)
            # [S, K]
            means = np.stack([np.bincount(numbers, row) / sizes for row in values])
            weights = len(numbers) / (len(sizes) * sizes)
            deviations = (values - means[:, numbers]) * weights[numbers]
            linear.append(means.mean(1, keepdims=True) + deviations)
        how = {**context, "items": items, "chance": chance}
        return measure(name, linear, limits=(0.0, 1.0), max_hits=worth, **how)

    # hits where some categories were tested more often; areas of two categories, unless
    # a fold lacks one
    metrics = []
    if any(np.ptp(sizes) for sizes in counts):
        metrics.append(
            measure_mean(
                "balanced_accuracy",
                lambda scores: scores.ranks == 1,
                1 / context["pool"],
            )
        )
    if all(len(scores.auc_parts) == len(scores.labels) for scores in chain(*groups)):
        metrics.append(measure_mean("auc", lambda scores: scores.auc_parts, 0.5))
    return index_by_name(metrics)


def measure_guess(groups: Sequence[Sequence[Scores]], pool: int) -> dict[str, float]:
    """Measure the best constant guess: labels by how often they are tested, the same
    order for each trial.

    Args:
        groups: The cells of each subject, of trials of seen labels.
        pool: Number of candidates.

    Returns:
        Value of each metric of ranks, a mean over subjects; none where all labels are
        as frequent.
    """
    counts = [Counter(scores.labels) for scores, *_ in groups]
    # equally frequent labels leave guessing at chance
    if all(
        max(count.values()) * pool <= count.total() * (1 + ROUNDING) for count in counts
    ):
        return {}

    # the most frequent label first; average precision counts other labels of the
    # concept
    ranks, precisions = [], []
    for (scores, *_), count in zip(groups, counts, strict=True):
        concept_of = dict(zip(scores.labels, scores.concepts, strict=True))
        order = [name for name, _ in count.most_common()]
        ranks.append([1 + order.index(name) for name in scores.labels])
        concepts = np.array([concept_of[name] for name in order])
        # ranks, from 1, at which the concept's labels stand in the order
        columns_of_concept = {
            concept: 1 + np.flatnonzero(concepts == concept) for concept in concepts
        }
        precision = {
            concept: np.mean(np.arange(1, len(at) + 1) / at)
            for concept, at in columns_of_concept.items()
        }
        precisions.append(np.mean([precision[concept] for concept in scores.concepts]))
    values = {
        metric.name: metric.value for metric in summarise_ranks(ranks, pool, split="")
    }
    return {**values, "map": float(np.mean(precisions))}
