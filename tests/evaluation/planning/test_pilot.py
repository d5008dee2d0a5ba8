"""Tests of pilots that are read from runs and from signal stores."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.core.runs.result import Result
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.signals import Sensors, Trials
from brainhive_cli.data.stores.signal_store import SignalStore, build_store_path
from brainhive_cli.data.stores.target_store import TargetStore, open_stores
from brainhive_cli.evaluation.planning import pilot
from brainhive_cli.evaluation.planning.pilot import Pilot, read_pilot
from tests.worlds.command_fixtures import DEMO, RunCommand

SIGNALS = "signals/demo-noise-0.3-40-concepts/default"


@pytest.fixture
def signals(world: Path, tmp_path: Path) -> str:
    """Copy the signals of two people. Other tests may have recorded more."""
    folder = tmp_path / SIGNALS
    folder.mkdir(parents=True)
    for name in ("sub-01.h5", "sub-02.h5"):
        shutil.copy(world / SIGNALS / name, folder)
    return str(folder)


def decode_own_trials(person: Any) -> float:
    """Regress embeddings on one half of the trials, and correlate in the other."""
    import torch

    from brainhive_cli.measurement.linear_maps import Products

    signals = torch.from_numpy(person.signals)
    shown = torch.from_numpy(person.targets[person.picture])
    is_train = torch.from_numpy(person.picture % 2 == 0)
    mean = signals[is_train].mean(0)
    products = Products.from_samples(signals[is_train] - mean, [shown[is_train]])
    predicted = products.predict(signals[~is_train] - mean)
    pair = np.stack([predicted.numpy().ravel(), shown[~is_train].numpy().ravel()])
    return float(np.corrcoef(pair)[0, 1])


def check_demo(read: Pilot) -> None:
    """Check the pilot of the two people of the demo."""
    assert len(read.people) == read.design.people == 2
    for person in read.people:
        n_trials = len(person.picture)
        assert n_trials == read.design.trials == 240 * 4 + 100 * 16
        assert person.signals.shape == (n_trials, min(400, n_trials - 1))
        assert person.signals.dtype == person.targets.dtype == np.float32
        assert person.picture.max() < len(person.targets)
        assert decode_own_trials(person) > 0.3
    assert (read.design.train_pictures, read.design.train_repetitions) == (240, 4)
    assert (read.design.test_pictures, read.design.test_repetitions) == (100, 16)
    assert read.design.onset_interval_s == read.design.minutes == 0
    assert read.caveats == ["simulated"]
    # test concepts are new: the 240 training pictures are of 40 concepts
    assert sorted(np.bincount(read.people[0].group)) == [1] * 100 + [6] * 40


def test_a_run_and_its_signals_are_the_same_pilot(
    evaluation_result: Result, trained_run: Path, signals: str
) -> None:
    from_evaluation = read_pilot(evaluation_result.folder.name, Paths())
    check_demo(from_evaluation)
    from_training = read_pilot(str(trained_run), Paths())
    from_store = read_pilot(signals, Paths())
    check_demo(from_store)
    for other in (from_training, from_store):
        assert other.design == from_evaluation.design
        np.testing.assert_array_equal(
            other.people[1].picture, from_evaluation.people[1].picture
        )
        np.testing.assert_allclose(
            other.people[1].targets, from_evaluation.people[1].targets
        )


def test_an_evaluation_names_the_people_of_the_pilot(
    trained_run: Path, run_command: RunCommand
) -> None:
    run = f"run={trained_run}"
    evaluation = run_command("eval-retrieval", run, DEMO, "subjects=2", "sheet_rows=0")
    read = read_pilot(str(evaluation.folder), Paths())
    assert read.design.people == 1
    second = read_pilot(f"{SIGNALS}/sub-02.h5", Paths())
    np.testing.assert_array_equal(read.people[0].picture, second.people[0].picture)
    # the run scales signals by 0.2, but trials of a pilot are standardised
    np.testing.assert_allclose(
        np.abs(read.people[0].signals), np.abs(second.people[0].signals), atol=0.01
    )


def store_copy(world: Path, tmp_path: Path, **changes: Any) -> Path:
    """Store the signals of the first person with changed fields of both splits."""
    trials = SignalStore.open(world / SIGNALS / "sub-01.h5").splits
    changed = {}
    for split, recording in trials.items():
        n_repetitions = changes.get("n_repetitions", recording.max_repetitions)
        shown = recording.choose(recording.repetition < n_repetitions)
        # all pictures are shown once before any is repeated
        places = shown.repetition * len(shown.counts) + shown.picture_of_trial
        changed[split] = replace(
            shown,
            signal=shown.signal[:],
            known_digests=None,
            onset_s=places * 2.0 if changes.get("has_onsets") else None,
            runs=np.full(len(places), split == "test", np.int16),
        )
    changed["imagery"] = changed["test"]
    path = tmp_path / "demo-noise-0.3-40-concepts" / "own" / "sub-01.h5"
    path.parent.mkdir(parents=True)
    SignalStore.write(path, changed)
    return path


def test_pictures_are_held_out_if_the_test_has_learned_concepts(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_with_one_concept(*args: Any) -> dict[str, TargetStore]:
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


def test_averages_are_a_pilot(world: Path, tmp_path: Path) -> None:
    read = read_pilot(str(store_copy(world, tmp_path, n_repetitions=1)), Paths())
    assert read.design.trials == 340
    assert len(read.people[0].signals) == 340
    assert "repetitions" in read.warnings[-1]


def test_known_onsets_give_minutes_and_orders(world: Path, tmp_path: Path) -> None:
    read = read_pilot(str(store_copy(world, tmp_path, has_onsets=True)), Paths())
    assert read.design.onset_interval_s == 2
    assert read.design.session_minutes == pytest.approx(2560 * 2 / 60, abs=0.1)
    assert [len(order.item) for order in read.orders] == [960, 1600]
    assert len(np.unique(read.orders[0].label)) == 40
    assert read.window_ms == (0, pytest.approx(996, abs=10))


def test_large_recordings_are_read_in_part(
    signals: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pilot, "MAX_PICTURES", {"train": 30, "test": 10})
    monkeypatch.setattr(pilot, "MAX_REPETITIONS", 3)
    monkeypatch.setattr(pilot, "MAX_REPEATED_TRIALS", 700)
    monkeypatch.setattr(pilot, "MAX_FEATURES", 7)
    monkeypatch.setattr(pilot, "MAX_WIDTH", 5)
    read = read_pilot(signals, Paths())
    person = read.people[0]
    # 3 repetitions of 240 training pictures, and 7 of 100 test pictures
    assert person.signals.shape == (30 * 3 + 10 * 7, 7)
    assert person.targets.shape == (40, 5)
    assert sorted(np.bincount(person.picture)) == [3] * 30 + [7] * 10
    assert read.design.trials == 2560
    assert "320 of the 5,120 trials" in read.warnings[0]


def test_memory_bounds_the_number_of_pictures(
    signals: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_pilot(signals, Paths()).people[0]
    n_values = SignalStore.open(Path(signals) / "sub-01.h5")["train"].signal[:4].size
    # 4 repetitions of training pictures, 16 of test pictures, 12 numbers of embeddings
    monkeypatch.setattr(pilot, "MAX_VALUES", 60 * (n_values + 2 * 12))
    bounded = read_pilot(signals, Paths()).people[0]
    assert (len(first.targets), len(bounded.targets)) == (340, 60 + 15)


def test_signals_without_embeddings_name_the_command(
    world: Path, tmp_path: Path
) -> None:
    with pytest.raises(MissingData) as error:
        read_pilot(SIGNALS, Paths(embeddings=str(tmp_path)))
    assert "brainhive embed" in error.value.hint
    with pytest.raises(MissingData):
        read_pilot(SIGNALS, Paths(), encoder="clip-h14")
    with pytest.raises(MissingData):
        read_pilot("train-align", Paths(), encoder="clip-h14")


def test_a_missing_reference_is_named(world: Path) -> None:
    with pytest.raises(MissingData) as error:
        read_pilot("no-such-run", Paths())
    assert "no-such-run" in error.value.message


def test_only_the_first_trials_are_ordered(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pilot, "MAX_ORDERED_TRIALS", 300)
    read = read_pilot(str(store_copy(world, tmp_path, has_onsets=True)), Paths())
    # pictures were shown one after another, each once
    assert read.orders[0].item.tolist() == [*range(240), *range(60)]


@pytest.fixture
def gratings(home: Path) -> str:
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


def test_held_out_runs_belong_to_the_pilot(
    gratings: str, run_command: RunCommand
) -> None:
    run_command("embed", f"dataset={gratings}")
    run_command("train-align", f"dataset={gratings}", "backbone=lda", "seeds=0")
    read = read_pilot("train-align", Paths())
    assert read.design.train_pictures == read.design.test_pictures == 4
    assert (read.design.train_repetitions, read.design.test_repetitions) == (10, 5)
    assert len(read.people[0].targets) == 4
    assert (np.bincount(read.people[0].picture) == 15).all()

    assert read.window_ms is None

    # a store has no held-out runs
    from_store = read_pilot("signals/gratings/default/sub-01.h5", Paths())
    assert from_store.design.train_repetitions == 15
    assert from_store.people[0].signals.shape == (60, 10)
