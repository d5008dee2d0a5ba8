"""Loop of a prior's training: checkpoints, log and stop."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.runs import Launch, RunFolder
from brainhive_cli.data.media.views import PictureBatch
from brainhive_cli.training.prior import loop
from brainhive_cli.training.prior.loop import PriorLearner, Training, train
from brainhive_cli.training.prior.recipe import PriorTrain, Recipe

HERE = Launch(0, 1, torch.device("cpu"))


class Prior(nn.Module):
    """Prior with a single weight."""

    def __init__(self):
        super().__init__()
        self.part = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.part.weight)


class Small(Training):
    """Training whose loss is a fixed number for each step."""

    losses = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)

    def compute_loss(self, batch):
        return self.prior.part.weight.sum() * 0 + self.losses[batch.step]

    def validate(self):
        return [0.5, 0.25]


@pytest.fixture
def begin(monkeypatch):
    """Begin a training of six steps of four pictures, without a generator."""
    monkeypatch.setattr(loop, "embed_empty_prompt", lambda *_: None)
    monkeypatch.setattr(loop, "count_decoders", lambda *_: 0)

    def draw(pictures, steps, size, passes, *_):
        empty = torch.empty(0)
        for step in steps:
            for rows in np.array_split(np.arange(size), passes):
                yield PictureBatch(rows, empty, empty, {}, step=step)

    monkeypatch.setattr(loop, "load_examples", draw)

    def make(*overrides):
        steps = ("train.steps=6", "train.checkpoint_steps=4")
        batches = ("train.batch_size=2", "train.accumulate=2")
        recipe = Recipe.resolve("train-prior", None, {}, steps + batches + overrides)
        pictures = SimpleNamespace(count_in_step=lambda size, *_: size)
        return Small(recipe, pictures, None, Prior(), {}, HERE)

    return make


def learner_of(training):
    return PriorLearner(training.prior, [], training.recipe.train)


def steps_of(run_folder):
    return [(event["step"], event["loss"]) for event in run_folder.events()]


def test_the_mean_loss_is_logged_where_a_checkpoint_is_due(begin, tmp_path):
    run_folder, steps_seen = RunFolder(tmp_path), list[int]()
    training = begin()
    tracked = list[Any]()

    at_start = train(
        training, run_folder, learner_of(training), steps_seen.append, tracked.append
    )

    assert at_start == [0.5, 0.25]
    assert steps_seen == [1, 2, 3, 4, 5, 6]
    expected = [(4, sum(Small.losses[:4]) / 4), (6, sum(Small.losses) / 6)]
    assert steps_of(run_folder) == expected
    assert [(event["step"], event["loss"]) for event in tracked] == steps_of(run_folder)


def test_a_training_goes_on_behind_its_checkpoint(begin, tmp_path):
    whole_run_folder, run_folder = (
        RunFolder(tmp_path / "whole"),
        RunFolder(tmp_path / "run"),
    )
    for folder in (whole_run_folder, run_folder):
        folder.path.mkdir()
    training = begin()
    train(training, whole_run_folder, learner_of(training), lambda step: None)

    def stop(step):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(begin(), run_folder, learner_of(training := begin()), stop)
    run_folder.log(step=5, loss=99.0)
    resumed, steps_seen = begin(), list[int]()
    resumed_learner = learner_of(resumed)
    assert train(resumed, run_folder, resumed_learner, steps_seen.append) == [0.5, 0.25]
    assert steps_seen == [5, 6]
    assert steps_of(run_folder) == steps_of(whole_run_folder)
    assert resumed_learner.step == 6
    # the size of a step must not change
    with pytest.raises(BrainhiveError):
        train(
            other_training := begin("train.batch_size=3"),
            run_folder,
            learner_of(other_training),
            steps_seen.append,
        )


def test_a_training_that_diverges_stops_before_its_checkpoint(begin, tmp_path):
    training = begin()
    object.__setattr__(training, "losses", (1.0, 1.0, float("nan"), 1.0, 1.0, 1.0))
    run_folder = RunFolder(tmp_path)
    with pytest.raises(BrainhiveError):
        train(training, run_folder, learner_of(training), lambda step: None)
    assert list(run_folder.events()) == []
    assert not (tmp_path / "checkpoints").exists()


def test_a_learner_keeps_its_recent_losses_and_clips_to_one():
    prior = Prior()
    learner = PriorLearner(
        prior, [], PriorTrain(lr=0.1, weight_decay=0.0, accumulate=2)
    )
    assert learner.recent_losses.maxlen == 200
    assert learner.step == 0
    prior.part.weight.grad = torch.full((1, 1), 4.0)
    learner.update()
    assert learner.grad_norm == 4
    assert learner.step == 1
    assert prior.part.weight.grad is None
    (state,) = learner.optimizer.state.values()
    # Adam keeps a tenth of the first gradient
    assert state["exp_avg"].item() == pytest.approx(0.1, rel=1e-4)
    assert prior.part.weight.item() == pytest.approx(0.9, rel=1e-4)
