"""check: stores that fail are told from those that pass, in every command that reads them."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.errors import MissingData
from brainhive_cli.data.health_checks import problem_of
from brainhive_cli.stores import hdf5, target_store
from brainhive_cli.stores.target_store import Blank, TargetStore, TargetWriter


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
    assert result.metrics.notes["stores"][str(collapsed)]["median_pair_cosine"] == pytest.approx(
        0.99, abs=0.002
    )
    assert not result.metrics.notes["stores"][str(sound)]["problem"]
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
        assert list(json.loads(shown.stdout)["metrics"]["notes"]["stores"]) == [str(sound)]
    shown = CliRunner().invoke(app, ["check", str(sound.parent), "--json"])
    figures = json.loads(shown.stdout)["metrics"]["notes"]["stores"][str(collapsed)]
    assert shown.exit_code == 1 and len(figures["spread"]) == 5 and figures["dead_dimensions"] == 0


def test_again_measures_what_is_in_the_file_now(go, sound):
    writer = hdf5.RowWriter(sound, "embedding")
    writer.write(np.arange(150), np.zeros((150, 16), np.float32))
    writer.close()
    assert go("check").exit_code == 0
    assert go("check", again=True).exit_code == 1


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
    assert result.exit_code == 1 and [row[-1] for row in result.tables[0].rows] == ["failed", "passed"]


@pytest.mark.parametrize("names", ["null", "[absent.h5]", "[.]"])
def test_no_store_is_missing_data(go, home, names):
    with pytest.raises(MissingData, match=r"no embedding store in|no file, folder or pattern absent\.h5"):
        go("check", f"stores={names}")


COLOURS = "encoders=['python:brainhive_cli.encoders.python:example']"
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
    writer = hdf5.RowWriter(path, "embedding")
    writer.write(np.arange(len(values)), 20 + values)
    writer.close()
    with h5py.File(path, "r+") as file:
        hdf5.set_attributes(file, {"health": {}})
    source = [f"generator={{kind: sdxl, source: {generator}}}"] if command == "train-prior" else []
    capsys.readouterr()

    go(command, COLOURS, "train.precision=fp32", *QUICK[command], *source)

    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert [f"{path} failed its health check: the median cosine" in line for line in warnings] == [True]
