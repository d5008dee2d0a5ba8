"""check: stores that fail are told from those that pass, in every command that reads them."""

import json
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import SCHEMA, Measurements
from brainhive_cli.core.recipe import Recipe as BaseRecipe
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.stores import hdf5, target_store
from brainhive_cli.data.stores.health import measure
from brainhive_cli.data.stores.recordings import SignalStore
from brainhive_cli.data.stores.target_store import Blank, TargetStore, TargetWriter
from brainhive_cli.data.targets.target_stores import problem_of
from brainhive_cli.data.trials import Trials
from tests.resealed import resealed


def make(home: Path, encoder: str, values: NDArray[np.float32], **attributes: object) -> Path:
    path = target_store.path_of(home / "embeddings", "set", "train", encoder)
    ids = [f"c/p{number:03d}" for number in range(len(values))]
    attributes = {"encoder": encoder, **attributes}
    Blank(path, ids, ["c"] * len(ids), values.shape[1:], "float32", attributes).create()
    writer = TargetWriter(path)
    writer.write(np.arange(len(values)), values)
    writer.close()
    writer.finish()
    return path


@pytest.fixture
def sound(home: Path) -> Path:
    return make(home, "sound", np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32))


@pytest.fixture
def collapsed(home: Path) -> Path:
    """Random pairs of its vectors have a cosine of 0.99."""
    values = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    return make(home, "collapsed", values + 10)


def test_a_collapsed_store_is_caught_and_a_good_one_is_not(go, sound, collapsed, capsys):
    result = go("check")

    assert result.exit_code == 1
    assert [(row[0], row[-1]) for row in result.tables[0].rows] == [
        ("set/train/collapsed", "failed"),
        ("set/train/sound", "passed"),
    ]
    assert result.details["stores"][str(collapsed)]["median_pair_cosine"] == pytest.approx(0.99, abs=0.002)
    assert not result.details["stores"][str(sound)]["problem"]
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(
        f"warning: {collapsed} failed its health check: the median cosine of random pairs is 0.99"
    )
    assert "likely weights that did not load" in warning
    assert warning.endswith("brainhive embed --dataset set --encoders collapsed splits=train --again")


def test_sound_stores_end_with_nothing_to_say(go, sound, capsys):
    assert go("check", f"stores=[{sound}]").exit_code == 0
    assert capsys.readouterr().err == ""


def test_files_folders_and_patterns_name_stores_and_json_has_all_figures(sound, collapsed):
    for words in ([sound], [sound.parent / "s*.h5"], [sound, sound.parent / "*nd.h5"]):
        shown = CliRunner().invoke(app, ["check", *map(str, words), "--json"])
        assert shown.exit_code == 0, shown.stderr
        assert list(json.loads(shown.stdout)["details"]["stores"]) == [str(sound)]
    shown = CliRunner().invoke(app, ["check", str(sound.parent), "--json"])
    figures = json.loads(shown.stdout)["details"]["stores"][str(collapsed)]
    assert shown.exit_code == 1 and len(figures["spread"]) == 5 and figures["dead_dimensions"] == 0


def test_again_measures_what_is_in_the_file_now(go, sound):
    with resealed(sound) as file:
        file["embedding"][:150] = 0
    assert go("check").exit_code == 0
    assert go("check", again=True).exit_code == 1


def test_a_flipped_bit_that_opening_does_not_see_is_found(go, sound, capsys):
    with h5py.File(sound) as file:
        place = file["embedding"].id.get_offset() + 101 * 64 + 3
    content = bytearray(sound.read_bytes())
    content[place] ^= 1
    sound.write_bytes(content)
    TargetStore.open(sound)

    assert go("check").exit_code == 1
    assert "1 of 200 rows of embedding do not match their checksums: 101" in capsys.readouterr().err


def test_signal_stores_are_checked_too(go, tmp_path):
    path = tmp_path / "sub-01.h5"
    signal = np.random.default_rng(0).normal(size=(50, 2, 3, 4)).astype(np.float32)
    ids = [f"p{number}" for number in range(50)]
    sensors = Sensors(["a", "b", "c"])
    SignalStore.write(path, {"train": Trials(signal, ids, sensors, np.arange(4) / 100, 100.0, "V")})
    assert go("check", f"stores=[{path}]").exit_code == 0
    with h5py.File(path, "r+") as file:
        file["train/signal"][30] = 0
    assert go("check", f"stores=[{path}]").exit_code == 1


def test_a_signal_store_has_rows_of_its_own(go, home):
    """Trials by split, repetitions by range, what was dropped; channels, rate, window, unit, preparation."""
    path = home / "signals/lab/default/sub-01.h5"
    path.parent.mkdir(parents=True)
    made = {"preparation": {"kind": "recording"}, "sessions": [{"session": 1, "dropped": {"BAD_blink": 4}}]}
    recordings = {
        split: Trials(
            signal=np.random.default_rng(0).normal(size=(count, 3, 2, 5)).astype(np.float32),
            image_ids=[f"p{number}" for number in range(count)],
            space=Sensors(("Oz", "O1")),
            times_s=np.arange(5) / 250 - 0.004,
            rate_hz=250.0,
            unit="whitened",
            provenance=made if split == "train" else {"source": "test.pt"},
            repetitions=np.array([2, *[3] * (count - 1)]),
            whiteners=np.stack([np.eye(2)]),
            sessions=np.where(np.arange(3) < np.array([2, *[3] * (count - 1)])[:, None], 0, -1).astype(
                np.int8
            ),
        )
        for split, count in (("train", 5), ("test", 4))
    }
    SignalStore.write(path, recordings)
    result = go("check", f"stores=[{path}]")
    (trials,) = result.tables
    assert trials.title == "Signal stores of lab" and trials.rows == (
        ("default/sub-01", "train", 5, "2 to 3", 14, "4 BAD_blink", "passed"),
        ("default/sub-01", "test", 4, "2 to 3", 11, "none", "passed"),
    )
    figures = result.details["stores"][str(path)]
    assert figures["splits"]["train"] == {
        **{"pictures": 5, "repetitions": [2, 3], "trials": 14, "dropped": {"BAD_blink": 4}}
    }
    assert (figures["rate_hz"], figures["window_ms"], figures["unit"]) == (250, [-4.0, 12.0], "whitened")
    assert figures["names"] == ["Oz", "O1"] and figures["whiteners"] == 1
    assert figures["provenance"]["preparation"]["kind"] == "recording"
    assert result.folder == home


def test_an_encoder_is_held_to_its_own_range(home):
    values = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32) + 2
    vague = TargetStore.open(make(home, "vague", values, config={"kind": "of_a_later_version"}))
    known = TargetStore.open(make(home, "clip-b32", values, config={"kind": "clip_b32"}))
    assert problem_of(vague) == "" and "usual is 0.7 at most" in problem_of(known)


@pytest.mark.parametrize("content", [b"no HDF5", None])
def test_a_store_that_does_not_open_has_failed_and_the_others_are_still_shown(go, sound, content):
    broken = sound.with_name("broken.h5")
    if content:
        broken.write_bytes(content)
    else:
        hdf5.create(broken, {}, {}, {"format": 1, "holds": "signal"})
    result = go("check")
    rows = [row for table in result.tables if table.columns[-1] == "check" for row in table.rows]
    assert result.exit_code == 1 and sorted(row[-1] for row in rows) == ["failed", "passed"]


@pytest.mark.parametrize("names", ["null", "[absent.h5]", "[.]"])
def test_no_store_is_missing_data(go, home, names):
    with pytest.raises(MissingData, match=r"no embedding store in|no file, folder or pattern absent\.h5"):
        go("check", f"stores={names}")


COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"
QUICK = {
    "train-align": ("dim=16", "fuser.intermediate_size=16", "seeds=1", "train.epochs=1", "subjects=1"),
    "train-prior": (
        "dataset=things-eeg",
        "prior={kind: fusion_prior, hidden_size: 32, intermediate_size: 64}",
        "resolution_px=32",
        "validation_items=2",
        "sample_items=0",
        "train.steps=1",
        "train.batch_size=2",
    ),
}


@pytest.mark.parametrize("command", ["train-align", "train-prior"])
def test_training_repeats_the_warning(go, command, things, generator, capsys):
    go("embed", COLOURS)
    path = next((things / "embeddings").rglob("train/*.h5"))
    values = np.random.default_rng(0).normal(size=TargetStore.open(path).embedding.shape)
    with resealed(path) as file:
        file["embedding"][...] = 20 + values
        health = asdict(measure(file["embedding"], np.arange(len(values))))
        hdf5.set_attributes(file, {"health": health})
    source = [f"generator={{kind: sdxl, source: {generator}}}"] if command == "train-prior" else []
    capsys.readouterr()

    go(command, COLOURS, "train.precision=fp32", *QUICK[command], *source)

    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert [f"{path} failed its health check: the median cosine" in line for line in warnings] == [True]


def test_a_run_is_checked_by_folder_or_name_next_to_stores(go, sound, home, capsys):
    run = RunFolder.open("train-align", "tiny", BaseRecipe(), Launch(0, 1, torch.device("cpu")))
    run.finish(Measurements())

    for named in (str(run.path), run.path.name):
        result = go("check", f"stores={named},{sound}")
        assert result.exit_code == 0 and [len(table.rows) for table in result.tables] == [1, 1]
        assert result.tables[1].rows[0][-2:] == ("yes", "passed")

    metrics = run.path / "metrics.json"
    metrics.write_text(metrics.read_text().replace(f"{SCHEMA}", f"{SCHEMA + 1}"))
    capsys.readouterr()
    result = go("check", f"stores={run.path.name}")
    assert result.exit_code == 1 and result.tables[0].rows[0][-1] == "failed"
    assert f"{metrics} was changed or damaged" in capsys.readouterr().err


def test_a_data_set_is_checked_by_its_name_and_what_is_missing_ends_with_3(home: Path) -> None:
    ended = CliRunner().invoke(app, ["check", "things-eeg", "--subjects", "1,2", "--json"])
    assert ended.exit_code == MissingData.exit_code
    found = json.loads(ended.stdout)["details"]["datasets"]["things-eeg"]
    assert found["folder"] == str(home / "data/things-eeg")
    assert [part["state"] for part in found["parts"].values()] == ["missing"] * 3
    assert "no pictures" in found["parts"]["pictures"]["problem"]
