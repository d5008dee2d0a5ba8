"""From the scores of cells to the metrics of a run, each with its context."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from brainhive_cli.alignment.cells import Cell
from brainhive_cli.alignment.trained import AlignRun
from brainhive_cli.core.caveats import SIMULATED, extend_protocol, merge_caveats
from brainhive_cli.core.measurements import ALL, Measurements, Metric, by_name, scope
from brainhive_cli.metrics.rank_sum import RankSum, rank_sum
from brainhive_cli.metrics.retrieval import chance_of_precision, summarise
from brainhive_cli.metrics.statistics import measure
from brainhive_cli.retrieval.ceiling import describe_ceilings
from brainhive_cli.retrieval.cell_scores import CellScores, Hits, SubjectScores
from brainhive_cli.retrieval.concepts import by_category, by_concept, confusions
from brainhive_cli.retrieval.controls import describe_control
from brainhive_cli.retrieval.curves import Curve
from brainhive_cli.retrieval.job import Job
from brainhive_cli.retrieval.rankings import Ranking
from brainhive_cli.retrieval.recipe import EvaluationSpec, Subsets

BACKWARD = "backward"
"""What the scopes of the other direction end with: a picture searches among the signals."""
SUBSETS = "subsets"
CURVE = ("top1", "top5")
"""What a curve shows."""
Metrics = dict[str, Metric]
Groups = Sequence[Sequence[SubjectScores]]
"""One list a subject, of its cells."""


@dataclass(frozen=True)
class MetricContext:
    """What all metrics of some cells have in common."""

    protocol: str
    split: str
    pool: int
    seeds: tuple[int, ...] = ()

    def summarise(
        self, ranks: Iterable[Any], ids: Sequence[Sequence[str]], targets: int = 1, only: Sequence[str] = ()
    ) -> Metrics:
        """Summarise ranks [S, N] of the subjects, whose items have these ids [N]."""
        named: Any = {"split": self.split, "protocol": self.protocol, "seeds": self.seeds, "ids": ids}
        found = [torch.tensor(group) for group in ranks]
        return by_name(summarise(found, self.pool, **named, targets=targets, only=only))

    def measure(
        self,
        name: str,
        values: Sequence[NDArray[np.float64]],
        ids: Sequence[Sequence[str]],
        chance: float,
        wilson: bool = True,
    ) -> Metric:
        """Measure values [S, N] from 0 to 1 of the subjects, whose items have these ids [N]."""
        named: Any = {"split": self.split, "protocol": self.protocol, "seeds": self.seeds, "ids": ids}
        return measure(name, values, **named, pool=self.pool, chance=chance, limits=(0.0, 1.0), wilson=wilson)


def summarise_job(job: Job, scores: Mapping[str, CellScores]) -> Measurements:
    """Describe all that was measured on the cells of a job, by the names of their first cells."""
    spec, first, pool = job.spec, job.runs[0], next(iter(scores.values())).pool
    cells, groups = [group[0] for group in job.groups], by_subject(scores.values())
    protocol, is_alone = protocol_of(job.runs, spec), len(job.runs) == 1 and spec.control == "none"
    context, test = MetricContext(protocol, spec.split, pool), above_chance(groups)
    ceilings = {
        label(subject): each.ceiling
        for score in scores.values()
        for subject, each in score.subjects.items()
        if each.ceiling
    }
    notes = {
        "run": first.name,
        "runs": [run.name for run in job.runs],
        "mode": " + ".join(dict.fromkeys(run.mode for run in job.runs)),
        "protocol": protocol,
        "caveats": caveats_of(job.runs),
        "gallery": describe_gallery(first, next(iter(scores.values())), spec),
        "verdict": test.verdict,
        "above_chance": asdict(test),
        "control": _control(groups, spec, pool),
        "curves": _describe_curves(groups, spec),
        "prior": first.prior,
        "published": first.published(pool) if is_alone else {},
        "cells": {
            scope(cell.name, label(subject)): {
                "cell": cell.name,
                "subject": label(subject),
                "seed": cell.seed,
            }
            for cell in cells
            for subject in scores[cell.name].subjects
        },
        **concept_tables(groups, job.categories),
    }
    scopes = {
        **scopes_of_all(cells, groups, context, spec.subsets),
        **scopes_of_cells(cells, scores, context),
    }
    simulated = [SIMULATED] if first.dataset.is_simulated else []  # no model has a part in it
    return Measurements(scopes, {}, notes, items(cells, scores)) | describe_ceilings(
        ceilings, first.dataset.name, spec.split, spec.ceiling_splits, simulated
    )


def protocol_of(runs: Sequence[AlignRun], spec: EvaluationSpec) -> str:
    """Name the way of measuring, with all that a reader must know."""
    first = runs[0]
    words = [" + ".join(dict.fromkeys(run.mode for run in runs)), first.dataset.name]
    words += [f"zero-shot from {first.origin}"] if first.are_strangers else []
    words += [run.variant for run in runs if run.variant]
    words += [f"mean of {len(runs)} runs"] if len(runs) > 1 else []
    words += [f"head {spec.head}"] if spec.head else []
    words += [f"gallery {spec.gallery}"] if len(spec.splits) > 1 else []
    words += [f"{spec.distractors} random candidates"] if spec.distractors else []
    words += {"shuffled": ["shuffled signals"], "permuted": ["permuted labels"]}.get(spec.control, [])
    return extend_protocol(", ".join(words), caveats_of(runs))


def caveats_of(runs: Sequence[AlignRun]) -> list[str]:
    """List the caveats of numbers that several runs contribute to: those of any of them."""
    return merge_caveats(*(run.caveats for run in runs))


def describe_gallery(run: AlignRun, scores: CellScores, spec: EvaluationSpec) -> dict[str, Any]:
    """Describe the candidates, so that those of two runs can be compared."""
    seed = str(spec.seed) if spec.distractors else ""
    named = "\n".join([*scores.pictures, str(spec.distractors), seed])
    return {
        "of": run.dataset.name,
        "splits": spec.gallery,
        "pictures": len(scores.pictures),
        "random": spec.distractors,
        "digest": hashlib.sha256(named.encode()).hexdigest()[:10],
    }


def _describe_curves(groups: Groups, spec: EvaluationSpec) -> dict[str, Any]:
    """Describe how each curve was made, and where its points are."""
    how = {"repetitions": f"{spec.repetition_draws} random choices of each number"}
    if spec.sliding is not None:
        width = f"{spec.sliding.width_ms:g} ms wide"
        how["sliding"] = f"{width}, outside: the mean training signal, models of the whole signal"
    return {
        name: {"description": how[name], "at": _shared_points(name, groups)} for name in groups[0][0].curves
    }


def _shared_points(curve: str, groups: Groups) -> list[float]:
    """List the points that all subjects have."""
    return sorted(set.intersection(*(set(each.curves[curve]) for group in groups for each in group)))


def scopes_of_all(
    cells: Sequence[Cell], groups: Groups, context: MetricContext, subsets: Subsets | None
) -> dict[str, Metrics]:
    """Describe several cells together: an item counts once, averaged over the models tried on it."""
    context = replace(context, seeds=tuple(sorted({cell.seed for cell in cells})))
    found = {ALL: _forward(groups, context), scope(ALL, BACKWARD): _backward(groups, context)}
    found |= _subsets(groups, context, subsets) if subsets else {}
    for name in groups[0][0].curves:
        found |= _curve(name, groups, context)
    return {name: metrics for name, metrics in found.items() if metrics}


def scopes_of_cells(
    cells: Sequence[Cell], scores: Mapping[str, CellScores], context: MetricContext
) -> dict[str, Metrics]:
    """Describe each cell and subject by itself."""
    found = {}
    for cell in cells:
        own = replace(context, seeds=(cell.seed,))
        for subject, each in scores[cell.name].subjects.items():
            name = scope(cell.name, label(subject))
            found[name] = _forward([[each]], own)
            found[scope(name, BACKWARD)] = _backward([[each]], own, CURVE)
    return {name: metrics for name, metrics in found.items() if metrics}


def items(cells: Sequence[Cell], scores: Mapping[str, CellScores]) -> dict[str, dict[str, Any]]:
    """Give the rank of every item, by cell and subject."""
    return {
        scope(cell.name, label(subject)): {
            "image_ids": each.ranking.image_ids,
            "ranks": each.ranking.ranks,
            "backward_ranks": each.ranking.backward,
        }
        for cell in cells
        for subject, each in scores[cell.name].subjects.items()
    }


def concept_tables(groups: Groups, categories: Mapping[str, str]) -> dict[str, Any]:
    """Describe concepts, categories and confusions, over all cells and subjects."""
    ranks: dict[str, list[int]] = defaultdict(list)
    rankings = [each.ranking for group in groups for each in group]
    for ranking in rankings:
        for concept, rank in zip(ranking.concepts, ranking.ranks, strict=True):
            ranks[concept].append(rank)
    pairs = [pair for r in rankings for pair in zip(r.concepts, r.named, r.similarity, strict=True)]
    return {
        "concepts": by_concept(ranks),
        "categories": by_category(ranks, categories),
        "confusions": confusions(pairs),
    }


def above_chance(groups: Groups) -> RankSum:
    """Test whether the seen pictures rank better than guesses, over all cells and subjects."""
    ranks = [np.array([each.ranking.among_split for each in group]) for group in groups]
    return rank_sum(ranks, groups[0][0].ranking.split_size, _ids(groups))


def label(subject: int) -> str:
    """Name a subject."""
    return f"sub-{subject:02d}"


def by_subject(scores: Iterable[CellScores]) -> list[list[SubjectScores]]:
    """Group the scores of cells by subject."""
    grouped: dict[int, list[SubjectScores]] = defaultdict(list)
    for cell in scores:
        for subject, found in cell.subjects.items():
            grouped[subject].append(found)
    return list(grouped.values())


def _control(groups: Groups, spec: EvaluationSpec, pool: int) -> dict[str, Any]:
    draws = [[each.control for each in group if each.control] for group in groups]
    return describe_control(spec.control, draws, pool) if spec.control != "none" else {}


def _forward(groups: Groups, context: MetricContext) -> Metrics:
    rankings, ids = [[each.ranking for each in group] for group in groups], _ids(groups)
    chance = np.mean([_chance_of_precision(context.pool, each) for group in rankings for each in group])
    precision = [np.array([each.precision for each in group]) for group in rankings]
    found = context.summarise([[each.ranks for each in group] for group in rankings], ids)
    return found | by_name([context.measure("map", precision, ids, float(chance))])


def _ids(groups: Groups) -> list[list[str]]:
    return [group[0].ranking.image_ids for group in groups]


def _chance_of_precision(pool: int, ranking: Ranking) -> float:
    relevant, counts = np.unique(ranking.relevant, return_counts=True)
    chances = [chance_of_precision(pool, int(each)) for each in relevant]
    return float(np.average(chances, weights=counts))


def _backward(groups: Groups, context: MetricContext, only: Sequence[str] = ()) -> Metrics:
    """Describe the other direction; nothing where some pictures were shown more often than others."""
    rankings = [[each.ranking for each in group] for group in groups]
    sizes = {(len(each.backward) * each.shown, each.shown) for group in rankings for each in group}
    if len(sizes) != 1 or sizes == {(0, 0)}:
        return {}
    pool, shown = sizes.pop()
    ranks, ids = [[each.backward for each in group] for group in rankings], [g[0].pictures for g in rankings]
    return replace(context, pool=pool).summarise(ranks, ids, targets=shown, only=only)


def _subsets(groups: Groups, context: MetricContext, subsets: Subsets) -> dict[str, Metrics]:
    """Describe top-1 among drawn subsets, in both directions."""
    protocol = f"{context.protocol}, {subsets.ways}-way, {subsets.draws} draws"
    context, found = replace(context, protocol=protocol, pool=subsets.ways), {}
    hits: list[list[Hits]] = [[each.subsets for each in group if each.subsets] for group in groups]
    for way, direction in enumerate(("", BACKWARD)):
        kept, names = [], []
        for group, image_ids in zip(hits, _ids(groups), strict=True):
            shares = np.array([each[way] for each in group])
            drawn = np.flatnonzero(~np.isnan(shares).any(0))  # items that were never drawn have no share
            kept.append(shares[:, drawn])
            names.append([image_ids[place] for place in drawn.tolist()])
        # an item's value is an average over its draws, no single hit
        metric = context.measure("top1", kept, names, 1 / subsets.ways, wilson=False)
        found[scope(ALL, SUBSETS, direction)] = by_name([metric])
    return found


def _curve(name: str, groups: Groups, context: MetricContext) -> dict[str, Metrics]:
    """Describe each point of a curve; the draws of a point are averaged as seeds are."""
    curves: list[list[Curve]] = [[each.curves[name] for each in group] for group in groups]
    found = {}
    for at in _shared_points(name, groups):
        ranks = [[draw for each in group for draw in each[at]] for group in curves]
        found[scope(name, f"{at:g}")] = context.summarise(ranks, _ids(groups), only=CURVE)
    return found


def points_of(found: Measurements, curve: str) -> dict[float, Mapping[str, Metric]]:
    """Read the points of a curve back, by their place along it."""
    return {at: found.scopes[scope(curve, f"{at:g}")] for at in found.notes["curves"][curve]["at"]}
