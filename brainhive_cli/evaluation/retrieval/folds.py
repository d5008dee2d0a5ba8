"""Folds pooled into one test, and what tests of seen categories need: confusions, balance, AUC."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Metric, by_name
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.ranks import summarise
from brainhive_cli.measurement.retrieval import Gallery, Scores, shared_points
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.measurement.units import Items
from brainhive_cli.training.alignment.recipe import Cell

ROUNDING = 1e-9
"""Shares closer than this are equal."""
MOST_NAMED = 5
"""Absent stimuli that are named, and runs that lack some."""


Measured = tuple[Gallery, dict[int, Scores]]
"""What was measured on a cell: its candidates, and the scores of each subject."""


def merge_folds(cells: Sequence[Cell], scores: Mapping[str, Measured]) -> dict[Cell, Measured]:
    """Pool the folds of each training: every item was tested once, by a model that had not learned from it.

    Args:
        cells: All cells.
        scores: What was measured on each, by name.

    Returns:
        Scores by cell, which has the name of all its folds.

    Raises:
        BrainhiveError: if folds have different numbers of candidates.
    """
    # cells of one training, fold by fold, whose candidates are as many
    folds = defaultdict(list)
    for cell in cells:
        folds[cell.name_over_folds].append(cell)
    pools = sorted({gallery.pool for gallery, _ in scores.values()})
    if len(pools) > 1:
        problem = f"folds have {pools[0]} to {pools[-1]} candidates, so no common chance"
        raise BrainhiveError(problem, "gallery=test, without only_shown")

    # a cell for all folds of a training
    merged = {}
    for name, members in folds.items():
        measured, first = [scores[cell.name] for cell in members], members[0]
        if len(members) == 1:
            merged[first] = measured[0]
            continue
        subjects = {
            subject: _merge([fold[subject] for _, fold in measured], members) for subject in first.tested_on
        }
        concepts = {
            name: concept
            for gallery, _ in measured
            for name, concept in zip(gallery.image_ids, gallery.concepts, strict=True)
        }
        pictures = replace(measured[0][0], rows={}, image_ids=[*concepts], concepts=[*concepts.values()])
        merged[replace(first, name=name)] = pictures, subjects
    return merged


def _merge(folds: Sequence[Scores], cells: Sequence[Cell]) -> Scores:
    """Put the items of all folds one behind the other."""
    # columns; the fold is the group where trials have none
    lists = ("image_ids", "labels", "concepts", "named", "similarity", "wins", "pictures")
    columns: Any = {name: [*chain.from_iterable(getattr(fold, name) for fold in folds)] for name in lists}
    for name in ("ranks", "precision", "relevant"):
        columns[name] = np.concatenate([getattr(fold, name) for fold in folds])
    groups = [
        group
        for fold, cell in zip(folds, cells, strict=True)
        for group in fold.groups or [f"fold {cell.fold}"] * len(fold.labels)
    ]

    # ranks of all candidates; one has none, 0, by signals of other folds, which are not compared
    candidates = [*dict.fromkeys(chain.from_iterable(fold.candidates for fold in folds))]
    column = {name: number for number, name in enumerate(candidates)}
    table = np.zeros((sum(len(fold.table) for fold in folds), len(candidates)), np.uint16)
    start = 0
    for fold in folds:
        table[start : start + len(fold.table), [column[name] for name in fold.candidates]] = fold.table
        start += len(fold.table)

    # curves are joined draw by draw, at the points that all folds have
    curves: dict[str, dict[float, Int64]] = {}
    for name in folds[0].curves:
        draws = {at: [fold.curves[name][at] for fold in folds] for at in shared_points(name, folds)}
        curves[name] = {
            at: np.concatenate([ranks[: min(map(len, parts))] for ranks in parts], 1)
            for at, parts in draws.items()
        }

    # controls are averaged by the items of each fold; signals of other folds are no candidates of a picture
    sizes = [len(fold.labels) for fold in folds]
    return Scores(
        **columns,
        groups=groups,
        interleaving=Interleaving.join([fold.interleaving for fold in folds]),
        candidates=candidates,
        table=table,
        curves=curves,
        control={
            name: np.average([fold.control[name] for fold in folds], axis=0, weights=sizes)
            for name in folds[0].control
        },
        corrected={
            name: _merge([fold.corrected[name] for fold in folds], cells) for name in folds[0].corrected
        },
    )


def measure_classes(groups: Sequence[Sequence[Scores]], options: Mapping[str, Any]) -> dict[str, Metric]:
    """Measure what single trials of seen categories need besides accuracy, which is top-1.

    Args:
        groups: The cells of each subject.
        options: Of `measure`, with the items.

    Returns:
        `balanced_accuracy` where categories were tested unequally often, and `auc` where there are two.

    Source: DeLong, DeLong and Clarke-Pearson 1988 (variance of an AUC by its parts).
    """
    # categories of each subject's items, and independent hits that a mean over these is worth (Kish 1965)
    labels = [np.unique(group[0].labels, return_inverse=True)[1] for group in groups]  # [N] each
    counts = [np.bincount(numbers) for numbers in labels]  # [K] each
    worth = float(sum(len(sizes) ** 2 / (1 / sizes).sum() for sizes in counts))

    def linearise(values_of: Any) -> list[Float64]:
        """Turn values of items into those whose mean, and its variance, are that over categories: [S, N]."""
        linear = []
        for group, numbers, sizes in zip(groups, labels, counts, strict=True):
            values = np.array([values_of(scores) for scores in group], np.float64)
            means = np.stack([np.bincount(numbers, row) / sizes for row in values])  # [S, K]
            weights = len(numbers) / (len(sizes) * sizes)
            deviations = (values - means[:, numbers]) * weights[numbers]
            linear.append(means.mean(1, keepdims=True) + deviations)
        return linear

    # trials that are units of their own vary within their category
    items: Items = options["items"]
    if items.are_independent:
        items = replace(items, strata=[numbers.tolist() for numbers in labels])
    common = {**options, "items": items, "limits": (0.0, 1.0), "most_hits": worth}

    # hits where some categories were tested more often, and areas of two categories
    metrics = []
    if any(len({*sizes.tolist()}) > 1 for sizes in counts):
        hits = linearise(lambda scores: scores.ranks == 1)
        metrics.append(measure("balanced_accuracy", hits, **{**common, "chance": 1 / options["pool"]}))
    are_ranked = [len(scores.wins) == len(scores.labels) for scores in chain(*groups)]
    if all(are_ranked):  # else a fold lacks a category
        wins = linearise(lambda scores: scores.wins)
        metrics.append(measure("auc", wins, **{**common, "chance": 0.5}))
    return by_name(metrics)


def measure_guess(groups: Sequence[Sequence[Scores]], pool: int) -> dict[str, float]:
    """Measure the best constant guess: labels by how often they are tested, the same order for each trial.

    Args:
        groups: The cells of each subject, of trials of seen labels.
        pool: Number of candidates.

    Returns:
        Value of each metric of ranks, a mean over subjects; none where all labels are as frequent.
    """
    counts = [Counter(scores.labels) for scores, *_ in groups]
    if all(max(count.values()) * pool <= count.total() * (1 + ROUNDING) for count in counts):
        return {}

    # the most frequent label first; average precision counts other labels of the concept
    ranks, precisions = [], []
    for (scores, *_), count in zip(groups, counts, strict=True):
        concept_of = dict(zip(scores.labels, scores.concepts, strict=True))
        rank_of = {name: 1 + row for row, (name, _) in enumerate(count.most_common())}
        ranks.append(np.array([rank_of[name] for name in scores.labels]))
        by_concept = defaultdict(list)
        for name, rank in rank_of.items():
            by_concept[concept_of[name]].append(rank)
        precision = {
            concept: np.mean(np.arange(1, len(listed) + 1) / listed) for concept, listed in by_concept.items()
        }
        precisions.append(np.mean([precision[concept] for concept in scores.concepts]))
    values = {metric.name: metric.value for metric in summarise(ranks, pool, split="")}
    return {**values, "map": float(np.mean(precisions))}


def describe_absent(cells: Iterable[Measured]) -> list[str]:
    """Name the stimuli that no trial of a run, session or fold shows, one line each."""
    lines: dict[str, None] = {}
    for gallery, subjects in cells:
        for scores in subjects.values():
            tested = {*zip(scores.groups, scores.labels, strict=True)}
            for group in dict.fromkeys(scores.groups):
                if absent := [name for name in gallery.image_ids if (group, name) not in tested]:
                    lines[f"{group} tests no trial of {', '.join(absent[:MOST_NAMED])}"] = None
    return [*lines][:MOST_NAMED]
