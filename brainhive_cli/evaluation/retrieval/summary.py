"""From the scores of cells to the metrics of a run, each with its context."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, Self

import numpy as np

from brainhive_cli.core import console, documents
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.facts import (
    Answer,
    Baseline,
    CellFacts,
    ConfusionMatrix,
    Control,
    Difference,
    GalleryFacts,
    RetrievalFacts,
    describe_signals,
    merge_set_ups,
)
from brainhive_cli.core.measurements import (
    ALL,
    BACKWARD,
    CHANNELS_MAPPED,
    TRIALS_TOGETHER,
    Measurements,
    Metric,
    extend_protocol,
    index_by_name,
    lower_is_better,
    merge_caveats,
    scope,
)
from brainhive_cli.data.datasets import make_grouping
from brainhive_cli.data.stores.learned import summarise_tested_pictures
from brainhive_cli.evaluation.retrieval.folds import (
    Measured,
    measure_classes,
    measure_guess,
    merge_folds,
)
from brainhive_cli.evaluation.retrieval.job import Job
from brainhive_cli.evaluation.retrieval.scopes import (
    ALONE,
    CEILING,
    NEAREST,
    PLAIN,
    RIDGE,
    SUBSETS,
    label,
)
from brainhive_cli.measurement.comparison import adjust_together, compare_hits
from brainhive_cli.measurement.interleaving import list_caveats
from brainhive_cli.measurement.ranks import chance_of_precision, summarise_ranks
from brainhive_cli.measurement.reliability import spearman_brown
from brainhive_cli.measurement.retrieval import CONTROL_METRICS, Gallery, Scores
from brainhive_cli.measurement.slope import average_by_unit, fit_slope
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.measurement.units import Items, StimulusGrouping, describe_claims
from brainhive_cli.measurement.verdict import judge
from brainhive_cli.reports.tables import render
from brainhive_cli.training.alignment.cells import Cell as TrainedCell

SAME_PEOPLE = (
    "signals of {modality} are averaged by subject number: equal numbers have to be "
    "the same person"
)
"""The warning where runs are of several machines."""
CURVE = ("top1", "top5")
"""Metrics that a curve shows."""
MAX_CONFUSED = 50
"""Concepts whose confusions are counted, at most."""
RELIABILITY: dict[str, Any] = {
    "pool": None,
    "chance": 0.0,
    "limits": (-1.0, 1.0),
    "is_share": False,
}
"""How reliabilities are measured."""
Scopes = dict[str, dict[str, Metric]]
"""Metrics by scope."""


@dataclass(frozen=True)
class Cells:
    """Cells that are measured together, and what their metrics have in common.

    Attributes:
        groups: The cells of each subject; an item counts once, averaged over them.
        alike: Which items are alike.
        protocol: How they were measured.
        split: Part of the data set that the signals are of.
        seeds: Seeds of the trainings.
    """

    groups: Sequence[Sequence[Scores]]
    alike: StimulusGrouping
    protocol: str
    split: str
    seeds: Sequence[int] = ()

    @property
    def tables(self) -> list[Scores]:
        """Those of all subjects."""
        return [*chain(*self.groups)]

    @cached_property
    def items(self) -> Items:
        """Stimuli of the signals of each subject, and which of them are alike."""
        return self.alike.make_items([group[0].image_ids for group in self.groups])

    @property
    def context(self) -> dict[str, Any]:
        """The context of a metric, as `measure` takes it."""
        return {
            "protocol": self.protocol,
            "split": self.split,
            "pool": self.tables[0].pool or None,
            "seeds": self.seeds,
            "items": self.items,
        }

    def below(self, name: str) -> Self | None:
        """Choose further tables of the cells by their scope; None unless all have one,
        as large.
        """
        groups: Any = [
            [cell.get_table(name) for cell in group] for group in self.groups
        ]
        # tables of different numbers of candidates have no common chance
        sizes = {table and (table.pool, table.n_targets) for table in chain(*groups)}
        if None in sizes or len(sizes) > 1:
            return None
        words = [self.protocol, groups[0][0].description]
        return replace(self, groups=groups, protocol=", ".join(filter(None, words)))


@console.progress("computing statistics")
def summarise_job(
    job: Job,
    scores: Mapping[str, Measured],
    plain: Mapping[str, Sequence[Int64]],
    ridge: Mapping[TrainedCell, Measured],
) -> Measurements:
    """Describe all that was measured on the cells of a job, folds pooled.

    Args:
        job: The evaluation.
        scores: What was measured on each cell, by the name of the first of its group.
        plain: Ranks [N] of plain baselines, one array a subject.
        ridge: What was measured on the cells of a ridge; empty where none was fitted.
    """
    # cells, with folds pooled, and the scores of each subject in all cells
    spec, run = job.recipe, job.runs[0]
    measured = {cell: scores[cell.name] for cell, *_ in job.groups}
    if run.dataset.holdout.divides_train and spec.split == "test":
        measured = merge_folds(measured)
        ridge = merge_folds(ridge)
    gallery = next(iter(measured.values()))[0]
    tables_of_subject = group_by_subject(measured)
    groups = [*tables_of_subject.values()]
    tables = [*chain(*tables_of_subject.values())]

    # protocol and caveats of all metrics, and which items are alike
    mode = " + ".join(dict.fromkeys(align_run.mode for align_run in job.runs))
    set_up = merge_set_ups([align_run.set_up(spec.split) for align_run in job.runs])
    orders = [table.interleaving for table in tables]
    caveats = merge_caveats(
        *(align_run.caveats(spec.split) for align_run in job.runs),
        [] if all(table.is_trialwise for table in tables) else [TRIALS_TOGETHER],
        # what runs do not know: windows that overlap
        list_caveats(orders, False),
    )
    signals = describe_signals(set_up)
    words = render("protocol.txt", spec=spec, runs=job.runs, mode=mode, signals=signals)
    protocol = extend_protocol(words, caveats)
    seeds = sorted({cell.seed for cell in measured})
    alike = find_alike(job, gallery, tables)
    tested = Cells(groups, alike, protocol, spec.split, seeds)
    items = tested.items

    # metrics of all cells together, and of each
    units = {
        subject: [*map(str, names)]
        for subject, names in zip(tables_of_subject, items.units, strict=True)
    }
    scopes, cells, item_values = measure_cells(tested, measured, units)

    # whether pictures near training pictures score better
    nearest, score = average_by_unit(item_values.values())
    if len({*nearest.round(9)}) > 1:
        slope = fit_slope(
            nearest, score, protocol=protocol, split=spec.split, seeds=tuple(seeds)
        )
        scopes[NEAREST] = index_by_name([slope])

    # plain baselines, which learned from the same signals; ceilings, which are the same
    # of all cells
    baseline = None
    fitted = group_by_subject(ridge)
    if fitted:
        of_ridge = replace(tested, groups=[fitted[name] for name in tables_of_subject])
        baseline = Baseline(answer=above_chance(of_ridge)[0])
        plain = {**plain, RIDGE: [ranks[0] for ranks in stack_ranks(of_ridge)]}
    baselines, differences = compare_with_plain(tested, plain)
    scopes = baselines | scopes
    if alike.group_of:
        scopes = compare_with_guess(scopes, tested)
    gains = compare_with_alone(tested, [each.name for each in job.runs])
    halves = {
        subject: group[-1].ceiling
        for subject, group in tables_of_subject.items()
        if group[-1].ceiling
    }
    halving = (
        "half of the repetitions against the other half, from other parts of the "
        f"recording, means of sessions removed, {spec.ceiling_splits} random splits, "
        f"{run.dataset.name}"
    )

    # ceilings depend on no model, so only caveats of the signals apply
    of_ceiling = [*({CHANNELS_MAPPED} & {*caveats}), *list_caveats(orders, True)]
    halving = extend_protocol(halving, merge_caveats(run.signal_caveats, of_ceiling))
    ceilings = measure_ceilings(halves, Cells([], alike, halving, spec.split))

    # the tested pictures that were seen, and what a reader of the numbers must know
    seen, warnings = summarise_tested_pictures(
        [
            align_run.tested_pictures(spec.split, fold)
            for align_run in job.runs
            for fold in align_run.folds
        ],
        [line for align_run in job.runs for line in align_run.signal_warnings],
    )
    modality = " + ".join(dict.fromkeys(align_run.modality for align_run in job.runs))
    if modality != run.modality:
        warnings.append(SAME_PEOPLE.format(modality=modality))

    warnings += describe_twins(job, tables)

    # published values are of one training without a control
    published = run.recipe and run.recipe.published
    facts = RetrievalFacts(
        run=run.name,
        runs=[align_run.name for align_run in job.runs],
        dataset=run.dataset.name,
        modality=modality,
        stimulus=run.dataset.stimulus,
        mode=mode,
        protocol=protocol,
        caveats=caveats,
        seen_in_training=seen,
        warnings=warnings,
        gallery=GalleryFacts(
            dataset=run.dataset.name,
            splits=spec.gallery,
            pictures=len(gallery.image_ids),
            held_out=run.dataset.holdout.description
            if run.dataset.holdout.divides_train
            else "",
            # comparisons of runs check that their galleries are the same
            digest=documents.digest_text("\n".join(gallery.image_ids))[:10],
        ),
        answers=above_chance(tested),
        against=gains,
        claims=describe_claims(items, len(groups)),
        units=items.kind,
        unit_count=items.n_units,
        stimuli=len(items.names),
        scope=items.scope,
        inflation=items.inflation,
        control=describe_control(spec.control, tested)
        if spec.control != "none"
        else None,
        prior=run.recipe and run.recipe.prior,
        published=published.as_dict()
        if published and len(job.runs) == 1 and spec.control == "none"
        else {},
        set_up=set_up,
        cells=cells,
        tests_trials=bool(alike.group_of),
        subset_ways=spec.subsets or 0,
        subset_pools=sorted(
            {table.scopes[SUBSETS].pool for table in tables if SUBSETS in table.scopes}
        ),
        plain=differences,
        baseline=baseline,
        repetitions=max((half.repetitions for half in halves.values()), default=0),
        confusion_matrix=count_confusions(tables) if alike.group_of else None,
    )
    return Measurements(scopes, {}, facts, item_values) | ceilings


def describe_twins(job: Job, tables: Sequence[Scores]) -> list[str]:
    """Say how often pictures that have a duplicate among the candidates are found, and
    how often others.
    """
    twins = set[str]()
    for run in job.runs:
        for fold in run.folds:
            compared = run.tested_pictures(job.recipe.split, fold)
            twins.update(
                compared.image_ids[np.flatnonzero(compared.has_equal_embedding)]
            )
    hits = np.concatenate([scores.ranks == 1 for scores in tables])
    is_twin = np.concatenate([np.isin(scores.labels, [*twins]) for scores in tables])
    if not 0 < is_twin.sum() < len(is_twin):
        return []
    with_twin, others = hits[is_twin].mean(), hits[~is_twin].mean()
    return [
        f"top-1 is {with_twin:.3f} for pictures that have a duplicate among the "
        f"candidates, {others:.3f} for the others"
    ]


def group_by_subject(
    measured: Mapping[TrainedCell, Measured],
) -> dict[str, list[Scores]]:
    """Group what was measured on cells by the subject that they are tested on."""
    tables_of_subject = defaultdict[str, list[Scores]](list)
    for _, table_of in measured.values():
        for subject, table in table_of.items():
            tables_of_subject[label(subject)].append(table)
    return tables_of_subject


def measure_cells(
    tested: Cells,
    measured: Mapping[TrainedCell, Measured],
    units: Mapping[str, list[str]],
) -> tuple[Scopes, dict[str, CellFacts], dict[str, dict[str, Any]]]:
    """Measure all cells together, and each of them.

    Args:
        tested: The cells of each subject.
        measured: What was measured on each cell.
        units: Unit of each item, by subject.

    Returns:
        Metrics, which cell each scope is of, and the ranks of its items.
    """
    scopes = measure_scopes(ALL, tested)
    cells = {}
    item_values = {}
    for cell, (_, tables) in measured.items():
        for subject, table in tables.items():
            name = scope(cell.name, label(subject))
            # a cell has one training, so its metrics have one seed
            cell_tested = replace(tested, groups=[[table]], seeds=[cell.seed])
            scopes[name] = measure_table(cell_tested)
            if backward := cell_tested.below(BACKWARD):
                scopes[scope(name, BACKWARD)] = measure_table(backward, CURVE)
            cells[name] = CellFacts(
                cell=cell.name, subject=label(subject), seed=cell.seed
            )
            # ranks of single items, by which runs are paired later
            item_values[name] = {
                "image_ids": table.image_ids,
                "units": units[label(subject)],
                "ranks": table.ranks.tolist(),
                "backward_ranks": backward.tables[0].ranks.tolist() if backward else [],
                "surplus": table.compute_rank_advantages()
                if table.train_similarities.size
                else [],
                "nearest": table.train_similarities.tolist(),
            }
    return scopes, cells, item_values


def compare_with_guess(scopes: Scopes, tested: Cells) -> Scopes:
    """Take the best guess for the chance of held-out trials in every scope, and measure
    what their categories need.
    """
    # labels may be tested unequally often, and then the best guess beats 1 / pool
    pool = tested.tables[0].pool
    guessed = measure_guess(tested.groups, pool)
    compared = {}
    for name, metrics in scopes.items():
        # the guess holds for the full set of candidates only
        among_all = guessed.keys() & {
            key for key, metric in metrics.items() if metric.pool == pool
        }
        compared[name] = metrics | {
            key: replace(metrics[key], chance=guessed[key]) for key in among_all
        }

    # balanced accuracy and AUC over all cells
    compared[ALL] |= measure_classes(tested.groups, replace(tested, seeds=()).context)
    return compared


def compare_with_plain(
    tested: Cells, plain: Mapping[str, Sequence[Int64]]
) -> tuple[Scopes, list[Difference]]:
    """Measure plain baselines by their ranks [N] of each subject, and how the cells
    differ from them.
    """
    scopes, differences = {}, []
    for name, ranks in plain.items():
        # baselines have no seeds
        words = "" if name == RIDGE else "plain baseline, "
        baseline = replace(tested, protocol=f"{words}{tested.protocol}", seeds=())
        scopes[scope(PLAIN, name)] = index_by_name(
            summarise_ranks(ranks, **baseline.context)
        )
        difference = compare_hits(stack_ranks(tested), ranks, items=tested.items)
        differences.append(
            difference.model_copy(update={"second": name, "metric": "top1"})
        )
    return scopes, differences


def compare_with_alone(tested: Cells, runs: Iterable[str]) -> list[Difference]:
    """Compare the average of several runs with each of them, on the same items."""
    gains = []
    for name in runs:
        if alone := tested.below(scope(ALONE, name)):
            ranks = [stack_ranks(each) for each in (tested, alone)]
            update = {"first": "this run", "second": name, "metric": "top1"}
            difference = compare_hits(*ranks, items=tested.items)
            gains.append(difference.model_copy(update=update))
    return adjust_together(run=gains)[0]


def find_alike(
    job: Job, gallery: Gallery, tested: Iterable[Scores]
) -> StimulusGrouping:
    """Find which items are alike, for all intervals and tests: pictures, or held-out
    trials by group.
    """
    run = job.runs[0]
    alike = make_grouping(run.dataset, gallery.image_ids, gallery.concepts)
    # only test splits consist of held-out trials
    if job.recipe.split != "test":
        return alike
    rows = (
        zip(each.image_ids, each.groups, each.interleaving.blocks, strict=True)
        for each in tested
    )
    return run.dataset.holdout.add_fold_groups(
        alike, chain.from_iterable(rows), run.folds
    )


def measure_scopes(name: str, tested: Cells) -> Scopes:
    """Measure several cells together, and the further tables that all of them have."""
    scopes = {name: measure_table(tested)}
    for end in tested.tables[0].scopes:
        # a further table may have tables below it, as both directions of subsets
        if further := tested.below(end):
            scopes |= measure_scopes(
                scope(name, end) if end in (BACKWARD, SUBSETS) else end, further
            )
    return scopes


def stack_ranks(tested: Cells) -> list[Int64]:
    """Stack the ranks of the cells of each subject: [S, N]."""
    return [np.vstack([cell.ranks for cell in group]) for group in tested.groups]


def measure_table(tested: Cells, only: Sequence[str] = ()) -> dict[str, Metric]:
    """Measure the ranks of a table, and its other values; of draws, and halves, what a
    curve shows.

    Args:
        tested: Cells that have such a table.
        only: Metrics of ranks; all when empty.
    """
    # ranks
    first = tested.tables[0]
    metrics = list[Metric]()
    context = tested.context
    if len(first.ranks):
        only = CURVE if first.ranks.ndim > 1 else only
        metrics += summarise_ranks(
            stack_ranks(tested),
            targets=first.n_targets,
            metric_names=only,
            **context,
        )

    # values; the chance of a precision is averaged over items and then over cells
    context["limits"] = (0.0, None)
    if first.pool:
        context |= {"limits": (0.0, 1.0), "chance": 1 / first.pool}
    if len(first.relevant):
        # items with more relevant candidates have a higher chance
        chances = [
            chance_of_precision(first.pool, cell.relevant).mean()
            for cell in tested.tables
        ]
        context["chance"] = float(np.mean(chances))
    for name in first.values:
        values = [
            np.vstack([cell.values[name] for cell in group]) for group in tested.groups
        ]
        scale = RELIABILITY if name == "reliability" else {}
        metrics.append(measure(name, values, **context | scale))
    return index_by_name(metrics)


def measure_ceilings(ceilings: Mapping[str, Scores], tested: Cells) -> Measurements:
    """Measure the ceilings of subjects, and of all together where they saw as many
    pictures.

    Args:
        ceilings: Scores of halves of the repetitions, by subject.
        tested: How they were measured.

    Returns:
        Metrics, and why subjects have no ceiling.
    """
    # subjects who have a ceiling
    half_of_scope = {
        scope(CEILING, subject): half for subject, half in ceilings.items()
    }
    missing = {name: half.reason for name, half in half_of_scope.items() if half.reason}
    groups = {name: [[half]] for name, half in half_of_scope.items() if not half.reason}
    together = [*chain(*groups.values())]
    # ranks among different numbers of pictures have no common chance
    if len({half.pool for (half,) in together}) == 1:
        groups[scope(CEILING, ALL)] = together

    # retrieval among halves, and reliability extrapolated to all repetitions
    scopes = {}
    for name, group in groups.items():
        scopes[name] = measure_table(replace(tested, groups=group))
        # subjects may have been shown pictures a different number of times
        times = float(np.mean([half.repetition_ratio for (half,) in group]))
        scopes[name]["reliability"] = _correct_to_all(
            scopes[name]["reliability"], times
        )
    return Measurements(scopes, missing)


def _correct_to_all(half: Metric, times: float) -> Metric:
    """Correct a correlation of halves, and the ends of its intervals, to all
    repetitions.
    """

    def correct(value: Any) -> Any:
        return (
            tuple(map(correct, value))
            if isinstance(value, tuple)
            else value and spearman_brown(value, times)
        )

    # the correction rises with the correlation, so ends of intervals stay ends
    names = ("value", "low", "high", "these_subjects", "people")
    return replace(half, **{name: correct(getattr(half, name)) for name in names})


def above_chance(tested: Cells) -> list[Answer]:
    """Test whether the seen pictures rank better than others, over all cells and
    subjects: see `judge`.
    """
    # part of the recording in which each item was shown to each subject, and its block
    firsts = [group[0] for group in tested.groups]
    alike = tested.alike
    ids = []
    orders = []
    parts = defaultdict[Any, Any](tuple)
    concept_parts = defaultdict[Any, Any](tuple)
    blocks = {}
    for number, scores in enumerate(firsts):
        rows = np.flatnonzero(np.isin(scores.labels, scores.verdict_ids))
        ids.append([scores.image_ids[row] for row in rows.tolist()])
        orders.append(order := scores.interleaving.take(rows))
        for row, name in enumerate(ids[-1]):
            parts[name] += (order.parts[row],)
            concept_parts[name] += ((order.concept_parts or order.parts)[row],)
            blocks[name] = number, order.blocks[row]

    # ranks, averaged over seeds; labels and blocks are of held-out trials
    label_of = dict(
        chain(*(zip(scores.image_ids, scores.labels, strict=True) for scores in firsts))
    )
    items = replace(
        alike.make_items(ids),
        # one part is no restriction of permutations
        parts=parts if len({*parts.values()}) > 1 else {},
        problem=next((order.problem for order in orders if order.problem), ""),
    )
    answers = judge(
        [
            np.mean([scores.verdict_ranks for scores in group], 0)
            for group in tested.groups
        ],
        items,
        firsts[0].verdict_ids,
        concept_parts if all(order.concept_parts for order in orders) else None,
        alike.concept_of,
        alike.medium,
        label_of=label_of if alike.group_of else None,
        blocks=blocks if alike.group_of else None,
        concept_problem=next(
            (order.concept_problem for order in orders if order.concept_problem), ""
        ),
        pool=int((firsts[0].verdict_ranks[:1] > 0).sum()) or None,
    )
    # trials of one recording say more of each other than pictures that are new
    if all(order.is_known for order in orders):
        return answers
    unknown = f"the order of {'trials' if alike.group_of else 'pictures'} is not known"
    if alike.group_of:
        condition = f"labels did not come in blocks: {unknown}"
        return [replace(answer, condition=condition) for answer in answers]
    return [replace(answer, test=f"{answer.test}, {unknown}") for answer in answers]


def count_confusions(tested: Iterable[Scores]) -> ConfusionMatrix | None:
    """Count which concept the most similar picture was of, by the seen one; None of too
    many concepts.
    """
    # pairs of the shown and the decoded concept
    counts = Counter(
        chain(
            *(
                zip(scores.concepts, scores.nearest_concepts, strict=True)
                for scores in tested
            )
        )
    )
    names = sorted({*chain(*counts)})
    # a larger matrix could not be read
    if len(names) > MAX_CONFUSED:
        return None
    rows = [[counts[seen, decoded] for decoded in names] for seen in names]
    return ConfusionMatrix(names=names, counts=rows)


def describe_control(kind: str, tested: Cells) -> Control:
    """Describe what was measured and a control's distribution of it, over all subjects.

    Args:
        kind: Of the control.
        tested: The cells.

    Returns:
        The control; p is the share of draws that are at least as good, the measured
        value counted among them.
    """
    # element 0 of each control is what was measured, the others are draws
    metrics = {}
    for name in CONTROL_METRICS:
        # means [1 + K] over the cells of a subject, then over subjects; draws that are
        # at least as good
        subject_means = [
            np.mean([cell.control[name] for cell in group], 0)
            for group in tested.groups
        ]
        means = np.mean(subject_means, 0)
        measured, *drawn = means.tolist()
        # includes the measured value, so that p is never 0
        is_as_good = means <= measured if lower_is_better(name) else means >= measured
        low, high = np.percentile(drawn or [measured], [2.5, 97.5]).tolist()
        metrics[name] = {
            "measured": measured,
            "mean": float(np.mean(drawn or [measured])),
            "low": low,
            "high": high,
            "p": float(is_as_good.mean()),
        }
    n = sum(len(group[0].ranks) for group in tested.groups)
    pool = tested.tables[0].pool
    return Control(kind=kind, draws=len(drawn), n=n, pool=pool, metrics=metrics)
