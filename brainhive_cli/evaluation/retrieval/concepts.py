"""Concepts that retrieval finds, and those that it confuses."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from brainhive_cli.core.facts import ConfusionMatrix
from brainhive_cli.measurement.retrieval import CONTROL_METRICS, Scores

METRICS = ("top1", "top5", "mean_rank")
"""Metrics of a concept."""
MAX_CONFUSED = 50
"""Concepts whose confusions are counted as a matrix."""
CONFUSIONS = 100
"""Pairs of concepts that are kept, the most frequent first."""


def describe_concepts(tested: Iterable[Scores], *, with_matrix: bool) -> dict[str, Any]:
    """Give the facts on concepts that were found, and on those that were confused."""
    # ranks by concept, and how often the most similar picture was of which concept
    ranks, counts = defaultdict[str, list[int]](list), Counter[tuple[str, str]]()
    for scores in tested:
        for concept, rank in zip(scores.concepts, scores.ranks.tolist(), strict=True):
            ranks[concept].append(rank)
        counts.update(zip(scores.concepts, scores.named, strict=True))
    facts: dict[str, Any] = {"concepts": by_concept(ranks), "confusions": list_confusions(counts)}

    # counts [K, K] of all cells; none for too many concepts
    names = sorted({*chain(*counts)})
    if with_matrix and len(names) <= MAX_CONFUSED:
        rows = [[counts[seen, named] for named in names] for seen in names]
        facts["confusion_matrix"] = ConfusionMatrix(names=names, counts=rows)
    return facts


def by_concept(ranks: Mapping[str, Sequence[int]]) -> dict[str, dict[str, float]]:
    """Summarise the ranks of each concept, the best found first.

    Args:
        ranks: Of all signals that showed it, over subjects and seeds.
    """
    table: dict[str, dict[str, float]] = {}
    for name, listed in ranks.items():
        values = np.array(listed)
        table[name] = {metric: float(CONTROL_METRICS[metric](values)) for metric in METRICS}
        table[name]["n"] = len(listed)
    return dict(sorted(table.items(), key=lambda row: (-row[1]["top1"], row[1]["mean_rank"], row[0])))


def list_confusions(counts: Mapping[tuple[str, str], int]) -> list[dict[str, Any]]:
    """List which concept was taken for which, the most frequent pairs first.

    Args:
        counts: Signals by the seen concept and the concept of the most similar picture.

    Returns:
        Pairs of different concepts, with their count and its share of the seen concept's signals.
    """
    shown = Counter[str]()
    for (seen, _), count in counts.items():
        shown[seen] += count
    pairs = sorted(counts.items(), key=lambda row: (-row[1], row[0]))
    confused = [
        {"seen": seen, "taken_for": named, "count": count, "share": count / shown[seen]}
        for (seen, named), count in pairs
        if seen != named
    ]
    return confused[:CONFUSIONS]
