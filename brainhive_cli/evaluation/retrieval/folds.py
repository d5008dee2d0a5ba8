"""Tests on several folds, and metrics of held-out trials of seen categories."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from brainhive_cli.core.base import Array, BrainhiveError, Float64, Int64
from brainhive_cli.core.results import CORRECTIONS, Metric, index_by_name
from brainhive_cli.evaluation.retrieval.scopes import ALONE, REPETITIONS
from brainhive_cli.measurement import Gallery, Items, Scores, measure, summarise_ranks
from brainhive_cli.training.alignment import Cell

CellResult = tuple[Gallery, dict[int, Scores]]
"""Gallery of a cell, and its scores by subject."""


def merge_folds(results: Mapping[Cell, CellResult]) -> dict[Cell, CellResult]:
    """Join the scores of the folds of each training.

    Every item is then tested once, by a model that was not trained on it.

    Args:
        results: Gallery and scores of each cell.

    Returns:
        Gallery and scores of each training, keyed by a cell whose name has no fold.

    Raises:
        BrainhiveError: if folds have different numbers of candidates.
    """
    cells_of_training = defaultdict[str, list[Cell]](list)
    pools = set[int]()
    for cell, (gallery, _) in results.items():
        cells_of_training[cell.name_without_fold].append(cell)
        pools.add(len(gallery.image_ids))

    # chance is only defined for a single number of candidates
    if len(pools) > 1:
        raise BrainhiveError(
            f"folds have {min(pools)} to {max(pools)} candidates, so no common chance",
            "set gallery=test, without only_shown",
        )

    merged = {}
    for name, cells in cells_of_training.items():
        if len(cells) == 1:
            merged[cells[0]] = results[cells[0]]
            continue
        concept_of: dict[str, str] = {}
        folds_of_subject = defaultdict[int, dict[int, Scores]](dict)
        for cell in cells:
            gallery, cell_scores = results[cell]
            concept_of.update(zip(gallery.image_ids, gallery.concepts, strict=True))
            for subject, scores in cell_scores.items():
                folds_of_subject[subject][cell.fold] = scores
        pooled_gallery = replace(
            results[cells[0]][0],
            rows={},
            image_ids=list(concept_of),
            concepts=list(concept_of.values()),
        )
        pooled_scores = {
            subject: _concatenate_folds(folds)
            for subject, folds in folds_of_subject.items()
        }
        merged[replace(cells[0], name=name)] = pooled_gallery, pooled_scores
    return merged


def _concatenate_folds(scores_of_fold: Mapping[int, Scores]) -> Scores:
    """Concatenate the items of the folds of a subject."""
    folds = list(scores_of_fold.values())
    first_fold = folds[0]
    columns: dict[str, Any] = {}
    # Columns of `Scores` that are lists.
    for name in ("image_ids", "labels", "concepts", "nearest_concepts"):
        columns[name] = list(chain(*(getattr(scores, name) for scores in folds)))
    # Columns of `Scores` that are arrays [N].
    for name in ("relevant", "train_similarities", "units", "auc_parts"):
        columns[name] = np.concatenate([getattr(scores, name) for scores in folds])

    groups: list[str] = []
    sizes = []
    ranks = []
    column_of: dict[str, int] = {}
    for fold, scores in scores_of_fold.items():
        # where trials have no run or session, labels are exchanged within folds
        n_items = len(scores.labels)
        groups += scores.groups or [f"fold {fold}"] * n_items
        sizes.append(n_items)
        ranks.append(scores.ranks)
        for name in scores.verdict_ids:
            column_of.setdefault(name, len(column_of))

    # keep the draws that all folds have
    if first_fold.ranks.ndim > 1:
        n_draws = min(map(len, ranks))
        ranks = [draws[:n_draws] for draws in ranks]

    # a signal is not compared with the pictures of other folds, whose rank is 0
    verdict_ranks = []
    for scores in folds:
        table = np.zeros((len(scores.verdict_ranks), len(column_of)), np.uint16)
        table[:, [column_of[name] for name in scores.verdict_ids]] = (
            scores.verdict_ranks
        )
        verdict_ranks.append(table)

    values = {}
    for name in first_fold.values:
        values[name] = np.concatenate([scores.values[name] for scores in folds])
    control = {}
    for name in first_fold.control:
        draws = [scores.control[name] for scores in folds]
        control[name] = np.average(draws, axis=0, weights=sizes)
    scopes = {}
    for name in first_fold.scopes:
        is_complete = all(name in scores.scopes for scores in folds)
        # First parts of the scopes whose further tables are pooled over folds.
        if name.startswith((CORRECTIONS, REPETITIONS, ALONE)) and is_complete:
            scopes[name] = _concatenate_folds(
                {fold: scores.scopes[name] for fold, scores in scores_of_fold.items()}
            )
    return Scores(
        **columns,
        groups=groups,
        is_trialwise=all(scores.is_trialwise for scores in folds),
        ranks=np.concatenate(ranks, axis=-1),
        pool=first_fold.pool,
        values=values,
        verdict_ids=list(column_of),
        verdict_ranks=np.vstack(verdict_ranks),
        control=control,
        scopes=scopes,
        description=first_fold.description,
    )


def measure_categories(
    groups: Sequence[Sequence[Scores]], context: Mapping[str, Any]
) -> dict[str, Metric]:
    """Compute metrics of held-out trials, in which each category weighs the same.

    Args:
        groups: Scores of each subject in all cells.
        context: Arguments of `measure` that describe the items and the protocol.

    Returns:
        `balanced_accuracy` if some categories were tested more often than others, and
        `auc` if every fold tested two categories or more: the mean over folds, weighted
        by trials, of the area under the ROC curve of each category against the others,
        averaged over categories.

    Source: DeLong, DeLong and Clarke-Pearson 1988 (variance of an AUC by its parts).
    """
    # category of each item, and number of items of each category
    categories = []
    counts = []
    strata = []
    for group in groups:
        _, numbers = np.unique(group[0].labels, return_inverse=True)
        categories.append(numbers)
        counts.append(np.bincount(numbers))
        strata.append(numbers.tolist())

    # number of independent hits whose mean varies like the mean over categories (Kish)
    n_effective = 0.0
    for sizes in counts:
        n_effective += len(sizes) ** 2 / (1 / sizes).sum()

    # if trials are units of their own, they vary within their category
    items: Items = context["items"]
    if items.are_independent:
        items = replace(items, strata=strata)
    options: dict[str, Any] = {
        **context,
        "items": items,
        "limits": (0.0, 1.0),
        "max_hits": float(n_effective),
    }

    metrics = []
    if any(map(np.ptp, counts)):
        hits = []
        for group, numbers in zip(groups, categories, strict=True):
            ranks = np.stack([scores.ranks for scores in group])
            hits.append(_balance_categories(ranks == 1, numbers))
        chance = 1 / context["pool"]
        metrics.append(measure("balanced_accuracy", hits, chance=chance, **options))
    if all(len(scores.auc_parts) == len(scores.labels) for scores in chain(*groups)):
        areas = []
        for group in groups:
            areas.append(np.vstack([scores.auc_parts for scores in group]))

        # a mean of K areas varies less than hits: under guessing, like 3 (K - 1) / K
        # hits of each trial if the areas are independent, and less for two categories
        n_categories = min(map(len, counts))
        if n_categories > 2:
            options["max_hits"] = n_effective * 3 * (n_categories - 1) / n_categories
        metrics.append(measure("auc", areas, chance=0.5, **options))
    return index_by_name(metrics)


def _balance_categories(values: Array, categories: Int64) -> Float64:
    """Transform values so that their mean is the mean over categories.

    Args:
        values: Values [S, N] of the items in S cells.
        categories: Number [N] of the category of each item, from 0.

    Returns:
        Values [S, N]. Their variance is the variance of the mean over categories.
    """
    sizes = np.bincount(categories)
    # sum of the values of each category, divided by its size
    means = np.stack([np.bincount(categories, row) / sizes for row in values])
    weights = len(categories) / (len(sizes) * sizes)
    deviations = (values - means[:, categories]) * weights[categories]
    balanced: Float64 = means.mean(1, keepdims=True) + deviations
    return balanced


def measure_guess(groups: Sequence[Sequence[Scores]], pool: int) -> dict[str, float]:
    """Measure a guess that ranks frequent labels first, in the same way for each trial.

    Args:
        groups: Scores of each subject in all cells.
        pool: Number of candidates.

    Returns:
        Mean of each metric of ranks over subjects. Empty if all labels are equally
        frequent, because guesses are then at chance.
    """
    counts = [Counter(group[0].labels) for group in groups]
    # Largest relative difference between two shares that counts as rounding error.
    limit = 1 + 1e-9
    if all(max(count.values()) * pool <= count.total() * limit for count in counts):
        return {}

    ranks = []
    precisions = []
    for group, count in zip(groups, counts, strict=True):
        scores = group[0]
        concept_of = dict(zip(scores.labels, scores.concepts, strict=True))
        rank_of = {}
        ranks_of_concept = defaultdict[str, list[int]](list)
        for rank, (label, _) in enumerate(count.most_common(), 1):
            rank_of[label] = rank
            ranks_of_concept[concept_of[label]].append(rank)
        ranks.append([rank_of[label] for label in scores.labels])

        # average precision, for which all labels of a concept are relevant
        precision_of = {}
        for concept, relevant_ranks in ranks_of_concept.items():
            n_found = np.arange(1, len(relevant_ranks) + 1)
            precision_of[concept] = np.mean(n_found / relevant_ranks)
        precisions.append(
            np.mean([precision_of[concept] for concept in scores.concepts])
        )
    values = {}
    for metric in summarise_ranks(ranks, pool, split=""):
        values[metric.name] = metric.value
    values["accuracy"] = values["top1"]
    values["map"] = float(np.mean(precisions))
    return values
