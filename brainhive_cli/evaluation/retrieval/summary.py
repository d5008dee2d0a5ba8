"""From the scores of cells to the metrics of a run, each with its context."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, compress
from typing import Any

import numpy as np

from brainhive_cli.core import console
from brainhive_cli.core.facts import Answer, Ceiling, Cell, Control, ControlMetric, RetrievalFacts
from brainhive_cli.core.facts import Gallery as GalleryFacts
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
from brainhive_cli.core.set_up import describe_signals, merge
from brainhive_cli.data.datasets import alike_of
from brainhive_cli.evaluation.retrieval.baseline import compare_plainly
from brainhive_cli.evaluation.retrieval.concepts import describe_concepts
from brainhive_cli.evaluation.retrieval.folds import (
    Measured,
    describe_absent,
    measure_classes,
    measure_guess,
    merge_folds,
)
from brainhive_cli.evaluation.retrieval.job import Job
from brainhive_cli.evaluation.retrieval.recipe import EvaluationSpec, Subsets
from brainhive_cli.measurement.ranks import chance_of_precision, summarise
from brainhive_cli.measurement.reliability import spearman_brown
from brainhive_cli.measurement.retrieval import CONTROL_METRICS, DRAWS, Gallery, Scores, shared_points
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.measurement.units import Alike, describe_claims
from brainhive_cli.measurement.verdict import judge
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
Groups = Sequence[Sequence[Scores]]
"""One list a subject, of its cells."""


@console.progress("computing statistics")
def summarise_job(
    job: Job, scores: Mapping[str, Measured], plain: Mapping[str, Mapping[int, Any]]
) -> Measurements:
    """Describe all that was measured on the cells of a job, folds pooled.

    Args:
        job: The evaluation.
        scores: What was measured on each cell, by the name of the first of its group.
        plain: Ranks of plain baselines, by name and subject.
    """
    # cells, folds pooled
    spec, run = job.recipe, job.runs[0]
    merged = {group[0]: scores[group[0].name] for group in job.groups}
    if run.dataset.holdout.divides_train and spec.split == "test":
        merged = merge_folds([*merged], scores)
    gallery, pool = next(iter(merged.values()))[0], next(iter(scores.values()))[0].pool

    # scores by the scope that they are shown in, and by subject
    cells: dict[str, Cell] = {}
    tested, by_subject = {}, defaultdict[int, list[Scores]](list)
    for cell, (_, tables) in merged.items():
        for subject, table in tables.items():
            name = scope(cell.name, label(subject))
            cells[name] = Cell(cell=cell.name, subject=label(subject), seed=cell.seed)
            tested[name] = table
            by_subject[subject].append(table)
    groups = list(by_subject.values())

    # which items are alike, and what is true of all metrics
    alike = find_alike(job, gallery, [*tested.values()])
    items = alike.items(_image_ids(groups))
    follows_time = any(first.interleaving.follows_time for first, *_ in groups)
    are_trialwise = all(table.is_trialwise for _, tables in scores.values() for table in tables.values())
    caveats = merge_caveats(
        *(align_run.caveats(spec.split) for align_run in job.runs),
        [] if are_trialwise else [TRIALS_TOGETHER],
        [NOT_INTERLEAVED] if follows_time else [],
    )
    protocol = describe_protocol(job.runs, spec, caveats)
    context: Fields = {"protocol": protocol, "split": spec.split, "pool": pool, "seeds": ()}
    of_all = {**context, "seeds": tuple(sorted({cell.seed for cell in merged}))}

    # metrics of all cells together, and of each
    scopes = scopes_of_all(groups, alike, of_all, spec.subsets)
    for name, table in tested.items():
        of_cell = {**context, "seeds": (cells[name].seed,)}
        scopes |= measure_directions(name, [[table]], alike, of_cell, CURVE)

    # held-out trials are compared with the best guess; plain baselines learn from the same folds
    if alike.group_of:
        guessed = measure_guess(groups, pool)
        for name, metrics in scopes.items():
            among_all = {key for key in guessed.keys() & metrics if metrics[key].pool == pool}
            scopes[name] = metrics | {key: replace(metrics[key], chance=guessed[key]) for key in among_all}
        scopes[ALL] |= measure_classes(groups, {**context, "items": items})
    ours = {subject: [table.ranks for table in tables] for subject, tables in by_subject.items()}
    of_plain = {**context, "protocol": f"plain baseline, {protocol}"}
    baselines, differences, below = compare_plainly(plain, ours, items, **of_plain)

    # regions, and ceilings of the signals, which are the same of all cells
    if spec.region_shares:
        scopes |= describe_regions(groups, alike, of_all)
    signal_caveats = [*run.signal_caveats, *({CHANNELS_MAPPED} & {*caveats})]
    ceilings, missing, ceiling = describe_ceilings(
        {label(subject): group[-1].ceiling for subject, group in by_subject.items() if group[-1].ceiling},
        run.dataset.name,
        spec.split,
        spec.ceiling_splits,
        signal_caveats,
        alike,
    )

    # answers, and what a reader of the numbers must know
    verdict, *questions = above_chance(groups, alike)
    seen, tested_warnings = describe_tested(
        (align_run.tested_pictures(spec.split, fold) for align_run in job.runs for fold in align_run.folds),
        [line for align_run in job.runs for line in align_run.signal_warnings],
    )
    warnings = [
        *tested_warnings,
        *find_disagreement(verdict, scopes[ALL]["top1"]),
        *find_small_pools(groups, spec.subsets),
        *(describe_absent(merged.values()) if alike.group_of else []),
        *below,
    ]
    is_result = len(job.runs) == 1 and spec.control == "none"
    published = run.recipe.published if run.recipe is not None and is_result else None
    facts = RetrievalFacts(
        run=run.name,
        runs=[align_run.name for align_run in job.runs],
        dataset=run.dataset.name,
        modality=run.modality,
        stimulus=run.dataset.stimulus,
        mode=join_modes(job.runs),
        protocol=protocol,
        caveats=caveats,
        seen_in_training=seen,
        warnings=warnings,
        gallery=describe_gallery(job, gallery.image_ids),
        answers=[verdict, *questions],
        claims=describe_claims(items, len(groups)),
        units=items.kind,
        unit_count=items.count,
        scope=items.scope,
        inflation=items.inflation,
        control=describe_control(spec.control, groups, pool),
        curves=describe_curves(spec),
        voxels={
            label(subject): dict(group[0].regions.voxels)
            for subject, group in by_subject.items()
            if group[0].regions
        },
        prior=None if run.recipe is None else run.recipe.prior,
        published={} if published is None else published.as_dict(),
        set_up=merge([align_run.set_up(spec.split) for align_run in job.runs]),
        cells=cells,
        tests_trials=bool(alike.group_of),
        plain=differences,
        ceiling=ceiling,
        **describe_concepts(tested.values(), job.categories, with_matrix=bool(alike.group_of)),
    )
    units_of = dict(zip(map(label, by_subject), items.units, strict=True))
    by_item = {
        name: {
            "image_ids": table.image_ids,
            "units": [str(unit) for unit in units_of[str(cells[name].subject)]],
            "ranks": table.ranks.tolist(),
            "backward_ranks": table.backward.tolist(),
        }
        for name, table in tested.items()
    }
    return Measurements(baselines | scopes | ceilings, missing, facts, by_item)


def find_alike(job: Job, gallery: Gallery, tested: Sequence[Scores]) -> Alike:
    """Find which items are alike, for all intervals and tests: pictures, or held-out trials by group."""
    run = job.runs[0]
    alike, holdout = alike_of(run.dataset, gallery.image_ids, gallery.concepts), run.dataset.holdout
    if job.recipe.split != "test":
        return alike
    tested = tested if holdout.shows_seen else ()
    rows = (zip(each.image_ids, each.groups, each.interleaving.blocks, strict=True) for each in tested)
    return holdout.group_alike(alike, chain.from_iterable(rows), run.folds)


def describe_protocol(runs: Sequence[TrainedRun], spec: EvaluationSpec, caveats: Sequence[str]) -> str:
    """Name the way of measuring, with all that a reader must know."""
    first = runs[0]
    words = [
        join_modes(runs),
        first.dataset.name,
        f"zero-shot from {first.origin}" if first.tests_new_subjects else "",
        *(run.variant for run in runs),
        f"mean of {len(runs)} runs" if len(runs) > 1 else "",
        f"head {spec.head}" if spec.head else "",
        first.dataset.holdout.words,
        f"gallery {spec.gallery}" if len(spec.splits) > 1 else "",
        "pictures that were shown" if spec.only_shown else "",
        f"{spec.distractors} random candidates" if spec.distractors else "",
        {"shuffled": "shuffled signals", "permuted": "permuted labels"}.get(spec.control, ""),
        *describe_signals(merge([run.set_up(spec.split) for run in runs])),
    ]
    return extend_protocol(", ".join(filter(None, words)), caveats)


def join_modes(runs: Sequence[TrainedRun]) -> str:
    """Name the modes of runs, each once."""
    return " + ".join(dict.fromkeys(run.mode for run in runs))


def find_disagreement(verdict: Answer, top1: Metric) -> list[str]:
    """Say where the verdict on all ranks and the interval of top-1 lie on different sides of chance.

    Few hits are expected of guesses, and an interval of so rare ones is too narrow.
    """
    side = verdict.side
    if top1.low is not None and top1.high is not None and top1.chance is not None:
        side = "above chance" if top1.low > top1.chance else "at chance"
        side = "below chance" if top1.high < top1.chance else side
    if verdict.side in (side, "not testable"):
        return []
    about = f" for {verdict.scope}" if verdict.scope else ""
    why = "the ranks say whether pictures are found at all, the interval how often one is found first"
    if NOT_INTERLEAVED in top1.caveats:
        why = "time of recording alone can give such a top-1, as labels were not interleaved in time"
    return [f"the ranks are {verdict.words}, the interval of top-1 is {side}{about}: {why}"]


def find_small_pools(groups: Groups, subsets: Subsets | None) -> list[str]:
    """Say where subjects were tested on fewer pictures than subsets should have."""
    if subsets is None or (pools := _subset_pools(groups, subsets)) == [subsets.ways]:
        return []
    instead = "top-1 is among all of these" if len(pools) == 1 else "a common top-1 is left out"
    about = f"subjects were tested on {' or '.join(map(str, pools))}"
    return [f"no subsets of {subsets.ways} pictures: {about}; {instead}"]


def describe_gallery(job: Job, pictures: Sequence[str]) -> GalleryFacts:
    """Describe the candidates; runs are compared by their digest."""
    spec, dataset = job.recipe, job.runs[0].dataset
    candidates = [*pictures, str(spec.distractors), str(spec.seed) if spec.distractors else ""]
    return GalleryFacts(
        dataset=dataset.name,
        splits=spec.gallery,
        pictures=len(pictures),
        random=spec.distractors,
        held_out=dataset.holdout.words if dataset.holdout.divides_train else "",
        digest=hashlib.sha256("\n".join(candidates).encode()).hexdigest()[:10],
    )


def describe_curves(spec: EvaluationSpec) -> dict[str, str]:
    """Describe how each curve was measured."""
    how = {}
    if spec.repetitions is not None:
        how["repetitions"] = f"{spec.repetition_draws} random choices of each number"
    if spec.sliding is not None:
        width = f"{spec.sliding.width_ms:g} ms wide"
        how["sliding"] = f"{width}, outside: the mean training signal, models of the whole signal"
    return how


def scopes_of_all(groups: Groups, alike: Alike, context: Fields, subsets: Subsets | None) -> Scopes:
    """Describe several cells together: an item counts once, averaged over the models tried on it.

    Args:
        groups: The cells of each subject.
        alike: Which items are alike.
        context: Of all metrics: protocol, split, pool and seeds.
        subsets: Which subsets were drawn.
    """
    # both directions, subsets and corrections, which no other number depends on
    scopes = measure_directions(ALL, groups, alike, context)
    scopes |= _subsets(groups, alike, context, subsets) if subsets else {}
    for name in groups[0][0].corrected:
        corrected = [[scores.corrected[name] for scores in group] for group in groups]
        words = f"{context['protocol']}, similarities corrected by {name}, {TRANSDUCTIVE}"
        options = {**context, "protocol": words}
        scopes |= measure_directions(scope(CORRECTIONS, name), corrected, alike, options)

    # points of curves, whose draws are averaged as seeds are
    options = {**context, "items": alike.items(_image_ids(groups)), "only": CURVE}
    for name in groups[0][0].curves:
        for at in shared_points(name, chain(*groups)):
            ranks = [np.concatenate([scores.curves[name][at] for scores in group]) for group in groups]
            drawn = f", {at:g} of them drawn" if name == "repetitions" else ""
            measured = summarise(ranks, **{**options, "protocol": context["protocol"] + drawn})
            scopes[scope(name, f"{at:g}")] = by_name(measured)
    return scopes


def scopes_below(measured: Measurements, first: str) -> dict[str, Mapping[str, Metric]]:
    """Read back the scopes whose names begin with a part, by the rest of their names."""
    start = f"{first} · "
    return {
        name.removeprefix(start): metrics
        for name, metrics in measured.scopes.items()
        if name.startswith(start)
    }


def above_chance(groups: Groups, alike: Alike) -> list[Answer]:
    """Test whether the seen pictures rank better than others, over all cells and subjects: see `judge`."""
    # ranks of each subject, averaged over seeds; parts in which an item was shown to each, and its block
    firsts = [group[0] for group in groups]
    ranks = [np.mean([scores.table for scores in group], 0) for group in groups]
    orders = [scores.interleaving.take(scores.compared) for scores in firsts]
    image_ids = [[scores.image_ids[row] for row in scores.compared] for scores in firsts]
    parts: Fields = defaultdict(tuple)
    concept_parts: Fields = defaultdict(tuple)
    blocks: Fields = {}
    for number, (ids, order) in enumerate(zip(image_ids, orders, strict=True)):
        for row, name in enumerate(ids):
            parts[name] += (order.parts[row],)
            blocks[name] = number, order.blocks[row]
            if order.concept_parts:
                concept_parts[name] += (order.concept_parts[row],)

    # labels and blocks are of held-out trials
    label_of: Fields = {}
    for scores in firsts:
        label_of |= zip(scores.image_ids, scores.labels, strict=True)
    return judge(
        ranks,
        alike.items(image_ids),
        firsts[0].candidates,
        concept_parts if all(order.concept_parts for order in orders) else None,
        alike.concept_of,
        alike.medium,
        label_of=label_of if alike.group_of else None,
        parts=parts if len({*parts.values()}) > 1 else None,
        blocks=blocks if alike.group_of else None,
        problem=next((order.problem for order in orders if order.problem), ""),
        pool=int((firsts[0].table[:1] > 0).sum()) or None,
    )


def label(subject: int) -> str:
    """Name a subject."""
    return f"sub-{subject:02d}"


def _image_ids(groups: Groups) -> list[Sequence[str]]:
    return [group[0].image_ids for group in groups]


def measure_directions(
    name: str, groups: Groups, alike: Alike, context: Fields, only: Sequence[str] = ()
) -> Scopes:
    """Describe the ranks of the seen pictures, and those of the signals by what they showed.

    Args:
        name: Of the scope.
        groups: The cells of each subject.
        alike: Which items are alike.
        context: Of all metrics: protocol, split, pool and seeds.
        only: Metrics of the other direction; all when empty.
    """
    # ranks, and how early all pictures of the seen concepts come
    options = {**context, "items": alike.items(_image_ids(groups))}
    metrics = summarise([np.array([scores.ranks for scores in group]) for group in groups], **options)

    # the chance of a precision, averaged over items and then over cells
    chances = [chance_of_precision(context["pool"], scores.relevant).mean() for scores in chain(*groups)]
    precision = [np.array([scores.precision for scores in group]) for group in groups]
    metrics.append(measure("map", precision, chance=float(np.mean(chances)), limits=(0.0, 1.0), **options))
    scopes = {name: by_name(metrics)}

    # pictures search among all signals, of which each has as many; else there is no such direction
    sizes = {(len(scores.labels), len(scores.backward)) for scores in chain(*groups)}
    (pool, pictures), *others = sizes
    if pictures and not others:
        options |= {"items": alike.items([group[0].pictures for group in groups]), "pool": pool}
        ranks = [np.array([scores.backward for scores in group]) for group in groups]
        backward = summarise(ranks, targets=pool // pictures, only=only, **options)
        scopes[scope(name, BACKWARD)] = by_name(backward)
    return scopes


def _subsets(groups: Groups, alike: Alike, context: Fields, subsets: Subsets) -> Scopes:
    """Describe top-1 among drawn subsets, and that expected of all possible ones, in both directions.

    Where subjects were shown too few pictures, the pool is all of them; several pools have no common chance.
    """
    pool, *others = _subset_pools(groups, subsets)
    if others or not groups[0][0].subsets:
        return {}

    # what all subsets have in common
    drawn = f"{pool}-way, {subsets.draws} draws"
    drawn = drawn if pool == subsets.ways else f"all {pool} pictures, fewer than {subsets.ways}"
    options = {**context, "protocol": f"{context['protocol']}, {drawn}", "pool": pool}
    options |= {"chance": 1 / pool, "limits": (0.0, 1.0)}

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
                image_ids.append([*compress(group[0].image_ids, is_drawn)])
            metrics.append(measure(name, shares, items=alike.items(image_ids), **options))
        scopes[scope(ALL, SUBSETS, direction)] = by_name(metrics)
    return scopes


def _subset_pools(groups: Groups, subsets: Subsets) -> list[int]:
    return sorted({min(subsets.ways, len(scores.image_ids)) for scores in chain(*groups)})


def describe_regions(groups: Groups, alike: Alike, context: Fields) -> Scopes:
    """Describe what each region carries: of regions that all subjects have, averaged as every metric."""
    people = [[scores.regions for scores in group if scores.regions] for group in groups]
    items = alike.items(_image_ids(people))
    options = {**context, "protocol": f"{context['protocol']}, by region", "pool": None, "items": items}
    first, scopes = people[0][0], {}
    for region in first.voxels:
        if all(region in group[0].voxels for group in people):
            scopes[scope(REGIONS, region)] = {
                head: measure(
                    head,
                    [np.array([part.shares[head][region] for part in group]) for group in people],
                    limits=(0.0, None),
                    **options,
                )
                for head in first.shares
            }
    return scopes


def describe_ceilings(
    ceilings: Mapping[str, Scores],
    dataset: str,
    split: str,
    splits: int,
    caveats: Sequence[str],
    alike: Alike,
) -> tuple[Scopes, dict[str, str], Ceiling | None]:
    """Describe the ceilings of subjects, by name, and of all together where they saw as many pictures.

    Returns:
        Metrics by scope, reasons why subjects have none, and how it was measured.
    """
    if not ceilings:
        return {}, {}, None
    protocol = extend_protocol(
        f"half of the repetitions against the other half, from other parts of the recording, means of "
        f"sessions removed, {splits} random splits, {dataset}",
        caveats,
    )

    # subjects whose signals have a ceiling, or why not; all together where they saw as many pictures
    groups, missing = {}, {}
    for subject, ceiling in ceilings.items():
        if ceiling.reason:
            missing[scope(CEILING, subject)] = ceiling.reason
        else:
            groups[scope(CEILING, subject)] = [ceiling]
    measured = [ceiling for (ceiling,) in groups.values()]
    if len({len(ceiling.image_ids) for ceiling in measured}) == 1:
        groups[scope(CEILING, ALL)] = measured
    scopes = {}
    for name, group in groups.items():
        items = alike.items([ceiling.image_ids for ceiling in group])
        options: Any = {"protocol": protocol, "split": split, "items": items}

        # retrieval among halves, and reliability extrapolated to all repetitions
        ranks = [ceiling.ranks for ceiling in group]
        metrics = summarise(ranks, len(group[0].image_ids), only=("top1", "top5"), **options)
        shares = [ceiling.correlation for ceiling in group]
        half = measure("reliability", shares, chance=0.0, limits=(-1.0, 1.0), is_share=False, **options)
        times = float(np.mean([ceiling.times for ceiling in group]))
        scopes[name] = by_name([*metrics, _correct_to_all(half, times)])

    repetitions = max(ceiling.repetitions for ceiling in ceilings.values())
    return scopes, missing, Ceiling(protocol=protocol, repetitions=repetitions)


def _correct_to_all(half: Metric, times: float) -> Metric:
    """Correct a correlation of halves, and the ends of its intervals, to all repetitions."""

    def correct(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(correct, value))
        return None if value is None else spearman_brown(value, times)

    names = ("value", "low", "high", "these_subjects", "people")
    return replace(half, **{name: correct(getattr(half, name)) for name in names})


def describe_control(kind: str, groups: Groups, pool: int) -> Control | None:
    """Describe what was measured and the control's distribution of it, over all subjects.

    Args:
        kind: Of the control; `none` has no description.
        groups: The cells of each subject.
        pool: Number of candidates.

    Returns:
        The control; p is the share of draws that are at least as good, the measured value counted among them.
    """
    if kind == "none":
        return None
    metrics = {}
    for name in CONTROL_METRICS:
        # means [1 + K] over the cells of a subject, then over subjects
        values = [np.mean([scores.control[name] for scores in group], 0) for group in groups]
        measured, *drawn = np.mean(values, 0).tolist()

        # draws that are at least as good
        as_good = sum(draw <= measured if name == "mean_rank" else draw >= measured for draw in drawn)
        low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
        p = (1 + as_good) / (1 + len(drawn))
        mean = float(np.mean(drawn))
        metrics[name] = ControlMetric(measured=measured, mean=mean, low=low, high=high, p=p)
    n = sum(len(group[0].ranks) for group in groups)
    return Control(kind=kind, draws=DRAWS, n=n, pool=pool, metrics=metrics)
