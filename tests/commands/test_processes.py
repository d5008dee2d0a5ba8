"""Two processes on this CPU give what one gives; each launch is shared by several assertions."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from progress_lines import without_progress
from safetensors.torch import load_file
from two import in_two

from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.stores.target_store import TargetStore, TargetWriter
from brainhive_cli.models.blocks import ResidualMLP
from brainhive_cli.models.losses import ClipConfig, LossContext

COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"
ENCODER = "brainhive_cli-models-encoders-python-example"
TWO = ("--processes", "2", "--json")
NOTHING_DRAWN = ("backbone.dropout=0", "fuser.dropout=0")
"""Each process draws the dropout of its share."""
SUMMED_OTHERWISE = 1e-4
"""Gradients are summed in another order, over all steps of a training."""


def result(ended: Any) -> dict[str, Any]:
    assert ended.returncode == 0, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)  # so stdout holds one document, not one a process
    return document


def _run(launch: Launch, command: str, *overrides: str) -> None:
    pipeline: Any = importlib.import_module(f"brainhive_cli.commands.{command.replace('-', '_')}")
    pipeline.run(pipeline.Recipe.resolve(command, None, {}, overrides), launch)


def made_by(runs: Path, command: str) -> RunFolder:
    (path,) = (runs / command).iterdir()
    return RunFolder(path)


def weights(run: Path, cell: str) -> dict[str, torch.Tensor]:
    return load_file(run / "cells" / cell / "model" / "model.safetensors")


def test_embed_shares_the_pictures_and_shows_a_childs_error_as_one_line(brainhive, home, pictures, go):
    last = sorted(pictures.rglob("*.png"))[-1]  # of 12, so that the second process meets it
    last.write_bytes(b"no picture")
    settings = (f"dataset={{kind: image-folder, root: {pictures}}}", COLOURS, "batch_size=2")
    path = home / "embeddings" / "pictures" / "train" / f"{ENCODER}.h5"

    ended = brainhive("embed", *settings, *TWO)

    lines = without_progress(ended.stderr)
    assert (ended.returncode, len(lines)) == (1, 2), ended.stderr
    answer = json.loads(ended.stdout)  # one document, not one a process
    assert answer["exit_code"] == 1 and lines[0] == f"error: {answer['error']}"
    assert lines[0].startswith("error: 1 pictures cannot be decoded: ") and str(last) in lines[0]
    assert lines[1].startswith("  try: ")
    assert TargetWriter(path).pending.tolist() == [11]  # no other picture was lost
    go("embed", *settings, "skip_bad=true")
    two = np.array(TargetStore.open(path).embedding)
    go("embed", *settings, "skip_bad=true", again=True)
    assert np.array_equal(two, TargetStore.open(path).embedding)


def test_cells_are_shared_whole(world, small, tmp_path, go):
    one = go("train-align", *small)

    in_two(_run, "train-align", *small, f"paths.runs={tmp_path}")

    two = made_by(tmp_path, "train-align")
    for cell in ("sub-01_seed-1", "sub-02_seed-1"):
        mine, theirs = weights(one.folder, cell), weights(two.path, cell)
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    documents = [run.measurements().as_dict() for run in (two, RunFolder(one.folder))]
    took = [cell.pop("took") for document in documents for cell in document["facts"]["cells"].values()]
    assert documents[0] == documents[1] and all(each["seconds"] > 0 for each in took)
    assert two.read_json("environment.json")["processes"] == 2


def test_one_cell_is_trained_in_parallel_by_hand_written_accelerate_too(
    brainhive, world, small, tmp_path, go
):
    settings = (*small, *NOTHING_DRAWN, "subjects=1", "train.batch_size=129", "train.epochs=3")
    one = go("train-align", *settings, f"paths.runs={tmp_path / 'one'}")
    launcher = (
        str(Path(sys.executable).with_name("accelerate")),
        "launch",
        "--multi_gpu",
        "--num_processes=2",
    )
    launcher = (*launcher, "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no")
    launcher = (*launcher, "--main_process_port=0", "-m", "brainhive_cli")

    ended = brainhive("train-align", *settings, f"paths.runs={tmp_path / 'two'}", "--json", launcher=launcher)
    two = result(ended)

    assert "Warning: torch.distributed" not in ended.stderr
    cell = "sub-01_seed-1"
    mine, theirs = weights(one.folder, cell), weights(Path(two["folder"]), cell)
    assert max(float((mine[key] - theirs[key]).abs().max()) for key in mine) < SUMMED_OTHERWISE
    ours, other = (made["scopes"][cell]["top1"] for made in (one.metrics.as_dict(), two["metrics"]))
    assert other["value"] == pytest.approx(ours["value"], abs=1 / ours["n"])  # one near tie may flip
    assert (other["n"], other["pool"]) == (ours["n"], ours["pool"])
    environment = json.loads((Path(two["folder"]) / "environment.json").read_text())
    assert environment["processes"] == 2  # else the test would compare one process with itself


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


def test_a_killed_process_is_the_error_and_not_what_the_others_say_of_it(brainhive, home, small, go):
    go("embed", *small[:2])
    (home / "killed").mkdir()
    (home / "killed/net.py").write_text(KILLED)
    ended = brainhive("train-align", *small, "subjects=1", "backbone.kind=killed.net", *TWO)
    error, way = ended.stderr.splitlines()[-2:]
    assert ended.returncode == 5 and "error" not in "".join(ended.stderr.splitlines()[:-2])
    assert error.startswith("error: process 1 of the launch was killed (SIGKILL), as")
    assert way.startswith("  try: a smaller train.batch_size; the same")


def test_reconstruct_draws_each_picture_once_and_the_same(world, small, tmp_path, go, generator, prior):
    run = go("train-align", *small, f"paths.runs={tmp_path}", f"prior={prior}", "subjects=1").folder
    settings = (
        f"prior={prior}",
        f"generator={{kind: sdxl, source: {generator}}}",
        f"align_run={run}",
        "sources=brain,nearest",
        "items=3",
        "repeats=1",
        "resolution_px=32",
        "steps=2",
        "metrics=pixcorr,ssim",
    )
    one = go("reconstruct", *settings, f"paths.runs={tmp_path / 'one'}")

    in_two(_run, "reconstruct", *settings, f"paths.runs={tmp_path / 'two'}")

    two = made_by(tmp_path / "two", "reconstruct")
    mine, theirs = (sorted(folder.rglob("00.png")) for folder in (one.folder, two.path))
    assert len(mine) == len(theirs) == 3
    for ours, other in zip(mine, theirs, strict=True):
        assert ours.parts[-4:] == other.parts[-4:]
        difference = np.asarray(Image.open(ours), np.int16) - np.asarray(Image.open(other), np.int16)
        assert np.abs(difference).max() <= 1  # rounding to bytes
    for scope, metrics in one.metrics.scopes.items():
        for name, metric in metrics.items():
            assert two.measurements().scopes[scope][name].value == pytest.approx(metric.value, abs=1e-3)
    files = [folder / "values.csv" for folder in (one.folder, two.path)]
    assert [len(file.read_text().splitlines()) for file in files] == [1 + 6, 1 + 6]  # with the baseline


def gradients(launch: Launch) -> list[torch.Tensor]:
    """Gradients of the loss of 7 pairs, of which this process encodes its share."""
    torch.manual_seed(0)
    signal, image = torch.randn(2, 7, 16)
    own, unused = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)  # one for the first pair alone
    backbone, loss = ResidualMLP(16, 32), ClipConfig(initial_logit_scale=2.0).build()
    rows = list(launch.shard(range(7)))
    encoded = backbone(signal[rows])
    if 0 in rows:
        encoded = torch.cat([own(encoded[:1]), encoded[1:]])
    tokens = launch.gather_rows(encoded, 7)
    loss(tokens, launch.gather_rows(image[rows], 7), LossContext()).backward()
    parameters = [*backbone.parameters(), *loss.parameters(), *own.parameters(), *unused.parameters()]
    launch.average_gradients(parameters)
    assert unused.weight.grad is None
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _save_gradients(launch: Launch, folder: Path) -> None:
    torch.save(gradients(launch), folder / f"{launch.rank}.pt")


def test_two_processes_have_the_gradients_of_one_at_the_same_global_batch(tmp_path):
    in_two(_save_gradients, tmp_path)

    expected = gradients(Launch(0, 1, torch.device("cpu")))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert len(found) == len(expected) == 7
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))
