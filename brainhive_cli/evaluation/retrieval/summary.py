"""From the scores of cells to the metrics of a run, each with its context."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Array
from brainhive_cli.core.measurements import (
    ALL,
    CHANNELS_MAPPED,
    NOT_INTERLEAVED,
    TRANSDUCTIVE,
    TRIALS_TOGETHER,
    Measurements,
    Metric,
    by_name,
    extend_protocol,
    merge_caveats,
    scope,
)
from brainhive_cli.core.set_up import SET_UP, describe_signals, merge
from brainhive_cli.data.datasets import alike_of
from brainhive_cli.evaluation.retrieval.cell_scores import (
    CONTROL_METRICS,
    DRAWS,
    Ceiling,
    CellScores,
    SubjectScores,
)
from brainhive_cli.evaluation.retrieval.concepts import by_category, by_concept, confusions
from brainhive_cli.evaluation.retrieval.folds import (
    count_confusions,
    describe_absent,
    measure_classes,
    measure_guess,
    merge_folds,
)
from brainhive_cli.evaluation.retrieval.job import Job
from brainhive_cli.evaluation.retrieval.plain import compare_plainly
from brainhive_cli.evaluation.retrieval.rankings import Ranking
from brainhive_cli.evaluation.retrieval.recipe import EvaluationSpec, Subsets
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.ranks import chance_of_precision, summarise
from brainhive_cli.measurement.reliability import spearman_brown
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.measurement.units import Alike, describe_claims
from brainhive_cli.measurement.verdict import Verdict, judge
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.tested_pictures import describe_tested
from brainhive_cli.training.alignment.trained import TrainedRun

BACKWARD = "backward"
"""End of the scopes of the other direction: a picture searches among the signals."""
SUBSETS, CEILING, REGIONS, CORRECTIONS = "subsets", "ceiling", "regions", "corrections"
"""The first parts of further scopes."""
CURVE = ("top1", "top5")
"""Metrics that a curve shows."""
Fields = dict[str, Any]
Metrics = dict[str, Metric]
Scopes = dict[str, Metrics]
"""Metrics by scope."""
Groups = Sequence[Sequence[SubjectScores]]
"""One list a subject, of its cells."""
Tested = dict[str, tuple[Cell, str, SubjectScores]]
"""Cell, subject and scores by scope."""


@dataclass(frozen=True)
class MetricContext:
    """Common facts of all metrics of some cells."""

    protocol: str
    split: str
    pool: int
    alike: Alike
    seeds: tuple[int, ...] = ()

    def options(self, image_ids: Sequence[Sequence[str]], **changes: Any) -> Fields:
        """Give the options by which these items, one list of image ids a subject, are measured."""
        options = {"protocol": self.protocol, "split": self.split, "pool": self.pool, "seeds": self.seeds}
        return {**options, "items": self.alike.items(image_ids), **changes}


@console.progress("computing statistics")
def summarise_job(
    job: Job, scores: Mapping[str, CellScores], plain: Mapping[str, Mapping[int, Any]]
) -> Measurements:
    """Describe all that was measured on the cells of a job, folds pooled.

    Args:
        job: The evaluation.
        scores: What was measured on each cell, by the name of the first of its group.
        plain: Ranks of plain baselines, by name and subject.
    """
    # scores by cell, folds pooled, and by subject
    spec, run, holdout = job.spec, job.runs[0], job.runs[0].dataset.holdout
    merged = {group[0]: scores[group[0].name] for group in job.groups}
    if holdout is not None and spec.split == "test":
        merged = merge_folds([*merged], scores)
    cells, gallery = [*merged], next(iter(merged.values()))

    # scores of each cell and subject by the scope that they are shown in
    tested = {
        scope(cell.name, label(subject)): (cell, label(subject), subject_scores)
        for cell, cell_scores in merged.items()
        for subject, subject_scores in cell_scores.subjects.items()
    }
    by_subject = defaultdict(list)
    for _, subject, subject_scores in tested.values():
        by_subject[subject].append(subject_scores)
    groups = list(by_subject.values())

    # which pictures are alike, for all intervals and tests
    rankings = {name: subject_scores.ranking for name, (_, _, subject_scores) in tested.items()}
    alike = alike_of(run.dataset, gallery.concepts, gallery.concepts.values())
    if holdout is not None and holdout.shows_seen and spec.split == "test":
        trials = rankings.values()
        named = [pair for ranking in trials for pair in zip(ranking.image_ids, ranking.groups, strict=True)]
        blocks = {
            name: f"{group}, block {block}"
            for *_, subject_scores in tested.values()
            if (table := subject_scores.split_ranks)
            for name, group, block in zip(
                table.image_ids, subject_scores.ranking.groups, table.interleaving.blocks, strict=True
            )
        }
        alike = replace(alike, group_of=dict(named), groups=holdout.by, block_of=blocks)
    alike = replace(alike, has_folds=holdout is not None and len(run.folds) > 1 and spec.split == "test")
    units = alike.items([ranking.image_ids for ranking in rankings.values()])

    # metrics: of all cells together, of each, of regions and of the signals' ceilings
    are_trialwise = all(cell_scores.are_trialwise for cell_scores in scores.values())
    verdict, *questions = above_chance(groups, alike)
    caveats = merge_caveats(
        *(align_run.caveats(spec.split) for align_run in job.runs),
        [] if are_trialwise else [TRIALS_TOGETHER],
        [NOT_INTERLEAVED] if any(order.follows_time for order in list_orders(groups)) else [],
    )
    context = MetricContext(describe_protocol(job.runs, spec, caveats), spec.split, gallery.pool, alike)
    scopes = scopes_of_all(cells, groups, context, spec.subsets)
    for name, (cell, _, subject_scores) in tested.items():
        cell_context = replace(context, seeds=(cell.seed,))
        scopes[name] = _forward([[subject_scores]], cell_context)
        if backward := _backward([[subject_scores]], cell_context, CURVE):
            scopes[scope(name, BACKWARD)] = backward
    if alike.group_of:
        guessed = measure_guess(groups, gallery.pool)
        for name, metrics in scopes.items():
            among_all = {key for key, metric in metrics.items() if metric.pool == gallery.pool}
            known = {key: replace(metrics[key], chance=guessed[key]) for key in among_all & guessed.keys()}
            scopes[name] = metrics | known
        scopes[ALL] |= measure_classes(groups, context.options(_image_ids(groups), seeds=context.seeds))
    shares = {
        subject: [cell_scores.regions for cell_scores in group if cell_scores.regions]
        for subject, group in by_subject.items()
    }

    # shares of regions, and ceilings of the signals
    if spec.region_shares:
        # averaged over items, and over cells and subjects as every metric; regions that all subjects have
        people = list(shares.values())
        first, ids = people[0][0], [group[0].image_ids for group in people]
        seeds, protocol = tuple(sorted({cell.seed for cell in cells})), f"{context.protocol}, by region"
        options = context.options(ids, protocol=protocol, seeds=seeds, pool=None, limits=(0.0, None))
        for region in first.voxels:
            if all(region in group[0].voxels for group in people):
                scopes[scope(REGIONS, region)] = {
                    head: measure(
                        head,
                        [np.array([part.shares[head][region] for part in group]) for group in people],
                        **options,
                    )
                    for head in first.shares
                }
    of_signals = [*run.signal_caveats, *({CHANNELS_MAPPED} & {*caveats})]
    ceilings = {subject: group[-1].ceiling for subject, group in by_subject.items()}  # the same of all cells
    described_ceilings = describe_ceilings(
        {subject: ceiling for subject, ceiling in ceilings.items() if ceiling},
        *(run.dataset.name, spec.split, spec.ceiling_splits, of_signals, alike),
    )

    # what a reader of the numbers must know, and the ranks of the items
    seen = describe_tested(
        (align_run.tested_pictures(spec.split, fold) for align_run in job.runs for fold in align_run.folds),
        [line for align_run in job.runs for line in align_run.signal_warnings],
    )

    # ranks of each concept, and the concepts that were seen and named
    concept_ranks = defaultdict(list)
    pairs: list[tuple[str, str, float]] = []
    for ranking in rankings.values():
        pairs += zip(ranking.concepts, ranking.named, ranking.similarity, strict=True)
        for concept, rank in zip(ranking.concepts, ranking.ranks.tolist(), strict=True):
            concept_ranks[concept].append(rank)

    # sides of chance of the verdict on all ranks and of the interval of top-1: few hits are expected of
    # guesses, and an interval of so rare ones is too narrow
    disagreement, top1, side = [], scopes[ALL]["top1"], verdict.side
    if top1.low is not None and top1.high is not None and top1.chance is not None:
        side = "above chance" if top1.low > top1.chance else "at chance"
        side = "below chance" if top1.high < top1.chance else side
    if verdict.side not in (side, "not testable"):
        about = f" for {verdict.scope}" if verdict.scope else ""
        why = "the ranks say whether pictures are found at all, the interval how often one is found first"
        if NOT_INTERLEAVED in top1.caveats:
            why = "time of recording alone can give such a top-1, as labels were not interleaved in time"
        disagreement = [f"the ranks are {verdict.words}, the interval of top-1 is {side}{about}: {why}"]

    # how each curve was made
    how = {"repetitions": f"{spec.repetition_draws} random choices of each number"}
    if spec.sliding is not None:
        width = f"{spec.sliding.width_ms:g} ms wide"
        how["sliding"] = f"{width}, outside: the mean training signal, models of the whole signal"

    # the gallery, by which runs are compared, is known by its digest
    too_few, subsets = [], spec.subsets
    if subsets is not None and (pools := _subset_pools(groups, subsets)) != [subsets.ways]:
        instead = "top-1 is among all of these" if len(pools) == 1 else "a common top-1 is left out"
        about = f"subjects were tested on {' or '.join(map(str, pools))}"
        too_few = [f"no subsets of {subsets.ways} pictures: {about}; {instead}"]
    is_comparable = len(job.runs) == 1 and spec.control == "none"
    seed = str(spec.seed) if spec.distractors else ""
    candidates = "\n".join([*gallery.pictures, str(spec.distractors), seed])
    notes = {
        "run": run.name,
        "runs": [align_run.name for align_run in job.runs],
        "mode": " + ".join(dict.fromkeys(align_run.mode for align_run in job.runs)),
        "protocol": context.protocol,
        "caveats": caveats,
        **seen,
        "warnings": [
            *(*seen["warnings"], *disagreement, *too_few),
            *(describe_absent(merged) if alike.group_of else []),
        ],
        "gallery": {
            "of": run.dataset.name,
            "splits": spec.gallery,
            "pictures": len(gallery.pictures),
            "random": spec.distractors,
            **({"held_out": holdout.words} if holdout else {}),
            "digest": hashlib.sha256(candidates.encode()).hexdigest()[:10],
        },
        "verdict": verdict.words,
        "above_chance": verdict.as_dict(),
        "questions": [question.as_dict() for question in questions],
        "claims": describe_claims(units, len(groups)),
        "units": units.kind,
        "unit_count": units.count,
        "scope": units.scope,
        "inflation": units.inflation,
        "control": describe_control(spec.control, groups, gallery.pool),
        "curves": {
            name: {"description": how[name], "at": _shared_points(name, groups)}
            for name in groups[0][0].curves
        },
        "voxels": {subject: dict(group[0].voxels) for subject, group in shares.items() if group},
        "prior": None if run.recipe is None else run.recipe.prior,
        "published": run.published(spec.split, gallery.pool) if is_comparable else {},
        SET_UP: merge([align_run.set_up(spec.split) for align_run in job.runs]),
        "cells": {
            name: {"cell": cell.name, "subject": subject, "seed": cell.seed}
            for name, (cell, subject, _) in tested.items()
        },
        "concepts": by_concept(concept_ranks),
        "categories": by_category(concept_ranks, job.categories),
        "confusions": confusions(pairs),
        **({"confusion_matrix": count_confusions(rankings.values())} if alike.group_of else {}),
    }
    compared = Measurements()

    # plain baselines on the same folds
    if plain:
        ours = {
            subject: [scores.ranking.ranks.tolist() for scores in by_subject[label(subject)]]
            for subject in next(iter(plain.values()))
        }
        options = context.options(_image_ids(groups))
        options["protocol"] = f"plain baseline, {options['protocol']}"
        compared = compare_plainly(plain, ours, caveats=notes["caveats"], **options)
        notes["warnings"] += compared.notes["plain_warnings"]
    items = {
        name: {
            "image_ids": ranking.image_ids,
            "units": [str(unit) for unit in unit_names],
            "ranks": ranking.ranks.tolist(),
            "backward_ranks": ranking.backward.tolist(),
        }
        for (name, ranking), unit_names in zip(rankings.items(), units.units, strict=True)
    }
    return compared | Measurements(scopes, {}, notes, items) | described_ceilings


def describe_protocol(runs: Sequence[TrainedRun], spec: EvaluationSpec, caveats: Sequence[str]) -> str:
    """Name the way of measuring, with all that a reader must know."""
    first = runs[0]
    words = [" + ".join(dict.fromkeys(run.mode for run in runs)), first.dataset.name]
    words += [f"zero-shot from {first.origin}"] if first.tests_new_subjects else []
    words += [run.variant for run in runs if run.variant]
    words += [f"mean of {len(runs)} runs"] if len(runs) > 1 else []
    words += [f"head {spec.head}"] if spec.head else []
    words += [first.dataset.holdout.words] if first.dataset.holdout else []
    words += [f"gallery {spec.gallery}"] if len(spec.splits) > 1 else []
    words += ["pictures that were shown"] if spec.only_shown else []
    words += [f"{spec.distractors} random candidates"] if spec.distractors else []
    words += {"shuffled": ["shuffled signals"], "permuted": ["permuted labels"]}.get(spec.control, [])
    words += describe_signals(merge([run.set_up(spec.split) for run in runs]))
    return extend_protocol(", ".join(words), caveats)


def _shared_points(curve: str, groups: Groups) -> list[float]:
    """List the points that all subjects have."""
    return sorted(set.intersection(*(set(scores.curves[curve]) for group in groups for scores in group)))


def scopes_of_all(
    cells: Sequence[Cell], groups: Groups, context: MetricContext, subsets: Subsets | None
) -> Scopes:
    """Describe several cells together: an item counts once, averaged over the models tried on it."""
    # both directions, subsets and corrections
    context = replace(context, seeds=tuple(sorted({cell.seed for cell in cells})))
    scopes = {ALL: _forward(groups, context), scope(ALL, BACKWARD): _backward(groups, context)}
    scopes |= _subsets(groups, context, subsets) if subsets else {}
    scopes |= _corrections(groups, context)

    # points of curves
    for name in groups[0][0].curves:
        for at in _shared_points(name, groups):
            # the draws of a point are averaged as seeds are
            ranks = [[draw for scores in group for draw in scores.curves[name][at]] for group in groups]
            options = context.options(_image_ids(groups))
            options["protocol"] += f", {at:g} of them drawn" if name == "repetitions" else ""
            scopes[scope(name, f"{at:g}")] = by_name(summarise(ranks, only=CURVE, **options))
    return {name: metrics for name, metrics in scopes.items() if metrics}


def points_of(measured: Measurements, curve: str) -> dict[float, Mapping[str, Metric]]:
    """Read the points of a curve back, by their position along it."""
    return {at: measured.scopes[scope(curve, f"{at:g}")] for at in measured.notes["curves"][curve]["at"]}


def regions_of(measured: Measurements) -> dict[str, Mapping[str, Metric]]:
    """Read back the share of each region, by head."""
    start = f"{REGIONS} · "
    return {
        name.removeprefix(start): metrics
        for name, metrics in measured.scopes.items()
        if name.startswith(start)
    }


def above_chance(groups: Groups, alike: Alike) -> list[Verdict]:
    """Test whether the seen pictures rank better than others, over all cells and subjects: see `judge`."""
    # ranks of each subject, averaged over seeds
    tables = [[scores.split_ranks for scores in group if scores.split_ranks] for group in groups]
    firsts = [group[0] for group in tables]
    ranks = [np.mean([table.ranks for table in group], 0) for group in tables]
    items = alike.items([table.image_ids for table in firsts])

    # parts in which an item was shown, of each subject who was shown it
    parts: Fields = defaultdict(list)
    concept_parts: Fields = defaultdict(list)
    for table in firsts:
        for name, part in zip(table.image_ids, table.interleaving.parts, strict=True):
            parts[name] = (*parts[name], part)
        for name, part in zip(table.image_ids, table.interleaving.concept_parts or (), strict=False):
            concept_parts[name] = (*concept_parts[name], part)
    are_known = all(table.interleaving.concept_parts for table in firsts)
    options: Fields = {
        "medium": alike.medium,
        "pool": firsts[0].pool or None,
        "parts": parts if len({*parts.values()}) > 1 else None,
        "problem": next((order.problem for order in list_orders(groups) if order.problem), ""),
    }

    # labels and blocks of held-out trials
    if alike.group_of:
        options["label_of"] = {
            name: label for table in firsts for name, label in zip(table.image_ids, table.labels, strict=True)
        }
        options["blocks"] = {
            name: (number, block)
            for number, table in enumerate(firsts)
            for name, block in zip(table.image_ids, table.interleaving.blocks, strict=True)
        }
    return judge(
        ranks, items, firsts[0].candidates, concept_parts if are_known else None, alike.concept_of, **options
    )


def list_orders(groups: Groups) -> list[Interleaving]:
    """List what is known of the order in time of each subject's items."""
    return [scores.split_ranks.interleaving for (scores, *_) in groups if scores.split_ranks]


def label(subject: int) -> str:
    """Name a subject."""
    return f"sub-{subject:02d}"


def _image_ids(groups: Groups) -> list[list[str]]:
    return [group[0].ranking.image_ids for group in groups]


def _stack(groups: Groups, values_of: Callable[[Ranking], Any]) -> list[Array]:
    """Collect values of the items, [S, N] of the S cells of each subject."""
    return [np.array([values_of(scores.ranking) for scores in group]) for group in groups]


def _forward(groups: Groups, context: MetricContext) -> Metrics:
    """Describe the ranks of the seen pictures, and how early all pictures of their concepts come."""
    options = context.options(_image_ids(groups))
    metrics = summarise(_stack(groups, lambda ranking: ranking.ranks), **options)

    # the chance of a precision, averaged over items and then over cells
    relevant = [scores.ranking.relevant for group in groups for scores in group]
    counts = np.unique(np.concatenate(relevant)).tolist()
    chance_of = {count: chance_of_precision(context.pool, count) for count in counts}
    chance = float(np.mean([np.mean([chance_of[count] for count in cell.tolist()]) for cell in relevant]))
    precision = _stack(groups, lambda ranking: ranking.precision)
    average = measure("map", precision, chance=chance, limits=(0.0, 1.0), **options)
    return by_name([*metrics, average])


def _backward(groups: Groups, context: MetricContext, only: Sequence[str] = ()) -> Metrics:
    """Describe the other direction; nothing where some pictures were shown more often than others."""
    rankings = [scores.ranking for group in groups for scores in group]
    sizes = {(len(ranking.backward) * ranking.shown, ranking.shown) for ranking in rankings}
    if len(sizes) != 1 or sizes == {(0, 0)}:
        return {}

    # the pool are all signals, of which each picture has `shown`
    ((pool, shown),) = sizes
    options = context.options([group[0].ranking.pictures for group in groups], pool=pool)
    ranks = _stack(groups, lambda ranking: ranking.backward)
    return by_name(summarise(ranks, targets=shown, only=only, **options))


def _subsets(groups: Groups, context: MetricContext, subsets: Subsets) -> Scopes:
    """Describe top-1 among drawn subsets, and that expected of all possible ones, in both directions.

    Where subjects were shown too few pictures, the pool is all of them; several pools have no common chance.
    """
    pools = _subset_pools(groups, subsets)
    if len(pools) > 1:
        return {}
    (pool,) = pools

    # what all subsets have in common
    drawn = f"{pool}-way, {subsets.draws} draws"
    drawn = drawn if pool == subsets.ways else f"all {pool} pictures, fewer than {subsets.ways}"
    changes = {"protocol": f"{context.protocol}, {drawn}", "pool": pool, "chance": 1 / pool}
    changes |= {"limits": (0.0, 1.0)}

    # signals seek images, and images signals
    scopes = {}
    for way, direction in enumerate(("", BACKWARD)):
        metrics = []
        for name in groups[0][0].subsets:
            shares, image_ids = [], []
            for group in groups:
                hits = np.array([scores.subsets[name][way] for scores in group])  # [S, N]
                is_drawn = ~np.isnan(hits).any(0)  # items that were never drawn have no share
                shares.append(hits[:, is_drawn])
                image_ids.append([*compress(group[0].ranking.image_ids, is_drawn)])
            metrics.append(measure(name, shares, **context.options(image_ids, **changes)))
        scopes[scope(ALL, SUBSETS, direction)] = by_name(metrics)
    return scopes


def _corrections(groups: Groups, context: MetricContext) -> Scopes:
    """Describe both directions after each correction, which no other number depends on."""
    scopes = {}
    for name in groups[0][0].corrected:
        corrected = [[SubjectScores(scores.corrected[name]) for scores in group] for group in groups]
        corrected_context = replace(
            context, protocol=f"{context.protocol}, similarities corrected by {name}, {TRANSDUCTIVE}"
        )
        scopes[scope(CORRECTIONS, name)] = _forward(corrected, corrected_context)
        scopes[scope(CORRECTIONS, name, BACKWARD)] = _backward(corrected, corrected_context)
    return scopes


def _subset_pools(groups: Groups, subsets: Subsets) -> list[int]:
    return sorted({min(subsets.ways, len(scores.ranking.image_ids)) for group in groups for scores in group})


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
    protocol = extend_protocol(
        f"half of the repetitions against the other half, from other parts of the recording, means of "
        f"sessions removed, {splits} random splits, {dataset}",
        caveats,
    )

    # subjects whose signals have a ceiling; all together where they saw as many pictures
    measured = {subject: ceiling for subject, ceiling in ceilings.items() if not ceiling.reason}
    groups = {scope(CEILING, subject): [ceiling] for subject, ceiling in measured.items()}
    if len({len(ceiling.image_ids) for ceiling in measured.values()}) == 1:
        groups[scope(CEILING, ALL)] = list(measured.values())
    scopes = {}
    for name, group in groups.items():
        items = alike.items([ceiling.image_ids for ceiling in group])
        options: Any = {"protocol": protocol, "split": split, "items": items}

        # retrieval among halves, and reliability extrapolated to all repetitions
        ranks = [ceiling.ranks for ceiling in group]
        metrics = summarise(ranks, len(group[0].image_ids), only=("top1", "top5"), **options)
        shares = [np.array(ceiling.correlation) for ceiling in group]
        half = measure("reliability", shares, chance=0.0, limits=(-1.0, 1.0), is_share=False, **options)
        times = float(np.mean([ceiling.times for ceiling in group]))
        scopes[name] = by_name([*metrics, _correct_to_all(half, times)])

    # subjects without a ceiling, and why
    missing = {
        scope(CEILING, subject): ceiling.reason for subject, ceiling in ceilings.items() if ceiling.reason
    }
    notes = {"protocol": protocol, "repetitions": max(ceiling.repetitions for ceiling in ceilings.values())}
    return Measurements(scopes, missing, {CEILING: notes})


def _correct_to_all(half: Metric, times: float) -> Metric:
    """Correct a correlation of halves, and the ends of its intervals, to all repetitions."""
    low, high = (None if end is None else spearman_brown(end, times) for end in (half.low, half.high))
    intervals: Fields = {
        name: ends and (spearman_brown(ends[0], times), spearman_brown(ends[1], times))
        for name, ends in (("these_subjects", half.these_subjects), ("people", half.people))
    }
    return replace(half, value=spearman_brown(half.value, times), low=low, high=high, **intervals)


def describe_control(kind: str, groups: Groups, pool: int) -> Fields:
    """Describe what was measured and the control's distribution of it, over all subjects.

    Args:
        kind: Of the control; `none` has no description.
        groups: The cells of each subject.
        pool: Number of candidates.

    Returns:
        kind, draws, n, pool, and by metric: measured, mean, low and high (of the middle 95 % of draws), and
        p: the share of draws that are at least as good, the measured value counted among them.
    """
    if kind == "none":
        return {}
    metrics = {}
    for name in CONTROL_METRICS:
        # means over the cells of a subject, then over subjects
        values = [[scores.control[name] for scores in group] for group in groups]  # [1 + K] of each cell
        measured = float(np.mean([np.mean([cell[0] for cell in cells]) for cells in values]))
        drawn = np.mean([np.mean([cell[1:] for cell in cells], 0) for cells in values], 0)

        # draws that are at least as good
        as_good = drawn <= measured if name == "mean_rank" else drawn >= measured
        low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
        p = (1 + int(as_good.sum())) / (1 + len(drawn))
        metrics[name] = {"measured": measured, "mean": float(drawn.mean()), "low": low, "high": high, "p": p}
    n = sum(len(group[0].ranking.ranks) for group in groups)
    return {"kind": kind, "draws": DRAWS, "n": n, "pool": pool, "metrics": metrics}
