"""Analyses of small random signals, compared with recorded numbers."""

from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.runs.artifacts import BrainMap, Curve, Topomap
from brainhive_cli.data.signals import (
    Grid,
    Sensors,
    Trials,
    Voxels,
    average_by_part,
    average_repetitions,
)
from brainhive_cli.data.signals.repetitions import read_repetitions
from brainhive_cli.evaluation.explanation import conclusion
from brainhive_cli.evaluation.explanation.claims import bound_onsets, state_claims
from brainhive_cli.evaluation.explanation.conclusion import (
    describe_finding,
    list_scopes,
)
from brainhive_cli.evaluation.explanation.figures import (
    draw_findings,
    make_summary_table,
)
from brainhive_cli.evaluation.explanation.findings import (
    correct_findings,
    describe_profiles,
)
from brainhive_cli.evaluation.explanation.profiles import (
    BAND,
    REGION,
    SECTION,
    SENSOR,
    TIME,
    Axis,
    Profile,
    SubjectProfiles,
)
from brainhive_cli.evaluation.explanation.sensor_space import SensorSpace, find_mixture
from brainhive_cli.evaluation.explanation.similarity import (
    compute_distances,
    rank_models,
)
from brainhive_cli.measurement import Items
from brainhive_cli.reports.pages.page import DETAILS, FINDING
from tests.worlds.brain_maps import read_drawn_values

SENSORS = ("Fz", "Cz", "Pz", "O1", "Oz", "T7")
MIXED = np.eye(6) + 0.3 * np.random.default_rng(9).normal(size=(3, 6, 6))


def recording(count, seed=0, whitened=False, **fields):
    """Return trials of sensors with one to four repetitions of each stimulus."""
    random = np.random.default_rng(seed)
    signal = random.normal(1, 1, (count, 4, 6, 12)).astype(np.float32)
    counts = random.permutation(np.resize([4, 2, 3, 4, 1], count))
    is_there = np.arange(4) < counts[:, None]
    sessions = np.where(is_there, random.integers(0, 3, is_there.shape), -1)
    if whitened:
        signal = np.einsum("nrij,nrjt->nrit", MIXED[sessions], signal)
        fields |= {"sessions": sessions.astype(np.int8), "whiteners": MIXED}
    names = [f"{seed}/{number}" for number in range(count)]
    return Trials.from_repetitions(
        signal.astype(np.float32),
        names,
        Sensors(SENSORS),
        np.arange(12) / 100,
        100.0,
        "whitened" if whitened else "V",
        repetitions=counts,
        **fields,
    )


READ = {
    "as recorded": {},
    "some channels": {"channels": ("Oz", "Cz", "Pz")},
    "whitened": {"whitened": True, "channels": ("Oz", "Cz", "Pz")},
    "whitened and scaled": {"whitened": True, "scale": 0.5},
    "by channel": {"whitened": True, "scale": 0.5, "normalise": "channel"},
    "mixed": {"normalise": "whiten", "channels": ("Oz", "Cz", "Pz")},
    "whitened and mixed": {"whitened": True, "normalise": "whiten", "scale": 0.25},
}


def read(seed, count, fields):
    """Return trials as a model reads them."""
    created_recording = recording(count, seed, fields.get("whitened", False))
    window_ms = (20.0, 90.0)
    part = created_recording.select(
        fields.get("channels"), window_ms, fields.get("scale", 1.0)
    )
    if name := fields.get("normalise"):
        normalisation = parts.load("normalisations", name).TINY
        learned = part if seed == 1 else read(1, 20, {**fields, "normalise": None})
        state = normalisation.measure([learned.averages])
        part = part.normalise(normalisation.build(state))
    return part


@pytest.mark.parametrize("name", READ)
def test_sensor_space(recorded, name):
    tested, learned = read(2, 9, READ[name]), read(1, 20, READ[name])
    space = SensorSpace.from_trials(
        tested, learned, tested.averages, learned.averages.mean(0)
    )
    repeated = tested.take(tested.counts > 1)

    recorded(
        digits=4,
        signal=space.signal,
        deviation=space.deviation,
        mixing=space.mixing,
        without=[space.remove_sensor(row) for row in range(space.deviation.shape[2])],
        averages=np.concatenate(list(average_repetitions(tested))),
        as_read=np.concatenate(list(average_repetitions(tested, is_mixed=True))),
        repetitions=list(read_repetitions(tested)),
        read_repetitions=list(read_repetitions(tested, is_mixed=True)),
        parts=list(average_by_part(repeated, repeated.repetition % 2)),
        mixture=find_mixture(tested) is not None,
    )


@pytest.mark.parametrize("shape", [(3, 5), (5, 1)])
def test_few_pictures_have_no_distances(shape):
    patterns = np.random.default_rng(0).normal(size=(6, 6))
    assert compute_distances(patterns[:4, :2]).shape == (6,)
    with pytest.raises(BrainhiveError):
        compute_distances(patterns[: shape[0], : shape[1]])


def test_a_model_without_differences_is_named():
    features = {"a": np.eye(5), "b": np.random.default_rng(0).normal(size=(5, 3))}
    with pytest.raises(BrainhiveError, match="a has"):
        rank_models(features)


def profile(axis, effect, metric="margin", **options):
    """Return a profile of 23 items with an effect at each position."""
    random = np.random.default_rng(len(axis.at))
    values = random.normal(size=(len(axis.at), 23)) + np.asarray(effect)[:, None]
    if options.get("pool"):
        values = (values > 0.5) * 1.0
    null = random.normal(values.mean() / 2, 0.2, size=(60, len(axis.at)))
    return Profile(metric, axis, values, null, **options)


def short(metrics):
    """Return the numbers of metrics, or of a line, as an array."""
    if hasattr(metrics, "low") and hasattr(metrics, "chance"):
        ends = (
            (list(metrics.low) + list(metrics.high)) if metrics.low is not None else []
        )
        return np.array(
            list(metrics.values) + list(ends) + [metrics.chance], np.float64
        )
    rows = [
        (
            single_metric.value,
            single_metric.low,
            single_metric.high,
            single_metric.chance,
            single_metric.n,
        )
        for single_metric in metrics
    ]
    people = [
        single_metric.these_subjects or (np.nan, np.nan) for single_metric in metrics
    ]
    return np.array([np.concatenate(pair) for pair in zip(rows, people, strict=True)])


COURSE = Axis(TIME, [100.0 * row - 100 for row in range(11)])
WINDOWS = Axis.from_windows(np.arange(-100, 200, 50.0)[:, None] + [0, 60.5])
PLACES = {
    "EEG": Axis(SENSOR, SENSORS),
    "fMRI": Axis(REGION, ["V1", "V4", "FFA", "none"]),
}
EFFECT = np.where(np.arange(11) > 4, 0.8, 0)
STEPS = {"kind": "recording", "epoch_ms": [-100, 1700], "keep_ms": [-100, 1700]}


def analyses(seed, modality):
    """Return analyses over time, space, bands and levels of a cell and subject."""
    place = PLACES[modality]
    size = 1 + seed / 10
    control = np.random.default_rng(seed).normal(size=(11, 23)) / 5
    unlabelled = Profile("unique_r", COURSE, control + EFFECT[:, None], None, control)
    found = {
        "windows:top1": profile(WINDOWS, [0, 0, 1, 2, 3, 1], "top1", pool=23),
        "windows:two_way": profile(
            WINDOWS, [0, 0, 1, 2, 3, 1], "two_way", pool=23, chance=0.5
        ),
        "occlusion": profile(COURSE, EFFECT * size, "margin_lost"),
        "sensors" if modality == "EEG" else "regions": profile(
            place, np.linspace(0, size, len(place.at)), "margin_lost"
        ),
        "bands": profile(Axis(BAND, ["a", "b"]), [0, 0.1]),
        "encoding:time": profile(COURSE, EFFECT / 9, "r"),
        "encoding:space": profile(place, np.linspace(0.5, 0, len(place.at)), "r"),
        "encoding · looks:time": unlabelled,
        "encoding · words:time": unlabelled,
    }
    maps = {"encoding map": np.full((len(place.at), 3), size), "margin": EFFECT[:4]}
    return SubjectProfiles(found, maps if modality == "fMRI" else {})


def read_values(figure, folder):
    """Return the values of the coloured voxels of a brain map."""
    if not isinstance(figure, BrainMap):
        return np.empty(0)
    return read_drawn_values(figure, folder)


@pytest.mark.parametrize("modality", PLACES)
@pytest.mark.parametrize("inflation", [1, 1.4])
def test_conclusions(
    monkeypatch,
    recorded,
    tmp_path,
    modality,
    inflation,
):
    # a course has more times than are listed
    monkeypatch.setattr(conclusion, "MAX_LISTED_TIMES", 5)

    ids = [f"picture {number}" for number in range(23)]
    items = Items.independent([ids, ids], "pictures")
    items = replace(items, inflation=inflation)
    groups = [[analyses(0, modality), analyses(1, modality)], [analyses(2, modality)]]
    if modality == "fMRI":
        # of a single region all subjects have no value
        name = "encoding:space"
        groups[1][0].profiles[name] = groups[1][0].profiles[name].take(["FFA", "V1"])
        del groups[1][0].profiles["bands"]
    findings = correct_findings(
        describe_profiles(groups, items, protocol="a", split="test", seeds=(0, 1))
    )
    random = np.random.default_rng(3)
    space = Sensors(SENSORS)
    if modality == "fMRI":
        grid = Grid(
            np.argwhere(np.ones((2, 2, 2))).astype(np.int16), (2, 2, 2), np.eye(4)
        )
        masks = {name: random.random(8) < 0.6 for name in ("V1", "V4", "FFA")}
        space = Voxels(masks, {}, grid)
    times_s = np.arange(-100, 1700, 4.0) / 1000
    signals = [
        Trials.from_repetitions(
            np.zeros((1, 1, 1, len(times_s)), np.float32),
            ["a"],
            Sensors(["Oz"]),
            times_s,
            250.0,
            "uV",
            {"recorded_hz": 250.0, "preparation": {**STEPS, "whiten": "no", **steps}},
        )
        for steps in ({"rate_hz": 250}, {"rate_hz": 250, "band_hz": [1, 30]})
    ]
    bounded, reason = bound_onsets(findings, signals)

    bounds = {"encoding lower ceiling": [0.5] * 11}
    named = {}
    for one in bounded:
        lists = {"": one.metrics, **one.controls}
        tables = {label: short(metrics) for label, metrics in lists.items()}
        facts = (one.scores, one.p_values, one.latest_onset_ms, one.first_above_chance)
        named[f"{one.name} {one.metric} {one.axis.name}"] = (tables, facts)
    figures = draw_findings(
        findings,
        space,
        {"offset": 0.5},
        {"r": bounds} if modality == "EEG" else {},
        tmp_path,
    )

    sections = [FINDING, SECTION, DETAILS]
    drawn = [
        [
            [Curve, Topomap, BrainMap].index(type(figure)),
            sections.index(figure.section),
            [short(line) for line in getattr(figure, "lines", ())],
            [vars(point) for point in getattr(figure, "points", ())],
            read_values(figure, tmp_path),
            getattr(figure, "marks", None),
        ]
        for figure in figures
    ]
    scopes = list_scopes(findings)
    recorded(
        digits=5,
        findings=named,
        onsets=[one.onset_description for one in bounded],
        facts=[describe_finding(one) for one in bounded],
        claims=state_claims(bounded),
        scopes=[len(scopes), short(list(next(iter(scopes.values())).values()))],
        listed=list(scopes),
        drawn=drawn,
        table=[row[3:] for row in make_summary_table(bounded, "a", {}).rows],
        reason=bool(reason),
    )
