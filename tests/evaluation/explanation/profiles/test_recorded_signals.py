"""Explanations of signals without a model, compared with recorded numbers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from brainhive_cli.core.base.errors import BrainhiveError, DamagedStore, RecipeError
from brainhive_cli.core.runs import artifacts
from brainhive_cli.data.signals import (
    Grid,
    Sensors,
    StudyDesign,
    Trials,
    Voxels,
    measure_reliability,
    repetitions,
)
from brainhive_cli.data.stores import SignalStore
from brainhive_cli.evaluation.explanation.conclusion import (
    collect_maps,
    summarise_findings,
)
from brainhive_cli.evaluation.explanation.encoding_model import explain_signals
from brainhive_cli.evaluation.explanation.findings import describe_profiles
from brainhive_cli.evaluation.explanation.job import Job, Reader
from brainhive_cli.evaluation.explanation.profiles import (
    SENSOR,
    Axis,
    Labels,
    Profile,
    SubjectProfiles,
)
from brainhive_cli.evaluation.explanation.recipe import Recipe
from brainhive_cli.evaluation.explanation.similarity import explain_similarity
from brainhive_cli.measurement import Items, LabelDesign
from brainhive_cli.reports.pages import signal_page
from brainhive_cli.reports.pages.signal_page import write_signal_page
from brainhive_cli.training.alignment.cells import Cell
from tests.worlds.array_trials import make_trials
from tests.worlds.brain_maps import read_drawn_values
from tests.worlds.memory_test_set import (
    MemoryTestSet,
    PictureModel,
    make_runs,
    make_store,
)

SENSORS = ("Fz", "Cz", "Pz", "O1", "Oz")
WHITENERS = np.eye(5) + 0.3 * np.random.default_rng(9).normal(size=(2, 5, 5))
FEATURES = {
    split: np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32)
    for split, count in (("train", 40), ("test", 11))
}


def trials_of(split, subject, kind):
    """Return noisy trials whose signals depend on the features of a split."""
    random = np.random.default_rng([subject, len(split)])
    features = FEATURES[split]
    mixing = np.random.default_rng(subject).normal(size=(4, 5, 6))
    clean = np.einsum("nf,fct->nct", features, mixing)
    signal = clean[:, None] + 2 * random.normal(size=(len(features), 4, 5, 6))
    counts = np.resize([4, 2, 3, 4, 2], len(features))
    is_there = np.arange(4) < counts[:, None]
    sessions = np.where(is_there, np.arange(4) % 2, -1).astype(np.int8)
    space = Sensors(SENSORS)
    known = {"sessions": sessions}
    if kind == "whitened":
        signal = np.einsum("nrij,nrjt->nrit", WHITENERS[sessions], signal)
        known |= {"whiteners": WHITENERS}
    unit = "whitened" if kind in ("whitened", "mixed") else "µV"
    times_s, rate_hz = np.arange(-1, 5) / 50, 50.0
    if kind == "voxels":
        signal = signal.reshape(*signal.shape[:2], 30, 1)
        rows = np.arange(30)
        masks = {"V1": rows < 9, "V4": rows % 4 == 0, "none": rows > 99}
        masks["one"] = rows == subject
        grid = Grid(
            np.argwhere(np.ones((5, 3, 2))).astype(np.int16), (5, 3, 2), np.eye(4)
        )
        space = Voxels(masks, {"r2": rows * 1.0}, grid)
        times_s, rate_hz = np.zeros(1), None
    ids = [f"{split} {row}" for row in range(len(features))]
    return Trials.from_repetitions(
        signal.astype(np.float32),
        ids,
        space,
        times_s,
        rate_hz,
        unit,
        {},
        counts,
        subject=subject,
        stimulus=np.arange(len(features)),
        **known,
    )


def store_features(split, columns):
    """Store some features of the pictures of a split as embeddings."""
    features = FEATURES[split][:, columns]
    image_ids = [f"{split} {row}" for row in range(len(features))]
    return make_store(torch.from_numpy(features), image_ids)


LEVELS = {
    split: {
        "looks": store_features(split, slice(0, 3)),
        "words": store_features(split, slice(2, 4)),
    }
    for split in FEATURES
}


def reader_of(subject, kind, **options):
    trials = {
        split: trials_of(split, subject, kind).select(**options) for split in FEATURES
    }
    test = trials["test"]
    items = Items.independent([list(test.pictures)], "pictures")
    model = PictureModel()
    tests = MemoryTestSet(
        make_runs([model]), "test", stores=LEVELS, recorded={subject: trials}
    )
    person = tests.open_person(model, subject)
    labels = Labels.draw(np.arange(11), items, 30, 3)
    return Reader(model, tests, person, test, np.arange(11), labels, items)


SPEC = Recipe(draws=30, seed=3)
KINDS = ("plain", "whitened", "mixed", "voxels")


@pytest.fixture(autouse=True)
def pictures_are_single(monkeypatch):
    """Make pictures independent, and limit encoders to two components."""
    module = "brainhive_cli.evaluation.explanation.encoding_model"
    monkeypatch.setattr(f"{module}.MAX_COMPONENTS", 2)

    def list_items(dataset, stimuli, rows):
        names = [[stimuli.image_ids[row] for row in listed_row] for listed_row in rows]
        return Items.independent(names, "pictures")

    monkeypatch.setattr(f"{module}.group_rows", list_items)


def values_of(subject_profiles):
    """Return the numbers of profiles by name."""
    profiles = {
        name: (
            single_profile.values,
            single_profile.null,
            single_profile.shuffled,
            list(single_profile.axis.at),
        )
        for name, single_profile in subject_profiles.profiles.items()
    }
    return {"profiles": profiles, "arrays": subject_profiles.arrays}


@pytest.mark.parametrize("kind", KINDS)
def test_encoding(recorded, kind):
    signals = explain_signals(reader_of(2, kind), LEVELS, SPEC)
    (maps,) = collect_maps([reader_of(2, kind)], {(None, 2): signals}) or [(0, {}, 0)]

    recorded(digits=4, **values_of(signals), maps=maps[1])
    assert set(signals.missing) == (
        {"encoding by sensor"} if kind == "mixed" else set()
    )


def test_pictures_that_were_shown_once_have_no_ceiling():
    reader = reader_of(2, "plain")
    reader.trials = reader.trials.choose(reader.trials.repetition < 1)
    signals = explain_signals(reader, LEVELS, SPEC)
    assert list(signals.missing) == ["ceilings of encoding"]
    assert "encoding:time" in signals.profiles


def test_regions_need_two_voxels_of_everybody():
    reader = reader_of(1, "voxels", channels=["one"])
    with pytest.raises(BrainhiveError):
        explain_similarity([reader], LEVELS["test"], SPEC)


def test_failed_analyses_are_listed_but_recipe_errors_raised():
    subject_profiles = SubjectProfiles()
    profile = Profile("a", Axis("b", [1]), np.zeros((1, 2)))

    def fail(error):
        raise error

    subject_profiles.attempt("one", lambda: profile)
    subject_profiles.attempt("two", lambda: {"time": profile, "space": profile})
    subject_profiles.attempt("three", lambda: fail(BrainhiveError("no signal")))
    assert list(subject_profiles.profiles) == ["one", "two:time", "two:space"]
    assert list(subject_profiles.missing) == ["three"]
    for error in (RecipeError("wrong"), DamagedStore("broken")):
        with pytest.raises(type(error)):
            subject_profiles.attempt("four", lambda error=error: fail(error))


@pytest.mark.parametrize("p", [1.0, 0.005])
def test_pictures_that_all_were_shown(monkeypatch, p):
    module = "brainhive_cli.evaluation.explanation.job"
    shown = [[0, 2, 3, 5, 8, 9], [9, 3, 2, 1, 5]]
    # the store of the second subject lists pictures in another order
    stored = [shown[0], [1, 2, 3, 5, 9]]
    unit_of = {picture: 6 - unit for unit, picture in enumerate([0, 1, 2, 3, 5, 8, 9])}
    units_of = {
        subject: np.array([unit_of[picture] for picture in pictures])
        for subject, pictures in enumerate(stored)
    }
    design = LabelDesign(
        label=np.arange(7),
        stratum=np.zeros(7, np.int64),
        predictions=np.arange(7.0)[:, None],
        values=np.zeros((7, 1)),
        telling=("time in the run",) if p < 1 else (),
        p=p,
    )
    study = StudyDesign(design, units_of)
    asked = []

    def list_items(dataset, stimuli, rows):
        asked.append(rows)
        names = [[stimuli.image_ids[row] for row in listed_row] for listed_row in rows]
        return Items.independent(names, "pictures")

    def find_units():
        recorded = {}
        for subject, pictures in enumerate(shown):
            index = np.array([stored[subject].index(picture) for picture in pictures])
            signal = np.zeros((len(pictures), 1, 1), np.float32)
            trials = make_trials(subject, signal, np.array(pictures), index=index)
            recorded[subject] = {"test": trials}
        runs = make_runs([PictureModel()])
        tests = MemoryTestSet(
            runs, "test", stores=LEVELS, recorded=recorded, study=study
        )
        opened = "brainhive_cli.training.alignment.trained.test_job.open_test_set"
        monkeypatch.setattr(opened, lambda *arguments: tests)
        align = SimpleNamespace(open=lambda cell, head: tests.models[0][0])
        subjects = {number: [Cell("", (), (), number)] for number in (0, 1)}
        return Job(SPEC, align, subjects, [], []).units

    monkeypatch.setattr(f"{module}.group_rows", list_items)

    units = find_units()

    assert [rows.tolist() for rows in asked[0]] == [[2, 3, 5, 9]] * 2
    assert units.names == ["test 2", "test 3", "test 5", "test 9"]
    # the odds of each picture, and no permutations if the design tells few pictures
    assert units.design is not None
    expected = [unit_of[picture] for picture in (2, 3, 5, 9)]
    assert units.design.predictions[:, 0].tolist() == expected
    assert ("time in the run" in units.problem) == (p < 1)
    assert (len(units.draw_permutations(9, 0)) == 0) == (p < 1)

    # clips of a film have no such odds
    study = None
    assert find_units().design is None
    shown[1] = stored[1] = [1, 4]
    with pytest.raises(BrainhiveError):
        find_units()


@pytest.mark.parametrize("kind", KINDS)
def test_pages_of_signals(monkeypatch, recorded, tmp_path, kind):
    monkeypatch.setattr(repetitions, "MAX_MEASURED_STIMULI", 9)
    reliability = measure_reliability(trials_of("test", 1, kind), "test")
    drawn = []

    # figures are listed, not drawn
    def list_drawn(groups):
        drawn.extend(one for _, some, _ in groups for one in some)
        return []

    def list_headlines(*parts, headlines, **fields):
        drawn.extend(headlines)
        return SimpleNamespace(write=lambda path: None)

    monkeypatch.setattr(signal_page, "group_artifacts", list_drawn)
    monkeypatch.setattr(signal_page, "Page", list_headlines)
    path = tmp_path / "signals/lab/default/sub-01.h5"
    path.parent.mkdir(parents=True)
    stored = {split: trials_of(split, 1, kind) for split in ("train", "test")}
    SignalStore.write(path, stored)

    _, figures = write_signal_page(SignalStore.open(path), tmp_path / "page")

    numbers = {"figures": figures, "measured": reliability}
    recorded(
        digits=4,
        **numbers,
        lines=[
            list(line.values) for one in drawn for line in getattr(one, "lines", ())
        ],
        grids=[
            np.array(one.values, np.float64)
            for one in drawn
            if isinstance(one, artifacts.Heatmap)
        ],
        evoked=[
            [np.array(one.values), one.topography_ms]
            for one in drawn
            if isinstance(one, artifacts.Evoked)
        ],
        volumes=[
            read_drawn_values(one, tmp_path / "page")
            for one in drawn
            if isinstance(one, artifacts.BrainMap)
        ],
        points=[
            [point.value for point in one.points]
            for one in drawn
            if isinstance(one, artifacts.Topomap)
        ],
    )


def test_two_repeated_pictures_are_too_few():
    trials = trials_of("test", 1, "plain")
    is_first = trials.repetition < 1
    three = trials.choose(is_first | (trials.picture_of_trial < 3))
    assert len(measure_reliability(three, "test")[0]) == 3
    two = trials.choose(is_first | (trials.picture_of_trial < 2))
    with pytest.raises(BrainhiveError, match="2 test"):
        measure_reliability(two, "test")


@pytest.mark.parametrize(
    ("names", "axis", "is_missing"),
    [
        (SENSORS, SENSOR, False),
        (list("abcde"), SENSOR, True),
        (list("abcde"), "band", False),
    ],
)
def test_head_maps_need_places_of_sensors(tmp_path, names, axis, is_missing):
    items = Items.independent([[f"p{row}" for row in range(9)]], "pictures")
    values = np.random.default_rng(0).normal(size=(5, 9))
    profile = Profile("margin_lost", Axis(axis, names), values)
    profiles = describe_profiles(
        [[SubjectProfiles({"sensors": profile})]],
        items,
        protocol="a",
        split="test",
        seeds=(0,),
    )
    signal = np.zeros((1, 1, 5, 2), np.float32)
    space = Sensors(names)
    trials = Trials.from_repetitions(signal, ["a"], space, np.arange(2) / 50, 50.0, "V")
    tests = SimpleNamespace(describe=lambda: {}, caveats=[])
    job = SimpleNamespace(tests=tests, recipe=SPEC, subjects={1: []})

    missing = {}
    summarise_findings(job, profiles, [trials], items, missing, [], {"protocol": "a"})

    assert ("head maps" in missing) == is_missing
