"""train-align: it learns, from what it may, and goes on where it was interrupted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.cli import execute
from brainhive_cli.commands import train_align
from brainhive_cli.core import jobs
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores import recordings
from brainhive_cli.data.stores.target_store import TargetStore, path_of
from brainhive_cli.training.alignment.training import training_data
from brainhive_cli.training.alignment.training.batches import held_out_of
from brainhive_cli.training.alignment.training.job import Job
from tests.tools.changed_stores import resealed

ENCODER = "brainhive_cli-models-encoders-python-example"
DATASET = "demo-noise-0.3-40-concepts"


def weights(run: Path, cell: str) -> dict[str, torch.Tensor]:
    return load_file(run / "cells" / cell / "model" / "model.safetensors")


def is_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) for key in one
    )


@pytest.fixture
def own(
    world: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of the world with its first subject, to spoil."""
    shutil.copytree(world / "embeddings", tmp_path / "embeddings")
    below = f"signals/{DATASET}/default"
    (tmp_path / below).mkdir(parents=True)
    shutil.copy(world / below / "sub-01.h5", tmp_path / below)
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path))
    return tmp_path


def test_a_check_resolves_once_and_asks_once_who_is_recorded(
    small, trained, monkeypatch
):
    asked = list[str]()
    list_people, resolve = recordings.recorded_subjects, Job.resolve.__func__

    def list_recorded(*words):
        asked.append("subjects")
        return list_people(*words)

    def resolve_job(cls, recipe):
        asked.append("job")
        return resolve(cls, recipe)

    monkeypatch.setattr(recordings, "recorded_subjects", list_recorded)
    monkeypatch.setattr(Job, "resolve", classmethod(resolve_job))
    recipe = train_align.Recipe.resolve("train-align", None, {}, small)
    job = jobs.resolve(train_align, recipe)
    tables = execute._plan("train-align", job, job.list_inputs())
    assert [table.title for table in tables] == ["Cells", "Inputs", "Work"]
    assert asked.count("subjects") == 1 and asked.count("job") <= 1


def test_it_learns_what_held_out_concepts_look_like(trained):
    cells = json.loads((trained / "metrics.json").read_text())["scopes"]

    assert list(cells) == ["sub-01_seed-1", "sub-02_seed-1"]
    for cell in cells.values():
        top1 = cell["top1"]
        assert top1["n"] == top1["pool"] == 60  # 10 of 40 concepts, 6 pictures each
        assert top1["chance"] == pytest.approx(1 / 60)
        assert top1["low"] > 3 * top1["chance"]
        assert (top1["split"], top1["seeds"]) == ("validation", [1])


@pytest.mark.nightly
def test_a_mode_decides_whom_a_cell_learns_from(go, small, world, runs):
    for mode, cells in (
        ("inter", {"sub-01_seed-1": [2], "sub-02_seed-1": [1]}),
        ("joint", {"all_seed-1": [1, 2]}),
    ):
        result = go("train-align", *small, runs, f"mode={mode}", "train.epochs=10")
        for name, subjects in cells.items():
            config = json.loads(
                (result.folder / "cells" / name / "model" / "config.json").read_text()
            )
            assert config["spec"]["subjects"] == subjects
            top1 = result.metrics.scopes[name]["top1"]
            assert top1.n == 60 * len(subjects) and top1.pool == 60
            several = "; for these 2 subjects" if len(subjects) > 1 else ""
            # whose 60 pictures both saw
            assert top1.interval == f"Wilson over 10 concepts{several}"
            assert top1.these_subjects == ((top1.low, top1.high) if several else None)
            assert top1.low > top1.chance
        assert list(result.metrics.scopes) == list(cells)
        if mode == "inter":  # whom nobody learned from is decoded
            tested = go("eval-retrieval", runs, "sheet_rows=0").metrics
            assert (
                tested.overall["top5"].these_subjects[0] > tested.overall["top5"].chance
            )
            assert tested.overall["top1"].n == 200 and tested.facts.protocol.startswith(
                "inter"
            )


@pytest.mark.nightly
@pytest.mark.parametrize("by", ["concepts", "pictures"])
def test_only_signals_that_are_not_held_out_move_the_weights(
    own, trained, go, small, by
):
    pictures = TargetStore.open(path_of(own / "embeddings", DATASET, "train", ENCODER))
    held_out = held_out_of(pictures.concepts, 0.25, by=by)
    settings = (*small, "subjects=1", "train.epochs=2", "train.selection=last")
    settings = (*settings, f"train.validation_by={by}")
    result = go("train-align", *settings)
    sound = weights(result.folder, "sub-01_seed-1")

    # concepts are held out whole, pictures are spread over them
    concepts = np.unique(np.array(pictures.concepts)[held_out])
    is_split = np.isin(concepts, np.array(pictures.concepts)[~held_out])
    assert is_split.all() if by == "pictures" else not is_split.any()
    top1 = result.metrics.scopes["sub-01_seed-1"]["top1"]
    assert top1.n == held_out.sum()
    assert f"held-out training {by}" in top1.protocol
    assert f"held-out training {by}" in result.tables[0].title
    for rows, changes in ((held_out, False), (~held_out, True)):
        with resealed(file_of(own)) as file:
            signal = file["train/signal"][()]
            signal[rows] *= -1
            file["train/signal"][...] = signal

        spoiled = go("train-align", *settings, again=True).folder

        assert is_same(weights(spoiled, "sub-01_seed-1"), sound) is not changes


def file_of(home: Path) -> Path:
    return home / "signals" / DATASET / "default" / "sub-01.h5"


@pytest.mark.nightly
def test_the_test_split_is_never_read(own, go, small, trained):
    with resealed(file_of(own)) as file:
        file["test/signal"][...] = np.nan  # which every reader refuses
    shutil.rmtree(own / "embeddings" / DATASET / "test")

    run = go("train-align", *small, "subjects=1").folder

    assert is_same(weights(run, "sub-01_seed-1"), weights(trained, "sub-01_seed-1"))
    with pytest.raises(MissingData, match="no test embeddings"):
        go("eval-retrieval")
    shutil.copytree(
        trained.parents[2] / "embeddings" / DATASET / "test",
        own / "embeddings" / DATASET / "test",
    )
    with pytest.raises(BrainhiveError, match="not finite"):
        go("eval-retrieval")


@pytest.mark.nightly
def test_what_is_varied_still_learns_and_is_evaluated_alike(go, small, world, runs):
    varied = (
        "signal.repetitions=random",
        "signal.random_k=1",
        "train.augment.repetitions=1.0",
    )
    learned = (
        "signal.normalise=whiten",
        "train.augment.parts=[smooth]",
        "loss.kind=mixco",
    )
    result = go("train-align", *small, runs, "subjects=1", *varied, *learned)
    top1 = result.metrics.scopes["sub-01_seed-1"]["top1"]
    assert (top1.n, top1.pool) == (60, 60) and top1.low > top1.chance
    tested = go("eval-retrieval", runs, "sheet_rows=0").metrics.overall["top1"]
    assert tested.low > tested.chance


def test_signals_on_disk_train_to_the_same_weights(
    own, go, small, trained, monkeypatch
):
    monkeypatch.setattr(
        Trials,
        "averages",
        property(lambda trials: pytest.fail("all signals are in memory")),
    )
    monkeypatch.setattr(training_data, "count_free_bytes", lambda device: 0)

    run = go("train-align", *small, "subjects=1", again=True).folder

    assert is_same(weights(run, "sub-01_seed-1"), weights(trained, "sub-01_seed-1"))
