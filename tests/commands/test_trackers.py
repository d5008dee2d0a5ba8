"""Trackers get what the log gets, as one run a cell."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from brainhive_cli.commands.trackers import run_options
from brainhive_cli.core.errors import MissingExtra, RecipeError
from brainhive_cli.core.launch import Launch

ALONE = Launch(0, 1, torch.device("cpu"))

ABSENT = [name for name in ("trackio", "wandb", "swanlab") if importlib.util.find_spec(name) is None]


def test_tensorboard_gets_the_log_a_run_for_each_cell(go, small, world, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = go("train-align", *small, f"paths.runs={tmp_path}", "train.epochs=3", "run.trackers=tensorboard")

    log = [json.loads(line) for line in (result.folder / "log.jsonl").read_text().splitlines()]
    for cell in ("sub-01_seed-1", "sub-02_seed-1"):
        shown = result.folder / "tensorboard" / f"{cell} (trained on simulated signals)"
        curves = accumulator.EventAccumulator(str(shown)).Reload()
        for name in ("loss", "validation_top1"):
            told = [(each["epoch"], each[name]) for each in log if each["cell"] == cell]
            drawn = [(point.step, point.value) for point in curves.Scalars(name)]
            assert len(told) == 3 and drawn == [(epoch, pytest.approx(value)) for epoch, value in told]
    assert "epoch" not in curves.Tags()["scalars"]


def test_tensorboard_gets_the_losses_and_samples_of_a_prior_by_step(go, settings):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    often = ("train.checkpoint_steps=2", "sample_every=3")

    folder = go("train-prior", *settings, *often, "run.trackers=tensorboard").folder

    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = [(event["step"], pytest.approx(event["loss"])) for event in log if "loss" in event]
    curves = accumulator.EventAccumulator(str(folder / "tensorboard" / "prior")).Reload()
    assert [(point.step, point.value) for point in curves.Scalars("loss")] == losses
    assert [step for step, _ in losses] == [2, 4, 6]
    (sampled,) = [name for name in curves.Tags()["scalars"] if name != "loss"]
    assert [point.step for point in curves.Scalars(sampled)] == [3]


def test_tensorboard_gets_the_metrics_of_an_evaluation_and_of_pictures(
    go, small, world, tmp_path, prior, generator
):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    runs, told = f"paths.runs={tmp_path}", "run.trackers=tensorboard"
    go("train-align", *small, runs, f"prior={prior}", "subjects=1", "train.epochs=1")
    drawn_by = (f"prior={prior}", f"generator.source={generator}", "resolution_px=32", "steps=1")

    evaluated = go("eval-retrieval", runs, told, "sheet_rows=0")
    drawn = go("reconstruct", runs, told, *drawn_by, "items=2", "repeats=1", "metrics=pixcorr,ssim")

    for result, name, of in ((evaluated, "retrieval", "all"), (drawn, "reconstruction", "brain")):
        label = f"{name} (simulated)"
        shown = accumulator.EventAccumulator(str(result.folder / "tensorboard" / label)).Reload()
        for name, metric in result.metrics.scopes[of].items():
            (point,) = shown.Scalars(f"{of}/{name}")
            assert point.value == pytest.approx(metric.value)
    assert (
        "all · backward/top1"
        in accumulator.EventAccumulator(str(evaluated.folder / "tensorboard" / "retrieval (simulated)"))
        .Reload()
        .Tags()["scalars"]
    )


def test_without_trackers_only_the_log_is_written(go, small, world):
    assert not (go("train-align", *small).folder / "tensorboard").exists()


@pytest.mark.skipif(not ABSENT, reason="all trackers are installed")
def test_a_tracker_that_is_not_installed_is_told_before_anything_is_made(go, small, world, tmp_path: Path):
    with pytest.raises(MissingExtra) as caught:
        go("train-align", *small, f"paths.runs={tmp_path}", f"run.trackers={ABSENT[0]}")
    assert ABSENT[0] in caught.value.message and caught.value.hint == f"pip install {ABSENT[0]}"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not ABSENT, reason="all trackers are installed")
@pytest.mark.parametrize("command", ["eval-retrieval", "reconstruct"])
def test_results_are_not_made_for_a_tracker_that_is_not_installed(go, home, command):
    with pytest.raises(MissingExtra, match=ABSENT[0]):
        go(command, f"run.trackers={ABSENT[0]}")


def test_an_unknown_tracker_is_refused(go, small):
    with pytest.raises(RecipeError, match=r"run.trackers.0: Input should be 'tensorboard', 'trackio'"):
        go("train-align", *small, "run.trackers=tensorbord")


@pytest.mark.parametrize("name", ["wandb", "swanlab"])
def test_a_tracker_resumes_the_run_of_a_home_that_was_moved_and_no_other(tmp_path: Path, name):
    def identity(home: str, command: str, cell: str = "sub-01") -> str:
        return run_options(name, tmp_path / home / command / "run-0123456789", cell, {})["id"]

    assert identity("home", "train-align") == identity("moved", "train-align")
    others = {identity("home", "train-align"), identity("home", "train-prior")}
    assert len(others | {identity("home", "train-align", "sub-02")}) == 3
