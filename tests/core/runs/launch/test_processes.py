"""Two processes on this CPU give what one gives; each launch is shared by several
assertions.
"""

import importlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.stores import TargetStore, TargetWriter
from tests.tools.joined_processes import run_in_processes
from tests.tools.progress_lines import without_progress

COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"
ENCODER = "brainhive_cli-models-encoders-python-example"
TWO = ("--processes", "2", "--json")
NOTHING_DRAWN = ("backbone.dropout=0", "fuser.dropout=0")
"""Each process draws the dropout of its share."""
SUMMED_OTHERWISE = 1e-4
"""Gradients are summed in another order, over all steps of a training."""


def _run(launch, command, *overrides):
    pipeline = importlib.import_module(
        f"brainhive_cli.commands.{command.replace('-', '_')}"
    )
    pipeline.run(pipeline.Recipe.resolve(command, None, {}, overrides), launch)


def made_by(runs, command):
    (path,) = (runs / command).iterdir()
    return RunFolder(path)


def weights(run_folder, cell):
    return load_file(run_folder / "cells" / cell / "model" / "model.safetensors")


@pytest.mark.nightly
def test_processes_share_pictures_and_report_errors_in_one_line(
    brainhive, home, pictures, run_command
):
    # of 12, so that the second process meets it
    last_path = sorted(pictures.rglob("*.png"))[-1]
    last_path.write_bytes(b"no picture")
    settings = [
        f"dataset={{kind: image-folder, root: {pictures}}}",
        COLOURS,
        "batch_size=2",
    ]
    path = home / "embeddings" / "pictures" / "train" / f"{ENCODER}.h5"

    ended = brainhive("embed", *settings, *TWO)

    lines = without_progress(ended.stderr)
    assert (ended.returncode, len(lines)) == (1, 2), ended.stderr
    answer = json.loads(ended.stdout)  # a single document, not one a process
    assert answer["exit_code"] == 1
    assert lines[0] == f"error: {answer['error']}"
    assert lines[0].startswith("error: 1 pictures cannot be decoded: ")
    assert str(last_path) in lines[0]
    assert lines[1].startswith("  try: ")
    assert TargetWriter(path).pending_rows.tolist() == [11]  # no other picture was lost
    run_command("embed", *settings, "skip_bad=true")
    two = np.array(TargetStore.open(path).embedding)
    run_command("embed", *settings, "skip_bad=true", again=True)
    assert np.array_equal(two, TargetStore.open(path).embedding)


@pytest.mark.nightly
def test_cells_are_shared_whole(world, align_overrides, tmp_path, run_command):
    first_result = run_command("train-align", *align_overrides)

    run_in_processes(_run, "train-align", *align_overrides, f"paths.runs={tmp_path}")

    two = made_by(tmp_path, "train-align")
    for cell in ("sub-01_seed-1", "sub-02_seed-1"):
        mine, theirs = weights(first_result.folder, cell), weights(two.path, cell)
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    documents = [
        folder.measurements().as_dict()
        for folder in (two, RunFolder(first_result.folder))
    ]
    took = [
        cell.pop("took")
        for document in documents
        for cell in document["facts"]["cells"].values()
    ]
    assert documents[0] == documents[1]
    assert all(each["seconds"] > 0 for each in took)
    assert two.read_json("environment.json")["processes"] == 2


@pytest.mark.nightly
def test_one_cell_is_trained_in_parallel_as_by_one_process(
    world, align_overrides, tmp_path, run_command
):
    settings = (
        list(align_overrides)
        + list(NOTHING_DRAWN)
        + ["subjects=1", "train.batch_size=129", "train.epochs=3"]
    )
    first_result = run_command(
        "train-align", *settings, f"paths.runs={tmp_path / 'one'}"
    )

    run_in_processes(_run, "train-align", *settings, f"paths.runs={tmp_path / 'two'}")

    two, cell = made_by(tmp_path / "two", "train-align"), "sub-01_seed-1"
    mine, theirs = weights(first_result.folder, cell), weights(two.path, cell)
    assert (
        max(float((mine[key] - theirs[key]).abs().max()) for key in mine)
        < SUMMED_OTHERWISE
    )
    ours, other_weights = (
        metrics.scopes[cell]["top1"]
        for metrics in (first_result.metrics, two.measurements())
    )
    # one near tie may flip
    assert other_weights.value == pytest.approx(ours.value, abs=1 / ours.n)
    assert (other_weights.n, other_weights.pool) == (ours.n, ours.pool)
    # else one process is compared with itself
    assert two.read_json("environment.json")["processes"] == 2


KILLED = """
import os
from brainhive_cli.models.backbones import brain_mlp
class Config(brain_mlp.Config):
    def build(self, channels, samples, dim, subjects=1):
        made = brain_mlp.Config.build(self, channels, samples, dim, subjects)
        number = 9 if os.environ["RANK"] == "1" else 0  # which kills nobody
        made.register_forward_hook(lambda *_: os.kill(os.getpid(), number))
        return made
"""


@pytest.mark.nightly
def test_the_killed_process_is_reported_as_the_cause(
    brainhive, world, align_overrides, tmp_path, runs
):
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed/net.py").write_text(KILLED)
    ended = brainhive(
        "train-align",
        *align_overrides,
        runs,
        "subjects=1",
        "backbone.kind=killed.net",
        "--allow-code",
        *TWO,
    )
    error, hint = ended.stderr.splitlines()[-2:]
    assert ended.returncode == 5
    assert "error" not in "".join(ended.stderr.splitlines()[:-2])
    assert error.startswith("error: process 1 of the launch was killed (SIGKILL)")
    assert hint.startswith("  try: a smaller train.batch_size; ")


@pytest.mark.nightly
def test_reconstruct_draws_each_picture_once_and_the_same(
    prior_align_run, tmp_path, run_command, generator, prior
):
    settings = [
        f"prior={prior}",
        f"generator={{kind: sdxl, source: {generator}}}",
        f"align_run={prior_align_run}",
        "sources=brain,nearest",
        "items=3",
        "repeats=1",
        "resolution_px=32",
        "steps=2",
        "metrics=pixcorr,ssim",
    ]
    first_result = run_command(
        "reconstruct", *settings, f"paths.runs={tmp_path / 'one'}"
    )

    run_in_processes(_run, "reconstruct", *settings, f"paths.runs={tmp_path / 'two'}")

    two = made_by(tmp_path / "two", "reconstruct")
    mine, theirs = (
        sorted(folder.rglob("00.png")) for folder in (first_result.folder, two.path)
    )
    assert len(mine) == len(theirs) == 3
    for ours, other_their in zip(mine, theirs, strict=True):
        assert ours.parts[-4:] == other_their.parts[-4:]
        difference = np.asarray(Image.open(ours), np.int16) - np.asarray(
            Image.open(other_their), np.int16
        )
        assert np.abs(difference).max() <= 1  # rounding to bytes
    for scope, metrics in first_result.metrics.scopes.items():
        for name, metric in metrics.items():
            assert two.measurements().scopes[scope][name].value == pytest.approx(
                metric.value, abs=1e-3
            )
    files = [folder / "values.csv" for folder in (first_result.folder, two.path)]
    # with the baseline
    assert [len(file.read_text().splitlines()) for file in files] == [1 + 6, 1 + 6]
