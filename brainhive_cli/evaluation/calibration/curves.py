"""Curves of calibration over people and draws: metrics of all arms, gains, what
suffices, the page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core import documents
from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.artifacts import Artifact, Curve, CurveLine
from brainhive_cli.core.facts import (
    SIGNIFICANCE_LEVEL,
    Amount,
    CalibrationFacts,
    CellFacts,
    Strength,
)
from brainhive_cli.core.measurements import (
    ALL,
    Measurements,
    Metric,
    find_caveats,
    index_by_name,
    scope,
)
from brainhive_cli.core.tables import Table
from brainhive_cli.data.stores.learned import summarise_tested_pictures
from brainhive_cli.data.stores.target_store import get_stimuli_and_pixels
from brainhive_cli.evaluation.calibration.amounts import EVERYTHING, UNITS
from brainhive_cli.evaluation.calibration.job import Job
from brainhive_cli.evaluation.calibration.measure import Part, keep_arms
from brainhive_cli.measurement.comparison import crossed_t_test
from brainhive_cli.measurement.ranks import summarise_ranks
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.measurement.units import Items
from brainhive_cli.reports.page import FINDING
from brainhive_cli.reports.tables import metric_table, render
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.trained.few_shot import (
    PERMUTED_SCRATCH,
    PERMUTED_TRANSFER,
    SCRATCH,
    TRANSFER,
    ZERO_SHOT,
)

MEASURED = ("top1", "top5", "mrr")
GAIN = "top1_gain"
"""Metric: top-1 less that of another arm."""
ENOUGH = 0.9
"""Share of the score with everything that the finding asks for."""
FEWEST_PEOPLE = 3
"""People from which statements on amounts are made: two tell next to nothing of people
in general.
"""
OVER_SCRATCH = f"{TRANSFER} over {SCRATCH}"
"""Scope of the gains of transfer over training from scratch."""
ABOUT = documents.read(
    Path(__file__).with_name("arms.json"), dict[str, tuple[str, str, str]]
)
"""What arms are given of a new person, MOABB's names of that (`CrossSubjectMode`), and
what they are.
"""
UNDESCRIBED = "signals, perhaps labels", "not known", "an alignment of another package"
"""The same of an alignment that is not in this table."""
SECTION = "Calibration"
FURTHER = {
    "signals": "Alignments without labels",
    "signals and labels": "Other ways with labels",
    "signals, wrong labels": "Controls: wrong labels",
}
"""Titles of the curves of further arms, by what these are given of a new person."""
Scopes = dict[str, dict[str, Metric]]


def conclude(
    job: Job, parts: Mapping[tuple[Cell, int], Part], strength: Mapping[str, Strength]
) -> Measurements:
    """Measure all arms and amounts over people and draws, and state the facts.

    Args:
        job: The calibration.
        parts: Ranks by model and person, and by draw.
        strength: Strength of transfer by model and person.

    Raises:
        BrainhiveError: if no arm was measured of everybody.
    """
    # arms that were measured of everybody
    missing = {
        arm: reason for part in parts.values() for arm, reason in part.missing.items()
    }
    arms = keep_arms(job.recipe, missing)
    people = [
        [part for (cell, _), part in parts.items() if cell.tested_on == (one,)]
        for one in job.people
    ]
    names = [*job.amounts]

    # ranks [S, N] of S models and draws, one array a person, of every arm after each
    # amount; everything is measured in the first draw alone, so later ones may lack it
    headline = choose_headline(arms)
    ranks = {
        key: [
            np.stack([part.ranks[key] for part in drawn if key in part.ranks])
            for drawn in people
        ]
        for key in product(arms, names)
    }

    # every arm after every amount, which zero-shot does not depend on; arms that decode
    # test trials together are stamped
    together = {arm for part in parts.values() for arm in part.together}
    protocols = {arm: job.describe_protocol(arm in together) for arm in arms}
    # all people are tested on the same pictures
    pool = len(next(iter(job.people.values())).rows)
    seeds = sorted({cell.seed for cell in job.cells})
    context: Any = {"split": "test", "seeds": seeds, "items": job.items}
    scopes: Scopes = {ALL: {}}  # which stays empty where only controls were measured
    for (arm, name), groups in ranks.items():
        if scope_of(arm, name) not in scopes:
            metrics = summarise_ranks(
                groups, pool, metric_names=MEASURED, protocol=protocols[arm], **context
            )
            scopes[scope_of(arm, name)] = index_by_name(metrics)

    # paired gains of transfer over other arms
    hits = {
        key: [(each == 1).mean(0, dtype=np.float64) for each in groups]
        for key, groups in ranks.items()
    }
    gain_scale: Any = {
        "limits": (-1.0, 1.0),
        "is_share": False,
        "chance": 0.0,
        **context,
    }
    gains: dict[tuple[str, str], list[Float64]] = {}
    for other, name in product((ZERO_SHOT, SCRATCH), names):
        if {TRANSFER, other} <= protocols.keys():
            pairs = zip(hits[TRANSFER, name], hits[other, name], strict=True)
            gained = [transferred - hit for transferred, hit in pairs]
            gains[other, name] = gained
            # with the stamps of either
            protocol = max(protocols[TRANSFER], protocols[other], key=len)
            label = scope(f"{TRANSFER} over {other}", name)
            scopes[label] = {
                GAIN: measure(GAIN, gained, protocol=protocol, **gain_scale)
            }

    better = None
    if {TRANSFER, SCRATCH} <= {*arms}:
        better = find_better([gains[SCRATCH, name] for name in names], job.items)

    # the arm of the finding: all people together, what suffices, and each person
    protocol = job.describe_protocol()
    cells = dict[str, CellFacts]()
    top1 = dict[str, list[float]]()
    sufficient: dict[str, Any] = {}
    if headline:
        everything = scopes[scope_of(headline, EVERYTHING)]
        protocol = context["protocol"] = (
            f"{protocols[headline]}, {headline}, {EVERYTHING}"
        )
        scopes[ALL] = {
            key: replace(metric, protocol=protocol)
            for key, metric in everything.items()
        }
        hits_of_amount = {name: hits[headline, name] for name in names}
        sufficient = find_sufficient(hits_of_amount, everything["top1"], job.items)
        for row, (subject, group) in enumerate(
            zip(job.people, ranks[headline, EVERYTHING], strict=True)
        ):
            # only items of this person
            is_own = [
                np.full(len(ids), row == other)
                for other, ids in enumerate(job.items.ids)
            ]
            person = f"sub-{subject:02d}"
            context["items"] = job.items.select(is_own)
            scopes[person] = index_by_name(
                summarise_ranks([group], pool, metric_names=MEASURED, **context)
            )
            cells[person] = CellFacts(subject=subject)
            top1[person] = [
                float(values[row].mean()) for values in hits_of_amount.values()
            ]

    # how much was recorded, how models were trained and from whom
    amounts = []
    for name in names:
        pictures, trials, minutes = (
            np.mean([part.sizes[name] for part in parts.values()], 0).round(2).tolist()
        )

        # JSON has no NaN
        known = None if np.isnan(minutes) else minutes
        amounts.append(
            Amount(name=name, pictures=pictures, trials=trials, minutes=known)
        )
    counts = [len(model.cell.trained_on) for model in job.align.models]
    seen, warnings = summarise_tested_pictures(
        [job.align.compare_pictures("test")], job.align.signal_warnings
    )
    facts = CalibrationFacts(
        **job.align.describe("test"),
        **sufficient,
        protocol=protocol,
        caveats=find_caveats(protocol),
        cells=cells,
        people=top1,
        better=better,
        seen_in_training=seen,
        warnings=warnings,
        arm=headline,
        arms={arm: ABOUT.get(arm, UNDESCRIBED) for arm in arms},
        unit=job.unit,
        amounts=amounts,
        strength=dict(strength),
        trained_on=(min(counts), max(counts)),
        seen_share=share_seen(job),
        epochs=job.epochs,
        pictures_left_out={
            str(subject): person.dropped for subject, person in job.people.items()
        },
    )
    return Measurements(scopes, missing, facts)


def choose_headline(arms: Sequence[str]) -> str:
    """Choose the arm of the finding: transfer, else the last real one, scratch only
    where it is alone.

    Controls are never chosen; empty where there is nothing else.
    """
    # controls learn from wrong labels
    real = [arm for arm in arms if arm not in (PERMUTED_TRANSFER, PERMUTED_SCRATCH)]
    candidates = [arm for arm in real if arm != SCRATCH] or real
    return TRANSFER if TRANSFER in candidates else "".join(candidates[-1:])


def scope_of(arm: str, name: str) -> str:
    """Name the scope of an arm after an amount, which zero-shot does not depend on."""
    return arm if arm == ZERO_SHOT else scope(arm, name)


def find_sufficient(
    hits: Mapping[str, Sequence[Float64]], everything: Metric, items: Items
) -> dict[str, Any]:
    """Find the amount that surely suffices, by top-1 less a share of that with
    everything.

    Args:
        hits: Hits [N] of each person, by amount; everything is last.
        everything: Top-1 with everything; no amount suffices for one that is not above
            chance.
        items: The items.

    Returns:
        Facts.
    """
    if not (everything.low or 0.0) > (everything.chance or 0.0):
        return {}
    facts: dict[str, Any] = {"is_above_chance": True}
    *lower, _ = hits
    if lower:
        surplus = []
        for name in lower if len(hits[EVERYTHING]) >= FEWEST_PEOPLE else ():
            pairs = zip(hits[name], hits[EVERYTHING], strict=True)
            # an amount suffices, for people in general, where this is surely not below
            # 0
            surplus.append(
                crossed_t_test([few - ENOUGH * most for few, most in pairs], items)[1:]
            )
        facts["suffices"] = find_range(surplus) if surplus else None
        facts["lead"] = lower[
            min(facts["suffices"][1], len(lower) - 1) if surplus else -1
        ]
    return facts


def find_better(
    gains: Sequence[Sequence[Float64]], items: Items
) -> tuple[int, int] | None:
    """Find up to which amount transfer beats training from scratch, and from which on
    it does not, for people in general.

    People differ by what was recorded of them, too, so that a draw of recordings counts
    as noise. The first statement is chosen among all amounts, and p is corrected for
    that by Holm's method. The second begins with the largest amount, and goes on to
    smaller ones as long as each is sure, which needs no correction.

    Args:
        gains: Top-1 of transfer less that of scratch: of each amount, ascending, and
            each person, [N].
        items: The items.

    Returns:
        How many of the first amounts reach up to the last one with a gain; the index
        from which on there is none, the number of amounts where that is not shown. None
        for fewer than three people.
    """
    count = len(gains)
    if len(gains[0]) < FEWEST_PEOPLE:
        return None

    # the smallest p is multiplied by the number of tests, the next by one less
    tested = [crossed_t_test(gained, items) for gained in gains]
    p = np.array([1.0 if p is None else p for p, _, _ in tested])
    ascending = p.argsort()
    is_sure = np.empty(count, bool)
    corrected = np.maximum.accumulate(p[ascending] * np.arange(count, 0, -1))
    is_sure[ascending] = corrected < SIGNIFICANCE_LEVEL
    gained = [np.mean([each.mean() for each in people]) > 0 for people in gains]
    better = max(np.flatnonzero(is_sure & gained), default=-1) + 1

    # from the largest amount down
    none = count
    while none and (high := tested[none - 1][2]) is not None and high <= 0:
        none -= 1
    return int(better), none


def find_range(ends: Sequence[tuple[float | None, float | None]]) -> tuple[int, int]:
    """Find between which amounts a curve reaches 0, by the intervals of all amounts,
    ascending.

    Args:
        ends: Lower and upper end at each amount; an end that is None is unlimited.

    Returns:
        How many of the first amounts reach up to one that is surely below, and the
        index from which all are surely not below: the number of amounts where the last
            one is not.
    """
    # an unlimited end is never sure
    below = [
        index for index, (_, high) in enumerate(ends) if high is not None and high < 0
    ]
    unsure = [
        index for index, (low, _) in enumerate(ends) if low is None or not low >= 0
    ]
    return max(below, default=-1) + 1, max(unsure, default=-1) + 1


def share_seen(job: Job) -> float:
    """Measure the share of the new persons' pictures that the people whom models
    learned from saw, too.
    """
    shares = []
    for model in job.align.models:
        store, pixels = get_stimuli_and_pixels(model.open_stores("train"))
        # pictures are compared by names and pixels: copies count, too
        is_common = model.learned.pictures.find_members(
            job.align.dataset.pictured_as,
            store.image_ids,
            pixels,
            job.align.get_pixel_comparison("train"),
        )
        shares.append(
            is_common[job.people[model.cell.tested_on[0]].trials.stimulus].mean()
        )
    return float(np.mean(shares))


def draw(measured: Measurements) -> list[Artifact]:
    """Draw the curves, and lay out the tables."""
    # top-1 after each amount; everything lies at its mean over people
    facts = measured.require_facts(CalibrationFacts)
    scopes = measured.scopes
    names = [amount.name for amount in facts.amounts]
    arm = facts.arm
    at = [getattr(amount, facts.unit) for amount in facts.amounts]
    axis = f"{facts.unit} of the new person"

    def line(label: str) -> CurveLine:
        return CurveLine.from_metrics(
            label, [scopes[scope_of(label, name)]["top1"] for name in names]
        )

    def curve(
        title: str, lines: list[CurveLine], section: str = SECTION, note: str = ""
    ) -> Curve:
        return Curve(
            title,
            axis,
            at,
            lines,
            "top-1",
            is_logarithmic=True,
            section=section,
            note=note,
        )

    # arms that a reader compares and each person; further arms next to one that has its
    # colour above
    drawn = list[Artifact]()
    first = [label for label in (arm, ZERO_SHOT, SCRATCH) if label in facts.arms]
    if arm:
        note = render("calibration.txt", facts=facts, top1=measured.overall["top1"])
        lines = [*map(line, dict.fromkeys(first))]
        drawn.append(
            curve("Top-1 after recordings of a new person", lines, FINDING, note)
        )

    # of one person it would be the curve above
    if len(facts.people) > 1:
        lines = [CurveLine(name, values) for name, values in facts.people.items()]
        drawn.append(curve(f"Each person, by {arm}", lines, FINDING))
    for profile, title in FURTHER.items():
        # arms by what they need of the person; those of the first figure are left out
        further = [
            label
            for label, about in facts.arms.items()
            if about[0] == profile and label not in first
        ]
        if further:
            drawn.append(curve(title, [*map(line, [*first[:2], *further])]))

    # the arm of the finding with its gains, and every arm: the first metric of each
    # scope
    def row(labels: Mapping[str, str]) -> dict[str, Metric]:
        # an amount or arm that was not measured has an empty cell
        present = {
            heading: [*scopes.get(label, {}).values()][:1]
            for heading, label in labels.items()
        }
        return {
            name: replace(one, name=name, pool=None)
            for name, metrics in present.items()
            for one in metrics
        }

    compared = arm, OVER_SCRATCH
    amounts = {
        name: row({label: scope_of(label, name) for label in compared})
        for name in names
    }
    arms = {
        label: row({name: scope_of(label, name) for name in names})
        for label in facts.arms
    }
    tables = [
        metric_table("Top-1 by amount", amounts, "amount", section=SECTION),
        metric_table("Top-1 of every arm", arms, "arm", section=SECTION),
    ]

    # how much was recorded, how strong transfer was, and what arms are
    sizes = [
        (one.name, round(one.pictures), round(one.trials), one.minutes)
        for one in facts.amounts
    ]
    tables.append(Table("Amounts", ["amount", *UNITS], sizes, section=SECTION))
    pulls = [
        (model, *map(choice.pulls.get, names))
        for model, choice in facts.strength.items()
    ]
    # without transfer there is no strength to show
    if TRANSFER in facts.arms:
        note = render("calibration.txt", facts=facts)
        tables.append(
            Table(
                "Pull of transfer", ["model", *names], pulls, section=SECTION, note=note
            )
        )
    about = [(label, *words) for label, words in facts.arms.items()]
    columns = ["arm", "of the new person", "protocol in MOABB", "what it is"]
    tables.append(Table("Arms", columns, about, section=SECTION))
    return [*drawn, *(table for table in tables if table.rows)]
