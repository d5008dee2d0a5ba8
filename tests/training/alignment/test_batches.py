"""What a step learns from: micro-batches, epochs of trials, and alternatives chosen by
feedback.
"""

from dataclasses import replace
from pathlib import Path

import cell_data as cells
import numpy as np
import pytest
import torch
from cell_data import HERE, PICTURES, batches_of, targets_of
from safetensors.torch import load_file
from trials import make_trials

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.model_input import spec_of
from brainhive_cli.data.trials import Trials
from brainhive_cli.training.alignment.batches import USUAL, Batches, CellData, Feedback
from brainhive_cli.training.alignment.recipe import Recipe

WIDTHS = {1: 3, 4: 5, 7: 4}


def voxels(subject: int, repetitions: int = 1) -> Trials:
    """Signals [N, V, 1] that say whose they are and of which stimulus."""
    pictures, width = np.arange(PICTURES), WIDTHS[subject]
    averages = (
        np.repeat(100.0 * subject + pictures, width)
        .reshape(-1, width, 1)
        .astype(np.float32)
    )
    regions = {"V1": (0, 1), "FFA": tuple(range(2, width))}
    signal = np.repeat(averages[:, None], repetitions, 1)
    return make_trials(subject, signal, pictures, (), None, regions=regions)


def data_of(repetitions: int = 1) -> CellData:
    targets = targets_of({"e": torch.arange(PICTURES, dtype=torch.float32)[:, None]})
    trials = [voxels(subject, repetitions) for subject in WIDTHS]
    return CellData(trials, targets, np.zeros(PICTURES, bool), None)


def test_a_step_is_a_micro_batch_for_each_subject_and_targets_follow_their_order() -> (
    None
):
    batches = batches_of(data_of(2), batch_size=60)
    parts, targets, _ = batches.draw(np.arange(0, 3 * PICTURES, 4), 1)

    assert [tuple(signal.shape[1:]) for signal, _ in parts] == [(3, 1), (5, 1), (4, 1)]
    assert [subject.unique().tolist() for _, subject in parts] == [[0], [1], [2]]
    seen = torch.cat([signal[:, 0, 0] for signal, _ in parts])
    whose = torch.tensor(list(WIDTHS))[torch.cat([subject for _, subject in parts])]
    assert torch.equal(seen, 100.0 * whose + targets["e"][:, 0])

    parts, targets, _ = batches_of(data_of()).draw(np.array([150, 3, 120]), 1)
    # none of the second subject
    assert [subject.tolist() for _, subject in parts] == [[0], [2, 2]]
    assert targets["e"][:, 0].tolist() == [3, 0, 30]


def test_signals_are_mixed_within_their_subject_and_processes_agree_on_partners() -> (
    None
):
    rows = np.random.default_rng(0).permutation(3 * PICTURES)[:41]
    drawn = [
        batches_of(data_of(), replace(HERE, rank=rank, processes=2)).draw(
            rows, 4, (0.5, 1.0)
        )
        for rank in (0, 1)
    ]

    one, other = (context.mixing for _, _, context in drawn)
    assert (
        one is not None
        and other is not None
        and torch.equal(one.partner, other.partner)
    )
    subjects = torch.cat([subject for parts, _, _ in drawn for _, subject in parts])
    assert torch.equal(subjects[one.partner], subjects)
    clean = torch.cat([100.0 * torch.tensor(list(WIDTHS))[subjects]]) + torch.cat(
        [targets["e"][:, 0] for _, targets, _ in drawn]
    )
    mixed = torch.cat([signal[:, 0, 0] for parts, _, _ in drawn for signal, _ in parts])
    assert torch.allclose(one.mix(clean), mixed, atol=1e-3) and not torch.allclose(
        clean, mixed
    )


def test_subjects_whose_signals_mean_different_things_do_not_train_together() -> None:
    regions = {"V1": (0, 1), "FFA": (2, 3, 4)}
    for other, what in (
        ({"channels": tuple("abcde")}, "sensors"),
        ({"rate_hz": 100.0}, "sampling rate"),
        ({"regions": {"V1": (0,)}}, "regions"),
    ):
        what_is_read = {
            "signal": voxels(4).averages,
            "rate_hz": None,
            "regions": regions,
            **other,
        }
        with pytest.raises(
            BrainhiveError, match=f"subjects 1 and 4 differ in their {what}"
        ):
            spec_of(
                [
                    voxels(1),
                    make_trials(4, stimulus=np.arange(PICTURES), **what_is_read),
                ]
            )


def of_subjects(count: int, repetitions: int = 3) -> CellData:
    """Single trials of subjects of several widths, the last of whom saw half of the
    pictures.
    """
    trials = [
        replace(voxels([*WIDTHS][place % 3], repetitions), subject=place + 1)
        for place in range(count)
    ]
    trials[-1] = trials[-1].take(np.arange(PICTURES // 2))
    targets = targets_of({"e": torch.arange(PICTURES, dtype=torch.float32)[:, None]})
    return CellData(
        trials, targets, np.zeros(PICTURES, bool), None, repetitions="single"
    )


def test_an_epoch_has_mindeye2s_steps_of_as_many_trials_of_each_subject() -> None:
    """Source: Train.py of MindEye2: (750 * 40) // 42 of seven subjects, (750 *
    num_sessions) // 24 of one.
    """
    for recipe, subjects, steps, share in (
        ("papers/mindeye2", 7, 714, 6),  # 42 a step, 30,000 trials an epoch
        ("papers/mindeye2-1h", 1, 31, 24),  # 750 trials: an hour
    ):
        train = Recipe.resolve("train-align", recipe, {}, []).train
        batches = Batches(
            replace(of_subjects(subjects), epoch_trials=train.epoch_trials), train, HERE
        )

        epoch = batches.epoch(42, 3)
        whose = batches.samples.subject.numpy()
        assert len(epoch) == batches.steps == steps
        for rows in epoch:
            assert (
                np.bincount(whose[rows], minlength=subjects).tolist()
                == [share] * subjects
            )
        drawn = np.concatenate(epoch)
        for subject in range(subjects):  # all trials of each, in rounds
            counts = np.bincount(drawn[whose[drawn] == subject])[
                np.flatnonzero(whose == subject)
            ]
            assert counts.max() - counts.min() <= 1 and counts.min() > 0
        assert all(
            np.array_equal(one, two)
            for one, two in zip(epoch, batches.epoch(42, 3), strict=True)
        )
        assert not np.array_equal(epoch[0], batches.epoch(42, 4)[0])


CPU = torch.device("cpu")


def data_with(alternatives: int) -> CellData:
    random = np.random.default_rng(0)
    first, *others = (
        random.normal(size=(PICTURES, 8)).astype(np.float32)
        for _ in range(alternatives)
    )
    return cells.data_of(first, others=others)


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


def test_a_batch_has_the_targets_that_feedback_chose() -> None:
    data = data_with(3)
    batches = batches_of(data, alternatives="uncertainty")
    rows = batches.epoch(0, 0)[0]
    similarity = torch.zeros(len(rows))
    similarity[2], similarity[5] = 50.0, -50.0
    # a running value may be outside only where the newest moved far from it
    for _ in range(2):
        batches.feedback.learn(torch.from_numpy(np.sort(rows)), similarity)  # type: ignore[union-attr]
    (_, targets, context), source = batches.draw(rows, 0), data.targets.sources["e"]
    level = batches.feedback.level[torch.from_numpy(np.sort(rows))]  # type: ignore[union-attr]
    assert level[2] == 0 and level[5] == 2 and (level == USUAL).sum() == len(rows) - 2
    expected = source.gather(context.stimuli, level)
    assert torch.equal(targets["e"], expected)


def test_the_gallery_is_the_level_that_the_recipe_names() -> None:
    data = data_with(3)
    rows = batches_of(data, alternatives="uncertainty").epoch(0, 0)[0]
    source = data.targets.sources["e"]
    # levels from weak to strong are alternatives 0 1 2, then 1 0 2, then 1 2 0
    for gallery_level, order in enumerate(([0, 1, 2], [1, 0, 2], [1, 2, 0])):
        batches = batches_of(
            data, alternatives="uncertainty", gallery_level=gallery_level
        )
        levels = torch.arange(len(batches.feedback.level)) % 3
        batches.feedback.level.copy_(levels)
        _, targets, context = batches.draw(rows, 0)
        level = levels[torch.from_numpy(np.sort(rows))]
        expected = source.gather(context.stimuli, torch.tensor(order)[level])
        assert torch.equal(targets["e"], expected)
