"""Tests of pilots that are read from runs and from signal stores."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.signals import Sensors, Trials
from brainhive_cli.data.stores.signal_store import SignalStore, build_store_path
from brainhive_cli.data.stores.target_store import open_stores
from brainhive_cli.evaluation.planning import pilot
from brainhive_cli.evaluation.planning.pilot import read_pilot
from tests.worlds.command_fixtures import DEMO

SIGNALS = "signals/demo-noise-0.3-40-concepts/default"


@pytest.fixture
def signals(world, tmp_path):
    """Copy the signals of two people. Other tests may have recorded more."""
    folder = tmp_path / SIGNALS
    folder.mkdir(parents=True)
    for name in ("sub-01.h5", "sub-02.h5"):
        shutil.copy(world / SIGNALS / name, folder)
    return str(folder)


def decode_own_trials(person):
    """Regress embeddings on one half of the trials, and correlate in the other."""
    import torch

    from brainhive_cli.measurement.linear_maps import Products

    signals = torch.from_numpy(person.signals)
    shown_embeddings = torch.from_numpy(person.targets[person.picture])
    is_train = torch.from_numpy(person.picture % 2 == 0)
    mean = signals[is_train].mean(0)
    products = Products.from_samples(
        signals[is_train] - mean, [shown_embeddings[is_train]]
    )
    predicted = products.predict(signals[~is_train] - mean)
    pair = np.stack(
        [predicted.numpy().ravel(), shown_embeddings[~is_train].numpy().ravel()]
    )
    return float(np.corrcoef(pair)[0, 1])


def check_demo(pilot):
    """Check the pilot of the two people of the demo."""
    assert len(pilot.people) == pilot.design.people == 2
    for person in pilot.people:
        n_trials = len(person.picture)
        assert n_trials == pilot.design.trials == 240 * 4 + 100 * 16
        assert person.signals.shape == (n_trials, min(400, n_trials - 1))
        assert person.signals.dtype == person.targets.dtype == np.float32
        assert person.picture.max() < len(person.targets)
        assert decode_own_trials(person) > 0.3
    assert (pilot.design.train_pictures, pilot.design.train_repetitions) == (240, 4)
    assert (pilot.design.test_pictures, pilot.design.test_repetitions) == (100, 16)
    assert pilot.design.onset_interval_s == pilot.design.minutes == 0
    assert pilot.caveats == ["simulated"]
    # test concepts are new: the 240 training pictures are of 40 concepts
    assert sorted(np.bincount(pilot.people[0].group)) == [1] * 100 + [6] * 40


def test_a_run_and_its_signals_are_the_same_pilot(
    evaluation_result, trained_run, signals
):
    from_evaluation = read_pilot(evaluation_result.folder.name, Paths())
    check_demo(from_evaluation)
    from_training = read_pilot(str(trained_run), Paths())
    from_store = read_pilot(signals, Paths())
    check_demo(from_store)
    for other_pilot in (from_training, from_store):
        assert other_pilot.design == from_evaluation.design
        np.testing.assert_array_equal(
            other_pilot.people[1].picture, from_evaluation.people[1].picture
        )
        np.testing.assert_allclose(
            other_pilot.people[1].targets, from_evaluation.people[1].targets
        )


def test_an_evaluation_names_the_people_of_the_pilot(trained_run, run_command):
    run_key = f"run={trained_run}"
    evaluation = run_command(
        "eval-retrieval", run_key, DEMO, "subjects=2", "sheet_rows=0"
    )
    pilot_of_run = read_pilot(str(evaluation.folder), Paths())
    assert pilot_of_run.design.people == 1
    second = read_pilot(f"{SIGNALS}/sub-02.h5", Paths())
    np.testing.assert_array_equal(
        pilot_of_run.people[0].picture, second.people[0].picture
    )
    # the run scales signals by 0.2, but trials of a pilot are standardised
    np.testing.assert_allclose(
        np.abs(pilot_of_run.people[0].signals),
        np.abs(second.people[0].signals),
        atol=0.01,
    )


def store_copy(world, tmp_path, **changes):
    """Store the signals of the first person with changed fields of both splits."""
    trials = SignalStore.open(world / SIGNALS / "sub-01.h5").splits
    changed = {}
    for split, recording in trials.items():
        n_repetitions = changes.get("n_repetitions", recording.max_repetitions)
        shown_trials = recording.choose(recording.repetition < n_repetitions)
        # all pictures are shown once before any is repeated
        trial_numbers = (
            shown_trials.repetition * len(shown_trials.counts)
            + shown_trials.picture_of_trial
        )
        changed[split] = replace(
            shown_trials,
            signal=shown_trials.signal[:],
            known_digests=None,
            onset_s=trial_numbers * 2.0 if changes.get("has_onsets") else None,
            runs=np.full(len(trial_numbers), split == "test", np.int16),
        )
    changed["imagery"] = changed["test"]
    path = tmp_path / "demo-noise-0.3-40-concepts" / "own" / "sub-01.h5"
    path.parent.mkdir(parents=True)
    SignalStore.write(path, changed)
    return path


def test_pictures_are_held_out_if_the_test_has_learned_concepts(
    world, tmp_path, monkeypatch
):
    def open_with_one_concept(*args):
        stores = {}
        for name, store in open_stores(*args).items():
            concepts = Names.of(["dog"] * len(store.concepts))
            stores[name] = replace(store, concepts=concepts)
        return stores

    monkeypatch.setattr(pilot, "open_stores", open_with_one_concept)
    path = str(store_copy(world, tmp_path))
    group = read_pilot(path, Paths()).people[0].group
    assert len(np.unique(group)) == len(group) == 340
    # other pictures that are split by concept
    group = read_pilot(path, Paths(), new_concepts=True).people[0].group
    assert len(np.unique(group)) == 1


def test_averages_are_a_pilot(world, tmp_path):
    averaged_pilot = read_pilot(
        str(store_copy(world, tmp_path, n_repetitions=1)), Paths()
    )
    assert averaged_pilot.design.trials == 340
    assert len(averaged_pilot.people[0].signals) == 340
    assert "repetitions" in averaged_pilot.warnings[-1]


def test_known_onsets_give_minutes_and_orders(world, tmp_path):
    timed_pilot = read_pilot(str(store_copy(world, tmp_path, has_onsets=True)), Paths())
    assert timed_pilot.design.onset_interval_s == 2
    assert timed_pilot.design.session_minutes == pytest.approx(2560 * 2 / 60, abs=0.1)
    assert [len(order.item) for order in timed_pilot.orders] == [960, 1600]
    assert len(np.unique(timed_pilot.orders[0].label)) == 40
    assert timed_pilot.window_ms == (0, pytest.approx(996, abs=10))


def test_large_recordings_are_read_in_part(signals, monkeypatch):
    monkeypatch.setattr(pilot, "MAX_PICTURES", {"train": 30, "test": 10})
    monkeypatch.setattr(pilot, "MAX_REPETITIONS", 3)
    monkeypatch.setattr(pilot, "MAX_REPEATED_TRIALS", 700)
    monkeypatch.setattr(pilot, "MAX_FEATURES", 7)
    monkeypatch.setattr(pilot, "MAX_WIDTH", 5)
    large_pilot = read_pilot(signals, Paths())
    person = large_pilot.people[0]
    # 3 repetitions of 240 training pictures, and 7 of 100 test pictures
    assert person.signals.shape == (30 * 3 + 10 * 7, 7)
    assert person.targets.shape == (40, 5)
    assert sorted(np.bincount(person.picture)) == [3] * 30 + [7] * 10
    assert large_pilot.design.trials == 2560
    assert "320 of the 5,120 trials" in large_pilot.warnings[0]


def test_memory_bounds_the_number_of_pictures(signals, monkeypatch):
    whole_person = read_pilot(signals, Paths()).people[0]
    n_values = SignalStore.open(Path(signals) / "sub-01.h5")["train"].signal[:4].size
    # 4 repetitions of training pictures, 16 of test pictures, 12 numbers of embeddings
    monkeypatch.setattr(pilot, "MAX_VALUES", 60 * (n_values + 2 * 12))
    bounded = read_pilot(signals, Paths()).people[0]
    assert (len(whole_person.targets), len(bounded.targets)) == (340, 60 + 15)


def test_signals_without_embeddings_name_the_command(world, tmp_path):
    with pytest.raises(MissingData) as error:
        read_pilot(SIGNALS, Paths(embeddings=str(tmp_path)))
    assert "brainhive embed" in error.value.hint
    with pytest.raises(MissingData):
        read_pilot(SIGNALS, Paths(), encoder="clip-h14")
    with pytest.raises(MissingData):
        read_pilot("train-align", Paths(), encoder="clip-h14")


def test_a_missing_reference_is_named(world):
    with pytest.raises(MissingData) as error:
        read_pilot("no-such-run", Paths())
    assert "no-such-run" in error.value.message


def test_only_the_first_trials_are_ordered(world, tmp_path, monkeypatch):
    monkeypatch.setattr(pilot, "MAX_ORDERED_TRIALS", 300)
    ordered_pilot = read_pilot(
        str(store_copy(world, tmp_path, has_onsets=True)), Paths()
    )
    # pictures were shown one after another, each once
    assert ordered_pilot.orders[0].item.tolist() == list(range(240)) + list(range(60))


@pytest.fixture
def gratings(home):
    """Record four gratings in three runs, always in the same order."""
    names = ["f1", "f2", "f3", "f4"]
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(4, 1, 10, 1))
    order = np.arange(4 * 15).reshape(15, 4).T  # [N, R]
    runs = np.arange(15) // 5
    recording = Trials.from_repetitions(
        (patterns + rng.normal(size=(4, 15, 10, 1))).astype(np.float32),
        names,
        Sensors([f"E{number}" for number in range(10)]),
        times_s=np.zeros(1),
        rate_hz=None,
        unit="µV",
        runs=np.tile(runs.astype(np.int16), (4, 1)),
        onset_s=(order - 20 * runs) * 3.0,
    )
    path = build_store_path(home / "signals", "gratings", "default", 1)
    path.parent.mkdir(parents=True)
    SignalStore.write(path, {"train": recording})
    dataset = {"kind": "categories", "name": "gratings", "names": names}
    return json.dumps(dataset | {"holdout": {"by": "runs", "folds": 3}})


def test_held_out_runs_belong_to_the_pilot(gratings, run_command):
    run_command("embed", f"dataset={gratings}")
    run_command("train-align", f"dataset={gratings}", "backbone=lda", "seeds=0")
    grating_pilot = read_pilot("train-align", Paths())
    assert (
        grating_pilot.design.train_pictures == grating_pilot.design.test_pictures == 4
    )
    assert (
        grating_pilot.design.train_repetitions,
        grating_pilot.design.test_repetitions,
    ) == (10, 5)
    assert len(grating_pilot.people[0].targets) == 4
    assert (np.bincount(grating_pilot.people[0].picture) == 15).all()

    assert grating_pilot.window_ms is None

    # a store has no held-out runs
    from_store = read_pilot("signals/gratings/default/sub-01.h5", Paths())
    assert from_store.design.train_repetitions == 15
    assert from_store.people[0].signals.shape == (60, 10)
