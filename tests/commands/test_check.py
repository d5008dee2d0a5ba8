"""Tests of check, which tells damaged stores, runs and data sets from sound ones."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.core.results.measurements import SCHEMA, Measurements
from brainhive_cli.core.runs.driver import start_run
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.data.signals import Sensors, Trials
from brainhive_cli.data.stores import SignalStore, StorePlan, TargetWriter, target_store
from tests.worlds.named_run import NamedRun


def write_target_store(home, encoder, embedding):
    """Write a finished store of embeddings [N, D], and return its path."""
    path = target_store.build_store_path(home / "embeddings", "set", "train", encoder)
    ids = [f"c/p{number:03d}" for number in range(len(embedding))]
    concepts = ["c"] * len(ids)
    attributes = {"encoder": encoder}
    StorePlan(path, ids, concepts, embedding.shape[1:], "float32", attributes).create()
    writer = TargetWriter(path)
    writer.write(np.arange(len(embedding)), embedding)
    writer.close()
    writer.finish()
    return path


@pytest.fixture
def sound(home):
    embedding = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    return write_target_store(home, "sound", embedding)


@pytest.fixture
def collapsed(home):
    """Store whose vectors have a cosine of 0.99 with each other."""
    embedding = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    return write_target_store(home, "collapsed", embedding + 10)


def test_a_collapsed_store_is_caught_and_a_good_one_is_not(
    run_command, sound, collapsed, capsys
):
    result = run_command("check")

    assert result.exit_code == 1
    assert [(row[0], row[-1]) for row in result.tables[0].rows] == [
        ("set/train/collapsed", "failed"),
        ("set/train/sound", "passed"),
    ]
    stores = result.details["stores"]
    cosine = stores[str(collapsed)]["median_pair_cosine"]
    assert cosine == pytest.approx(0.99, abs=0.002)
    assert not stores[str(sound)]["problem"]
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: ")
    assert str(collapsed) in warning
    assert "0.99" in warning
    assert warning.endswith(
        "brainhive embed --dataset set --encoders collapsed splits=train --again"
    )


def test_stores_are_named_by_files_folders_or_patterns(sound, collapsed):
    pattern = str(sound.parent / "s*.h5")
    ended = CliRunner().invoke(app, ["check", pattern, "--json"])
    assert ended.exit_code == 0
    assert list(json.loads(ended.stdout)["details"]["stores"]) == [str(sound)]
    ended = CliRunner().invoke(app, ["check", str(sound.parent), "--json"])
    assert ended.exit_code == 1
    figures = json.loads(ended.stdout)["details"]["stores"][str(collapsed)]
    assert len(figures["spread"]) == 5
    assert figures["dead_dimensions"] == 0


def test_a_signal_store_has_rows_of_its_own(run_command, home):
    path = home / "signals/lab/default/sub-01.h5"
    path.parent.mkdir(parents=True)
    provenance = {
        "preparation": {"kind": "recording"},
        "sessions": [{"session": 1, "dropped": {"BAD_blink": 4}}],
    }
    trials = Trials.from_repetitions(
        signal=np.random.default_rng(0).normal(size=(5, 3, 2, 5)).astype(np.float32),
        image_ids=[f"p{number}" for number in range(5)],
        space=Sensors(("Oz", "O1")),
        times_s=np.arange(5) / 250 - 0.004,
        rate_hz=250.0,
        unit="µV",
        provenance=provenance,
        repetitions=np.array([2, 3, 3, 3, 3]),
    )
    SignalStore.write(path, {"train": trials})

    result = run_command("check", f"stores=[{path}]")
    (table,) = result.tables
    assert table.title == "Signal stores of lab"
    assert table.rows == (
        ("default/sub-01", "train", 5, "2 to 3", 14, "4 BAD_blink", "passed"),
    )
    figures = result.details["stores"][str(path)]
    assert figures["rate_hz"] == 250
    assert figures["window_ms"] == [-4.0, 12.0]
    assert figures["unit"] == "µV"
    assert figures["names"] == ["Oz", "O1"]


def test_a_run_is_checked_by_folder_or_name_next_to_stores(
    run_command, sound, home, capsys
):
    run_folder = start_run(NamedRun("train-align"), Launch(0, 1, torch.device("cpu")))
    run_folder.finish(Measurements())

    run_folder.set_label("wide window")
    for name in (
        str(run_folder.path),
        run_folder.path.name,
        "wide window",
    ):
        result = run_command("check", f"stores={name},{sound}")
        store_table, run_table = result.tables
        assert result.exit_code == 0
        assert len(store_table.rows) == len(run_table.rows) == 1
        assert run_table.rows[0][-2:] == ("yes", "passed")

    metrics = run_folder.path / "metrics.json"
    metrics.write_text(metrics.read_text().replace(f"{SCHEMA}", f"{SCHEMA + 1}"))
    capsys.readouterr()
    result = run_command("check", f"stores={run_folder.path.name}")
    assert result.exit_code == 1
    assert result.tables[0].rows[0][-1] == "failed"
    assert str(metrics) in capsys.readouterr().err


def test_checking_an_incomplete_data_set_has_exit_code_3(
    home,
):
    ended = CliRunner().invoke(
        app, ["check", "things-eeg", "--subjects", "1,2", "--json"]
    )
    assert ended.exit_code == MissingData.exit_code
    facts = json.loads(ended.stdout)["details"]["datasets"]["things-eeg"]
    assert facts["folder"] == str(home / "data/things-eeg")
    assert [partial_part["state"] for partial_part in facts["parts"].values()] == [
        "missing"
    ] * 3
    assert "pictures" in facts["parts"]["pictures"]["problem"]
