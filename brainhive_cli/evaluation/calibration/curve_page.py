"""Page of calibration: the finding, curves of all arms, tables and notes."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from brainhive_cli.core.artifacts import Artifact, Curve, Line
from brainhive_cli.core.facts import CalibrationFacts, Cell
from brainhive_cli.core.measurements import (
    ALL,
    Measurements,
    Metric,
    by_name,
    find_caveats,
    interval_text,
    scope,
)
from brainhive_cli.core.tables import Table, brief, number
from brainhive_cli.data.stores.target_store import first_with_pixels
from brainhive_cli.evaluation.calibration.amounts import ALL as EVERY_TRIAL
from brainhive_cli.evaluation.calibration.curves import (
    CONTROLS,
    DRIFT,
    ENOUGH,
    EVERYTHING,
    FEWEST_PEOPLE,
    GAIN,
    MEASURED,
    SHARE,
    Results,
    check_controls,
    find_range,
)
from brainhive_cli.evaluation.calibration.job import FIRST_DAY, LAST_DAY, Job
from brainhive_cli.evaluation.calibration.strengths import Choice
from brainhive_cli.measurement.ranks import summarise
from brainhive_cli.reports.page import FINDING
from brainhive_cli.training.alignment.few_shot import (
    FEWEST_PICTURES,
    FINE_TUNING,
    PERMUTED_SCRATCH,
    PERMUTED_TRANSFER,
    SCRATCH,
    SUBJECT_LAYER,
    TRANSFER,
    ZERO_SHOT,
)
from brainhive_cli.training.alignment.tested_pictures import describe_tested

UNLABELLED, LABELLED = "TRAIN_AND_TARGET_UNLABELED", "TRAIN_AND_TARGET_LABELED"
"""Protocols of MOABB's `CrossSubjectMode`, without their shares, next to `TRAIN`."""
ABOUT = {
    ZERO_SHOT: ("nothing", "TRAIN", "the model of other people as it is"),
    SUBJECT_LAYER: ("signals and labels", LABELLED, "a mixing of channels before the frozen model"),
    TRANSFER: ("signals and labels", LABELLED, "signals aligned, then fine-tuning with a pull to the model"),
    FINE_TUNING: ("signals and labels", LABELLED, "all weights go on from the model, without a pull"),
    SCRATCH: ("signals and labels", "none: no other people", "the same architecture from random weights"),
    PERMUTED_TRANSFER: ("signals, wrong labels", "control", "transfer; falls below zero-shot"),
    PERMUTED_SCRATCH: ("signals, wrong labels", "control", "scratch; at chance"),
}
"""What each arm is given of a new person, MOABB's name of that, and what it is."""
SECTION = "Calibration"
TITLE = "Top-1 after recordings of a new person"


def conclude(results: Results, choices: Mapping[str, Choice]) -> tuple[Measurements, list[Artifact]]:
    """Describe all arms and amounts over people and draws.

    Args:
        results: All ranks.
        choices: Strength of transfer by the cell's name and person.

    Returns:
        Measurements, and the artifacts of a page.
    """
    job, names, headline, align = results.job, results.names, results.headline, results.job.align

    # metrics by scope
    protocol = f"{results.protocol_of(headline)}, {headline}, {EVERYTHING}"
    whole = results.metrics[headline][-1]
    scopes = {ALL: {key: replace(metric, protocol=protocol) for key, metric in whole.items()}}
    sessions = {FIRST_DAY: results.first_day} if results.first_day else {}
    for label, by_amount in {**results.metrics, **sessions}.items():
        for name, measured in zip(names, by_amount, strict=True):
            scopes[label if label == ZERO_SHOT else scope(label, name)] = dict(measured)
    for label, gains in results.gains.items():
        scopes |= {scope(label, name): {GAIN: gain} for name, gain in zip(names, gains, strict=True)}
    scopes |= {scope(SHARE, name): {SHARE: share} for name, share in zip(names, results.shares, strict=True)}

    # each person, with everything
    context: Any = {"split": "test", "protocol": protocol, "seeds": job.seeds, "only": MEASURED}
    ranks, pool = results.ranks(headline, results.columns[-1]), whole["top1"].pool or 0
    for row, subject in enumerate(job.people):
        only = job.items.where([np.full(len(ids), row == other) for other, ids in enumerate(job.items.ids)])
        scopes[f"sub-{subject:02d}"] = by_name(summarise([ranks[row]], pool, items=only, **context))

    # what a reader needs besides
    seen, warnings = describe_tested([align.tested_pictures("test")], align.signal_warnings)
    columns = list(zip(names, results.columns, strict=True))
    facts = CalibrationFacts(
        **align.describe("test"),
        protocol=protocol,
        caveats=find_caveats(protocol),
        seen_in_training=seen,
        warnings=[*warnings, *check_controls(results.metrics)],
        cells={f"sub-{subject:02d}": Cell(subject=subject) for subject in job.people},
        finding=state_finding(results),
        arms={arm: describe_arm(arm, job.spec.alignments) for arm in results.arms},
        amounts=[
            {"name": name}
            | {
                unit: None if np.isnan(count) else np.round(count, 2)
                for unit, count in results.sizes(column).items()
            }
            for name, column in columns
        ],
        strength={
            name: {
                "chosen": choice.words,
                "pulls": {name: choice.pulls[column] for name, column in columns},
                "mrr": {name: choice.scores[column] for name, column in columns},
            }
            for name, choice in choices.items()
        },
        source=describe_source(job),
        epochs=describe_epochs(job),
        pictures_left_out={str(subject): person.dropped for subject, person in job.people.items()},
    )
    return Measurements(scopes, results.missing, facts), draw(results, choices)


def state_finding(results: Results) -> str:
    """State how much of a new person suffices, when other people no longer help, and what a day costs."""
    # the first amount that surely reaches the share, or else the largest below everything
    job, names, headline, last = results.job, results.names, results.headline, len(results.names) - 1
    short, reached = find_range(results.surplus)
    column = max(0, min(reached if results.surplus else last, last - 1))
    top1, share = [measured["top1"] for measured in results.metrics[headline]], results.shares[column]

    # what it reaches of everything, next to no recording and to chance
    size = results.sizes(results.columns[-1])
    full = f"{size['pictures']:,.0f} pictures"
    full += "" if np.isnan(size["minutes"]) else f", {size['minutes']:.1f} minutes"
    sentence = f"{EVERYTHING.capitalize()} ({full}) gives top-1 {number(top1[-1].value)} by {headline}"
    if last:
        verb = "reaches" if job.amounts[results.columns[column]] == 1 else "reach"
        sentence = f"{names[column]} {verb} {_percent(share)} of top-1 with {EVERYTHING} ({full}) by "
        sentence += f"{headline}, {number(top1[column].value)} of {number(top1[-1].value)}"
    if ZERO_SHOT in results.metrics:
        sentence += f"; without any recording it is {number(results.metrics[ZERO_SHOT][0]['top1'].value)}"
    sentences = [f"{sentence}, by chance {brief(top1[0].chance or 0)}"]

    # the amount that suffices, that from which other people do not help, and the change over days
    if last:
        limits = [f"more than {names[short - 1]}"] if short else []
        limits += [f"at most {names[reached]}"] if reached < len(results.surplus) else []
        suffices = (
            f"{100 * ENOUGH:.0f} % of it is reached with {' and '.join(limits)} (95 %, people in general)"
        )
        if not limits:
            why = f"fewer than {FEWEST_PEOPLE} people tell nothing of others"
            why = f"{len(job.people)} people do not settle it" if results.surplus else why
            suffices = f"From which amount on {100 * ENOUGH:.0f} % is reached is not said: {why}"
        sentences.append(suffices)
    if gains := results.gains.get(f"{TRANSFER} over {SCRATCH}"):
        better, no_better = find_range([(_minus(gain.high), _minus(gain.low)) for gain in gains])
        sentence = f"not shown to be better than {SCRATCH}"
        sentence = f"better than {SCRATCH} up to {names[better - 1]}" if better else sentence
        sentence += f", and no better from {names[no_better]} on" if no_better <= last else ""
        sentences.append(f"{TRANSFER.capitalize()} is {sentence}")
    if gains := results.gains.get(DRIFT):
        change = _with_interval(gains[-1])
        sentences.append(
            f"From the {FIRST_DAY} to the {LAST_DAY} top-1 with {EVERYTHING} changes by {change}"
        )
    people = f"{len(job.people)} new {'people' if len(job.people) > 1 else 'person'}"
    return ". ".join([*sentences, f"{people}, {top1[0].pool} test pictures"]) + "."


def _minus(end: float | None) -> float | None:
    """Negate an end of an interval; None, which is unlimited, stays."""
    return None if end is None else -end


def _percent(share: Metric) -> str:
    """Write a share of the score with everything, with its interval."""
    value, low, high = (None if end is None else 100 * end for end in (share.value, share.low, share.high))
    return f"{value:.0f} %" + ("" if low is None else f" ({interval_text(low, high, 0)} %)")


def _with_interval(metric: Metric) -> str:
    """Write a value with its interval: an artifact's cell is plain."""
    interval = "" if metric.low is None else f" ({interval_text(metric.low, metric.high, 2)})"
    return f"{number(metric.value)}{interval}"


def describe_arm(arm: str, alignments: Sequence[Any]) -> tuple[str, str, str]:
    """Say what an arm is given of a new person, how MOABB calls that, and what it is."""
    if arm in ABOUT:
        return ABOUT[arm]
    config = next(each for each in alignments if each.kind == arm)
    about = (sys.modules[type(config).__module__].__doc__ or "").partition("\n")[0]
    is_paired = getattr(config, "is_paired", False)
    return ("signals and labels", LABELLED, about) if is_paired else ("signals", UNLABELLED, about)


def describe_source(job: Job) -> str:
    """Say of how many people models learned, and whether these saw the pictures of the calibration."""
    counts, shares = set(), []
    for model in job.align.models:
        counts.add(len(model.cell.trained_on))
        store, pixels = first_with_pixels(model.stores("train"))
        is_common = model.learned.pictures.contain(
            job.align.dataset.pictured_as, store.image_ids, pixels, job.align.confirm_copy("train")
        )
        shares.append(is_common[job.people[model.cell.tested_on[0]].trials.stimulus].mean())
    people = " to ".join(map(str, sorted({min(counts), max(counts)})))
    share = 100 * float(np.mean(shares))
    seen = "all" if share == 100 else "none" if share == 0 else f"{share:.0f} %"
    return f"Each model learned from {people} other people, who saw {seen} of the new person's pictures"


def describe_epochs(job: Job) -> str:
    """Say how epochs were chosen."""
    if job.training.backbone.is_closed_form:
        return "Models are fitted in closed form"
    if job.spec.epochs:
        return f"{job.spec.epochs} epochs, as the recipe of calibrate says; the last one is kept"
    train = job.training.train
    epochs = sum(stage.epochs for stage in train.stages) or train.epochs
    return f"{epochs} epochs and the learning rate of the run, chosen on other people; the last epoch is kept"


def draw(results: Results, choices: Mapping[str, Choice]) -> list[Artifact]:
    """Draw the curves, and lay out the tables."""
    # positions on the axis; everything lies at its mean over people
    job, unit, headline, metrics = results.job, results.job.spec.unit, results.headline, results.metrics
    amounts = [job.amounts[column] for column in results.columns]
    whole = results.sizes(results.columns[-1])
    at = [round(whole[unit], 1) if amount == EVERY_TRIAL else amount for amount in amounts]
    shared: Any = {"value": "top-1", "is_logarithmic": True}

    # the arms that a reader compares, days, and arms of each protocol next to one that has its colour above
    first = [arm for arm in (headline, ZERO_SHOT, SCRATCH) if arm in metrics]
    rest = [arm for arm in metrics if arm not in (*first, *CONTROLS)]
    protocols = {arm: describe_arm(arm, job.spec.alignments)[1] for arm in rest}
    groups = {
        "Alignments without labels": [arm for arm in rest if protocols[arm] == UNLABELLED],
        "Other ways with labels": [arm for arm in rest if protocols[arm] == LABELLED],
    }
    lines = {TITLE: {arm: metrics[arm] for arm in first}}
    if results.first_day:
        days = {LAST_DAY: metrics[headline], FIRST_DAY: results.first_day}
        lines[f"From one day to another, by {headline}"] = days
    lines |= {
        title: {arm: metrics[arm] for arm in (headline, *arms)} for title, arms in groups.items() if arms
    }
    if any(arm in metrics for arm in CONTROLS):
        controls = (PERMUTED_TRANSFER, ZERO_SHOT, PERMUTED_SCRATCH)
        lines["Controls: wrong labels"] = {arm: metrics[arm] for arm in controls if arm in metrics}

    # a curve for each group, then a line for each person
    interval = metrics[headline][-1]["top1"].interval
    note = f"The last point is everything. Bands: 95 % intervals, {interval}. {describe_source(job)}."
    axis, curves = f"{unit} of the new person", []
    for title, by_arm in lines.items():
        drawn = [
            Line.of(arm, [measured["top1"] for measured in by_amount]) for arm, by_amount in by_arm.items()
        ]
        options: Any = {"section": FINDING, "note": note} if title == TITLE else {"section": SECTION}
        curves.append(Curve(title, axis, at, drawn, **options, **shared))
    people = [
        Line(f"sub-{subject:02d}", by_amount)
        for subject, by_amount in zip(job.people, results.scores.T.tolist(), strict=True)
    ]
    if len(people) > 1:
        curves.insert(1, Curve(f"Each person, by {headline}", axis, at, people, section=FINDING, **shared))

    # tables: what amounts reach, all arms by amounts, and what arms are
    others = [name for name, count in whole.items() if name != unit and not np.isnan(count)]
    gains = {label: values for label, values in results.gains.items() if not label.endswith(ZERO_SHOT)}

    pulls_back = TRANSFER in metrics and not job.training.backbone.is_closed_form
    pulling = [*choices.values()] if pulls_back else []

    # one row for each amount
    rows, labels = [], []
    for index, column in enumerate(results.columns):
        amount, size = job.amounts[column], results.sizes(column)
        labels.append("all" if amount == EVERY_TRIAL else f"{amount:g}")
        counts = {
            name: f"{count:.1f}" if name == "minutes" else f"{count:,.0f}" for name, count in size.items()
        }
        label = f"all {counts[unit]}" if amount == EVERY_TRIAL else labels[-1]
        is_trained = size["pictures"] >= FEWEST_PICTURES or ZERO_SHOT in results.missing
        pulls = {choice.pulls[column] if is_trained else None for choice in pulling}
        words = [ZERO_SHOT] if None in pulls else []
        words += [f"{pull:g}" for pull in sorted(pull for pull in pulls if pull is not None)]
        cells = [counts[name] for name in others]
        cells += [_with_interval(metrics[headline][index]["top1"]), _percent(results.shares[index])]
        cells += [_with_interval(values[index]) for values in gains.values()]
        rows.append([label, *cells, *([", ".join(words)] if pulling else [])])
    columns = [unit, *others, headline, f"of {EVERYTHING}"]
    columns += [label.removeprefix(f"{TRANSFER} ") for label in gains]
    columns += ["pull"] if pulling else []
    methods = dict.fromkeys(share.interval for share in results.shares if share.low is not None)
    notes = [f"share of {EVERYTHING}: interval by {method}" for method in methods]
    notes += [f"pull of transfer: {words}" for words in dict.fromkeys(c.words for c in pulling)]
    notes.append(describe_epochs(job))
    note = " ".join(f"{words[0].upper()}{words[1:]}." for words in notes)
    amounts_table = Table("Top-1 by amount", columns, rows, section=SECTION, note=note)

    # all arms, without intervals, which the curves show
    values = [
        [arm, *(number(measured["top1"].value) for measured in by_amount)]
        for arm, by_amount in metrics.items()
    ]
    every = Table(f"Top-1 of every arm, by {unit}", ["arm", *labels], values, section=SECTION)

    # what arms are, and how long they take
    about = [[arm, *describe_arm(arm, job.spec.alignments), f"{results.seconds(arm):.2f}"] for arm in metrics]
    columns = ["arm", "of the new person", "protocol in MOABB", "what it is", f"seconds with {EVERYTHING}"]
    arms = Table("Arms", columns, about, section=SECTION, note="Seconds of processor time.")
    return [*curves, amounts_table, every, arms]
