"""A killed prior training, started again, ends with the very weights of one that was not killed."""

import json
import os
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from two import in_two

from brainhive_cli.commands import train_prior
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.models.priors.fusion_prior import CLASSES, WEIGHTS
from brainhive_cli.training.prior.loop import Learner, train
from brainhive_cli.training.prior.recipe import Recipe

LONG = (
    "train.steps=40",  # of 4 among 10 pictures: twenty epochs
    "train.checkpoint_steps=3",
    "sample_items=0",
)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": weight
        for part in CLASSES
        for name, weight in load_file(run / "model" / part / WEIGHTS).items()
    }


def same(one: Path, other: Path) -> bool:
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def steps_logged(runs: Path) -> list[int]:
    lines = [line for log in runs.rglob("log.jsonl") for line in log.read_text().splitlines()]
    return [json.loads(line)["step"] for line in lines if "loss" in json.loads(line)]


def test_a_killed_training_ends_as_one_that_was_not(settings, go, home):
    settings = (*settings, *LONG)
    process = get_context("fork").Process(target=go, args=("train-prior", *settings, "paths.runs=killed"))
    process.start()
    end = time.monotonic() + 60
    while not steps_logged(home / "killed") and process.is_alive() and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.join()
    reached = steps_logged(home / "killed")
    assert reached and max(reached) < 40  # killed in the middle, after a checkpoint

    resumed = go("train-prior", *settings, "paths.runs=killed")
    straight = go("train-prior", *settings, "paths.runs=straight")

    assert same(resumed.folder, straight.folder)
    assert resumed.metrics == straight.metrics
    assert steps_logged(home / "straight") == [*range(3, 40, 3), 40]
    assert not list(home.rglob("last.pt*"))


@pytest.mark.parametrize(("where", "killed_at"), [("update", 7), ("save", 9), ("log", 4)])
def test_an_interruption_leaves_no_trace_in_log_curve_and_samples(
    settings, go, home, monkeypatch, where, killed_at
):
    """Killed between two checkpoints, or between a checkpoint and what its step logs and draws."""
    settings = (*settings, *LONG, "train.steps=14", "sample_items=2", "sample_every=2", "train.accumulate=2")
    owner, step_of = {
        "update": (Learner, lambda learner, *_, **__: learner.step + 1),
        "save": (Learner, lambda learner, *_, **__: learner.step),
        "log": (RunFolder, lambda *_, **event: event["step"]),
    }[where]
    sound = getattr(owner, where)

    def interrupted(self: object, *given: object, **named: object) -> None:
        if step_of(self, *given, **named) == killed_at:
            raise KeyboardInterrupt
        sound(self, *given, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, where, interrupted)
        go("train-prior", *settings, "paths.runs=killed")
    resumed, straight = (
        go("train-prior", *settings, f"paths.runs={name}") for name in ("killed", "straight")
    )

    assert events(resumed.folder) == events(straight.folder)
    assert [event["step"] for event in events(resumed.folder) if "loss" in event] == [3, 6, 9, 12, 14]
    assert drawn(resumed.folder) == drawn(straight.folder) and len(drawn(resumed.folder)) > 10
    assert resumed.metrics == straight.metrics


def events(run: Path) -> list[dict[str, object]]:
    """Read the log, but for the clock's time."""
    lines = (run / "log.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "time"} for line in lines]


def drawn(run: Path) -> dict[str, bytes]:
    """Read the pictures of samples, and what pages are drawn from, as the curve."""
    files = [path for name in ("samples", "artifacts") for path in (run / name).rglob("*") if path.is_file()]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


def test_a_line_that_a_kill_cut_short_is_forgotten(tmp_path):
    run = RunFolder(tmp_path)
    for step in (3, 6, 9):
        run.log(step=step, loss=1 / step)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"time": 1.5, "st')

    run.forget_events_after(6)
    run.log(step=9, loss=0.5)

    assert [(event["step"], event["loss"]) for event in run.events()] == [(3, 1 / 3), (6, 1 / 6), (9, 0.5)]


def test_another_number_of_pictures_a_step_is_refused(settings, begun, tmp_path):
    training, folder = begun(*settings), RunFolder(tmp_path / "run")
    learner = Learner(training.prior, [], training.recipe.train)
    learner.save(folder, at_start=[], size=8)  # as two processes would

    # and no tensors, which take memory
    assert learner.resume(folder, training.launch) == {"at_start": [], "size": 8}
    with pytest.raises(BrainhiveError, match="started with 8 pictures a step, and now has 4") as caught:
        train(training, folder, learner, lambda _: None)
    assert caught.value.hint == "--processes 2, or --again"


def _train(launch: Launch, overrides: tuple[str, ...], runs: list[str], killed_at: int) -> None:
    update = Learner.update

    def updated(learner: Learner) -> None:
        if learner.step == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        update(learner)

    Learner.update = updated  # type: ignore[method-assign]
    for place in runs:
        what = Recipe.resolve("train-prior", None, {}, (*overrides, f"paths.runs={place}"))
        train_prior.run(what, launch)


def test_two_killed_processes_end_as_two_that_were_not(settings, home):
    settings = (*settings, *LONG, "train.steps=12", "cache_latents=true")

    with pytest.raises(torch.multiprocessing.ProcessExitedException):
        in_two(_train, settings, ["killed"], 7)
    in_two(_train, settings, ["killed", "straight"], -1)

    resumed, straight = (next((home / runs).rglob("metrics.json")).parent for runs in ("killed", "straight"))
    assert same(resumed, straight)
    assert steps_logged(home / "killed") == [3, 6, 9, 12]


def test_what_was_taken_back_of_a_checkpoint_is_not_held_twice(settings, begun, tmp_path):
    training, folder = begun(*settings), RunFolder(tmp_path / "run")
    learner = Learner(training.prior, [], training.recipe.train)
    learner.save(folder, at_start=[1.0], size=4)

    assert learner.resume(folder, training.launch) == {"at_start": [1.0], "size": 4}
