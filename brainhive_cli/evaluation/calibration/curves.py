"""Curves of calibration over people and draws: metrics, the amount that suffices, tables and figures."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.artifacts import Curve, Line
from brainhive_cli.core.files import portable
from brainhive_cli.core.measurements import (
    ALL,
    TRIALS_TOGETHER,
    Measurements,
    Metric,
    by_name,
    extend_protocol,
    interval_text,
    scope,
)
from brainhive_cli.core.set_up import SET_UP
from brainhive_cli.core.tables import Table, number
from brainhive_cli.evaluation.calibration import amounts as of_amounts
from brainhive_cli.evaluation.calibration.job import FIRST_DAY, LAST_DAY, TEST, Job
from brainhive_cli.evaluation.calibration.measure import ABSENT, Part, list_arms
from brainhive_cli.evaluation.calibration.strengths import Choice
from brainhive_cli.measurement.ranks import summarise
from brainhive_cli.measurement.statistics import measure, ratio_of_means
from brainhive_cli.reports.page import FINDING
from brainhive_cli.training.alignment.few_shot import (
    FEWEST_PICTURES,
    PERMUTED_SCRATCH,
    PERMUTED_TRANSFER,
    SCRATCH,
    SUBJECT_LAYER,
    TRANSFER,
    ZERO_SHOT,
)
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.tested_pictures import describe_tested

EVERYTHING = "everything"
"""Name of the amount of all that a person has."""
MEASURED = ("top1", "top5", "mrr")
GAIN = "top1_gain"
"""Metric: top-1 of an arm less that of another one, on the same recordings."""
ENOUGH = 0.9
"""Share of the score with everything that the headline asks for."""
UNLABELLED, LABELLED = "TRAIN_AND_TARGET_UNLABELED", "TRAIN_AND_TARGET_LABELED"
"""Protocols of MOABB's `CrossSubjectMode`, without their shares, next to `TRAIN`."""
ABOUT = {
    ZERO_SHOT: ("nothing", "TRAIN", "the model of other people as it is"),
    SUBJECT_LAYER: ("signals and labels", LABELLED, "a mixing of channels before the frozen model"),
    TRANSFER: (
        "signals and labels",
        LABELLED,
        "signals aligned, then fine-tuning with a pull back to the model (train.start_pull)",
    ),
    "fine-tuning": ("signals and labels", LABELLED, "all weights go on from the model, without a pull"),
    SCRATCH: ("signals and labels", "none: no other people", "the same architecture from random weights"),
    PERMUTED_TRANSFER: ("signals and wrong labels", "control", "transfer; falls below zero-shot"),
    PERMUTED_SCRATCH: ("signals and wrong labels", "control", "scratch; at chance"),
}
"""What each arm is given of a new person, MOABB's name of that, and what it is."""
SECTION = "Calibration"


@dataclass(frozen=True)
class Results:
    """Ranks of all models, persons and draws.

    Attributes:
        job: The calibration.
        parts: By model and person, and by draw.
    """

    job: Job
    parts: Mapping[tuple[Cell, int], Part]

    @property
    def arms(self) -> list[str]:
        """List the arms that were measured of everybody."""
        missing = {arm for part in self.parts.values() for arm in part.missing}
        return [arm for arm in list_arms(self.job.spec) if arm not in missing]

    def ranks(self, arm: str, column: int, tested: str) -> list[NDArray[np.int64]]:
        """Give the ranks of an arm after an amount: [S, N] of S models and draws, one array a person."""
        row = list_arms(self.job.spec).index(arm)
        by_person: dict[int, list[NDArray[np.int64]]] = {subject: [] for subject in self.job.people}
        for (cell, _), part in self.parts.items():
            ranks = part.ranks[tested][row, column]
            if (ranks != ABSENT).all():
                by_person[cell.tested_on[0]].append(ranks)
        return [np.stack(ranks) for ranks in by_person.values()]

    def sizes(self, column: int) -> NDArray[np.float64]:
        """Average pictures, trials and minutes (NaN where not known) of an amount: [3]."""
        return np.asarray(np.mean([part.sizes[column] for part in self.parts.values()], axis=0))

    def seconds(self, arm: str, column: int) -> float:
        """Average the seconds of processor time that an arm took."""
        row = list_arms(self.job.spec).index(arm)
        taken = [part.seconds[row, column] for part in self.parts.values()]
        return float(np.mean([value for value in taken if value] or [0.0]))


def name_amount(amount: float, unit: str) -> str:
    """Name an amount, as `50 pictures`."""
    if amount == of_amounts.ALL:
        return EVERYTHING
    return f"{amount:g} {unit if amount != 1 else unit.removesuffix('s')}"


def conclude(results: Results, choices: Mapping[str, Choice]) -> tuple[Measurements, list[Any]]:
    """Describe all arms and amounts over people and draws.

    Args:
        results: All ranks.
        choices: Strength of transfer by the cell's name and person.

    Returns:
        Measurements, and the artifacts of a page.
    """
    job, spec = results.job, results.job.spec
    main = LAST_DAY if spec.days == "next" else TEST
    protocol, seeds = job.describe_protocol(), job.seeds
    names = [name_amount(amount, spec.unit) for amount in job.amounts]
    arms = results.arms

    # metrics of each arm after each amount
    pool = len(next(iter(job.people.values())).image_ids)
    context: Any = {"split": "test", "protocol": protocol, "seeds": seeds}
    scopes: dict[str, Mapping[str, Metric]] = {}
    for arm in arms:
        # an arm that decodes test trials together is stamped
        stamp = [TRIALS_TOGETHER] if any(arm in part.together for part in results.parts.values()) else []
        arm_context = context | {"protocol": extend_protocol(protocol, stamp)}
        for column, name in enumerate(names):
            if arm == ZERO_SHOT and column:
                continue
            ranks = results.ranks(arm, column, main)
            metrics = summarise(ranks, pool, items=job.items, only=MEASURED, **arm_context)
            scopes[arm if arm == ZERO_SHOT else scope(arm, name)] = by_name(metrics)

    # paired gains of transfer, and the drift from the first session to the last
    for column, name in enumerate(names):
        for other in (ZERO_SHOT, SCRATCH) if TRANSFER in arms else ():
            if other in arms:
                pair = [results.ranks(arm, column, main) for arm in (TRANSFER, other)]
                gains = [_hits(ours) - _hits(theirs) for ours, theirs in zip(*pair, strict=True)]
                scopes[scope(f"{TRANSFER} over {other}", name)] = {GAIN: _measure_gain(job, gains, context)}
        if main == LAST_DAY:
            days = [
                results.ranks(arms[-1] if TRANSFER not in arms else TRANSFER, column, day)
                for day in (LAST_DAY, FIRST_DAY)
            ]
            drift = [_hits(last) - _hits(first) for last, first in zip(*days, strict=True)]
            scopes[scope("drift", name)] = {GAIN: _measure_gain(job, drift, context)}

    # the arm that a reader asks for, each person by it, and how much suffices
    headline = TRANSFER if TRANSFER in arms else arms[-1]
    scopes[ALL] = scopes.get(scope(headline, EVERYTHING), next(iter(scopes.values())))
    cells: dict[str, dict[str, Any]] = {}
    last = results.ranks(headline, len(names) - 1, main)
    for index, (subject, ranks) in enumerate(zip(job.people, last, strict=True)):
        name = f"sub-{subject:02d}"
        only = job.items.where([np.full(len(ids), row == index) for row, ids in enumerate(job.items.ids)])
        scopes[name] = by_name(summarise([ranks], pool, items=only, only=MEASURED, **context))
        cells[name] = {"subject": subject}
    shares = share_of_everything(results, headline, main)

    align = job.align
    notes: dict[str, Any] = {
        "run": portable(str(align.folder.path)),
        "runs": [align.name],
        "dataset": align.dataset.name,
        "mode": align.mode,
        "protocol": protocol,
        "caveats": align.caveats("test"),
        **describe_tested([align.tested_pictures("test")], align.signal_warnings),
        SET_UP: align.set_up("test"),
        "cells": cells,
        "finding": state_finding(results, headline, shares, scopes),
        "arms": {arm: describe_arm(arm, spec.alignments) for arm in arms},
        "amounts": [
            {"name": name, **dict(zip(("pictures", "trials", "minutes"), _plain(sizes), strict=True))}
            for name, sizes in ((name, results.sizes(column)) for column, name in enumerate(names))
        ],
        "share_of_everything": {name: [*share] for name, share in zip(names, shares, strict=True)},
        "strength": {name: _describe_choice(choice, spec.unit) for name, choice in choices.items()},
        "pictures_left_out": {str(subject): person.pool.dropped for subject, person in job.people.items()},
        "epochs": f"{spec.epochs or job.training.train.epochs}, "
        + ("set by the recipe of calibrate" if spec.epochs else "those of the run, chosen on other people")
        + "; the last one is kept",
    }
    missing = {arm: reason for part in results.parts.values() for arm, reason in part.missing.items()}
    measured = Measurements(scopes, missing, notes)
    return measured, draw(results, scopes, shares, headline, main, choices)


def _hits(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Average top-1 over models and draws: [N]."""
    return np.asarray((ranks == 1).mean(0, dtype=np.float64))


def _measure_gain(job: Job, gains: Sequence[NDArray[np.float64]], context: Mapping[str, Any]) -> Metric:
    limits = {"limits": (-1.0, 1.0), "is_share": False, "chance": 0.0}
    return measure(GAIN, gains, items=job.items, **limits, **context)  # type: ignore[arg-type]


def share_of_everything(
    results: Results, arm: str, tested: str
) -> list[tuple[float, float | None, float | None]]:
    """Divide top-1 after each amount by that with everything: share and its interval over people."""

    def by_person(column: int) -> NDArray[np.float64]:
        return np.array([float(_hits(ranks).mean()) for ranks in results.ranks(arm, column, tested)])

    everything = by_person(len(results.job.amounts) - 1)
    return [ratio_of_means(by_person(column), everything) for column in range(len(results.job.amounts))]


def state_finding(
    results: Results,
    arm: str,
    shares: Sequence[tuple[float, float | None, float | None]],
    scopes: Mapping[str, Mapping[str, Metric]],
) -> str:
    """State in one sentence how much of a new person suffices."""
    # the first amount that reaches the share, or else the largest one
    job = results.job
    names = [name_amount(amount, job.spec.unit) for amount in job.amounts]
    column = next((index for index, (share, *_) in enumerate(shares) if share >= ENOUGH), len(shares) - 1)
    pictures, _, minutes = results.sizes(len(names) - 1)
    full = f"{pictures:,.0f} pictures" + ("" if np.isnan(minutes) else f", {minutes:.1f} minutes")
    if column == len(shares) - 1:
        column = max(0, column - 1)
    share, low, high = shares[column]
    interval = "" if low is None or high is None else f" ({100 * low:.0f} to {100 * high:.0f} %)"
    words = f"{names[column]} reach {100 * share:.0f} %{interval} of top-1 with everything ({full}) by {arm}"
    if ZERO_SHOT in scopes and ALL in scopes:
        zero, whole = (scopes[name]["top1"].value for name in (ZERO_SHOT, ALL))
        words += f"; without any recording top-1 is {number(zero)}, with everything {number(whole)}"
    people = len(job.people)
    return (
        f"{words}: {people} new {'people' if people > 1 else 'person'}, {scopes[ALL]['top1'].pool} pictures."
    )


def describe_arm(arm: str, alignments: Sequence[Any]) -> tuple[str, str, str]:
    """Say what an arm is given of a new person, how MOABB calls that, and what it is."""
    if arm in ABOUT:
        return ABOUT[arm]
    config = next(each for each in alignments if each.kind == arm)
    about = (sys.modules[type(config).__module__].__doc__ or "").partition("\n")[0]
    is_paired = getattr(config, "is_paired", False)
    return ("signals and labels", LABELLED, about) if is_paired else ("signals", UNLABELLED, about)


def _describe_choice(choice: Choice, unit: str) -> dict[str, Any]:
    pulls = {
        name_amount(amount, unit): "zero-shot" if pull is None else pull
        for amount, pull in choice.pulls.items()
    }
    scores = {name_amount(amount, unit): dict(scores) for amount, scores in choice.scores.items()}
    return {"pulls": pulls, "chosen": choice.words, "mrr": scores}


def _with_interval(value: float, low: float | None, high: float | None) -> str:
    """Write a value with its interval: an artifact's cell is plain."""
    return f"{value:.3f}" if low is None else f"{value:.3f} ({interval_text(low, high, 2)})"


def _plain(sizes: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 2) for value in sizes]


def draw(
    results: Results,
    scopes: Mapping[str, Mapping[str, Metric]],
    shares: Sequence[tuple[float, float | None, float | None]],
    headline: str,
    tested: str,
    choices: Mapping[str, Choice],
) -> list[Any]:
    """Draw the curves and lay out the tables of a page."""
    job, arms = results.job, results.arms
    unit, names = job.spec.unit, [name_amount(amount, job.spec.unit) for amount in job.amounts]
    everything = results.sizes(len(names) - 1)[("pictures", "trials", "minutes").index(unit)]
    at = [everything if amount == of_amounts.ALL else amount for amount in job.amounts]

    def line(arm: str, columns: Sequence[int]) -> Line:
        """Draw top-1 of an arm over amounts, with intervals."""
        metrics = [scopes[ZERO_SHOT if arm == ZERO_SHOT else scope(arm, names[c])]["top1"] for c in columns]
        low, high = [metric.low for metric in metrics], [metric.high for metric in metrics]
        return Line(arm, [metric.value for metric in metrics], low, high, metrics[0].chance)

    # the arms that a reader compares, all of them, and each person
    axis, columns = f"{unit} of the new person", range(len(names))
    shared: Any = {"value": "top-1", "is_logarithmic": True}
    first = [arm for arm in (headline, ZERO_SHOT, SCRATCH) if arm in arms]
    controls = [arm for arm in (PERMUTED_TRANSFER, PERMUTED_SCRATCH) if arm in arms]
    others = [arm for arm in arms if arm not in (*first, *controls)]
    note = f"Everything is {everything:g} {unit}. Intervals: {scopes[ALL]['top1'].interval}."
    curves = [
        Curve(
            "Top-1 after recordings of a new person",
            axis,
            at,
            [line(arm, columns) for arm in first],
            section=FINDING,
            note=note,
            **shared,
        )
    ]
    for title, chosen in (("Further ways to calibrate", others), ("Controls: wrong labels", controls)):
        if chosen:
            lines = [line(arm, columns) for arm in chosen]
            curves.append(Curve(title, axis, at, lines, section=SECTION, **shared))
    by_person = []
    values = [results.ranks(headline, column, tested) for column in columns]
    for index, subject in enumerate(job.people):
        by_person.append(Line(f"sub-{subject:02d}", [float(_hits(each[index]).mean()) for each in values]))
    curves.append(Curve(f"Each person: top-1 by {headline}", axis, at, by_person, section=SECTION, **shared))

    # arms by amounts, amounts, and what arms are
    rows = []
    for arm in arms:
        cells: list[Any] = []
        for name in names:
            metric = scopes[ZERO_SHOT if arm == ZERO_SHOT else scope(arm, name)]["top1"]
            cells.append(_with_interval(metric.value, metric.low, metric.high))
        rows.append([arm, *cells])
    table = Table("Top-1 of every arm", ["arm", *names], rows, section=SECTION)
    return [
        *curves,
        table,
        _amount_table(results, scopes, shares, names, choices),
        _arm_table(results, names),
    ]


def _amount_table(
    results: Results,
    scopes: Mapping[str, Mapping[str, Metric]],
    shares: Sequence[tuple[float, float | None, float | None]],
    names: Sequence[str],
    choices: Mapping[str, Choice],
) -> Table:
    """Lay out how much each amount is, what it reaches, and how strongly transfer pulls."""
    job, rows = results.job, []
    for column, (name, amount, (share, low, high)) in enumerate(zip(names, job.amounts, shares, strict=True)):
        pictures, trials, minutes = results.sizes(column)
        reach = _with_interval(share, low, high)
        pulls = sorted(
            {
                "zero-shot" if (pull := each.pulls.get(amount)) is None else f"{pull:g}"
                for each in choices.values()
            }
        )
        if pictures < FEWEST_PICTURES:
            pulls = ["zero-shot"]
        gains: list[Any] = []
        for other in (ZERO_SHOT, SCRATCH):
            metric = scopes.get(scope(f"{TRANSFER} over {other}", name), {}).get(GAIN)
            gains.append("–" if metric is None else _with_interval(metric.value, metric.low, metric.high))
        minutes_text = "–" if np.isnan(minutes) else f"{minutes:.1f}"
        rows.append([name, round(pictures), round(trials), minutes_text, reach, *gains, ", ".join(pulls)])
    columns = ["amount", "pictures", "trials", "minutes", "share of everything"]
    columns += ["over zero-shot", "over scratch", "pull"]
    first = next(iter(choices.values()), None)
    note = f"The strength of transfer was {first.words}." if first else ""
    return Table("Amounts", columns, rows, section=SECTION, note=note)


def _arm_table(results: Results, names: Sequence[str]) -> Table:
    """Say what each arm is given, how MOABB calls that, and how long it takes."""
    rows = [
        [
            arm,
            *describe_arm(arm, results.job.spec.alignments),
            f"{results.seconds(arm, len(names) - 1):.2f} s",
        ]
        for arm in results.arms
    ]
    columns = [
        "arm",
        "of the new person",
        "protocol in MOABB",
        "what it is",
        "processor time with everything",
    ]
    return Table("Arms", columns, rows, section=SECTION)
