"""Metrics and curves of a calibration over people and draws."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import product
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.base import Float64, Int64, Table
from brainhive_cli.core.files import documents
from brainhive_cli.core.results import (
    ALL,
    SIGNIFICANCE_LEVEL,
    TRIALS_TOGETHER,
    CellFacts,
    Measurements,
    Metric,
    Scopes,
    index_by_name,
    merge_caveats,
    scope,
)
from brainhive_cli.core.runs import Artifact, Curve, CurveLine
from brainhive_cli.data.stores import get_stimuli_and_pixels
from brainhive_cli.evaluation.calibration.amounts import EVERYTHING, UNITS
from brainhive_cli.evaluation.calibration.facts import (
    Amount,
    CalibrationFacts,
    Strength,
)
from brainhive_cli.evaluation.calibration.job import Job
from brainhive_cli.evaluation.calibration.measure import Part, select_arms
from brainhive_cli.measurement import Items, crossed_t_test, measure, summarise_ranks
from brainhive_cli.reports.pages.page import FINDING
from brainhive_cli.reports.tables import make_rows, tabulate_rows
from brainhive_cli.reports.templates import render
from brainhive_cli.training.alignment import Cell
from brainhive_cli.training.alignment.trained import (
    PERMUTED_SCRATCH,
    PERMUTED_TRANSFER,
    SCRATCH,
    TRANSFER,
    ZERO_SHOT,
)

GAIN = "top1_gain"
"""Metric: top-1 of transfer minus top-1 of another arm."""
ENOUGH = 0.9
"""Share of the top-1 with everything that an amount must reach to suffice."""
MIN_PEOPLE = 3
"""Smallest number of people for statements on amounts. Two people say next to nothing
about people in general.
"""
ARM_DESCRIPTIONS = documents.read(
    Path(__file__).with_name("arms.json"), dict[str, tuple[str, str, str]]
)
"""Data from a new person, MOABB's name for it (`CrossSubjectMode`), and method, by arm.
"""
SECTION = "Calibration"
RankTable = dict[tuple[str, str], list[Int64]]
"""Ranks [S, N] of each person, in S draws and models, by arm and amount."""


def summarise_draws(
    job: Job, parts: Mapping[tuple[Cell, int], Part], strength: Mapping[str, Strength]
) -> Measurements:
    """Compute the metrics of all arms and amounts over people and draws, and the facts.

    Args:
        job: The calibration.
        parts: Ranks of each model with its new person, and of each draw.
        strength: Strength of transfer by model and person.

    Raises:
        BrainhiveError: if no arm was measured in every person.
    """
    # select the arms that were measured in every person
    missing: dict[str, str] = {}
    dependent_arms = set[str]()
    for draw_part in parts.values():
        missing |= draw_part.missing
        dependent_arms.update(draw_part.together)
    arms = select_arms(job.recipe, missing)
    headline = choose_headline(arms)
    amount_names = list(job.amounts)
    ranks = _stack_ranks(job, parts, arms)
    hits = defaultdict[str, dict[str, list[Float64]]](dict)
    for (arm, name), tables in ranks.items():
        hits[arm][name] = [(table == 1).mean(0, dtype=np.float64) for table in tables]

    # measure every arm with every amount
    caveats_of_arm = {}
    for arm in arms:
        is_together = arm in dependent_arms
        caveats_of_arm[arm] = merge_caveats(
            job.tests.caveats, [TRIALS_TOGETHER] if is_together else []
        )
    pool = len(next(iter(job.people.values())).rows)
    seeds = sorted({cell.seed for cell in job.cells})
    context: dict[str, Any] = {"split": "test", "seeds": seeds, "items": job.items}
    scopes: Scopes = {ALL: {}}
    metric_names = ("top1", "top5", "mrr")
    for (arm, name), rank_lists in ranks.items():
        if name_scope(arm, name) not in scopes:
            metrics = summarise_ranks(
                rank_lists,
                pool,
                metric_names=metric_names,
                protocol=job.describe_protocol(caveats_of_arm[arm]),
                caveats=caveats_of_arm[arm],
                **context,
            )
            scopes[name_scope(arm, name)] = index_by_name(metrics)

    # measure the gains of transfer over other arms, in pairs of items
    better = None
    for arm in (ZERO_SHOT, SCRATCH):
        if not {TRANSFER, arm} <= set(arms):
            continue
        gains = []
        gain_caveats = merge_caveats(caveats_of_arm[TRANSFER], caveats_of_arm[arm])
        for name in amount_names:
            differences = map(np.subtract, hits[TRANSFER][name], hits[arm][name])
            gains.append(list(differences))
            metric = measure(
                GAIN,
                gains[-1],
                protocol=job.describe_protocol(gain_caveats),
                caveats=gain_caveats,
                limits=(-1.0, 1.0),
                is_share=False,
                chance=0.0,
                **context,
            )
            scopes[scope(f"{TRANSFER} over {arm}", name)] = {GAIN: metric}
        if arm == SCRATCH:
            better = find_better_amounts(gains, job.items)

    # measure the headline with everything: all people together, and each person
    caveats = caveats_of_arm.get(headline, job.tests.caveats)
    protocol = job.describe_protocol(caveats)
    cells: dict[str, CellFacts] = {}
    top1: dict[str, list[float]] = {}
    sufficient: dict[str, Any] = {}
    if headline:
        protocol += f", {headline}, {EVERYTHING}"
        total_metrics = scopes[name_scope(headline, EVERYTHING)]
        for metric_name, metric in total_metrics.items():
            scopes[ALL][metric_name] = replace(metric, protocol=protocol)
        sufficient = find_sufficient_amounts(
            hits[headline], total_metrics["top1"], job.items
        )
        for row, subject in enumerate(job.people):
            is_of_person = [
                np.full(len(ids), row == person_row)
                for person_row, ids in enumerate(job.items.ids)
            ]
            person_context = context | {"items": job.items.select(is_of_person)}
            metrics = summarise_ranks(
                [ranks[headline, EVERYTHING][row]],
                pool,
                metric_names=metric_names,
                protocol=protocol,
                caveats=caveats,
                **person_context,
            )
            person = f"sub-{subject:02d}"
            scopes[person] = index_by_name(metrics)
            cells[person] = CellFacts(subject=subject)
            top1[person] = []
            for hit_lists in hits[headline].values():
                top1[person].append(float(hit_lists[row].mean()))

    # collect the facts
    training_counts = [len(model.cell.trained_on) for model in job.tests.models[0]]
    seen_pictures, warnings = job.tests.summarise_seen()
    # Description of an alignment of another package.
    unknown_arm = (
        "signals, perhaps labels",
        "not known",
        "an alignment of another package",
    )
    facts = CalibrationFacts(
        **job.tests.describe(),
        **sufficient,
        protocol=protocol,
        caveats=caveats,
        cells=cells,
        people=top1,
        better=better,
        seen_in_training=seen_pictures,
        warnings=warnings,
        arm=headline,
        arms={arm: ARM_DESCRIPTIONS.get(arm, unknown_arm) for arm in arms},
        unit=job.unit,
        amounts=_average_sizes(amount_names, parts.values()),
        strength=dict(strength),
        trained_on=(min(training_counts), max(training_counts)),
        seen_share=measure_seen_share(job),
        epochs=job.epochs,
        pictures_left_out={
            str(subject): person.dropped for subject, person in job.people.items()
        },
    )
    return Measurements(scopes, missing, facts)


def _stack_ranks(
    job: Job, parts: Mapping[tuple[Cell, int], Part], arms: Sequence[str]
) -> RankTable:
    """Stack the ranks of each person over models and draws.

    Only the first draw has the ranks with everything.

    Returns:
        Ranks [models and draws, N] of each person, by arm and amount.
    """
    ranks: RankTable = {}
    for key in product(arms, job.amounts):
        tables = defaultdict[int, list[Int64]](list)
        for (cell, _), draw_part in parts.items():
            if key in draw_part.ranks:
                tables[cell.tested_on[0]].append(draw_part.ranks[key])
        ranks[key] = [np.stack(tables[subject]) for subject in job.people]
    return ranks


def _average_sizes(names: Sequence[str], parts: Collection[Part]) -> list[Amount]:
    """Average the recorded pictures, trials and minutes of each amount."""
    amounts = []
    for name in names:
        sizes = np.mean([draw_part.sizes[name] for draw_part in parts], 0)
        pictures, trials, minutes = sizes.round(2).tolist()
        known_min = None if np.isnan(minutes) else minutes
        amounts.append(
            Amount(name=name, pictures=pictures, trials=trials, minutes=known_min)
        )
    return amounts


def choose_headline(arms: Sequence[str]) -> str:
    """Choose the arm (method of calibration) that the main finding reports.

    Returns:
        Transfer, if it was measured. Otherwise the last arm that is no control, but
        scratch only if there is no other. "" if all are controls.
    """
    if TRANSFER in arms:
        return TRANSFER
    controls = (PERMUTED_TRANSFER, PERMUTED_SCRATCH)
    headline = ""
    for arm in arms:
        if arm not in controls and (arm != SCRATCH or not headline):
            headline = arm
    return headline


def name_scope(arm: str, amount_name: str) -> str:
    """Return the scope of an arm with an amount, on which zero-shot does not depend."""
    return arm if arm == ZERO_SHOT else scope(arm, amount_name)


def find_sufficient_amounts(
    hits: Mapping[str, Sequence[Float64]], total_top1: Metric, items: Items
) -> dict[str, Any]:
    """Find the amounts that surely reach the share `ENOUGH` of top-1 with everything.

    Args:
        hits: Top-1 hits [N] of each person, by amount. The last is everything.
        total_top1: Top-1 with everything.
        items: Tested items.

    Returns:
        The facts `is_above_chance`, `suffices` and `lead` of `CalibrationFacts`. Empty
        if the top-1 with everything is not surely above chance.
    """
    if not (total_top1.low or 0.0) > (total_top1.chance or 0.0):
        return {}
    smaller = list(hits)[:-1]
    if not smaller:
        return {"is_above_chance": True}
    lead = smaller[-1]
    suffices = None
    if len(hits[EVERYTHING]) >= MIN_PEOPLE:
        # an amount suffices if this difference is surely at least 0
        intervals = []
        for name in smaller:
            pairs = zip(hits[name], hits[EVERYTHING], strict=True)
            differences = [
                amount_hits - ENOUGH * all_hits for amount_hits, all_hits in pairs
            ]
            _, low, high = crossed_t_test(differences, items)
            intervals.append((low, high))
        suffices = find_crossing(intervals)
        lead = smaller[min(suffices[1], len(smaller) - 1)]
    return {"is_above_chance": True, "suffices": suffices, "lead": lead}


def find_better_amounts(
    gains: Sequence[Sequence[Float64]], items: Items
) -> tuple[int, int] | None:
    """Find the amounts at which transfer surely beats training from scratch.

    Tests are for people in general, and a draw of recordings counts as noise.

    Args:
        gains: Top-1 [N] of transfer minus top-1 of scratch, for each amount, ascending,
            and each person.
        items: Tested items.

    Returns:
        Indices of two amounts, or None with fewer than `MIN_PEOPLE` people. All amounts
        with a sure gain lie below the first, after Holm's correction for all amounts.
        At all amounts from the second on, there surely is no gain. These need no
        correction, because tests go from the largest amount down and stop at the first
        that is not sure.
    """
    n_amounts = len(gains)
    if len(gains[0]) < MIN_PEOPLE:
        return None

    # Holm multiplies the smallest p by the number of tests, the next by one less
    p_values = np.ones(n_amounts)
    highs = []
    for index, amount_gains in enumerate(gains):
        p_value, _, high = crossed_t_test(amount_gains, items)
        if p_value is not None:
            p_values[index] = p_value
        highs.append(high)
    order = p_values.argsort()
    products = p_values[order] * np.arange(n_amounts, 0, -1)
    is_sure = np.empty(n_amounts, bool)
    is_sure[order] = np.maximum.accumulate(products) < SIGNIFICANCE_LEVEL
    n_better = 0
    for index, amount_gains in enumerate(gains):
        mean_gains = list(map(np.mean, amount_gains))
        if is_sure[index] and np.mean(mean_gains) > 0:
            n_better = index + 1

    # from the largest amount down
    first_without_gain = n_amounts
    for index in reversed(range(n_amounts)):
        high = highs[index]
        if high is None or not high <= 0:
            break
        first_without_gain = index
    return n_better, first_without_gain


def find_crossing(
    intervals: Sequence[tuple[float | None, float | None]],
) -> tuple[int, int]:
    """Find between which amounts a curve crosses 0.

    Args:
        intervals: Ends of the interval at each amount, ascending. None is an end
            without a limit.

    Returns:
        Indices of two amounts. All amounts surely below 0 lie below the first. All
        amounts from the second on are surely not below 0.
    """
    lower_index = 0
    upper_index = 0
    for index, (low, high) in enumerate(intervals):
        if high is not None and high < 0:
            lower_index = index + 1
        if low is None or not low >= 0:
            upper_index = index + 1
    return lower_index, upper_index


def measure_seen_share(job: Job) -> float:
    """Measure the share of the new persons' pictures that models were trained on."""
    shares = []
    tests = job.tests
    store, pixels = get_stimuli_and_pixels(tests.open_stores("train"))
    compare = tests.make_comparison("train")
    for model in tests.models[0]:
        # copies count, so pictures are compared by their names and pixels
        is_learned = model.history.pictures.find_members(
            tests.dataset.pictured_as, store.image_ids, pixels, compare
        )
        person = job.people[model.cell.tested_on[0]]
        shares.append(is_learned[person.trials.stimulus].mean())
    return float(np.mean(shares))


def draw_artifacts(measurements: Measurements) -> list[Artifact]:
    """Draw the curves, and lay out the tables."""
    facts = measurements.require_facts(CalibrationFacts)
    first_arms = []
    for arm in dict.fromkeys((facts.arm, ZERO_SHOT, SCRATCH)):
        if arm in facts.arms:
            first_arms.append(arm)

    # the finding, and the curve of each person if there are several
    artifacts: list[Artifact] = []
    if facts.arm:
        top1 = measurements.overall["top1"]
        artifacts.append(
            _draw_curve(
                facts,
                "Top-1 after recordings of a new person",
                _draw_lines(measurements, first_arms),
                section=FINDING,
                note=render("calibration.txt", facts=facts, top1=top1),
            )
        )
    if len(facts.people) > 1:
        lines = [CurveLine(name, values) for name, values in facts.people.items()]
        title = f"Each person, by {facts.arm}"
        artifacts.append(_draw_curve(facts, title, lines, section=FINDING))

    # Titles of the curves of further arms, by the data that they take from
    # a new person.
    curve_titles = {
        "signals": "Alignments without labels",
        "signals and labels": "Other ways with labels",
        "signals, wrong labels": "Controls: wrong labels",
    }
    # further arms, grouped by the data that they take from the person
    for data, title in curve_titles.items():
        arms = []
        for arm, description in facts.arms.items():
            if description[0] == data and arm not in first_arms:
                arms.append(arm)
        if arms:
            # the first two arms keep their colours of the first figure
            lines = _draw_lines(measurements, first_arms[:2] + arms)
            artifacts.append(_draw_curve(facts, title, lines))
    for table in _lay_out(measurements):
        if table.rows:
            artifacts.append(table)
    return artifacts


def _draw_lines(measurements: Measurements, arms: Sequence[str]) -> list[CurveLine]:
    """Draw the top-1 of arms over all amounts."""
    facts = measurements.require_facts(CalibrationFacts)
    lines = []
    for arm in arms:
        metrics = []
        for amount in facts.amounts:
            metrics.append(measurements.scopes[name_scope(arm, amount.name)]["top1"])
        lines.append(CurveLine.from_metrics(arm, metrics))
    return lines


def _draw_curve(
    facts: CalibrationFacts,
    title: str,
    lines: list[CurveLine],
    section: str = SECTION,
    note: str = "",
) -> Curve:
    """Draw top-1 over the mean size of each amount."""
    return Curve(
        title,
        axis=f"{facts.unit} of the new person",
        at=list(map(attrgetter(facts.unit), facts.amounts)),
        lines=lines,
        value="top-1",
        is_logarithmic=True,
        section=section,
        note=note,
    )


def _lay_out(measurements: Measurements) -> list[Table]:
    """Lay out the tables of metrics, amounts, strengths of transfer and arms."""
    facts = measurements.require_facts(CalibrationFacts)
    names = [amount.name for amount in facts.amounts]
    amount_rows = {}
    # Scope of the gains of transfer over training from scratch.
    over_scratch = f"{TRANSFER} over {SCRATCH}"
    for name in names:
        scope_of = {arm: name_scope(arm, name) for arm in (facts.arm, over_scratch)}
        amount_rows[name] = _select_first_metrics(measurements, scope_of)
    arm_rows = {}
    for arm in facts.arms:
        scope_of = {name: name_scope(arm, name) for name in names}
        arm_rows[arm] = _select_first_metrics(measurements, scope_of)
    title = "Top-1 by amount of recording"
    tables = [tabulate_rows(title, make_rows(amount_rows), "amount", section=SECTION)]
    # the first table already has the numbers of its arm
    if list(arm_rows) != [facts.arm]:
        title = "Top-1 of each arm"
        tables.append(tabulate_rows(title, make_rows(arm_rows), "arm", section=SECTION))

    sizes = []
    for amount in facts.amounts:
        pictures, trials = round(amount.pictures), round(amount.trials)
        sizes.append((amount.name, pictures, trials, amount.minutes))
    columns = ["amount"] + list(UNITS)
    tables.append(Table("Amounts", columns, sizes, section=SECTION))
    if TRANSFER in facts.arms:
        pulls = []
        for model, choice in facts.strength.items():
            pulls.append((model, *map(choice.pulls.get, names)))
        note = render("calibration.txt", facts=facts)
        columns = ["model"] + names
        tables.append(
            Table("Pull of transfer", columns, pulls, section=SECTION, note=note)
        )
    descriptions = [(arm, *description) for arm, description in facts.arms.items()]
    columns = ["arm", "of the new person", "protocol in MOABB", "what it is"]
    tables.append(Table("Arms", columns, descriptions, section=SECTION))
    return tables


def _select_first_metrics(
    measurements: Measurements, scope_of: Mapping[str, str]
) -> dict[str, Metric]:
    """Return the first metric of each scope, by its heading. Skip missing scopes."""
    row = {}
    for heading, scope_name in scope_of.items():
        metrics = measurements.scopes.get(scope_name)
        if metrics:
            metric = next(iter(metrics.values()))
            row[heading] = replace(metric, name=heading, pool=None)
    return row
