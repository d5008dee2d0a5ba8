"""A killed prior training, started again, ends with the very weights of one that was not killed."""

import json
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.models.priors.fusion_prior import CLASSES, WEIGHTS
from brainhive_cli.training.prior.loop import Learner

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


def test_an_interruption_leaves_no_trace_in_log_curve_and_samples(settings, go, home, monkeypatch):
    """Stopped between two checkpoints, after what further steps log and draw."""
    settings = (*settings, *LONG, "train.steps=11", "sample_items=2", "sample_every=4", "train.accumulate=2")
    save = Learner.save

    def interrupted(learner: Learner, *given: object, **named: object) -> None:
        if learner.step == 9:
            raise KeyboardInterrupt
        save(learner, *given, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Learner, "save", interrupted)
        go("train-prior", *settings, "paths.runs=killed")
    resumed, straight = (
        go("train-prior", *settings, f"paths.runs={name}") for name in ("killed", "straight")
    )

    assert events(resumed.folder) == events(straight.folder)
    assert [event["step"] for event in events(resumed.folder) if "loss" in event] == [3, 6, 9, 11]
    assert drawn(resumed.folder) == drawn(straight.folder) and len(drawn(resumed.folder)) > 4
    assert resumed.metrics == straight.metrics


def events(run: Path) -> list[dict[str, object]]:
    """Read the log, but for the clock's time."""
    lines = (run / "log.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "time"} for line in lines]


def drawn(run: Path) -> dict[str, bytes]:
    """Read the pictures of samples, and what pages are drawn from, as the curve."""
    files = [path for name in ("samples", "artifacts") for path in (run / name).rglob("*") if path.is_file()]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}
