"""Training of a prior that resumes after an interruption."""

import json

import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.models.priors._fusion_files import CLASSES, WEIGHTS
from brainhive_cli.training.prior.loop import PriorLearner

pytestmark = pytest.mark.nightly


def weights(run_folder):
    return {
        f"{part_name}.{name}": weight
        for part_name in CLASSES
        for name, weight in load_file(
            run_folder / "model" / part_name / WEIGHTS
        ).items()
    }


def test_an_interruption_leaves_no_trace_in_log_and_samples(
    prior_overrides, run_command, home, monkeypatch
):
    """It stops between two checkpoints, after further steps were logged and drawn."""
    prior_overrides = prior_overrides + (
        "train.steps=11",
        "train.checkpoint_steps=3",
        "train.accumulate=2",
    )
    prior_overrides = prior_overrides + ("sample_items=2", "sample_every=4")
    save = PriorLearner.save

    def interrupted(learner, *arguments, **fields):
        if learner.step == 9:
            raise KeyboardInterrupt
        save(learner, *arguments, **fields)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PriorLearner, "save", interrupted)
        run_command("train-prior", *prior_overrides, "paths.runs=killed")
    resumed, straight = (
        run_command("train-prior", *prior_overrides, f"paths.runs={name}")
        for name in ("killed", "straight")
    )

    trained = weights(resumed.folder)
    assert all(
        torch.equal(trained[name], weight)
        for name, weight in weights(straight.folder).items()
    )
    assert events(resumed.folder) == events(straight.folder)
    assert [event["step"] for event in events(resumed.folder) if "loss" in event] == [
        3,
        6,
        9,
        11,
    ]
    assert read_files(resumed.folder) == read_files(straight.folder)
    assert len(read_files(resumed.folder)) > 4
    assert resumed.metrics == straight.metrics


def events(run_folder):
    """Read the log without times."""
    lines = (run_folder / "log.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key != "time"}
        for line in lines
    ]


def read_files(run_folder):
    """Read the samples, and the data of figures such as the curve."""
    files = [
        path
        for name in ("samples", "artifacts")
        for path in (run_folder / name).rglob("*")
        if path.is_file()
    ]
    return {
        path.relative_to(run_folder).as_posix(): path.read_bytes() for path in files
    }
