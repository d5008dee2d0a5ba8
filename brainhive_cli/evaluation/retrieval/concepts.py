"""Concepts and categories that retrieval finds, and those that it confuses."""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from itertools import chain
from typing import Any

import numpy as np

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.facts import ConfusionMatrix
from brainhive_cli.core.files import locate, read_regular
from brainhive_cli.measurement.retrieval import CONTROL_METRICS, Scores

NUMBER = re.compile(r"^\d+_")
"""Prefix of a concept's name in the folders of THINGS."""
METRICS = ("top1", "top5", "mean_rank")
"""Metrics of a concept or category."""
MAX_CONFUSED = 50
"""Concepts whose confusions are counted as a matrix."""
CONFUSIONS = 100
"""Pairs of concepts that are kept, the most frequent first."""


def describe_concepts(
    tested: Iterable[Scores], categories: Mapping[str, str], *, with_matrix: bool
) -> dict[str, Any]:
    """Give the facts on concepts and categories that were found, and on those that were confused."""
    # ranks by concept, and similarities by the seen concept and that of the most similar picture
    ranks, similarities = defaultdict(list), defaultdict(list)
    for scores in tested:
        rows = (scores.concepts, scores.named, scores.ranks.tolist(), scores.similarity)
        for seen, named, rank, similarity in zip(*rows, strict=True):
            ranks[seen].append(rank)
            similarities[seen, named].append(similarity)

    facts: dict[str, Any] = {
        "concepts": by_concept(ranks),
        "categories": by_category(ranks, categories),
        "confusions": confusions(similarities),
    }

    # counts [K, K] of all cells; none for too many concepts
    names = sorted({*chain(*similarities)})
    if with_matrix and len(names) <= MAX_CONFUSED:
        counts = [[len(similarities[seen, named]) for named in names] for seen in names]
        facts["confusion_matrix"] = ConfusionMatrix(names=names, counts=counts)
    return facts


def by_concept(ranks: Mapping[str, Sequence[int]]) -> dict[str, dict[str, float]]:
    """Summarise the ranks of each concept (or category), the best found first.

    Args:
        ranks: Of all signals that showed it, over subjects and seeds.
    """
    table: dict[str, dict[str, float]] = {}
    for name, listed in ranks.items():
        values = np.array(listed)
        table[name] = {metric: float(CONTROL_METRICS[metric](values)) for metric in METRICS}
        table[name]["n"] = len(listed)
    return dict(sorted(table.items(), key=lambda row: (-row[1]["top1"], row[1]["mean_rank"], row[0])))


def by_category(
    ranks: Mapping[str, Sequence[int]], categories: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Summarise the ranks of each category; concepts that no category names are left out."""
    grouped: dict[str, list[int]] = defaultdict(list)
    for concept, concept_ranks in ranks.items():
        if category := categories.get(NUMBER.sub("", concept).strip().lower()):
            grouped[category] += concept_ranks
    return by_concept(grouped)


def confusions(similarities: Mapping[tuple[str, str], Sequence[float]]) -> list[dict[str, Any]]:
    """Count which concept was taken for which.

    Args:
        similarities: By the seen concept and the concept of the most similar picture, the cosine similarity
            of the two pictures' tokens, one a signal.

    Returns:
        The most frequent pairs of different concepts: count, share of the seen concept's signals, mean
        similarity.
    """
    shown: Counter[str] = Counter()
    for (seen, _), values in similarities.items():
        shown[seen] += len(values)

    # the most frequent pairs
    pairs = sorted(similarities.items(), key=lambda row: (-len(row[1]), row[0]))
    confused = [(seen, named, values) for (seen, named), values in pairs if seen != named]
    return [
        {
            "seen": seen,
            "taken_for": named,
            "count": len(values),
            "share": len(values) / shown[seen],
            "similarity": float(np.mean(values)),
        }
        for seen, named, values in confused[:CONFUSIONS]
    ]


def read_categories(path: str) -> dict[str, str]:
    """Read which category a concept is of, from the first two columns of a table (.csv, or tabs).

    Raises:
        MissingData: if there is no such file.
        BrainhiveError: if it is no table in UTF-8, or a line has no second column.
    """
    # the file's rows
    file = locate(path)
    if not file.is_file():
        raise MissingData(f"no file {path} of categories", "a table: concept, category on each line")
    try:
        stream = StringIO(read_regular(file).decode(), newline="")
        rows = list(csv.reader(stream, delimiter="," if file.suffix == ".csv" else "\t"))
    except (csv.Error, UnicodeDecodeError) as error:
        raise BrainhiveError(f"{path} is no table: {error}", "concept, category on each line") from error

    # categories by the plain names of concepts
    for number, row in enumerate(rows, 1):
        if len(row) < 2:
            raise BrainhiveError(f"{path} line {number} has no category", "concept, category on each line")
    return {NUMBER.sub("", row[0]).strip().lower(): row[1].strip() for row in rows}
