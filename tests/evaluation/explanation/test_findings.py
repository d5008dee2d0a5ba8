"""Statements about profiles: claims, corrected p values and intervals."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import lfilter

from brainhive_cli.core.base.tables import format_p
from brainhive_cli.core.results import CellFacts, Measurements
from brainhive_cli.evaluation.explanation.claims import state_claims
from brainhive_cli.evaluation.explanation.conclusion import list_scopes
from brainhive_cli.evaluation.explanation.facts import ExplanationFacts
from brainhive_cli.evaluation.explanation.figures import make_summary_table
from brainhive_cli.evaluation.explanation.findings import (
    correct_findings,
    describe_profiles,
)
from brainhive_cli.evaluation.explanation.profiles import (
    REGION,
    SENSOR,
    TIME,
    Axis,
    Labels,
    Profile,
    SubjectProfiles,
)
from brainhive_cli.measurement.units import Items, StimulusGrouping
from brainhive_cli.reports.sentences.sentences import state_finding

N = 60
IDS = [f"film/{number:03d}" for number in range(N)]
HOW = {"protocol": "a test", "split": "test", "seeds": (0,)}
PICTURES = Items.independent([IDS], "pictures")


def describe(groups, units=PICTURES):
    """Describe profiles, with p corrected over all of them."""
    items = replace(
        units, ids=list(units.ids) * len(groups), units=list(units.units) * len(groups)
    )
    return correct_findings(describe_profiles(groups, items, **HOW))


def state(*results, subjects=1, **facts):
    """Return the sentence of a run of some subjects about its findings."""
    cells = {f"sub-{number}": CellFacts(subject=number) for number in range(subjects)}
    explanation_facts = ExplanationFacts(
        claims=state_claims(results), cells=cells, modality="EEG", **facts
    )
    return state_finding(Measurements(list_scopes(results), facts=explanation_facts))


def test_intervals_of_explain_take_neighbouring_clips_together():
    """Values of neighbouring clips correlate .9, and each position is a simulation.

    Intervals over single clips cover the mean in .36.
    """
    clips, random = [str(number) for number in range(1200)], np.random.default_rng(0)
    # [P, N]
    values = lfilter([1.0], [1.0, -0.9], random.normal(size=(200, 1300)))[:, 100:]
    subject_profiles, held = (
        SubjectProfiles(
            {
                "occlusion": Profile(
                    "margin", Axis(TIME, list(map(float, range(200)))), values
                )
            }
        ),
        [],
    )

    blocks = StimulusGrouping("neighbours", medium="clip").make_items([clips])
    for units in (blocks, Items.independent([clips])):
        (finding,) = describe([[subject_profiles]], units)
        held.append(
            np.mean([metric.low <= 0 <= metric.high for metric in finding.metrics])
        )

    assert held[0] > 0.95 - 3 * 0.0154
    assert held[1] < 0.6
    assert blocks.kind == "blocks of 80 neighbouring clips"


def finding_along(axis, effect, seed=0, metric="margin", name="occlusion"):
    """Return the finding of an analysis with an effect at each position of an axis."""
    random, numbers = np.random.default_rng(seed), np.arange(N)
    labels = Labels.draw(numbers, PICTURES, 200, 0)
    matrices = [size * np.eye(N) + random.normal(size=(N, N)) for size in effect]
    subject_profiles = SubjectProfiles()
    subject_profiles.profiles[name] = Profile.from_matrices(
        metric, axis, matrices, labels
    )
    (found,) = describe([[subject_profiles]])
    return found


OVER_TIME = Axis(TIME, [0.0, 25.0, 50.0, 75.0])
OVER_SENSORS = Axis(SENSOR, ["Fz", "Cz", "Pz", "Oz"])
OVER_REGIONS = Axis(REGION, ["V1", "V4", "FFA", "none"])


@pytest.mark.parametrize(
    ("space", "position"), ((OVER_SENSORS, "sensor Pz"), (OVER_REGIONS, "region FFA"))
)
def test_the_finding_says_when_and_where_how_sure_and_of_whom(space, position):
    results = [
        finding_along(OVER_TIME, [0, 4, 6, 4]),
        finding_along(space, [0, 0, 4, 0], name="sensors"),
    ]
    when, place = (format_p(claim.p) for claim in state_claims(results))
    finding = state(*results, scope="these 2 films")
    facts = ("EEG", "25 ms", "50 ms", when, position, place, "60", "these 2 films")
    for fact in facts:
        assert fact in finding


def test_p_is_corrected_over_all_analyses_of_a_page():
    """Corrected separately, a profile among twelve of noise has p < .05 in .30."""
    findings_along_axes = [
        finding_along(OVER_TIME, [0, 0, 0, 0], seed) for seed in range(12)
    ]
    findings = correct_findings(findings_along_axes)

    minimums = [
        min(each.p_values.min() for each in some)
        for some in (findings_along_axes, findings)
    ]
    assert minimums[1] >= 5 * minimums[0]


def test_what_is_not_shown_is_said_not_to_be():
    none = finding_along(OVER_TIME, [0, 0, 0, 0], seed=1)
    some = finding_along(OVER_SENSORS, [0, 0, 4, 0])
    assert none.p_values.min() > 0.05
    strongest = none.axis.describe_position(none.values.argmax())
    time_p = format_p(state_claims([none])[0].p)
    sensor_p = format_p(state_claims([some])[0].p)

    alone = state(none, subjects=2)
    both = state(none, some)

    for fact in ("No single time", strongest, time_p, "60", "2 people"):
        assert fact in alone
    for fact in ("sensor Pz", sensor_p, "No single time", strongest, time_p):
        assert fact in both


def test_the_table_names_analyses_that_do_not_apply():
    finding = finding_along(OVER_REGIONS, [0, 0, 4, 0])
    excluded = {"windows": "for EEG", "bands": "for EEG", "levels": "for several"}
    note = make_summary_table([finding], "a test", excluded).note
    assert "windows, bands (for EEG); levels (for several)" in note
