"""From the scores of cells to the metrics of a run, each with its context."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from brainhive_cli.core.caveats import extend_protocol, merge_caveats
from brainhive_cli.core.measurements import ALL, Measurements, Metric, by_name, scope
from brainhive_cli.core.set_up import SET_UP, describe_signals, merge
from brainhive_cli.evaluation.retrieval.cell_scores import (
    CONTROL_METRICS,
    DRAWS,
    Ceiling,
    CellScores,
    ControlDraws,
    Curve,
    Hits,
    RegionShares,
    SubjectScores,
)
from brainhive_cli.evaluation.retrieval.concepts import by_category, by_concept, confusions
from brainhive_cli.evaluation.retrieval.job import Job
from brainhive_cli.evaluation.retrieval.recipe import EvaluationSpec, Subsets
from brainhive_cli.measurement.rank_scores import RankSum, chance_of_precision, rank_sum, summarise
from brainhive_cli.measurement.statistics import measure, spearman_brown
from brainhive_cli.measurement.units import Alike
from brainhive_cli.training.alignment.learned import describe_tested
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.trained import AlignRun

BACKWARD = "backward"
"""What the scopes of the other direction end with: a picture searches among the signals."""
SUBSETS, CEILING, REGIONS = "subsets", "ceiling", "regions"
"""The first parts of further scopes."""
CURVE = ("top1", "top5")
"""What a curve shows."""
Metrics = dict[str, Metric]
Groups = Sequence[Sequence[SubjectScores]]
"""One list a subject, of its cells."""
Tested = dict[str, tuple[Cell, str, SubjectScores]]
"""Cell, subject and scores by scope."""


@dataclass(frozen=True)
class MetricContext:
    """What all metrics of some cells have in common."""

    protocol: str
    split: str
    pool: int
    alike: Alike
    seeds: tuple[int, ...] = ()

    def named(self, image_ids: Sequence[Sequence[str]], **changes: Any) -> dict[str, Any]:
        """Give what a measurement of these items, one list of image ids a subject, is called with."""
        of_metric = {"protocol": self.protocol, "split": self.split, "pool": self.pool, "seeds": self.seeds}
        return {**of_metric, "items": self.alike.items(image_ids), **changes}


def summarise_job(job: Job, scores: Mapping[str, CellScores]) -> Measurements:
    """Describe all that was measured on the cells of a job, by the names of their first cells."""
    spec, first, pool = job.spec, job.runs[0], next(iter(scores.values())).pool
    cells = [group[0] for group in job.groups]
    tested: Tested = {
        scope(cell.name, label(subject)): (cell, label(subject), each)
        for cell in cells
        for subject, each in scores[cell.name].subjects.items()
    }
    by_subject: dict[str, list[SubjectScores]] = defaultdict(list)
    for _, subject, each in tested.values():
        by_subject[subject].append(each)
    groups = list(by_subject.values())
    protocol, is_alone = protocol_of(job.runs, spec), len(job.runs) == 1 and spec.control == "none"
    context = MetricContext(protocol, spec.split, pool, alike_of(first, groups))
    test = above_chance(groups, context.alike)
    ceilings = {subject: each.ceiling for _, subject, each in tested.values() if each.ceiling}
    shares = {
        subject: [each.regions for each in group if each.regions] for subject, group in by_subject.items()
    }
    rankings = {name: each.ranking for name, (_, _, each) in tested.items()}
    units = context.alike.items([ranking.image_ids for ranking in rankings.values()])
    scopes = {
        **scopes_of_all(cells, groups, context, spec.subsets),
        **scopes_of_cells(tested, context),
        **(describe_regions(shares, cells, context) if spec.region_shares else {}),
    }
    seen = describe_tested(run.tested_pictures(spec.split) for run in job.runs)
    too_few = _too_few(groups, spec.subsets)
    notes = {
        "run": first.name,
        "runs": [run.name for run in job.runs],
        "mode": " + ".join(dict.fromkeys(run.mode for run in job.runs)),
        "protocol": protocol,
        "caveats": caveats_of(job.runs, spec.split),
        **seen,
        "warnings": [*seen["warnings"], *disagreement(test.verdict, scopes[ALL]["top1"]), *too_few],
        "gallery": describe_gallery(first, next(iter(scores.values())), spec),
        "verdict": test.verdict,
        "above_chance": asdict(test),
        "units": units.kind,
        "unit_count": units.count,
        "control": _control(groups, spec, pool),
        "curves": _describe_curves(groups, spec),
        "voxels": {subject: dict(group[0].voxels) for subject, group in shares.items() if group},
        "prior": first.prior,
        "published": first.published(spec.split, pool) if is_alone else {},
        SET_UP: merge([run.set_up(spec.split) for run in job.runs]),
        "cells": {
            name: {"cell": cell.name, "subject": subject, "seed": cell.seed}
            for name, (cell, subject, _) in tested.items()
        },
        **concept_tables(groups, job.categories),
    }
    items = {
        name: {
            "image_ids": ranking.image_ids,
            "units": [str(unit) for unit in unit_names],
            "ranks": ranking.ranks.tolist(),
            "backward_ranks": ranking.backward.tolist(),
        }
        for (name, ranking), unit_names in zip(rankings.items(), units.units, strict=True)
    }
    return Measurements(scopes, {}, notes, items) | describe_ceilings(
        ceilings, first.dataset.name, spec.split, spec.ceiling_splits, first.signal_caveats, context.alike
    )


def alike_of(run: AlignRun, groups: Groups) -> Alike:
    """Say which of the pictures that were shown are alike."""
    rankings = [each.ranking for group in groups for each in group]
    pairs = [pair for r in rankings for pair in zip(r.image_ids, r.concepts, strict=True)]
    is_film = run.dataset.alike_by == "neighbours"
    return Alike(run.dataset.alike_by, dict(pairs), "clip" if is_film else "picture")


def protocol_of(runs: Sequence[AlignRun], spec: EvaluationSpec) -> str:
    """Name the way of measuring, with all that a reader must know."""
    first = runs[0]
    words = [" + ".join(dict.fromkeys(run.mode for run in runs)), first.dataset.name]
    words += [f"zero-shot from {first.origin}"] if first.tests_new_subjects else []
    words += [run.variant for run in runs if run.variant]
    words += [f"mean of {len(runs)} runs"] if len(runs) > 1 else []
    words += [f"head {spec.head}"] if spec.head else []
    words += [f"gallery {spec.gallery}"] if len(spec.splits) > 1 else []
    words += ["pictures that were shown"] if spec.only_shown else []
    words += [f"{spec.distractors} random candidates"] if spec.distractors else []
    words += {"shuffled": ["shuffled signals"], "permuted": ["permuted labels"]}.get(spec.control, [])
    words += describe_signals(merge([run.set_up(spec.split) for run in runs]))
    return extend_protocol(", ".join(words), caveats_of(runs, spec.split))


def caveats_of(runs: Sequence[AlignRun], split: str) -> list[str]:
    """List the caveats of numbers that several runs contribute to: those of any of them."""
    return merge_caveats(*(run.caveats(split) for run in runs))


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
    scopes = {ALL: _forward(groups, context), scope(ALL, BACKWARD): _backward(groups, context)}
    scopes |= _subsets(groups, context, subsets) if subsets else {}
    for name in groups[0][0].curves:
        scopes |= _curve(name, groups, context)
    return {name: metrics for name, metrics in scopes.items() if metrics}


def scopes_of_cells(tested: Tested, context: MetricContext) -> dict[str, Metrics]:
    """Describe each cell and subject by itself."""
    scopes = {}
    for name, (cell, _, scores) in tested.items():
        own = replace(context, seeds=(cell.seed,))
        scopes[name] = _forward([[scores]], own)
        scopes[scope(name, BACKWARD)] = _backward([[scores]], own, CURVE)
    return {name: metrics for name, metrics in scopes.items() if metrics}


def regions_of(measured: Measurements) -> dict[str, Mapping[str, Metric]]:
    """Read back what each region carries, by head."""
    first = scope(REGIONS, "")
    return {
        name.removeprefix(f"{first} · "): metrics
        for name, metrics in measured.scopes.items()
        if name.startswith(f"{first} · ")
    }


def concept_tables(groups: Groups, categories: Mapping[str, str]) -> dict[str, Any]:
    """Describe concepts, categories and confusions, over all cells and subjects."""
    ranks: dict[str, list[int]] = defaultdict(list)
    rankings = [each.ranking for group in groups for each in group]
    for ranking in rankings:
        for concept, rank in zip(ranking.concepts, ranking.ranks.tolist(), strict=True):
            ranks[concept].append(rank)
    pairs = [pair for r in rankings for pair in zip(r.concepts, r.named, r.similarity, strict=True)]
    return {
        "concepts": by_concept(ranks),
        "categories": by_category(ranks, categories),
        "confusions": confusions(pairs),
    }


def above_chance(groups: Groups, alike: Alike) -> RankSum:
    """Test whether the seen pictures rank better than guesses, over all cells and subjects."""
    ranks = [np.array([each.ranking.among_split for each in group]) for group in groups]
    return rank_sum(ranks, groups[0][0].ranking.split_size, alike.items(_ids(groups)))


def disagreement(verdict: str, top1: Metric) -> list[str]:
    """Say which counts where the verdict on all ranks and the interval of top-1 are on other sides of chance.

    Of guesses that is so in one of seven evaluations of one subject: few hits are expected, and an interval
    of so rare ones is too narrow.
    """
    if top1.low is None or top1.high is None or top1.chance is None:
        return []
    side = "above chance" if top1.low > top1.chance else "at chance"
    side = "below chance" if top1.high < top1.chance else side
    if side == verdict:
        return []
    return [
        f"the ranks are {verdict}, the interval of top-1 is {side}: the ranks say whether pictures are found "
        "at all, the interval how often one is found first"
    ]


def label(subject: int) -> str:
    """Name a subject."""
    return f"sub-{subject:02d}"


def _control(groups: Groups, spec: EvaluationSpec, pool: int) -> dict[str, Any]:
    draws = [[each.control for each in group if each.control] for group in groups]
    return describe_control(spec.control, draws, pool) if spec.control != "none" else {}


def _forward(groups: Groups, context: MetricContext) -> Metrics:
    named, chance = context.named(_ids(groups)), _chance_of_precision(groups, context.pool)
    precision = [np.array([each.ranking.precision for each in group]) for group in groups]
    ranks = [np.array([each.ranking.ranks for each in group]) for group in groups]
    average = measure("map", precision, chance=chance, limits=(0.0, 1.0), **named)
    return by_name([*summarise(ranks, **named), average])


def _ids(groups: Groups) -> list[list[str]]:
    return [group[0].ranking.image_ids for group in groups]


def _chance_of_precision(groups: Groups, pool: int) -> float:
    """Average the chance of the items' precisions, over items and then over cells."""
    relevant = [each.ranking.relevant for group in groups for each in group]
    chances = {each: chance_of_precision(pool, each) for each in np.unique(np.concatenate(relevant)).tolist()}
    return float(np.mean([np.mean([chances[each] for each in some.tolist()]) for some in relevant]))


def _backward(groups: Groups, context: MetricContext, only: Sequence[str] = ()) -> Metrics:
    """Describe the other direction; nothing where some pictures were shown more often than others."""
    rankings = [[each.ranking for each in group] for group in groups]
    sizes = {(len(each.backward) * each.shown, each.shown) for group in rankings for each in group}
    if len(sizes) != 1 or sizes == {(0, 0)}:
        return {}
    pool, shown = sizes.pop()
    ranks = [np.array([each.backward for each in group]) for group in rankings]
    named = context.named([group[0].pictures for group in rankings], pool=pool)
    return by_name(summarise(ranks, **named, targets=shown, only=only))


def _subsets(groups: Groups, context: MetricContext, subsets: Subsets) -> dict[str, Metrics]:
    """Describe top-1 among drawn subsets, and that expected of all possible ones, in both directions.

    Where subjects were shown too few pictures, the pool is all of them; several pools have no common chance.
    """
    pools = _subset_pools(groups, subsets)
    if len(pools) > 1:
        return {}
    (pool,) = pools
    drawn = f"{pool}-way, {subsets.draws} draws"
    drawn = drawn if pool == subsets.ways else f"all {pool} pictures, fewer than {subsets.ways}"
    changes: dict[str, Any] = {"protocol": f"{context.protocol}, {drawn}", "pool": pool, "chance": 1 / pool}
    changes |= {"limits": (0.0, 1.0), "is_share": False}
    hits: dict[str, list[list[Hits]]] = {
        "top1": [[each.subsets for each in group if each.subsets] for group in groups],
        "top1_expected": [[each.expected for each in group if each.expected] for group in groups],
    }
    scopes: dict[str, Metrics] = {}
    for way, direction in enumerate(("", BACKWARD)):
        metrics = [
            _share(name, [[each[way] for each in group] for group in shares], groups, context, changes)
            for name, shares in hits.items()
            if all(shares)
        ]
        scopes[scope(ALL, SUBSETS, direction)] = by_name(metrics)
    return scopes


def _subset_pools(groups: Groups, subsets: Subsets) -> list[int]:
    return sorted({subsets.ways_of(len(each.ranking.image_ids)) for group in groups for each in group})


def _too_few(groups: Groups, subsets: Subsets | None) -> list[str]:
    """Say what is reported in place of subsets that are larger than what subjects were shown."""
    if subsets is None or (pools := _subset_pools(groups, subsets)) == [subsets.ways]:
        return []
    instead = "top-1 is among all of these" if len(pools) == 1 else "a common top-1 is left out"
    tested = f"subjects were tested on {' or '.join(map(str, pools))}"
    return [f"no subsets of {subsets.ways} pictures: {tested}; {instead}"]


def _share(
    name: str,
    shares_of: Sequence[Sequence[list[float]]],
    groups: Groups,
    context: MetricContext,
    changes: Mapping[str, Any],
) -> Metric:
    """Average shares [N] of the cells of each subject; items that were never drawn have none."""
    drawn_shares, names = [], []
    for group, image_ids in zip(shares_of, _ids(groups), strict=True):
        shares = np.array(group)
        drawn = np.flatnonzero(~np.isnan(shares).any(0))
        drawn_shares.append(shares[:, drawn])
        names.append([image_ids[place] for place in drawn.tolist()])
    return measure(name, drawn_shares, **context.named(names, **changes))


def _curve(name: str, groups: Groups, context: MetricContext) -> dict[str, Metrics]:
    """Describe each point of a curve; the draws of a point are averaged as seeds are."""
    curves: list[list[Curve]] = [[each.curves[name] for each in group] for group in groups]
    scopes = {}
    for at in _shared_points(name, groups):
        drawn = f"{context.protocol}, {at:g} of them drawn" if name == "repetitions" else context.protocol
        ranks = [[draw for each in group for draw in each[at]] for group in curves]
        metrics = summarise(ranks, **context.named(_ids(groups), protocol=drawn), only=CURVE)
        scopes[scope(name, f"{at:g}")] = by_name(metrics)
    return scopes


def points_of(measured: Measurements, curve: str) -> dict[float, Mapping[str, Metric]]:
    """Read the points of a curve back, by their place along it."""
    return {at: measured.scopes[scope(curve, f"{at:g}")] for at in measured.notes["curves"][curve]["at"]}


def describe_ceilings(
    ceilings: Mapping[str, Ceiling],
    dataset: str,
    split: str,
    splits: int,
    caveats: Sequence[str],
    alike: Alike,
) -> Measurements:
    """Describe the ceilings of subjects, by name, and of all together where they saw as many pictures."""
    if not ceilings:
        return Measurements()
    there = {subject: each for subject, each in ceilings.items() if not each.reason}
    protocol = extend_protocol(
        f"half of the repetitions against the other half, {splits} random splits, {dataset}", caveats
    )
    how = (protocol, split, alike)
    scopes = {scope(CEILING, subject): _describe_ceiling([each], *how) for subject, each in there.items()}
    if len({len(each.image_ids) for each in there.values()}) == 1:
        scopes[scope(CEILING, ALL)] = _describe_ceiling(list(there.values()), *how)
    missing = {scope(CEILING, subject): each.reason for subject, each in ceilings.items() if each.reason}
    notes = {"protocol": protocol, "repetitions": max(each.repetitions for each in ceilings.values())}
    return Measurements(scopes, missing, {CEILING: notes})


def _describe_ceiling(some: Sequence[Ceiling], protocol: str, split: str, alike: Alike) -> dict[str, Metric]:
    items = alike.items([each.image_ids for each in some])
    named: Any = {"protocol": protocol, "split": split, "items": items}
    metrics = summarise([each.ranks for each in some], len(some[0].image_ids), only=("top1", "top5"), **named)
    shares = [np.array(each.correlation) for each in some]
    half = measure("reliability", shares, chance=0.0, limits=(-1.0, 1.0), is_share=False, **named)
    return by_name([*metrics, _of_all_repetitions(half, float(np.mean([each.times for each in some])))])


def _of_all_repetitions(half: Metric, times: float) -> Metric:
    """Correct a correlation of halves, and the ends of its intervals, to all repetitions."""
    low, high = (None if end is None else spearman_brown(end, times) for end in (half.low, half.high))
    these = half.these_subjects
    corrected = these and (spearman_brown(these[0], times), spearman_brown(these[1], times))
    value = spearman_brown(half.value, times)
    return replace(half, value=value, low=low, high=high, these_subjects=corrected)


def describe_control(kind: str, draws: Sequence[Sequence[ControlDraws]], pool: int) -> dict[str, Any]:
    """Describe what was measured and the control's distribution of it, over all subjects.

    Args:
        kind: Of the control.
        draws: One list a subject, of its cells.
        pool: Number of candidates.

    Returns:
        kind, draws, n, pool, and by metric: measured, mean, low and high (of the middle 95 % of draws), and
        p: the share of draws that are at least as good, the measured value counted among them.
    """
    metrics = {}
    for name in CONTROL_METRICS:
        measured = float(np.mean([np.mean([each.measured[name] for each in group]) for group in draws]))
        drawn = np.mean([np.mean([each.drawn[name] for each in group], axis=0) for group in draws], axis=0)
        as_good = drawn <= measured if name == "mean_rank" else drawn >= measured
        low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
        metrics[name] = {"measured": measured, "mean": float(drawn.mean()), "low": low, "high": high}
        metrics[name]["p"] = (1 + int(as_good.sum())) / (1 + len(drawn))
    n = sum(group[0].n for group in draws)
    return {"kind": kind, "draws": DRAWS, "n": n, "pool": pool, "metrics": metrics}


def describe_regions(
    shares: Mapping[str, Sequence[RegionShares]], cells: Sequence[Cell], context: MetricContext
) -> dict[str, Metrics]:
    """Average over items, and over cells and subjects as every metric; regions that all subjects have.

    Args:
        shares: Of each cell, by subject.
        cells: Whose seeds the metrics name.
        context: Of the metrics.

    Returns:
        Metrics by scope (`regions · V1`) and head.
    """
    groups = list(shares.values())
    first = groups[0][0]
    everywhere = [name for name in first.voxels if all(name in group[0].voxels for group in groups)]
    named: dict[str, Any] = {"protocol": f"{context.protocol}, by region", "split": context.split}
    named |= {"seeds": tuple(sorted({cell.seed for cell in cells})), "limits": (0.0, None)}
    named["items"] = context.alike.items([group[0].image_ids for group in groups])
    scopes = {}
    for region in everywhere:
        values = {
            head: [np.array([each.shares[head][region] for each in group]) for group in groups]
            for head in first.shares
        }
        scopes[scope(REGIONS, region)] = {head: measure(head, some, **named) for head, some in values.items()}
    return scopes
