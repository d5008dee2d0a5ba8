"""Metrics and facts of an evaluation, computed from the scores of its cells."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, compress
from operator import attrgetter
from typing import Any, Self

import numpy as np

from brainhive_cli.core.base import Int64, MissingData, console
from brainhive_cli.core.files import documents
from brainhive_cli.core.results import (
    ALL,
    BACKWARD,
    CHANNELS_MAPPED,
    NOT_INTERLEAVED,
    ORDER_UNKNOWN,
    TRIALS_TOGETHER,
    Answer,
    CellFacts,
    Difference,
    Measurements,
    Metric,
    Scopes,
    describe_signals,
    extend_protocol,
    index_by_name,
    lower_is_better,
    merge_caveats,
    metric_title,
    scope,
)
from brainhive_cli.data.datasets import make_grouping
from brainhive_cli.data.signals import StudyDesign
from brainhive_cli.evaluation.retrieval.facts import (
    Baseline,
    ConfusionMatrix,
    Control,
    GalleryFacts,
    RetrievalFacts,
)
from brainhive_cli.evaluation.retrieval.folds import (
    CellResult,
    measure_categories,
    measure_guess,
    merge_folds,
)
from brainhive_cli.evaluation.retrieval.job import Job
from brainhive_cli.evaluation.retrieval.scopes import (
    ALONE,
    CEILING,
    DESIGN,
    NEAREST,
    PLAIN,
    RIDGE,
    SUBSETS,
    name_subject,
)
from brainhive_cli.measurement import (
    CONCEPT_METRIC,
    CONTROL_METRICS,
    Exchange,
    Gallery,
    Items,
    Scores,
    StimulusGrouping,
    adjust_together,
    average_by_unit,
    chance_of_precision,
    compare_hits,
    describe_claims,
    fit_slope,
    judge,
    measure,
    summarise_ranks,
)
from brainhive_cli.reports.templates import render
from brainhive_cli.training.alignment import Cell as TrainedCell

CURVE_METRICS = ("top1", "top5")
"""Metrics of ranks that are computed for curves."""


@console.progress("computing statistics")
def summarise_job(
    job: Job,
    results: Mapping[str, CellResult],
    plain_ranks: Mapping[str, Sequence[Int64]],
    ridge_results: Mapping[TrainedCell, CellResult],
) -> Measurements:
    """Compute the metrics and facts of an evaluation from the scores of its cells.

    The steps are: pool folds, describe the protocol, measure the cells, compare them
    with baselines, measure the ceilings, and collect the facts.

    Args:
        job: The evaluation.
        results: Gallery and scores of each cell group, by the name of its first cell.
        plain_ranks: Ranks [N] of each subject, by name of the plain baseline.
        ridge_results: Gallery and scores of each cell of the ridge. Empty without one.
    """
    recipe = job.recipe
    run = job.runs[0]
    tests = job.tests
    is_folded = run.dataset.holdout.divides_train

    # pool the folds of each training, so that it tests every item once
    cell_results = {group[0]: results[group[0].name] for group in job.groups}
    if is_folded and recipe.split == "test":
        cell_results = merge_folds(cell_results)
        ridge_results = merge_folds(ridge_results)
    gallery, _ = next(iter(cell_results.values()))
    scores_of_subject = group_by_subject(cell_results)
    tables = list(chain.from_iterable(scores_of_subject.values()))

    # describe the protocol, with the caveats of all metrics
    study = tests.study
    described = tests.describe()
    are_trialwise = all(table.is_trialwise for table in tables)
    caveats = merge_caveats(tests.caveats, [] if are_trialwise else [TRIALS_TOGETHER])
    description = render(
        "protocol.txt",
        spec=recipe,
        runs=job.runs,
        mode=described["mode"],
        signals=describe_signals(tests.set_up),
    )
    grouping = group_stimuli(job, gallery, tables)
    has_trials = bool(grouping.group_of)
    cells = CellScores(
        groups=list(scores_of_subject.values()),
        grouping=grouping,
        protocol=extend_protocol(description, caveats),
        split=recipe.split,
        caveats=caveats,
        seeds=sorted({cell.seed for cell in cell_results}),
        are_categories=run.dataset.are_categories and has_trials,
    )
    items = cells.items

    # measure the cells together and each of them
    units = dict(zip(scores_of_subject, items.units, strict=True))
    scopes, cell_facts, item_values = measure_cells(cells, cell_results, units)

    # measure if items that resemble a training picture have better scores
    similarities, advantages = average_by_unit(item_values.values())
    if len(set(similarities.round(9))) > 1:
        slope = fit_slope(
            similarities,
            advantages,
            protocol=cells.protocol,
            split=recipe.split,
            seeds=tuple(cells.seeds),
            caveats=caveats,
        )
        scopes[NEAREST] = index_by_name([slope])

    # compare them with baselines that were fitted to the same signals
    baseline = None
    if ridge_results:
        ridge_scores = group_by_subject(ridge_results)
        ridge_groups = [ridge_scores[subject] for subject in scores_of_subject]
        ridge = replace(cells, groups=ridge_groups)
        baseline = Baseline(answer=judge_cells(ridge, study)[0])
        plain_ranks = {**plain_ranks, RIDGE: stack_ranks(ridge)}
    has_control = recipe.control != "none"
    ranks_of_design = rank_by_design(cells, study) if study else None
    if ranks_of_design is not None and not has_control:
        plain_ranks = {**plain_ranks, DESIGN: ranks_of_design}
    baseline_scopes, baseline_differences = compare_with_baselines(cells, plain_ranks)
    scopes = baseline_scopes | scopes
    if has_trials:
        scopes = compare_with_guess(scopes, cells)
    run_differences = compare_with_single_runs(cells, described["runs"])

    # measure the ceilings, which are equal in all cells
    ceilings = {}
    max_repetitions = 0
    for subject, group in scores_of_subject.items():
        ceiling = group[-1].ceiling
        if ceiling:
            ceilings[subject] = ceiling
            max_repetitions = max(max_repetitions, ceiling.repetitions)
    ceiling_measurements = measure_ceilings(
        ceilings, _describe_ceilings(job, cells, caveats)
    )

    # numbers of a claim about these people have the interval for these people
    answers = judge_cells(cells, study)
    if "people" in answers[0].scope:
        for name, table in scopes.items():
            scopes[name] = {
                key: metric.limit_to_people() for key, metric in table.items()
            }

    # collect the facts that a reader of the metrics needs
    seen_pictures, warnings = tests.summarise_seen()
    if described["modality"] != run.modality:
        # Warning if the averaged runs are of several modalities.
        same_people_warning = (
            "signals of {modality} are averaged by subject number: equal "
            "numbers have to be the same person"
        )
        warnings.append(same_people_warning.format(modality=described["modality"]))
    warnings += describe_duplicates(job, tables, cells.hit_metric)
    warnings += describe_unseen_candidates(scores_of_subject)
    n_trained = count_trained_concepts(job, gallery, items)
    claimed_items = items
    if n_trained == len(items.names):
        claimed_items = replace(items, kind="pictures with trained concepts")
    published = {}
    if run.recipe and run.recipe.published and len(job.runs) == 1 and not has_control:
        published = run.recipe.published.as_dict()
    facts = RetrievalFacts(
        **described | {"run": run.name},
        protocol=cells.protocol,
        caveats=caveats,
        seen_in_training=seen_pictures,
        warnings=warnings,
        gallery=GalleryFacts(
            dataset=run.dataset.name,
            splits=recipe.gallery,
            pictures=len(gallery.image_ids),
            held_out=run.dataset.holdout.description,
            # comparisons of runs check that their galleries are the same
            digest=documents.digest_text("\n".join(gallery.image_ids))[:10],
        ),
        answers=answers,
        against=run_differences,
        claims=describe_claims(claimed_items, len(cells.groups), answers[0].scope),
        units=items.kind,
        unit_count=items.n_units,
        stimuli=len(items.names),
        trained_concepts=n_trained,
        scope=items.scope,
        inflation=items.inflation,
        control=describe_control(recipe.control, cells) if has_control else None,
        prior=run.recipe.prior if run.recipe else None,
        published=published,
        cells=cell_facts,
        tests_trials=has_trials,
        subset_ways=recipe.subsets or 0,
        subset_pools=sorted(
            {table.scopes[SUBSETS].pool for table in tables if SUBSETS in table.scopes}
        ),
        plain=baseline_differences,
        baseline=baseline,
        repetitions=max_repetitions,
        confusion_matrix=count_confusions(tables) if has_trials else None,
    )
    return Measurements(scopes, {}, facts, item_values) | ceiling_measurements


@dataclass(frozen=True)
class CellScores:
    """Scores of cells that are measured together, with the context of their metrics.

    Attributes:
        groups: Scores of each subject, in all cells that were tested on the subject. An
            item counts once, with its average over these cells.
        grouping: Rules that group the items into units.
        protocol: Description of how the scores were measured.
        split: Split that the signals belong to.
        seeds: Seeds of the trainings.
        are_categories: True if the items are trials that show one of a few categories,
            which are measured by accuracy instead of ranks.
        caveats: Phrases that limit the metrics.
    """

    groups: Sequence[Sequence[Scores]]
    grouping: StimulusGrouping
    protocol: str
    split: str
    seeds: Sequence[int] = ()
    are_categories: bool = False
    caveats: Sequence[str] = ()

    @property
    def tables(self) -> list[Scores]:
        """Scores of all subjects in all cells."""
        return list(chain.from_iterable(self.groups))

    @cached_property
    def items(self) -> Items:
        """Tested items of each subject, with their units."""
        return self.grouping.make_items([group[0].image_ids for group in self.groups])

    @property
    def hit_metric(self) -> str:
        """Name of the metric that counts how often the label came first."""
        return "accuracy" if self.are_categories else "top1"

    @property
    def context(self) -> dict[str, Any]:
        """Context of a metric, as keyword arguments of `measure`."""
        return {
            "protocol": self.protocol,
            "split": self.split,
            "pool": self.tables[0].pool or None,
            "seeds": self.seeds,
            "items": self.items,
            "caveats": self.caveats,
        }

    def get_tables(self, name: str) -> Self | None:
        """Return the further tables of a scope, such as `backward`, of all cells.

        Returns:
            The tables, or None if a cell lacks the table, or if their numbers of
            candidates or of right candidates differ.
        """
        groups: list[list[Scores]] = []
        sizes = set[tuple[int, int]]()
        for group in self.groups:
            groups.append([])
            for scores in group:
                table = scores.get_table(name)
                if table is None:
                    return None
                groups[-1].append(table)
                sizes.add((table.pool, table.n_targets))

        # tables of different sizes have no common chance
        if len(sizes) > 1:
            return None
        phrases = [self.protocol, groups[0][0].description]
        return replace(self, groups=groups, protocol=", ".join(filter(None, phrases)))


def _describe_ceilings(
    job: Job, cells: CellScores, caveats: Sequence[str]
) -> CellScores:
    """Describe the measurement of ceilings, with the caveats of the signals."""
    run = job.runs[0]
    description = (
        "half of the repetitions against the other half, from other parts of the "
        f"recording, means of sessions removed, {job.recipe.ceiling_splits} random "
        f"splits, {run.dataset.name}"
    )
    ceiling_caveats = [CHANNELS_MAPPED] if CHANNELS_MAPPED in caveats else []
    ceiling_caveats += [
        caveat for caveat in caveats if caveat in (NOT_INTERLEAVED, ORDER_UNKNOWN)
    ]
    ceiling_caveats = merge_caveats(job.tests.signal_caveats, ceiling_caveats)
    return replace(
        cells,
        groups=(),
        protocol=extend_protocol(description, ceiling_caveats),
        caveats=ceiling_caveats,
        seeds=(),
    )


def describe_duplicates(
    job: Job, tables: Sequence[Scores], hit_metric: str = "top1"
) -> list[str]:
    """Describe the top-1 of pictures with a duplicate in the gallery, and of others.

    Args:
        job: The evaluation.
        tables: Scores of all cells.
        hit_metric: Name of the metric that counts hits.

    Returns:
        A sentence, or nothing if all pictures or no pictures have a duplicate.
    """
    names = set[str]()
    for pictures in job.tests.list_seen():
        rows = np.flatnonzero(pictures.has_equal_embedding)
        names.update(pictures.image_ids[rows])
    hits = np.concatenate([scores.ranks for scores in tables]) == 1
    labels = list(chain.from_iterable(map(attrgetter("labels"), tables)))
    has_duplicate = np.isin(labels, list(names))
    if not has_duplicate.any() or has_duplicate.all():
        return []
    share_with = hits[has_duplicate].mean()
    share_without = hits[~has_duplicate].mean()
    return [
        f"{metric_title(hit_metric)} is {share_with:.3f} for pictures that have a "
        f"duplicate among the candidates, {share_without:.3f} for the others"
    ]


def describe_unseen_candidates(
    scores_of_subject: Mapping[str, Sequence[Scores]],
) -> list[str]:
    """Describe candidates that only other people saw.

    Returns:
        A sentence, or nothing if all subjects saw most of the pictures.
    """
    shown = [set(group[0].labels) for group in scores_of_subject.values()]
    shown_to_anybody = set[str]().union(*shown)
    fewest = min(map(len, shown))
    # Smallest share of the tested pictures that each person saw, without a warning.
    if fewest >= 0.9 * len(shown_to_anybody):
        return []
    return [
        f"the candidates hold pictures that a person never saw (a person saw {fewest} "
        f"of {len(shown_to_anybody)}), so a model that knows the person ranks better "
        "than the printed chance"
    ]


def count_trained_concepts(job: Job, gallery: Gallery, items: Items) -> int:
    """Count the tested pictures whose concept was trained with other pictures."""
    run = job.runs[0]
    holdout = run.dataset.holdout
    is_comparable = run.dataset.alike_by == "concept" and not run.origin
    if holdout.has_seen_pictures or job.recipe.split == "train" or not is_comparable:
        return 0
    trained = set[str]()
    with suppress(MissingData):
        pictures = job.tests.open_pictures("train")
        for fold in run.folds:
            is_trained = holdout.choose_stimuli(pictures, "train", fold)
            trained.update(pictures.concepts[np.flatnonzero(is_trained)])
    concept_of = dict(zip(gallery.image_ids, gallery.concepts, strict=True))
    concepts = [concept_of[str(name)] for name in items.names]
    return sum(concept in trained for concept in concepts)


def group_by_subject(
    results: Mapping[TrainedCell, CellResult],
) -> dict[str, list[Scores]]:
    """Group the scores of cells by the tested subject, such as `sub-01`."""
    scores_of_subject = defaultdict[str, list[Scores]](list)
    for _, cell_scores in results.values():
        for subject, scores in cell_scores.items():
            scores_of_subject[name_subject(subject)].append(scores)
    return scores_of_subject


def measure_cells(
    cells: CellScores,
    results: Mapping[TrainedCell, CellResult],
    units: Mapping[str, Sequence[Hashable]],
) -> tuple[Scopes, dict[str, CellFacts], dict[str, dict[str, Any]]]:
    """Measure all cells together, and each cell on each of its subjects.

    Args:
        cells: Scores of all cells.
        results: Gallery and scores of each cell.
        units: Unit [N] of each item, such as its concept, by name of the subject.

    Returns:
        The metrics. Then the facts of each cell, and the values [N] of its items such
        as `ranks`, by scope.
    """
    scopes = measure_scopes(ALL, cells)
    facts = {}
    item_values = {}
    for cell, (_, cell_scores) in results.items():
        for subject, scores in cell_scores.items():
            subject_name = name_subject(subject)
            name = scope(cell.name, subject_name)
            single = replace(cells, groups=[[scores]], seeds=[cell.seed])
            scopes[name] = measure_table(single)
            backward = single.get_tables(BACKWARD)
            if backward:
                scopes[scope(name, BACKWARD)] = measure_table(backward, CURVE_METRICS)
            facts[name] = CellFacts(
                cell=cell.name, subject=subject_name, seed=cell.seed
            )

            # values of single items, by which runs are compared in pairs
            has_train_pictures = scores.train_similarities.size
            advantages = scores.compute_rank_advantages() if has_train_pictures else []
            item_values[name] = {
                "image_ids": scores.image_ids,
                "units": list(map(str, units[subject_name])),
                "ranks": scores.ranks.tolist(),
                "backward_ranks": backward.tables[0].ranks.tolist() if backward else [],
                "surplus": advantages,
                "nearest": scores.train_similarities.tolist(),
            }
    return scopes, facts, item_values


def compare_with_guess(scopes: Scopes, cells: CellScores) -> Scopes:
    """Replace the chance of held-out trials by the metrics of a constant guess.

    If labels are tested unequally often, a constant guess is right more often than a
    random guess, which is right in 1 / pool of the trials.

    Returns:
        The metrics, of which smaller galleries keep their chance. For pictures, the
        scope `all` also has the metrics of `measure_categories`.
    """
    pool = cells.tables[0].pool
    guess = measure_guess(cells.groups, pool)
    compared_scopes = {}
    for scope_name, metrics in scopes.items():
        compared_scopes[scope_name] = dict(metrics)
        for name, metric in metrics.items():
            if name in guess and metric.pool == pool:
                compared = replace(metric, chance=guess[name])
                compared_scopes[scope_name][name] = compared

    if not cells.are_categories:
        context = replace(cells, seeds=()).context
        metrics = measure_categories(cells.groups, context)
        # the area is of two pictures
        if pool != 2:
            metrics.pop("auc", None)
        compared_scopes[ALL] |= metrics
    return compared_scopes


def compare_with_baselines(
    cells: CellScores, plain_ranks: Mapping[str, Sequence[Int64]]
) -> tuple[Scopes, list[Difference]]:
    """Measure classifiers and a ridge, and compare the cells with each of them.

    Args:
        cells: Scores of all cells.
        plain_ranks: Ranks [N] of each subject, by name of the baseline.

    Returns:
        Metrics of the baselines, and differences in top-1 or accuracy, cells minus
        baseline, from those that were fitted to signals.
    """
    scopes = {}
    differences = []
    for name, ranks in plain_ranks.items():
        # baselines have no seeds
        prefix = "" if name in (RIDGE, DESIGN) else "plain baseline, "
        groups = []
        for group, subject_ranks in zip(cells.groups, ranks, strict=True):
            tables = []
            for table_ranks in np.atleast_2d(subject_ranks):
                # keep the columns that do not depend on the model
                first_table = replace(group[0], ranks=table_ranks, values={}, scopes={})
                tables.append(replace(first_table, auc_parts=np.empty(0)))
            groups.append(tables)
        baseline = replace(
            cells, groups=groups, protocol=f"{prefix}{cells.protocol}", seeds=()
        )
        scopes[scope(PLAIN, name)] = measure_table(baseline)
        if name == DESIGN:
            continue  # it has no signals to compare
        difference = compare_hits(stack_ranks(cells), ranks, items=cells.items)
        labels = {"second": name, "metric": cells.hit_metric}
        differences.append(difference.model_copy(update=labels))
    return scopes, differences


def compare_with_single_runs(
    cells: CellScores, run_names: Iterable[str]
) -> list[Difference]:
    """Compare the average of several runs with each of these runs, on the same items.

    Returns:
        Differences in top-1, average minus run. Empty for a single run.
    """
    differences = []
    for name in run_names:
        single_run = cells.get_tables(scope(ALONE, name))
        if single_run is None:
            continue
        difference = compare_hits(
            stack_ranks(cells), stack_ranks(single_run), items=cells.items
        )
        labels = {"first": "this run", "second": name, "metric": cells.hit_metric}
        differences.append(difference.model_copy(update=labels))
    return adjust_together(run=differences)[0]


def group_stimuli(
    job: Job, gallery: Gallery, tables: Iterable[Scores]
) -> StimulusGrouping:
    """Find the rules that group items into units, which count once in statistics."""
    run = job.runs[0]
    grouping = make_grouping(run.dataset, gallery.image_ids, gallery.concepts)
    # only test splits consist of held-out trials
    if job.recipe.split != "test":
        return grouping
    # the groups are read only if trials are held out, because pictures have none
    trials = (
        zip(scores.image_ids, scores.groups, scores.units.tolist(), strict=True)
        for scores in tables
    )
    return run.dataset.holdout.add_fold_groups(
        grouping, chain.from_iterable(trials), run.folds
    )


def measure_scopes(name: str, cells: CellScores) -> Scopes:
    """Measure several cells together, with the further tables that all of them have."""
    scopes = {name: measure_table(cells)}
    for table_name in cells.tables[0].scopes:
        tables = cells.get_tables(table_name)
        if tables:
            # subsets have a further table for the other direction
            has_prefix = table_name in (BACKWARD, SUBSETS)
            scope_name = scope(name, table_name) if has_prefix else table_name
            scopes |= measure_scopes(scope_name, tables)
    return scopes


def stack_ranks(cells: CellScores) -> list[Int64]:
    """Stack the ranks [S, N] of the S cells of each subject."""
    stacked = []
    for group in cells.groups:
        stacked.append(np.vstack([table.ranks for table in group]))
    return stacked


def measure_table(
    cells: CellScores, metric_names: Sequence[str] = ()
) -> dict[str, Metric]:
    """Compute the metrics of a table from its ranks and its further values.

    Args:
        cells: Cells whose tables have the same columns.
        metric_names: Metrics of ranks [N]. If empty, all metrics. Ranks of several
            draws or splits have `CURVE_METRICS`. Categories have
            `accuracy` and the metrics of `measure_categories`.
    """
    first_table = cells.tables[0]
    metrics: list[Metric] = []
    context = cells.context
    if len(first_table.ranks):
        if cells.are_categories:
            # Metrics of ranks that are computed for categories.
            metric_names = ("accuracy",)
        elif first_table.ranks.ndim > 1:
            metric_names = CURVE_METRICS
        metrics += summarise_ranks(
            stack_ranks(cells),
            targets=first_table.n_targets,
            metric_names=metric_names,
            **context,
        )

    if cells.are_categories and first_table.ranks.ndim == 1 and first_table.labels:
        category_context = replace(cells, seeds=()).context
        metrics += measure_categories(cells.groups, category_context).values()

    # shares of items and precisions lie between 0 and 1, changes by a region above 0
    context["limits"] = (0.0, None)
    if first_table.pool:
        context |= {"limits": (0.0, 1.0), "chance": 1 / first_table.pool}
    chance_of = {"top5": min(1.0, 5 / max(1, first_table.pool))}
    if len(first_table.relevant):
        # chances of precisions and of concepts, averaged over items and then over cells
        precisions = []
        shares = []
        for scores in cells.tables:
            chances = chance_of_precision(first_table.pool, scores.relevant)
            precisions.append(chances.mean())
            shares.append(scores.relevant.mean() / first_table.pool)
        chance_of["map"] = float(np.mean(precisions))
        chance_of[CONCEPT_METRIC] = float(np.mean(shares))
    # Arguments of `measure` for a reliability, which is a correlation.
    reliability_options: dict[str, Any] = {
        "pool": None,
        "chance": 0.0,
        "limits": (-1.0, 1.0),
        "is_share": False,
    }
    for name in first_table.values:
        # average precision is a metric of ranks
        if cells.are_categories and name == "map":
            continue
        values = []
        for group in cells.groups:
            values.append(np.vstack([scores.values[name] for scores in group]))
        options = context
        if name == "reliability":
            options = context | reliability_options
        elif name in chance_of:
            options = context | {"chance": chance_of[name]}
        metrics.append(measure(name, values, **options))
    return index_by_name(metrics)


def measure_ceilings(
    ceilings: Mapping[str, Scores], ceiling_cells: CellScores
) -> Measurements:
    """Measure how well halves of the repetitions retrieve each other, as ceilings.

    If all subjects saw the same number of pictures, also measure their average.

    Args:
        ceilings: Scores of halves of the repetitions, by name of the subject.
        ceiling_cells: Context of the metrics, without scores.

    Returns:
        The metrics, and the reasons why other subjects have no ceiling.
    """
    missing = {}
    groups = {}
    pools = set[int]()
    for subject, scores in ceilings.items():
        name = scope(CEILING, subject)
        if scores.reason:
            missing[name] = scores.reason
        else:
            groups[name] = [[scores]]
            pools.add(scores.pool)

    # hits among different numbers of pictures have no common chance
    if len(pools) == 1:
        groups[scope(CEILING, ALL)] = list(chain.from_iterable(groups.values()))

    scopes = {}
    for name, group in groups.items():
        scopes[name] = measure_table(replace(ceiling_cells, groups=group))
    return Measurements(scopes, missing)


def judge_cells(cells: CellScores, study: StudyDesign | None) -> list[Answer]:
    """Test if the seen pictures rank better than others, over all cells and subjects.

    Categories are tested by the accuracy instead of the mean rank.

    Args:
        cells: Scores of all cells.
        study: LabelDesign of the study, or None for clips of a film.

    Returns:
        The answers of `judge`. If the order of held-out trials is unknown, each answer
        says so.
    """
    grouping = cells.grouping
    has_trials = bool(grouping.group_of)

    # compared items of each subject, their ranks and their units
    ids = []
    ranks = []
    units = []
    label_of: dict[Any, Any] = {}
    for group in cells.groups:
        scores = group[0]
        is_compared = np.isin(scores.labels, scores.verdict_ids)
        ids.append(list(compress(scores.image_ids, is_compared)))
        verdict_ranks = [table.verdict_ranks for table in group]
        if cells.are_categories:
            # 1 for a hit and 2 for a miss, so that the statistic is the accuracy
            verdict_ranks = [np.minimum(table, 2) for table in verdict_ranks]
        ranks.append(np.mean(verdict_ranks, 0))
        if study is not None:
            units.append(scores.units[is_compared])
        label_of.update(zip(scores.image_ids, scores.labels, strict=True))
    concept_exchange = None
    if study is not None and study.concepts is not None:
        concept_design, unit_of = study.concepts
        concept_exchange = Exchange(concept_design, [unit_of[rows] for rows in units])
    first_table = cells.tables[0]
    n_compared = int((first_table.verdict_ranks[:1] > 0).sum())
    answers = judge(
        ranks,
        grouping.make_items(ids),
        candidates=first_table.verdict_ids,
        concept_of=grouping.concept_of,
        medium="category" if cells.are_categories else grouping.medium,
        label_of=label_of if has_trials else None,
        exchange=Exchange(study.design, units) if study else None,
        concept_exchange=concept_exchange,
        pool=n_compared or None,
        are_hits=cells.are_categories,
    )

    # an unknown order limits the claim
    if not has_trials or study is None or study.design.is_known:
        return answers
    condition = "labels did not come in blocks: the order of trials is not known"
    return [replace(answer, condition=condition) for answer in answers]


def rank_by_design(cells: CellScores, study: StudyDesign) -> list[Int64] | None:
    """Rank the labels of each subject's items by the design of the study alone.

    Returns:
        Ranks [N] among the labels of all units, by subject. None if the candidates are
        others than these labels.
    """
    design = study.design.whole or study.design
    if len(design.values) != cells.tables[0].pool:
        return None
    # labels with equal odds are in random order
    rng = np.random.default_rng(0)
    # Largest difference between two log odds that counts as rounding error.
    odds = design.log_odds + 1e-9 * rng.random(design.log_odds.shape)
    own = odds[np.arange(len(odds)), design.label]
    ranks = 1 + (odds > own[:, None]).sum(1)
    return [ranks[group[0].units] for group in cells.groups]


def count_confusions(tables: Iterable[Scores]) -> ConfusionMatrix | None:
    """Count how often the picture nearest to a signal shows each concept.

    Returns:
        Counts by the seen and by the decoded concept, or None if there are more than
        50 concepts.
    """
    from sklearn.metrics import confusion_matrix

    seen_names: list[str] = []
    decoded_names: list[str] = []
    for scores in tables:
        seen_names += scores.concepts
        decoded_names += scores.nearest_concepts
    names = sorted({*seen_names, *decoded_names})
    # Largest number of concepts in a confusion matrix.
    if len(names) > 50:
        return None
    counts = confusion_matrix(seen_names, decoded_names, labels=names)
    return ConfusionMatrix(names=names, counts=counts.tolist())


def describe_control(kind: str, cells: CellScores) -> Control:
    """Describe the distribution of each metric under a control.

    Args:
        kind: Kind of the control, such as `permuted`.
        cells: Scores of all cells. Each has the measured value of a metric, then the
            values of random draws.

    Returns:
        The distribution over draws of the mean over subjects. p is the share of values
        that are at least as good as the measured value, which is one of them.
    """
    metrics = {}
    n_draws = 0
    names = ["top1"] if cells.are_categories else list(CONTROL_METRICS)
    for name in names:
        # means [1 + K] over the cells of each subject, then over subjects
        subject_means = []
        for group in cells.groups:
            subject_means.append(np.mean([scores.control[name] for scores in group], 0))
        means = np.mean(subject_means, 0)
        measured_mean = float(means[0])
        n_draws = len(means) - 1
        draws = means[1:] if n_draws else means
        is_as_good = (
            means <= measured_mean if lower_is_better(name) else means >= measured_mean
        )
        low, high = np.percentile(draws, [2.5, 97.5]).tolist()
        metrics[cells.hit_metric if name == "top1" else name] = {
            "measured": measured_mean,
            "mean": float(np.mean(draws)),
            "low": low,
            "high": high,
            "p": float(is_as_good.mean()),
        }
    n_items = sum(map(len, cells.items.ids))
    pool = cells.tables[0].pool
    return Control(kind=kind, draws=n_draws, n=n_items, pool=pool, metrics=metrics)
