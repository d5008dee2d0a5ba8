"""Tests of train-align: accuracy on held-out concepts, and use of the splits."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.cli import execute
from brainhive_cli.commands import train_align
from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.runs import jobs
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores import recordings
from brainhive_cli.data.stores.target_store import TargetStore, build_store_path
from brainhive_cli.training.alignment.training import choose_held_out, training_data
from brainhive_cli.training.alignment.training.job import Job
from tests.tools.changed_stores import resealed

ENCODER = "brainhive_cli-models-encoders-python-example"
DATASET = "demo-noise-0.3-40-concepts"


def load_weights(run_folder, cell):
    """Load the weights of the model of a cell."""
    return load_file(run_folder / "cells" / cell / "model" / "model.safetensors")


def are_equal(left_weights, second):
    """Return True if two models have the same weights, bit by bit."""
    if left_weights.keys() != second.keys():
        return False
    return all(torch.equal(left_weights[name], second[name]) for name in left_weights)


@pytest.fixture
def own_recordings(world, trained_run, tmp_path, monkeypatch):
    """Home with copies of the embeddings and of the first subject, to be changed."""
    shutil.copytree(world / "embeddings", tmp_path / "embeddings")
    store_folder = f"signals/{DATASET}/default"
    (tmp_path / store_folder).mkdir(parents=True)
    shutil.copy(world / store_folder / "sub-01.h5", tmp_path / store_folder)
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path))
    return tmp_path


def test_a_check_resolves_once_and_asks_once_who_is_recorded(
    align_overrides, trained_run, monkeypatch
):
    calls = list[str]()
    list_people, resolve = recordings.list_recorded_subjects, Job.resolve.__func__

    def list_recorded(*arguments):
        calls.append("subjects")
        return list_people(*arguments)

    def resolve_job(cls, recipe):
        calls.append("job")
        return resolve(cls, recipe)

    monkeypatch.setattr(recordings, "list_recorded_subjects", list_recorded)
    monkeypatch.setattr(Job, "resolve", classmethod(resolve_job))
    recipe = train_align.Recipe.resolve("train-align", None, {}, align_overrides)
    job = jobs.resolve(train_align, recipe)
    tables = execute._plan("train-align", job, job.list_inputs())
    assert [table.title for table in tables] == ["Models", "Inputs", "Work"]
    assert calls.count("subjects") == 1
    assert calls.count("job") <= 1


def test_it_learns_what_held_out_concepts_look_like(trained_run):
    cells = json.loads((trained_run / "metrics.json").read_text())["scopes"]

    assert list(cells) == ["sub-01_seed-1", "sub-02_seed-1"]
    for cell in cells.values():
        top1 = cell["top1"]
        # 10 of 40 concepts are held out, with 6 pictures each
        assert top1["n"] == top1["pool"] == 60
        assert top1["chance"] == pytest.approx(1 / 60)
        assert top1["low"] > 3 * top1["chance"]
        assert (top1["split"], top1["seeds"]) == ("validation", [1])


@pytest.mark.nightly
def test_a_mode_decides_whom_a_cell_learns_from(
    run_command, align_overrides, world, runs
):
    for mode, cells in (
        ("inter", {"sub-01_seed-1": [2], "sub-02_seed-1": [1]}),
        ("joint", {"all_seed-1": [1, 2]}),
    ):
        result = run_command(
            "train-align", *align_overrides, runs, f"mode={mode}", "train.epochs=10"
        )
        for name, subjects in cells.items():
            file = result.folder / "cells" / name / "model" / "config.json"
            config = json.loads(file.read_text())
            assert config["spec"]["subjects"] == subjects
            top1 = result.metrics.scopes[name]["top1"]
            assert top1.n == 60 * len(subjects)
            assert top1.pool == 60
            # both subjects saw the same 60 pictures of 10 concepts
            has_several_subjects = len(subjects) > 1
            assert "10 concepts" in top1.interval
            assert ("2 subjects" in top1.interval) == has_several_subjects
            interval = (top1.low, top1.high)
            assert top1.these_subjects == (interval if has_several_subjects else None)
            assert top1.low > top1.chance
        assert list(result.metrics.scopes) == list(cells)

    # a subject without training is decoded by the model of the other subject
    inter = run_command(
        "train-align", *align_overrides, runs, "mode=inter", "train.epochs=10"
    ).folder
    metrics = run_command(
        "eval-retrieval", runs, f"run={inter}", "sheet_rows=0"
    ).metrics
    top5 = metrics.overall["top5"]
    assert top5.these_subjects[0] > top5.chance
    assert metrics.overall["top1"].n == 200
    assert metrics.facts.protocol.startswith("inter")


@pytest.mark.nightly
@pytest.mark.parametrize("holdout_unit", ["concepts", "pictures"])
def test_only_signals_that_are_not_held_out_move_the_weights(
    own_recordings, trained_run, run_command, align_overrides, holdout_unit
):
    pictures = TargetStore.open(
        build_store_path(own_recordings / "embeddings", DATASET, "train", ENCODER)
    )
    held_out = choose_held_out(pictures.concepts, 0.25, by=holdout_unit)
    settings = list(align_overrides) + [
        "subjects=1",
        "train.epochs=2",
        "train.selection=last",
        f"train.validation_by={holdout_unit}",
    ]
    result = run_command("train-align", *settings)
    weights = load_weights(result.folder, "sub-01_seed-1")

    # all pictures of a concept are held out, or a part of the pictures of each concept
    concepts = np.unique(np.array(pictures.concepts)[held_out])
    is_split = np.isin(concepts, np.array(pictures.concepts)[~held_out])
    assert is_split.all() if holdout_unit == "pictures" else not is_split.any()
    top1 = result.metrics.scopes["sub-01_seed-1"]["top1"]
    assert top1.n == held_out.sum()
    assert holdout_unit in top1.protocol
    assert holdout_unit in result.tables[0].title

    # training signals change the weights, and held-out signals do not
    for is_changed, changes_weights in ((held_out, False), (~held_out, True)):
        with resealed(file_of(own_recordings)) as file:
            signal = file["train/signal"][()]
            picture_of_trial = np.repeat(
                np.arange(len(is_changed)), file["train/repetitions"][()]
            )
            signal[is_changed[picture_of_trial]] *= -1
            file["train/signal"][...] = signal

        run_folder = run_command("train-align", *settings, again=True).folder

        other_weights = load_weights(run_folder, "sub-01_seed-1")
        assert are_equal(weights, other_weights) is not changes_weights


def file_of(home):
    return home / "signals" / DATASET / "default" / "sub-01.h5"


@pytest.mark.nightly
def test_the_test_split_is_never_read(
    own_recordings, run_command, align_overrides, trained_run
):
    with resealed(file_of(own_recordings)) as file:
        # reading these signals would raise an error
        file["test/signal"][...] = np.nan
    shutil.rmtree(own_recordings / "embeddings" / DATASET / "test")

    run_folder = run_command("train-align", *align_overrides, "subjects=1").folder

    weights = load_weights(run_folder, "sub-01_seed-1")
    assert are_equal(weights, load_weights(trained_run, "sub-01_seed-1"))

    # eval-retrieval needs the test split
    with pytest.raises(MissingData, match="test"):
        run_command("eval-retrieval")
    embeddings = trained_run.parents[2] / "embeddings" / DATASET / "test"
    shutil.copytree(embeddings, own_recordings / "embeddings" / DATASET / "test")
    with pytest.raises(BrainhiveError, match="finite"):
        run_command("eval-retrieval")


@pytest.mark.nightly
def test_what_is_varied_still_learns_and_is_evaluated_alike(
    run_command, align_overrides, world, runs
):
    result = run_command(
        "train-align",
        *align_overrides,
        runs,
        "subjects=1",
        "signal.repetitions=random",
        "signal.random_k=1",
        "signal.normalise=whiten",
        "train.augment.repetitions=1.0",
        "train.augment.parts=[smooth]",
        "loss.kind=mixco",
    )
    top1 = result.metrics.scopes["sub-01_seed-1"]["top1"]
    assert (top1.n, top1.pool) == (60, 60)
    assert top1.low > top1.chance
    test_top1 = run_command("eval-retrieval", runs, "sheet_rows=0").metrics.overall[
        "top1"
    ]
    assert test_top1.low > test_top1.chance


def test_signals_on_disk_train_to_the_same_weights(
    own_recordings, run_command, align_overrides, trained_run, monkeypatch
):
    monkeypatch.setattr(
        Trials,
        "averages",
        property(lambda trials: pytest.fail("all signals are in memory")),
    )
    monkeypatch.setattr(training_data, "count_free_bytes", lambda device: 0)

    run_folder = run_command(
        "train-align", *align_overrides, "subjects=1", again=True
    ).folder

    weights = load_weights(run_folder, "sub-01_seed-1")
    assert are_equal(weights, load_weights(trained_run, "sub-01_seed-1"))
