"""Alternatives chosen by feedback: UBP's choice, in a training, and resumed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cell_data import HERE, PICTURES, batches_of, data_of, layout_of
from safetensors.torch import load_file

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.weights import Checkpoint
from brainhive_cli.training.alignment import loop
from brainhive_cli.training.alignment.batches import USUAL, CellData, Feedback
from brainhive_cli.training.alignment.loop import train_cell
from brainhive_cli.training.alignment.objective import Term
from brainhive_cli.training.alignment.recipe import Train

CPU = torch.device("cpu")
SAVE = Checkpoint.save


def data_with(alternatives: int) -> CellData:
    random = np.random.default_rng(0)
    first, *others = (random.normal(size=(PICTURES, 8)).astype(np.float32) for _ in range(alternatives))
    return data_of(first, others=others)


def test_the_next_blur_of_each_sample_is_that_of_ubp(golden: Path) -> None:
    tensors = load_file(golden / "methods/ubp_strength.safetensors")
    feedback = Feedback(len(tensors["expected.similarity.0"]), {"picture": 3}, CPU)
    step = 0
    while f"index.{step}" in tensors:
        feedback.learn(tensors[f"index.{step}"], tensors[f"logit.{step}"])
        step += 1
        assert torch.allclose(feedback.running, tensors[f"expected.similarity.{step}"])
        assert torch.equal(feedback.level, tensors[f"expected.strength.{step}"])
    assert step


@pytest.mark.parametrize("count", [1, 2])
def test_other_than_three_alternatives_are_refused(count: int) -> None:
    with pytest.raises(RecipeError, match="three targets of a stimulus, and"):
        batches_of(data_with(count), alternatives="uncertainty")


def test_a_batch_has_the_targets_that_feedback_chose() -> None:
    data = data_with(3)
    batches = batches_of(data, alternatives="uncertainty")
    rows = batches.epoch(0, 0)[0]
    similarity = torch.zeros(len(rows))
    similarity[2], similarity[5] = 50.0, -50.0
    for _ in range(2):  # a running value may be outside only where the newest moved far from it
        batches.feedback.learn(torch.from_numpy(np.sort(rows)), similarity)  # type: ignore[union-attr]
    (_, targets, context), source = batches.draw(rows, 0), data.targets.sources["e"]
    level = batches.feedback.level[torch.from_numpy(np.sort(rows))]  # type: ignore[union-attr]
    assert level[2] == 0 and level[5] == 2 and (level == USUAL).sum() == len(rows) - 2
    expected = source.gather(context.stimuli, level)
    assert torch.equal(targets["e"], expected)


def test_a_training_that_is_resumed_goes_on_with_its_feedback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    for stop in (None, 3):
        folder = RunFolder(tmp_path / f"{stop}")
        folder.path.mkdir()
        train = Train(
            epochs=4, batch_size=16, lr=5e-3, precision="fp32", alternatives="uncertainty", selection="last"
        )
        monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)

        def save(self: Checkpoint, content: dict[str, object], stop: int | None = stop) -> None:
            SAVE(self, content)
            if stop is not None and content["epoch"] == stop:
                raise KeyboardInterrupt

        data = data_with(3)
        cell = ("cell", 1, layout_of(data), data, [Term(prediction="token")], train, folder, HERE)
        if stop is not None:
            monkeypatch.setattr(Checkpoint, "save", save)
            with pytest.raises(KeyboardInterrupt):
                train_cell(*cell)
            monkeypatch.setattr(Checkpoint, "save", SAVE)
        train_cell(*cell)
        weights.append(load_file(folder.path / "cells/cell/model/model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
