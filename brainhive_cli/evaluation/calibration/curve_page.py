"""Page of calibration: curves of all arms and of each person, and tables of amounts and arms."""

from collections.abc import Mapping
from dataclasses import replace

from brainhive_cli.core.artifacts import Artifact, Curve, Line
from brainhive_cli.core.facts import CalibrationFacts
from brainhive_cli.core.measurements import Measurements, Metric, scope
from brainhive_cli.core.tables import Table
from brainhive_cli.evaluation.calibration.amounts import EVERYTHING, UNITS
from brainhive_cli.evaluation.calibration.curves import DRIFT, OVER_SCRATCH, SHARE, scope_of
from brainhive_cli.evaluation.calibration.job import FIRST_DAY, LAST_DAY
from brainhive_cli.reports.page import FINDING
from brainhive_cli.reports.tables import metric_table
from brainhive_cli.reports.templates import render
from brainhive_cli.training.alignment.few_shot import SCRATCH, TRANSFER, ZERO_SHOT

SECTION = "Calibration"
SHARES = "95 % CI of shares of everything: Fieller over people"
FURTHER = {
    "signals": "Alignments without labels",
    "signals and labels": "Other ways with labels",
    "signals, wrong labels": "Controls: wrong labels",
}
"""Titles of the curves of further arms, by what these are given of a new person."""


def draw(measured: Measurements) -> list[Artifact]:
    """Draw the curves, and lay out the tables."""
    # top-1 after each amount; everything lies at its mean over people
    facts, scopes = measured.facts_of(CalibrationFacts), measured.scopes
    names, arm = [amount.name for amount in facts.amounts], facts.arm
    at, axis = [getattr(amount, facts.unit) for amount in facts.amounts], f"{facts.unit} of the new person"

    def line(label: str, legend: str = "") -> Line:
        return Line.of(legend or label, [scopes[scope_of(label, name)]["top1"] for name in names])

    def curve(title: str, lines: list[Line], section: str = SECTION, note: str = "") -> Curve:
        return Curve(title, axis, at, lines, "top-1", is_logarithmic=True, section=section, note=note)

    # arms that a reader compares and each person; days; further arms next to one that has its colour above
    drawn, first = list[Artifact](), [label for label in (arm, ZERO_SHOT, SCRATCH) if label in facts.arms]
    if arm:
        note = render("calibration.txt", facts=facts, top1=measured.overall["top1"])
        lines = [*map(line, dict.fromkeys(first))]
        drawn.append(curve("Top-1 after recordings of a new person", lines, FINDING, note))

    # of one person it would be the curve above
    if len(facts.people) > 1:
        lines = [Line(name, values) for name, values in facts.people.items()]
        drawn.append(curve(f"Each person, by {arm}", lines, FINDING))

    # only where days differ
    if scope(FIRST_DAY, EVERYTHING) in scopes:
        lines = [line(arm, LAST_DAY), line(FIRST_DAY)]
        drawn.append(curve(f"From one day to another, by {arm}", lines))
    for profile, title in FURTHER.items():
        # arms by what they need of the person; those of the first figure are left out
        further = [label for label, about in facts.arms.items() if about[0] == profile and label not in first]
        if further:
            drawn.append(curve(title, [*map(line, [*first[:2], *further])]))

    # the arm of the finding with its shares and gains, and every arm: the first metric of each scope
    def row(labels: Mapping[str, str]) -> dict[str, Metric]:
        # an amount or arm that was not measured has an empty cell
        present = {heading: [*scopes.get(label, {}).values()][:1] for heading, label in labels.items()}
        return {
            name: replace(one, name=name, pool=None) for name, metrics in present.items() for one in metrics
        }

    compared = arm, SHARE, OVER_SCRATCH, DRIFT
    amounts = {name: row({label: scope_of(label, name) for label in compared}) for name in names}
    arms = {label: row({name: scope_of(label, name) for name in names}) for label in facts.arms}
    tables = [
        metric_table("Top-1 by amount", amounts, "amount", note=SHARES, section=SECTION),
        metric_table("Top-1 of every arm", arms, "arm", section=SECTION),
    ]

    # how much was recorded, how strong transfer was, what arms are, and how long they take
    sizes = [(one.name, round(one.pictures), round(one.trials), one.minutes) for one in facts.amounts]
    tables.append(Table("Amounts", ["amount", *UNITS], sizes, section=SECTION))
    pulls = [(model, *map(choice.pulls.get, names)) for model, choice in facts.strength.items()]
    # without transfer there is no strength to show
    if TRANSFER in facts.arms:
        note = render("calibration.txt", facts=facts)
        tables.append(Table("Pull of transfer", ["model", *names], pulls, section=SECTION, note=note))
    about = [(label, *facts.arms[label], facts.seconds[label]) for label in facts.arms]
    columns = ["arm", "of the new person", "protocol in MOABB", "what it is", f"seconds with {EVERYTHING}"]
    tables.append(Table("Arms", columns, about, section=SECTION, note="Seconds of processor time."))
    return [*drawn, *(table for table in tables if table.rows)]
