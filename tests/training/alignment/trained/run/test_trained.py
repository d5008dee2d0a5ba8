"""Trained models and runs without weights."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.training.alignment import model as aligners
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.trained import (
    model as trained_model,
    run as trained_run_module,
)
from brainhive_cli.training.alignment.trained.model import TrainedModel
from brainhive_cli.training.alignment.trained.run import TrainedRun, refuse_sweep


class Recordings:
    """Stores of the provenance of each person's splits."""

    def __init__(self, facts: dict[int, list[dict[str, Any]]]) -> None:
        self.facts = facts

    def build_path(self, subject: int) -> Any:
        return SimpleNamespace(is_file=lambda: subject in self.facts)

    def open_store(self, subject: int) -> Any:
        splits = enumerate(self.facts[subject])
        return SimpleNamespace(
            splits={n: SimpleNamespace(provenance=each) for n, each in splits}
        )


def model_of(facts: dict[int, list[dict[str, Any]]]) -> TrainedModel:
    model = object.__new__(TrainedModel)
    model.cell = Cell("a", (2, 3), (1,), 1)
    model.recordings = Recordings(facts)  # type: ignore[assignment]
    return model


@pytest.mark.parametrize(
    ("facts", "delay_s", "unit"),
    [
        ({}, 0.0, "µV"),
        ({1: [{}]}, 0.0, "µV"),
        ({1: [{"preparation": {}}]}, 0.0, "µV"),
        ({1: [{"preparation": {"delay_ms": 40}, "recorded_unit": "volt"}]}, 0.04, "V"),
        # sessions of a store, and of another split
        ({1: [{}, {"sessions": [{"recorded_unit": "fT"}]}]}, 0.0, "fT"),
        # of the training, where a person has no store; the first one counts
        (
            {
                3: [{"preparation": {"delay_ms": 10}, "recorded_unit": "T"}],
                2: [{"preparation": {"delay_ms": 20}, "recorded_unit": "mV"}],
            },
            0.02,
            "mV",
        ),
        (
            {
                1: [{"preparation": {"delay_ms": 30}}],
                2: [{"preparation": {"delay_ms": 20}, "recorded_unit": "mV"}],
            },
            0.03,
            "mV",
        ),
    ],
)
def test_a_delay_and_a_unit_are_those_of_the_stores(
    facts: dict[int, list[dict[str, Any]]], delay_s: float, unit: str
) -> None:
    model = model_of(facts)
    assert model.find_delay_s(1) == pytest.approx(delay_s)
    assert model.find_recorded_unit(1) == unit


def test_a_sweep_is_no_run_of_one_model() -> None:
    recipes = {"lr=1": None, "lr=2": None}
    folder = SimpleNamespace(name="run")
    run: Any = SimpleNamespace(variants=[*recipes], recipes=recipes, folder=folder)
    with pytest.raises(RecipeError):
        refuse_sweep(run)
    run.variants = []
    refuse_sweep(run)


def test_people_of_another_data_set_are_new_to_a_model() -> None:
    model = model_of({})
    seen = SimpleNamespace(make_subject_index=lambda subject, count: (subject, count))
    model.__dict__["module"] = seen
    for is_new, expected in ((True, (None, 3)), (False, (2, 3))):
        model.run = SimpleNamespace(tests_new_subjects=is_new)  # type: ignore[assignment]
        assert model.make_subject_index(2, 3) == expected


def test_a_normaliser_is_the_persons_or_the_mean() -> None:
    model = model_of({})
    learned = SimpleNamespace(
        normaliser="mean", normaliser_of=lambda subject: f"of {subject}"
    )
    model.__dict__["_described"] = None, learned
    model.recordings.signal = SimpleNamespace(normalise=None)  # type: ignore[misc]
    for is_new, expected in ((True, "mean"), (False, "of 2")):
        model.run = SimpleNamespace(tests_new_subjects=is_new)  # type: ignore[assignment]
        assert model.find_normaliser(2, "test") == expected
    learned.normaliser = None
    model.run = SimpleNamespace(tests_new_subjects=True)  # type: ignore[assignment]
    assert model.find_normaliser(2, "test") is None


def test_signals_of_any_number_are_decoded_in_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trained_model, "SIGNALS_PER_BLOCK", 3)
    model = model_of({})
    model.run = SimpleNamespace(tests_new_subjects=False)  # type: ignore[assignment]
    model.__dict__["module"] = SimpleNamespace(
        device=torch.device("cpu"),
        make_subject_index=lambda subject, count: torch.full((count,), subject),
        encode_signal=lambda signal, index: signal[:, :, 0] + index[:, None],
    )
    signals = np.random.default_rng(0).normal(size=(8, 2, 4)).astype(np.float32)
    trials: Any = SimpleNamespace(subject=2, averages=signals)
    tokens = model.encode(trials)
    np.testing.assert_allclose(tokens, signals[:, :, 0] + 2, rtol=1e-6)
    other = model.encode(trials, torch.zeros(4, 2, 4))
    assert other.shape == (4, 2) and (other == 2).all()


def test_trials_are_normalised_as_in_the_training(
    run_command, align_overrides, world, runs
) -> None:
    keys = ("backbone=ridge", "signal.normalise=channel", "subjects=1", runs)
    folder = run_command("train-align", *align_overrides[:2], "seeds=1", *keys).folder
    run = TrainedRun(RunFolder(folder))
    model = TrainedModel(run, run.cells[0], torch.device("cpu"))

    plain = model.open_trials(1, "test", is_normalised=False).averages
    scaled = model.open_trials(1, "test").averages

    raw = {"is_tested": False, "is_normalised": False}
    learned = model.open_trials(1, "train", **raw).averages
    mean, spread = learned.mean((0, 2)), learned.std((0, 2))
    expected = (plain - mean[:, None]) / spread[:, None]
    assert np.abs(scaled - plain).max() > 0.5
    assert np.corrcoef(scaled.ravel(), expected.ravel())[0, 1] > 0.99


def run_of(paths: str, dataset: str, trained_on: str | None = None) -> TrainedRun:
    run = object.__new__(TrainedRun)
    recipe = None if trained_on is None else SimpleNamespace(dataset=trained_on)
    facts = {"paths": paths, "dataset_config": dataset, "recipe": recipe}
    vars(run).update(facts, _cache={}, _data_cache={})
    return run


def test_runs_of_one_data_set_share_values_that_depend_on_data() -> None:
    counted = list[str]()

    def count() -> int:
        counted.append("")
        return len(counted)

    first, second = (run_of("home", "set", "set") for _ in range(2))
    assert [
        first.compute_once("key", count),
        first.compute_once("key", count, True),
    ] == [1, 2]
    second.share_data(first)
    # what depends on models is not shared
    assert [
        second.compute_once("key", count, True),
        second.compute_once("key", count),
    ] == [2, 3]
    assert [
        second.compute_once("new", count, True),
        first.compute_once("new", count, True),
    ] == [4, 4]


@pytest.mark.parametrize(
    "other",
    [("elsewhere", "set", "set"), ("home", "other", "set"), ("home", "set", "other")],
)
def test_runs_of_other_data_share_nothing(other: tuple[str, str, str]) -> None:
    first, second = run_of("home", "set", "set"), run_of(*other)
    first.compute_once("key", lambda: 1, True)
    second.share_data(first)
    assert second.compute_once("key", lambda: 2, True) == 2


def run_of_recordings(
    folder: Path,
    encoder: str = "a",
    subjects: tuple[int, ...] = (1,),
    alike_by: str = "concept",
    has_seen_pictures: bool = False,
) -> Any:
    """Make a run whose people have empty stores of signals, if there is a file."""
    run: Any = run_of("home", "set")
    holdout = SimpleNamespace(
        has_seen_pictures=has_seen_pictures, name_stored_split=lambda split: split
    )
    run.dataset = SimpleNamespace(holdout=holdout, alike_by=alike_by)

    class Store(dict[str, str]):
        splits = property(dict.keys)

    def open_store(subject: int) -> Store:
        return Store(train=f"train {subject}", test=f"test {subject}")

    recordings = SimpleNamespace(
        build_path=lambda subject: folder / f"{subject}.h5", open_store=open_store
    )
    model = object.__new__(TrainedModel)
    model.cell = Cell("a", subjects, subjects, 1)
    model.recordings = recordings  # type: ignore[assignment]
    model.run, model.encoders = run, [SimpleNamespace(name=encoder)]
    run.models = [model]
    run.open_stores = lambda split: {encoder: f"pictures of {split}"}
    return run


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Arguments of each described study, whose design is its number."""
    calls: list[tuple[Any, ...]] = []

    def describe(*arguments: Any, is_film: bool) -> int:
        calls.append((*arguments, is_film))
        return len(calls)

    monkeypatch.setattr(trained_run_module, "describe_study", describe)
    return calls


def test_a_study_is_described_once_for_each_encoder(
    described: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    (tmp_path / "1.h5").touch()
    first, second, other = (run_of_recordings(tmp_path, name) for name in "aab")
    for run in (second, other):
        run.share_data(first)

    studies = [run.find_study("test") for run in (first, first, second, other)]

    assert studies == [1, 1, 1, 2] and len(described) == 2


def test_a_study_has_the_trials_of_all_tested_people(
    described: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    """People without signals are left out, and splits without pictures."""
    for subject in (1, 3):
        (tmp_path / f"{subject}.h5").touch()
    run = run_of_recordings(tmp_path, subjects=(1, 2, 3))
    run.find_study("test")

    def open_stores(split: str) -> dict[str, str]:
        if split == "train":
            raise MissingData("no pictures")
        return {"a": f"pictures of {split}"}

    incomplete = run_of_recordings(tmp_path, subjects=(1, 2, 3))
    incomplete.open_stores = open_stores
    incomplete.find_study("test")

    _, recordings, pictures, split, _, is_film = described[0]
    assert [*recordings] == [1, 3] and (split, is_film) == ("test", False)
    assert [*recordings[3].items()] == [("test", "test 3"), ("train", "train 3")]
    assert pictures == {"test": "pictures of test", "train": "pictures of train"}
    _, recordings, pictures, *_ = described[1]
    assert recordings == {1: {"test": "test 1"}, 3: {"test": "test 3"}}
    assert pictures == {"test": "pictures of test"}


def test_new_clips_and_missing_signals_have_no_study(
    described: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    """Held-out trials of clips have one, in which the order tells nothing."""
    assert run_of_recordings(tmp_path).find_study("test") is None
    (tmp_path / "1.h5").touch()
    film = run_of_recordings(tmp_path, alike_by="neighbours")
    assert film.find_study("test") is None
    assert not described

    seen = run_of_recordings(tmp_path, alike_by="neighbours", has_seen_pictures=True)
    assert seen.find_study("test") == 1 and described[0][-1] is True


def drop_cell(run: Path) -> str:
    config = next((run / "cells").glob("*/model/config.json"))
    config.unlink()
    return config.name


def drop_weights(run: Path) -> str:
    file = next((run / "cells").glob("*/model/model.safetensors"))
    file.unlink()
    return file.name


def cut_weights(run: Path) -> str:
    file = next((run / "cells").glob("*/model/model.safetensors"))
    file.write_bytes(b"nothing")
    return file.name


@pytest.mark.parametrize("spoil", [drop_cell, drop_weights, cut_weights])
def test_a_run_that_lost_a_file_is_refused_by_its_check(
    trained_run: Path, tmp_path: Path, spoil: Callable[[Path], str]
) -> None:
    own = Path(
        shutil.copytree(trained_run, tmp_path / "train-align" / trained_run.name)
    )
    assert len(TrainedRun(RunFolder(own)).check(["test"])) == 2
    name = spoil(own)
    with pytest.raises(BrainhiveError) as caught:
        TrainedRun(RunFolder(own)).check(["test"])
    assert name in caught.value.message


def test_a_check_reads_neither_weights_nor_signals(
    trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*asked: Any, **keys: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(aligners, "load", refuse)
    monkeypatch.setattr(Trials, "read", refuse)
    run = TrainedRun(RunFolder(trained_run))
    assert sorted(subject for _, subject in run.check(["test"])) == [1, 2]


def test_trials_whose_store_is_absent_are_checked_later(
    trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TrainedRun(RunFolder(trained_run))
    monkeypatch.setattr(TrainedRun, "is_prepared", False)
    assert run.check(["test"]) == {}
    # of those that are here everything else is checked
    spec = run.models[0].layout.spec
    monkeypatch.setitem(spec.__dict__, "unit", "fT")
    with pytest.raises(BrainhiveError) as caught:
        run.check(["test"])
    assert "unit uV, not fT" in caught.value.message
