"""Folds pooled into one test, and what tests of seen categories need: confusions, balance, AUC."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.artifacts import Heatmap
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Measurements, Metric, by_name
from brainhive_cli.evaluation.retrieval.cell_scores import CellScores, SubjectScores
from brainhive_cli.evaluation.retrieval.rankings import Ranking, SplitRanks
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.ranks import summarise
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.measurement.units import Items
from brainhive_cli.training.alignment.recipe import Cell

ROUNDING = 1e-9
"""Shares closer than this are equal."""
MOST_NAMED = 5
"""Absent stimuli that are named, and runs that lack some."""
MAX_CONFUSED = 50
"""Stimuli whose confusions are drawn as a matrix."""


def merge_folds(cells: Sequence[Cell], scores: Mapping[str, CellScores]) -> dict[Cell, CellScores]:
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
    folds: dict[str, list[Cell]] = {}
    for cell in cells:
        folds.setdefault(cell.name_over_folds, []).append(cell)
    pools = sorted({cell_scores.pool for cell_scores in scores.values()})
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
        subjects = {}
        for subject in first.tested_on:
            subjects[subject] = _merge([fold.subjects[subject] for fold in measured], members)
        pictures = [*dict.fromkeys(chain.from_iterable(fold.pictures for fold in measured))]
        concepts = {name: concept for fold in measured for name, concept in fold.concepts.items()}
        merged[replace(first, name=name)] = CellScores(pools[0], pictures, concepts, subjects)
    return merged


def _merge(scores: Sequence[SubjectScores], cells: Sequence[Cell]) -> SubjectScores:
    """Put the items of all folds one behind the other."""

    def join(rankings: Sequence[Ranking]) -> Ranking:
        # the fold is the group where trials have none
        groups = [
            group
            for ranking, cell in zip(rankings, cells, strict=True)
            for group in ranking.groups or [f"fold {cell.fold}"] * len(ranking.image_ids)
        ]
        lists = ("image_ids", "concepts", "named", "similarity", "labels", "wins", "pictures")
        joined = {
            name: [*chain.from_iterable(getattr(ranking, name) for ranking in rankings)] for name in lists
        }
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(ranking, name) for ranking in rankings])
            for name in ("ranks", "precision", "relevant")
        }
        empty = np.empty(0, np.int64)  # signals of other folds are no candidates of a picture
        return Ranking(**{**joined, **arrays, "groups": groups, "backward": empty, "shown": 0})

    # ranks of all candidates; one has none, 0, by signals of other folds, which are not compared
    tables = [fold.split_ranks for fold in scores if fold.split_ranks]
    candidates = [*dict.fromkeys(chain.from_iterable(table.candidates for table in tables))]
    column = {name: number for number, name in enumerate(candidates)}
    ranks = np.zeros((sum(len(table.ranks) for table in tables), len(candidates)), np.uint16)
    start = 0
    for table in tables:
        ranks[start : start + len(table.ranks), [column[name] for name in table.candidates]] = table.ranks
        start += len(table.ranks)
    split_ranks = SplitRanks(
        candidates,
        [*chain.from_iterable(table.image_ids for table in tables)],
        ranks,
        Interleaving.join([table.interleaving for table in tables]),
        [*chain.from_iterable(table.labels for table in tables)],
        tables[0].pool,
    )

    # curves are joined draw by draw, at the points that all folds have
    curves = {}
    for name in scores[0].curves:
        points = sorted(set.intersection(*(set(fold.curves[name]) for fold in scores)))
        draws = {at: zip(*(fold.curves[name][at] for fold in scores), strict=False) for at in points}
        curves[name] = {at: [[*chain.from_iterable(parts)] for parts in draws[at]] for at in points}

    # controls are averaged by the items of each fold
    sizes = [len(fold.ranking.image_ids) for fold in scores]
    return SubjectScores(
        ranking=join([fold.ranking for fold in scores]),
        split_ranks=split_ranks,
        curves=curves,
        control={
            name: np.average([fold.control[name] for fold in scores], axis=0, weights=sizes)
            for name in scores[0].control
        },
        corrected={name: join([fold.corrected[name] for fold in scores]) for name in scores[0].corrected},
    )


def measure_classes(
    groups: Sequence[Sequence[SubjectScores]], options: Mapping[str, Any]
) -> dict[str, Metric]:
    """Measure what single trials of seen categories need besides accuracy, which is top-1.

    Args:
        groups: The cells of each subject.
        options: Of `measure`, with the items.

    Returns:
        `balanced_accuracy` where categories were tested unequally often, and `auc` where there are two.

    Source: DeLong, DeLong and Clarke-Pearson 1988 (variance of an AUC by its parts).
    """
    # categories of each subject's items, and independent hits that a mean over these is worth (Kish 1965)
    labels = [np.unique(group[0].ranking.labels, return_inverse=True)[1] for group in groups]  # [N] each
    counts = [np.bincount(numbers) for numbers in labels]  # [K] each
    worth = float(sum(len(sizes) ** 2 / (1 / sizes).sum() for sizes in counts))

    def linearise(values_of: Any) -> list[Float64]:
        """Turn values of items into those whose mean, and its variance, are that over categories: [S, N]."""
        linear = []
        for group, numbers, sizes in zip(groups, labels, counts, strict=True):
            values = np.array([values_of(scores.ranking) for scores in group], np.float64)
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
        hits = linearise(lambda ranking: ranking.ranks == 1)
        metrics.append(measure("balanced_accuracy", hits, **{**common, "chance": 1 / options["pool"]}))
    rankings = [scores.ranking for group in groups for scores in group]
    if all(len(ranking.wins) == len(ranking.labels) for ranking in rankings):  # else a fold lacks a category
        wins = linearise(lambda ranking: ranking.wins)
        metrics.append(measure("auc", wins, **{**common, "chance": 0.5}))
    return by_name(metrics)


def measure_guess(groups: Sequence[Sequence[SubjectScores]], pool: int) -> dict[str, float]:
    """Measure the best constant guess: labels by how often they are tested, the same order for each trial.

    Args:
        groups: The cells of each subject, of trials of seen labels.
        pool: Number of candidates.

    Returns:
        Value of each metric of ranks, a mean over subjects; none where all labels are as frequent.
    """
    rankings = [group[0].ranking for group in groups]
    counts = [Counter(ranking.labels) for ranking in rankings]
    if all(max(count.values()) * pool <= count.total() * (1 + ROUNDING) for count in counts):
        return {}

    # the most frequent label first; average precision counts other labels of the concept
    ranks, precisions = [], []
    for ranking, count in zip(rankings, counts, strict=True):
        concept_of = dict(zip(ranking.labels, ranking.concepts, strict=True))
        rank_of = {name: 1 + row for row, (name, _) in enumerate(count.most_common())}
        ranks.append(np.array([rank_of[name] for name in ranking.labels]))
        by_concept: dict[str, list[int]] = {}
        for name, rank in rank_of.items():
            by_concept.setdefault(concept_of[name], []).append(rank)
        precision = {
            concept: float(np.mean([(1 + row) / rank for row, rank in enumerate(listed)]))
            for concept, listed in by_concept.items()
        }
        precisions.append(np.mean([precision[concept] for concept in ranking.concepts]))
    values = {metric.name: metric.value for metric in summarise(ranks, pool, split="")}
    return {**values, "map": float(np.mean(precisions))}


def count_confusions(rankings: Iterable[Ranking]) -> dict[str, Any]:
    """Count which concept was taken for which: names, and counts [K, K] of all cells; empty for too many."""
    pairs = [pair for ranking in rankings for pair in zip(ranking.concepts, ranking.named, strict=True)]
    names = sorted({*chain.from_iterable(pairs)})
    if len(names) > MAX_CONFUSED:
        return {}
    counted = Counter(pairs)
    return {"names": names, "counts": [[counted[seen, named] for named in names] for seen in names]}


def draw_confusions(measured: Measurements) -> list[Heatmap]:
    """Draw the share of each concept's trials that were taken for each concept."""
    confusions = measured.notes.get("confusion_matrix")
    if not confusions:
        return []

    # shares of each row
    counts = np.array(confusions["counts"], np.float64)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    names = [f"{name} ({int(total)})" for name, total in zip(confusions["names"], counts.sum(1), strict=True)]
    return [
        Heatmap(
            "Confusion matrix: share of the trials of each row taken for each column; in brackets, trials",
            shares.round(4).tolist(),
            names,
            confusions["names"],
            "shown",
            "decoded as",
            "share of trials",
            0.0,
            1.0,
        )
    ]


def describe_absent(scores: Mapping[Cell, CellScores]) -> list[str]:
    """Name the stimuli that no trial of a run, session or fold shows, one line each."""
    lines: dict[str, None] = {}
    for cell_scores in scores.values():
        for scored in cell_scores.subjects.values():
            # labels that each group tests
            tested: dict[str, set[str]] = {}
            for label, group in zip(scored.ranking.labels, scored.ranking.groups, strict=True):
                tested.setdefault(group, set()).add(label)

            # labels that it lacks
            for group, labels in tested.items():
                if absent := [name for name in cell_scores.pictures if name not in labels]:
                    lines[f"{group} tests no trial of {', '.join(absent[:MOST_NAMED])}"] = None
    return [*lines][:MOST_NAMED]
