"""What is printed of profiles: where they are first above chance, and one p in tables and figures."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import lfilter

from brainhive_cli.core.artifacts import Curve, Map
from brainhive_cli.core.facts import Cell, ExplanationFacts
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.tables import p_text
from brainhive_cli.data.spaces import Grid, Sensors, Voxels
from brainhive_cli.evaluation.explanation.conclusion import (
    average_ceilings,
    choose_claims,
    correct_findings,
    describe_profiles,
    draw_encoding,
    draw_findings,
    list_facts,
    list_scopes,
    state_claims,
    summary_table,
)
from brainhive_cli.evaluation.explanation.encoding_model import CEILINGS
from brainhive_cli.evaluation.explanation.profiles import (
    REGION,
    SENSOR,
    TIME,
    Axis,
    Labels,
    Profile,
    SubjectProfiles,
)
from brainhive_cli.measurement.units import Alike, Items
from brainhive_cli.reports.page import DETAILS, FINDING
from brainhive_cli.reports.sentences import state_finding

N = 60
IDS = [f"film/{number:03d}" for number in range(N)]
HOW = {"protocol": "a test", "split": "test", "seeds": (0,)}
PICTURES = Items.independent([IDS], "pictures")


def explained(effect, spread, draws=200, spans=None, metric="margin", units=PICTURES):
    """One subject's margins: right pairs larger by an effect [P], in noise of some spread [P]."""
    random, places = np.random.default_rng(0), np.arange(N)
    labels = Labels.of(places, units, draws, 0)
    matrices = [e * np.eye(N) + s * random.normal(size=(N, N)) for e, s in zip(effect, spread, strict=True)]
    times = Axis(TIME, [25.0 * place for place in range(len(effect))])
    axis = times if spans is None else Axis.of_windows(spans)
    found = SubjectProfiles()
    found.profiles["occlusion"] = Profile.of(metric, axis, matrices, labels)
    return found


def describe(groups, units=PICTURES):
    """Describe profiles, with p corrected over all of them."""
    items = replace(units, ids=[*units.ids] * len(groups), units=[*units.units] * len(groups))
    return correct_findings(describe_profiles(groups, items, **HOW))


NOWHERE = Sensors(["one", "other"])


def draw(*results, space=NOWHERE):
    return draw_findings(results, space, {})


def state(*results, subjects=1, **facts):
    """State what is found of some subjects, as a run does."""
    cells = {f"sub-{number}": Cell(subject=number) for number in range(subjects)}
    about = ExplanationFacts(claims=state_claims(results), cells=cells, modality="EEG", **facts)
    return state_finding(Measurements(list_scopes(results), facts=about))


def windows(count):
    starts = 25.0 * np.arange(count)
    return np.stack([starts, starts + 100], 1)


def test_the_first_window_above_chance_is_printed_from_where_to_where_it_lies():
    """The effect begins at 100 ms, and a quarter of the window lies in it whose centre is 75 ms."""
    spans = windows(6)
    reach = np.clip((spans[:, 1] - 100) / 100, 0, 1)
    (found,) = describe([[explained(4 * reach, np.ones(6), spans=spans)]])
    (curve,) = draw(found)

    table = summary_table([found], "a test")

    assert found.axis.at[1] == 75 and table.columns[4] == "first above chance"
    assert table.rows[0][4] == "25–125 ms" and table.rows[0][2] == "100–200 ms"
    assert curve.marks == {"25–125 ms: first above chance": 75} and curve.axis.startswith(
        "centre of the window"
    )
    facts = list_facts(found)
    assert facts["first_above_chance"] == "25–125 ms" and facts["windows_ms"][1] == [25, 125]
    assert "onset" not in " ".join([*table.columns, *curve.marks, *facts])


def test_a_first_time_is_said_to_be_that_of_a_filter_which_looks_ahead():
    effect, words = 4 * np.array([0, 0.25, 0.5, 1, 1, 1]), "25–125 ms (the filter may look ahead)"
    (found,) = describe([[explained(effect, np.ones(6), spans=windows(6))]])
    assert "from 25–125 ms on, and most" in state(found)
    found = replace(found, looks_ahead=True)
    (curve,) = draw(found)

    told = state(found)

    assert summary_table([found], "").rows[0][4] == list_facts(found)["first_above_chance"] == words
    assert [*curve.marks] == [f"{words}: first above chance"]
    assert f"first at {words}, and most" in told


def test_samples_are_printed_as_times():
    (found,) = describe([[explained([0, 0, 4, 4], np.ones(4))]])
    assert summary_table([found], "").rows[0][4] == "50 ms" and list_facts(found)["windows_ms"] is None


def test_the_table_says_p_of_the_strongest_place_where_that_has_not_the_smallest_and_no_figure_repeats_it():
    """The largest value lies where the noise is largest, and the smallest p elsewhere."""
    (found,) = describe([[explained([2.0, 0.8, 0], [12.0, 1, 1])]])
    assert found.values.argmax() == 0 and found.corrected[1] < 0.05 < found.corrected[0]
    p = summary_table([found], "").rows[0][3]
    (curve,) = draw(found)
    assert p.value == found.corrected[0]
    assert p.text not in curve.note


def test_a_small_p_is_not_printed_as_zero():
    (found,) = describe([[explained([9.0, 0], np.ones(2), draws=5000)]])
    assert summary_table([found], "").rows[0][3].text == "0.0002"


def test_intervals_of_explain_take_neighbouring_clips_together():
    """Values of neighbours correlate .9; each place is a simulation. Over single clips .36 hold."""
    clips, random = [str(number) for number in range(1200)], np.random.default_rng(0)
    values = lfilter([1.0], [1.0, -0.9], random.normal(size=(200, 1300)))[:, 100:]  # [P, N]
    parts = Axis(TIME, [*map(float, range(200))]), values
    found, held = SubjectProfiles({"occlusion": Profile("margin", *parts)}), []

    blocks = Alike("neighbours", medium="clip").items([clips])
    for units in (blocks, Items.independent([clips])):
        (finding,) = describe([[found]], units)
        held.append(np.mean([each.low <= 0 <= each.high for each in finding.measured]))

    assert held[0] > 0.95 - 3 * 0.0154 and held[1] < 0.6
    assert blocks.kind == "blocks of 80 neighbouring clips"


def test_encoding_of_subjects_with_other_sensors_and_repetitions_is_drawn_as_far_as_it_can_be():
    def encoded(sensors, *names):
        return SubjectProfiles(arrays={name: np.ones((sensors, 3)) for name in ("encoding map", *names)})

    def drawn(*groups):
        maps = draw_encoding(groups, ("Oz", "Pz"), (0.0, 10.0, 20.0))
        return [shown.title for shown in maps], average_ceilings(groups)

    assert drawn(encoded(2, *CEILINGS), encoded(2)) == (["Encoding by sensor and time"], {})  # shown once
    maps, ceilings = drawn(encoded(2, *CEILINGS), encoded(4, *CEILINGS))
    assert not maps and ceilings == dict.fromkeys(CEILINGS, [1.0] * 3)


def finding_along(axis, effect, seed=0, metric="margin", name="occlusion"):
    """One analysis along an axis, with an effect at each position."""
    random, places = np.random.default_rng(seed), np.arange(N)
    labels = Labels.of(places, PICTURES, 200, 0)
    matrices = [size * np.eye(N) + random.normal(size=(N, N)) for size in effect]
    measured = SubjectProfiles()
    measured.profiles[name] = Profile.of(metric, axis, matrices, labels)
    (found,) = describe([[measured]])
    return found


OVER_TIME = Axis(TIME, [0.0, 25.0, 50.0, 75.0])
OVER_SENSORS = Axis(SENSOR, ["Fz", "Cz", "Pz", "Oz"])
OVER_REGIONS = Axis(REGION, ["V1", "V4", "FFA", "none"])


@pytest.mark.parametrize(
    ("space", "where"), ((OVER_SENSORS, "at sensor Pz"), (OVER_REGIONS, "in region FFA"))
)
def test_the_finding_says_when_and_where_how_sure_and_of_whom(space, where):
    results = [finding_along(OVER_TIME, [0, 4, 6, 4]), finding_along(space, [0, 0, 4, 0], name="sensors")]
    when, place = (p_text(claim.p) for claim in state_claims(results))
    assert state(*results, scope="these 2 films") == (
        f"What was seen can be told from EEG from 25 ms on, and most clearly at 50 ms (p = {when}, corrected "
        f"over all times and {space.name}s), {where} (p = {place}): 60 test pictures of 1 subject, for these "
        "2 films."
    )


def test_the_finding_names_the_strongest_of_the_significant_positions():
    """The largest value lies where the noise is largest, and is not significant."""
    found = finding_along(OVER_SENSORS, [0, 0, 4, 0])
    values = [
        replace(metric, value=value) for metric, value in zip(found.measured, (9, 0, 4, 0), strict=True)
    ]
    noisy = replace(found, measured=values, corrected=np.array([0.4, 1, 0.005, 1]))
    assert "most clearly at sensor Pz (p = 0.005" in state(noisy)


def test_what_is_not_shown_is_said_not_to_be():
    none = finding_along(OVER_TIME, [0, 0, 0, 0], seed=1)
    some = finding_along(OVER_SENSORS, [0, 0, 4, 0])
    assert none.corrected.min() > 0.05
    place = f"(strongest at {none.axis.where(none.values.argmax())}, p = {p_text(state_claims([none])[0].p)}"
    told, both, where = state(none, subjects=2), state(none, some), p_text(state_claims([some])[0].p)
    begin = "At no single time is what was seen shown to be carried by EEG"
    assert told == f"{begin} {place}, corrected over all times): 60 test pictures of 2 subjects."
    assert f"at sensor Pz (p = {where}, corrected over all times and sensors); " in both
    assert f"; at no single time is that shown {place}): 60" in both


def test_what_was_not_tested_is_said_with_the_reason():
    found = replace(finding_along(OVER_TIME, [0, 4, 6, 4]), scores=None, corrected=None)
    told = state(found, untested="trials held out: time alone tells them")
    assert told == (
        "When and where EEG carries what was seen was not tested: trials held out: time alone tells them."
    )


def test_the_first_screen_has_the_claimed_metric_over_time_and_its_map_and_the_others_stay_below():
    pytest.importorskip("mne")
    top1 = finding_along(OVER_TIME, [0, 4, 6, 4], metric="top1", name="windows")
    two_way = finding_along(OVER_TIME, [0, 4, 6, 4], metric="two_way", name="windows")
    sensors = finding_along(OVER_SENSORS, [0, 0, 4, 0], name="sensors")
    results = [top1, two_way, sensors, finding_along(OVER_TIME, [0, 1, 1, 1], name="occlusion")]

    drawn = draw(*results, space=Sensors(OVER_SENSORS.at))

    assert [finding.metric for finding in choose_claims(results)] == ["two_way", "margin"]
    first = [shown for shown in drawn if shown.section == FINDING]
    assert [type(shown) for shown in first] == [Curve, Map] and first == drawn[:2]
    assert first[0].lines[0].name == "two-way"
    assert [shown.section for shown in drawn[2:]] == [DETAILS, "Explanation"]


def test_levels_share_a_figure_with_the_ceilings_of_similarity():
    levels = [finding_along(OVER_TIME, [0, 4, 6, 4], metric="rho", name=f"similarity · {n}") for n in "ab"]
    (curve,) = draw_findings(levels, NOWHERE, {"onset": 0.0}, {"rho": {"ceiling": [1.0] * 4}})
    assert [line.name for line in curve.lines] == ["a", "b", "ceiling"] and curve.marks == {"onset": 0.0}


def test_regions_are_drawn_on_slices_with_the_value_of_each_voxels_region():
    found = finding_along(Axis(REGION, ["V1", "FFA"]), [6, 0], name="regions")
    places = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]], np.int16)
    masks = {"V1": np.array([True, False, False]), "FFA": np.array([False, True, False])}
    slices, bars = draw(found, space=Voxels(masks, grid=Grid(places, (3, 1, 1), np.diag([2.0, 2, 2, 1]))))
    values = np.array(slices.values, float)
    assert sorted(values[np.isfinite(values)]) == pytest.approx(sorted(m.value for m in found.measured))
    assert (slices.section, bars.section) == (FINDING, DETAILS)
    assert len(draw(found, space=Voxels(masks))) == 1
