"""Test sets of trained models: their checks, people, seen pictures and study."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.data.signals import Holdout, Normaliser, Signal, Trials
from brainhive_cli.training.alignment import model as aligners
from brainhive_cli.training.alignment.trained import (
    TestSet,
    check_test_set,
    open_test_set,
    test_set as test_sets,
)
from brainhive_cli.training.alignment.trained.run import TrainedRun
from tests.worlds.run_copies import change_unit, copy_run


@pytest.fixture
def run(trained_run):
    """Run of two people, with a cell for each."""
    return TrainedRun.read(RunFolder(trained_run))


@pytest.fixture
def first_person_only(world, tmp_path):
    """Folders that hold the signals of person 1, and none of person 2."""
    store = "signals/demo-noise-0.3-40-concepts/default/sub-01.h5"
    source = world / store
    target = tmp_path / store
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    return Paths(signals=str(tmp_path / "signals"))


# checks


def drop_cell(run):
    config = next((run / "cells").glob("*/model/config.json"))
    config.unlink()
    return config.name


def drop_weights(run):
    file = next((run / "cells").glob("*/model/model.safetensors"))
    file.unlink()
    return file.name


def cut_weights(run):
    file = next((run / "cells").glob("*/model/model.safetensors"))
    file.write_bytes(b"nothing")
    return file.name


def check(folder, **options):
    trained_run = TrainedRun.read(RunFolder(folder), **options)
    return check_test_set(open_test_set(trained_run, "test"), ["test"])


@pytest.mark.parametrize("spoil", [drop_cell, drop_weights, cut_weights])
def test_a_run_that_lost_a_file_is_refused_by_its_check(trained_run, tmp_path, spoil):
    own_copy_run = copy_run(trained_run, tmp_path)
    assert len(check(own_copy_run)) == 2
    name = spoil(own_copy_run)
    with pytest.raises(BrainhiveError) as caught:
        check(own_copy_run)
    assert name in caught.value.message


def test_a_check_reads_neither_weights_nor_signals(trained_run, monkeypatch):
    def refuse(*arguments, **keys):
        raise AssertionError

    monkeypatch.setattr(aligners, "load", refuse)
    monkeypatch.setattr(Trials, "read", refuse)
    assert sorted(subject for _, subject in check(trained_run)) == [1, 2]


def test_trials_whose_store_is_absent_are_checked_later(
    trained_run, tmp_path, first_person_only
):
    own_copy_run = copy_run(trained_run, tmp_path)
    assert check(own_copy_run, paths=first_person_only) == {}
    # of those that are here everything else is checked
    change_unit(own_copy_run, "fT")
    with pytest.raises(BrainhiveError) as caught:
        check(own_copy_run, paths=first_person_only)
    assert "unit uV, not fT" in caught.value.message


# people


def test_models_of_several_seeds_share_the_trials_of_a_person(run):
    cell = run.cells[0]
    seeds = replace(run, cells=[cell, replace(cell, seed=2)])
    tests = open_test_set(seeds, "test")
    first_model, second = tests.models[0]
    assert tests.open_person(first_model, 1) is tests.open_person(second, 1)
    assert tests.open_person(first_model, 1) is not tests.open_person(first_model, 2)


def hold_out_another_fold(model):
    return replace(model, cell=replace(model.cell, fold=2))


def select_another_window(model):
    return replace(model, signal=Signal(window_ms=(0, 500)))


def read_channels_in_another_order(model):
    other_model = replace(model)
    spec = replace(model.layout.spec, names=model.layout.spec.names[::-1])
    vars(other_model)["layout"] = replace(model.layout, spec=spec)
    return other_model


def store_a_normaliser(model):
    layout, history = model.layout, model.history
    mean = Normaliser(np.zeros((17, 1)), np.ones((17, 1)))
    other_model = replace(model)
    vars(other_model)["_description"] = layout, replace(history, normalisers={1: mean})
    return other_model


@pytest.mark.parametrize(
    "change",
    [
        hold_out_another_fold,
        select_another_window,
        read_channels_in_another_order,
        store_a_normaliser,
    ],
)
def test_models_with_another_input_share_no_trials(run, change):
    tests = open_test_set(run, "test")
    model = run.open_first()
    assert tests.open_person(change(model), 1) is not tests.open_person(model, 1)


# seen pictures


def test_too_many_seen_pictures_name_the_run(
    run,
):
    tests = open_test_set(run, "train")
    person = tests.open_person(run.open_first(), 1)
    with pytest.raises(BrainhiveError) as caught:
        _ = person.trials
    start = f"{run.name}, {run.cells[0].name}, was trained on 240 of the 240"
    assert caught.value.message.startswith(start)


def test_seen_pictures_are_warned_of_once(run, capsys):
    tests = open_test_set(run, "train")
    capsys.readouterr()
    for model in tests.models[0]:
        for _ in range(2):
            with pytest.raises(BrainhiveError):
                _ = tests.open_person(model, model.cell.tested_on[0]).raw_trials
    text = " ".join(capsys.readouterr().err.split())
    assert text.count("were seen in training") == 1


def test_models_of_a_fold_are_compared_with_its_pictures(run):
    first_cell, second = run.cells
    tests = open_test_set(
        replace(run, cells=[first_cell, replace(second, fold=2)]), "test"
    )
    seen_by_subjects = [
        list(pictures.seen_by_subject) for pictures in tests.list_seen()
    ]
    assert tests.folds == [1, 2]
    assert seen_by_subjects == [[1], [2]]
    assert tests.compare_pictures(2) is tests.list_seen()[1]


def test_learned_trials_of_new_people_are_refused(run):
    tests = open_test_set(replace(run, origin="another data set"), "test")
    with pytest.raises(BrainhiveError) as caught:
        tests.compare_pictures()
    assert run.cells[0].name in caught.value.message


# embeddings and candidates


def test_runs_with_other_pictures_are_not_tested_together(run, monkeypatch):
    stores = open_test_set(run, "test").open_stores("test")
    ((name, store),) = stores.items()
    reversed_store = replace(store, image_ids=store.image_ids[::-1])
    both_iter = iter([{name: store}, {"other": reversed_store}])
    monkeypatch.setattr(test_sets, "open_stores", lambda *_: next(both_iter))
    monkeypatch.setattr(TrainedRun, "check_stores", lambda *_: None)
    with pytest.raises(BrainhiveError) as caught:
        open_test_set([run, run], "test").open_stores("test")
    assert "hold different pictures" in caught.value.message


# study


@pytest.fixture
def described(monkeypatch):
    """Arguments of each described study, whose design is its number."""
    calls = []

    def describe(*arguments, is_film):
        calls.append(tuple(arguments) + (is_film,))
        return len(calls)

    monkeypatch.setattr(test_sets, "describe_study", describe)
    return calls


def find_studies(*runs, split="test"):
    """Describe the study of runs, the first of which is opened before the others."""
    first_test_set = open_test_set(runs[0], "test")
    other_test_sets = [
        open_test_set(finished_run, split, like=first_test_set)
        for finished_run in runs[1:]
    ]
    return [
        tests.study
        for tests in (first_test_set, first_test_set) + tuple(other_test_sets)
    ]


def test_a_study_is_described_once_for_equal_data(run, described):
    second = replace(run, cells=[replace(cell, seed=2) for cell in run.cells])
    assert find_studies(run, second) == [1, 1, 1]
    assert len(described) == 1
    # without `like`, nothing is shared
    assert open_test_set(second, "test").study == 2


def test_a_study_of_another_split_is_another(run, described):
    assert find_studies(run, run, split="train") == [1, 1, 2]
    assert [arguments[3] for arguments in described] == ["test", "train"]


def test_fewer_people_have_another_study(run, described):
    assert find_studies(run, replace(run, cells=run.cells[:1])) == [1, 1, 2]
    assert [list(arguments[1]) for arguments in described] == [[1, 2], [1]]


def test_another_config_of_the_data_set_has_another_study(run, described):
    fields = {"kind": "demo", "noise": 0.3, "subjects": 3, "concepts": 40}
    other_run = replace(run, dataset_config=parts.resolve("datasets", fields))
    assert find_studies(run, other_run) == [1, 1, 2]


def test_another_folder_of_embeddings_has_another_study(
    run, described, world, tmp_path
):
    folder = shutil.copytree(world / "embeddings", tmp_path / "embeddings")
    other_run = replace(run, paths=Paths(embeddings=str(folder)))
    assert find_studies(run, other_run) == [1, 1, 2]


def test_another_encoder_has_another_study(
    run,
    described,
    monkeypatch,
):
    stores = open_test_set(run, "test").open_stores("test")
    monkeypatch.setattr(TestSet, "open_stores", lambda self, split: stores)
    encoder = parts.resolve("encoders", {"kind": "timm", "source": "random"})
    other_run = replace(run, encoders=[encoder])
    assert find_studies(run, other_run) == [1, 1, 2]


def test_a_study_has_the_trials_of_all_tested_people(
    run,
    described,
    first_person_only,
    monkeypatch,
):
    """People without signals are left out, and splits without pictures."""
    tests = open_test_set(run, "test")
    _ = tests.study
    absent = open_test_set(replace(run, paths=first_person_only), "test")
    _ = absent.study

    incomplete = open_test_set(run, "test")

    def open_stores(split):
        if split == "train":
            raise MissingData("no pictures")
        return tests.open_stores(split)

    monkeypatch.setattr(incomplete, "open_stores", open_stores)
    _ = incomplete.study

    _, recordings, pictures, split, _, is_film = described[0]
    assert list(recordings) == [1, 2]
    assert (split, is_film) == ("test", False)
    assert set(recordings[2]) == set(pictures) == {"test", "train"}
    for name in ("test", "train"):
        recording = recordings[2][name]
        assert set(recording.image_ids) <= set(pictures[name].image_ids)
    _, recordings, pictures, *_ = described[1]
    assert list(recordings) == [1]
    assert set(pictures) == {"test", "train"}
    _, recordings, pictures, *_ = described[2]
    assert list(recordings) == [1, 2]
    assert set(recordings[1]) == set(pictures) == {"test"}


def test_new_clips_and_missing_signals_have_no_study(run, described, tmp_path):
    """Held-out trials of clips have one, in which the order tells nothing."""
    nowhere = replace(run, paths=Paths(signals=str(tmp_path / "nowhere")))
    assert open_test_set(nowhere, "test").study is None
    film = replace(run.dataset, alike_by="neighbours")
    assert open_test_set(replace(run, dataset=film), "test").study is None
    assert not described

    seen_film = replace(film, holdout=Holdout(by="runs", folds=2))
    assert seen_film.holdout.has_seen_pictures
    pictures = open_test_set(run, "test").open_stores("test")
    tests = open_test_set(replace(run, dataset=seen_film), "test")
    tests._stores.update(test=pictures, train=pictures)
    assert tests.study == 1
    assert described[0][-1] is True


# descriptions


def test_facts_of_a_test_set_name_its_run_and_data(run):
    tests = open_test_set(run, "test")
    facts = tests.describe()
    assert facts["runs"] == [run.name]
    assert facts["dataset"] == run.dataset.name
    assert facts["mode"] == "intra"
    assert facts["set_up"] is tests.set_up
    assert tests.subjects == [1, 2]
    assert tests.signal_warnings == []


def test_stores_that_changed_since_the_training_are_named(run):
    tests = open_test_set(run, "test")
    (model, _) = tests.models[0]
    (name,) = model.history.signals
    history = replace(model.history, signals={name: "another identity"})
    vars(model)["_description"] = model.layout, history
    assert tests.signal_warnings == [
        f"{name} has changed since models were trained on it"
    ]
