"""From what was measured on each cell to the metrics of a run, each with all that it must travel with."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from brainhive_cli.alignment.cells import Cell
from brainhive_cli.alignment.trained import AlignRun
from brainhive_cli.core.caveats import in_protocol, together
from brainhive_cli.metrics.guessing import RankSum, rank_sum
from brainhive_cli.metrics.retrieval import chance_of_precision, summarise
from brainhive_cli.metrics.statistics import Metric, measure
from brainhive_cli.retrieval.cell_scores import EvaluationSpec, Scores, Subsets
from brainhive_cli.retrieval.concepts import by_category, by_concept, confusions
from brainhive_cli.retrieval.controls import described_control
from brainhive_cli.retrieval.curves import Curve
from brainhive_cli.retrieval.rankings import Ranking

CURVE = ("top1", "top5")
"""What a curve shows."""
Described = dict[str, Any]
"""Metrics as plain values, by name."""


@dataclass(frozen=True)
class MetricContext:
    """What all metrics of an evaluation have in common."""

    protocol: str
    split: str
    pool: int
    subsets: Subsets | None = None

    def summary(
        self,
        groups: Sequence[Sequence[Sequence[int]]],
        seeds: Sequence[int],
        ids: Sequence[Sequence[str]],
        *,
        pool: int | None = None,
        targets: int = 1,
        only: Sequence[str] = (),
    ) -> Described:
        """Summarise ranks [S, N] of the subjects, whose items have these ids [N]."""
        found = [torch.tensor(group) for group in groups]
        named: Any = {"split": self.split, "protocol": self.protocol, "seeds": seeds, "ids": ids}
        return _described(summarise(found, pool or self.pool, **named, targets=targets, only=only))


def protocol_of(aligns: Sequence[AlignRun], asked: EvaluationSpec) -> str:
    """Name the way of measuring, with all that a reader must know."""
    first = aligns[0]
    words = [" + ".join(dict.fromkeys(align.mode for align in aligns)), first.dataset.name]
    words += [f"zero-shot from {first.origin.name}"] if first.are_strangers and first.origin else []
    words += [align.variant for align in aligns if align.variant]
    words += [f"mean of {len(aligns)} runs"] if len(aligns) > 1 else []
    words += [f"gallery {'+'.join(asked.splits)}"] if len(asked.splits) > 1 else []
    words += [f"{asked.random} random candidates"] if asked.random else []
    words += {"shuffled": ["shuffled signals"], "permuted": ["permuted labels"]}.get(asked.control, [])
    return in_protocol(", ".join(words), caveats_of(aligns))


def caveats_of(aligns: Sequence[AlignRun]) -> list[str]:
    """Say what must be said of numbers that several runs have a part in: what holds of any of them."""
    return together(*(align.caveats for align in aligns))


def how_curves_are_made(asked: EvaluationSpec) -> dict[str, str]:
    """Say what a reader of each curve must know."""
    how = {"repetitions": f"{asked.repetition_draws} random choices of each number"}
    if asked.sliding:
        outside = {"mean": "the mean training signal", "zero": "zero"}[asked.sliding.outside]
        how["sliding"] = f"{asked.sliding.width_ms:g} ms wide, outside: {outside}, models of the whole signal"
    return how


def described_gallery(align: AlignRun, scores: Scores, asked: EvaluationSpec) -> Described:
    """Describe the candidates, so that two runs can be told to have had the same."""
    named = "\n".join([*scores.pictures, str(asked.random), str(asked.seed) if asked.random else ""])
    return {
        "of": align.dataset.name,
        "splits": "+".join(asked.splits),
        "pictures": len(scores.pictures),
        "random": asked.random,
        "digest": hashlib.sha256(named.encode()).hexdigest()[:10],
    }


def per_cell(cells: Sequence[Cell], scores: Mapping[str, Scores], common: MetricContext) -> Described:
    """Describe each cell and subject by itself, with the rank of every item."""
    described: Described = {}
    for cell in cells:
        for subject, ranking in scores[cell.name].rankings.items():
            described.setdefault(cell.name, {})[label(subject)] = {
                "seed": cell.seed,
                "metrics": _forward([[ranking]], (cell.seed,), common),
                "backward": _backward([[ranking]], (cell.seed,), common, CURVE),
                "ranks": ranking.ranks,
                "backward_ranks": ranking.backward,
            }
    return described


def totals(cells: Sequence[Cell], scores: Mapping[str, Scores], common: MetricContext) -> Described:
    """Describe several cells together: an item counts once, averaged over the models tried on it."""
    seeds = tuple(sorted({cell.seed for cell in cells}))
    chosen = [scores[cell.name] for cell in cells]
    rankings = _by_subject(each.rankings for each in chosen)
    ids = _ids(rankings)
    return {
        "overall": _forward(rankings, seeds, common),
        "backward": _backward(rankings, seeds, common, ()),
        "subsets": _subsets(_by_subject(each.subsets for each in chosen), seeds, ids, common),
        "curves": {
            "repetitions": _curve(_by_subject(each.repetitions for each in chosen), seeds, ids, common),
            "sliding": _curve(_by_subject(each.sliding for each in chosen), seeds, ids, common),
        },
    }


def concept_tables(scores: Mapping[str, Scores], categories: Mapping[str, str]) -> Described:
    """Describe concepts, categories and what was taken for what, over all cells and subjects."""
    ranks: dict[str, list[int]] = defaultdict(list)
    rankings = [ranking for each in scores.values() for ranking in each.rankings.values()]
    for ranking in rankings:
        for concept, rank in zip(ranking.concepts, ranking.ranks, strict=True):
            ranks[concept].append(rank)
    pairs = [pair for r in rankings for pair in zip(r.concepts, r.named, r.similarity, strict=True)]
    return {
        "concepts": by_concept(ranks),
        "categories": by_category(ranks, categories),
        "confusions": confusions(pairs),
    }


def items(scores: Mapping[str, Scores]) -> dict[str, list[str]]:
    """Say what each subject's signals showed, in the order of the ranks."""
    return {
        label(subject): ranking.image_ids
        for each in scores.values()
        for subject, ranking in each.rankings.items()
    }


def control(scores: Mapping[str, Scores], asked: EvaluationSpec, common: MetricContext) -> Described:
    """Describe a control's distribution beside what was measured; nothing without a control."""
    broken = _by_subject(each.broken for each in scores.values())
    return described_control(asked.control, broken, common.pool) if broken else {}


def above_chance(scores: Mapping[str, Scores]) -> RankSum:
    """Test whether the seen pictures rank better than guesses, over all cells and subjects."""
    rankings = _by_subject(each.rankings for each in scores.values())
    groups = [np.array([each.among_split for each in group]) for group in rankings]
    return rank_sum(groups, rankings[0][0].split_size, _ids(rankings))


def label(subject: int) -> str:
    """Name a subject."""
    return f"sub-{subject:02d}"


def _by_subject(measured: Any) -> list[list[Any]]:
    """Turn what cells hold by subject into one list a subject, of one entry a cell."""
    grouped: dict[int, list[Any]] = defaultdict(list)
    for each in measured:
        for subject, found in each.items():
            grouped[subject].append(found)
    return list(grouped.values())


def _forward(rankings: list[list[Ranking]], seeds: Sequence[int], common: MetricContext) -> Described:
    ranks = [[each.ranks for each in group] for group in rankings]
    chance = np.mean([_chance_of_precision(common.pool, each) for group in rankings for each in group])
    precision = measure(
        "map",
        [np.array([each.precision for each in group]) for group in rankings],
        ids=_ids(rankings),
        limits=(0.0, 1.0),
        protocol=common.protocol,
        split=common.split,
        pool=common.pool,
        chance=float(chance),
        seeds=seeds,
    )
    return common.summary(ranks, seeds, _ids(rankings)) | _described([precision])


def _ids(rankings: Sequence[Sequence[Ranking]]) -> list[list[str]]:
    return [group[0].image_ids for group in rankings]


def _chance_of_precision(pool: int, ranking: Ranking) -> float:
    relevant, counts = np.unique(ranking.relevant, return_counts=True)
    chances = [chance_of_precision(pool, int(each)) for each in relevant]
    return float(np.average(chances, weights=counts))


def _backward(
    rankings: list[list[Ranking]], seeds: Sequence[int], common: MetricContext, only: Sequence[str]
) -> Described:
    """Describe the other direction; nothing where some pictures were shown more often than others."""
    sizes = {(len(each.backward) * each.shown, each.shown) for group in rankings for each in group}
    if len(sizes) != 1 or sizes == {(0, 0)}:
        return {}
    pool, shown = sizes.pop()
    ranks = [[each.backward for each in group] for group in rankings]
    ids = [group[0].pictures for group in rankings]
    return common.summary(ranks, seeds, ids, pool=pool, targets=shown, only=only)


def _subsets(
    hits: list[list[Any]], seeds: Sequence[int], ids: list[list[str]], common: MetricContext
) -> Described:
    """Describe top-1 among drawn subsets, in both directions."""
    if not common.subsets:
        return {}
    ways, draws = common.subsets.ways, common.subsets.draws
    named: Any = {"split": common.split, "pool": ways, "chance": 1 / ways, "seeds": seeds}
    named["protocol"] = f"{common.protocol}, {ways}-way, {draws} draws"
    values = {
        name: [np.array([each[way] for each in group]) for group in hits]
        for way, name in enumerate(("forward", "backward"))
    }
    named["limits"], named["wilson"] = (0.0, 1.0), False  # an item's value is an average over its draws
    return _described([_of_drawn(name, groups, ids, **named) for name, groups in values.items()])


def _of_drawn(
    name: str, groups: Sequence[NDArray[np.float64]], ids: Sequence[Sequence[str]], **named: Any
) -> Metric:
    """Measure the items that were drawn at all."""
    kept, names = [], []
    for group, image_ids in zip(groups, ids, strict=True):
        drawn = np.flatnonzero(~np.isnan(group).any(0))
        kept.append(group[:, drawn])
        names.append([image_ids[place] for place in drawn.tolist()])
    return measure(name, kept, ids=names, **named)


def _curve(
    curves: list[list[Curve]], seeds: Sequence[int], ids: list[list[str]], common: MetricContext
) -> list[Described]:
    """Describe each point that all subjects have; the draws of a point are averaged as seeds are."""
    shared = set.intersection(*(set(each) for group in curves for each in group)) if curves else set()
    points = []
    for at in sorted(shared):
        ranks = [[draw for each in group for draw in each[at]] for group in curves]
        points.append({"at": at, **common.summary(ranks, seeds, ids, only=CURVE)})
    return points


def _described(metrics: Sequence[Metric]) -> Described:
    return {metric.name: metric.as_dict() for metric in metrics}
