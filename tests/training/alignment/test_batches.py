"""What a step learns from, where subjects have different numbers of voxels."""

from dataclasses import replace

import cell_data as cells
import numpy as np
import pytest
import torch
from cell_data import HERE, PICTURES, batches_of, targets_of
from trials import make_trials

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.data.model_input import spec_of
from brainhive_cli.data.trials import Trials
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.batches import Batches, CellData, open_bank
from brainhive_cli.training.alignment.recipe import Recipe

WIDTHS = {1: 3, 4: 5, 7: 4}


def voxels(subject: int, repetitions: int = 1) -> Trials:
    """Signals [N, V, 1] that say whose they are and of which stimulus."""
    pictures, width = np.arange(PICTURES), WIDTHS[subject]
    averages = np.repeat(100.0 * subject + pictures, width).reshape(-1, width, 1).astype(np.float32)
    regions = {"V1": (0, 1), "FFA": tuple(range(2, width))}
    signal = np.repeat(averages[:, None], repetitions, 1)
    return make_trials(subject, signal, pictures, (), None, regions=regions)


def data_of(repetitions: int = 1) -> CellData:
    targets = targets_of({"e": torch.arange(PICTURES, dtype=torch.float32)[:, None]})
    trials = [voxels(subject, repetitions) for subject in WIDTHS]
    return CellData(trials, targets, np.zeros(PICTURES, bool), None)


@pytest.mark.parametrize("repetitions", [1, 2])
def test_a_step_is_a_micro_batch_for_each_subject_and_targets_follow_their_order(repetitions: int) -> None:
    batches = batches_of(data_of(repetitions), batch_size=60)
    parts, targets, _ = batches.draw(np.arange(0, 3 * PICTURES, 4), 1)

    assert [tuple(signal.shape[1:]) for signal, _ in parts] == [(3, 1), (5, 1), (4, 1)]
    assert [subject.unique().tolist() for _, subject in parts] == [[0], [1], [2]]
    seen = torch.cat([signal[:, 0, 0] for signal, _ in parts])
    whose = torch.tensor(list(WIDTHS))[torch.cat([subject for _, subject in parts])]
    assert torch.equal(seen, 100.0 * whose + targets["e"][:, 0])


def test_a_subject_without_rows_in_a_step_has_no_micro_batch() -> None:
    parts, targets, _ = batches_of(data_of()).draw(np.array([150, 3, 120]), 1)

    assert [subject.tolist() for _, subject in parts] == [[0], [2, 2]]
    assert targets["e"][:, 0].tolist() == [3, 0, 30]


def test_signals_are_mixed_within_their_subject_and_processes_agree_on_partners() -> None:
    rows = np.random.default_rng(0).permutation(3 * PICTURES)[:41]
    drawn = [
        batches_of(data_of(), replace(HERE, rank=rank, processes=2)).draw(rows, 4, (0.5, 1.0))
        for rank in (0, 1)
    ]

    one, other = (context.mixing for _, _, context in drawn)
    assert one is not None and other is not None and torch.equal(one.partner, other.partner)
    subjects = torch.cat([subject for parts, _, _ in drawn for _, subject in parts])
    assert torch.equal(subjects[one.partner], subjects)
    clean = torch.cat([100.0 * torch.tensor(list(WIDTHS))[subjects]]) + torch.cat(
        [targets["e"][:, 0] for _, targets, _ in drawn]
    )
    mixed = torch.cat([signal[:, 0, 0] for parts, _, _ in drawn for signal, _ in parts])
    assert torch.allclose(one.mix(clean), mixed, atol=1e-3) and not torch.allclose(clean, mixed)


def test_a_model_of_all_subjects_is_built_for_their_widths_and_regions() -> None:
    found = spec_of([voxels(subject) for subject in WIDTHS])

    regions = {"V1": ((0, 1),) * 3, "FFA": ((2,), (2, 3, 4), (2, 3))}
    assert found == SignalSpec((), 1, (1, 4, 7), (3, 5, 4), times_s=(0.0,), regions=regions)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"channels": tuple("abcde")}, "sensors"),
        ({"signal": np.zeros((PICTURES, 5, 2), np.float32), "rate_hz": 100.0}, "samples"),
        ({"rate_hz": 100.0}, "sampling rate"),
        ({"regions": {"V1": (0,)}}, "regions"),
    ],
)
def test_subjects_whose_signals_mean_different_things_do_not_train_together(other, what) -> None:
    with pytest.raises(BrainhiveError, match=f"subjects 1 and 4 differ in their {what}"):
        regions = {"V1": (0, 1), "FFA": (2, 3, 4)}
        what_is_read = {"signal": voxels(4).averages, "rate_hz": None, "regions": regions, **other}
        spec_of([voxels(1), make_trials(4, stimulus=np.arange(PICTURES), **what_is_read)])


def test_rows_of_equal_widths_are_gathered_together() -> None:
    subjects = [voxels(1), replace(voxels(1), subject=2)]
    bank = open_bank(subjects, HERE.device, is_mapped=False)
    rows = np.array([0, 59, 60, 119])

    assert [part.tolist() for part in bank.split(rows)] == [rows.tolist()]
    assert bank.gather(rows)[:, 0, 0].tolist() == [100, 159, 100, 159]


def of_subjects(count: int, repetitions: int = 3) -> CellData:
    """Single trials of subjects of several widths, the last of whom saw half of the pictures."""
    trials = [replace(voxels([*WIDTHS][place % 3], repetitions), subject=place + 1) for place in range(count)]
    trials[-1] = trials[-1].take(np.arange(PICTURES // 2))
    targets = targets_of({"e": torch.arange(PICTURES, dtype=torch.float32)[:, None]})
    return CellData(trials, targets, np.zeros(PICTURES, bool), None, repetitions="single")


@pytest.mark.parametrize(
    ("recipe", "subjects", "sessions", "steps", "share"),
    [
        ("papers/mindeye2", 7, 1, 714, 6),  # 42 a step, 30,000 trials an epoch
        ("papers/mindeye2-1h", 1, 1, 31, 24),  # 750 trials: an hour
        ("papers/mindeye2-sessions", 1, 40, 1250, 24),
    ],
)
def test_an_epoch_has_mindeye2s_steps_of_as_many_trials_of_each_subject(
    recipe: str, subjects: int, sessions: int, steps: int, share: int
) -> None:
    """Source: Train.py of MindEye2: (750 * 40) // 42 of seven subjects, (750 * num_sessions) // 24 of one."""
    train = Recipe.resolve("train-align", recipe, {}, []).train
    assert train.epoch_trials is not None
    data = replace(of_subjects(subjects), epoch_trials=sessions * train.epoch_trials)

    batches = Batches(data, train, HERE)

    epoch = batches.epoch(42, 3)
    whose = batches.samples.subject.numpy()
    assert len(epoch) == batches.steps == steps
    for rows in epoch:
        assert np.bincount(whose[rows], minlength=subjects).tolist() == [share] * subjects
    drawn = np.concatenate(epoch)
    for subject in range(subjects):  # all trials of each, in rounds
        counts = np.bincount(drawn[whose[drawn] == subject])[np.flatnonzero(whose == subject)]
        assert counts.max() - counts.min() <= 1 and counts.min() > 0
    assert all(np.array_equal(one, two) for one, two in zip(epoch, batches.epoch(42, 3), strict=True))
    assert not np.array_equal(epoch[0], batches.epoch(42, 4)[0])


@pytest.mark.parametrize(("epoch_trials", "batch_size"), [(30, 2), (2, 3)])
def test_an_epoch_without_a_step_is_refused(epoch_trials: int, batch_size: int) -> None:
    data = replace(of_subjects(3), epoch_trials=epoch_trials)

    with pytest.raises(RecipeError, match="give 3 subjects no step"):
        batches_of(data, batch_size=batch_size)


def test_an_epoch_of_trials_needs_trials_of_every_subject() -> None:
    data = replace(of_subjects(2), epoch_trials=30, held_out=np.arange(PICTURES) < PICTURES // 2)

    with pytest.raises(RecipeError, match="no trial is left to train on"):
        batches_of(data)


SMOOTHED = {"parts": [{"kind": "smooth", "p": 0.5}]}


def smoothed_rows(seed: int, rows: np.ndarray, step_seed: int, rank: int = 0, processes: int = 1, **knobs):
    """Draw rows of two subjects' signals, of which some channels are smoothed."""
    embedding = np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32)
    data = replace(cells.data_of(embedding, 2, **knobs), seed=seed)
    batches = batches_of(data, replace(HERE, rank=rank, processes=processes), augment=SMOOTHED)
    ((signal, _),), _, _ = batches.draw(rows, step_seed)
    return signal


@pytest.mark.parametrize("how", [None, "single"])
def test_what_is_drawn_once_stays_whatever_the_step_the_batch_and_the_processes_are(how) -> None:
    rows = np.random.default_rng(1).permutation(100)[:40]

    first = smoothed_rows(1, rows, 3, how=how)

    assert torch.equal(first, smoothed_rows(1, rows, 4, how=how))  # as after an interruption
    assert torch.equal(first[::2], smoothed_rows(1, np.sort(rows)[::2], 5, how=how))
    shares = [smoothed_rows(1, rows, 3, rank, 2, how=how) for rank in (0, 1)]
    both = torch.cat(shares)
    assert all((both == row).flatten(1).all(1).any() for row in first)
    assert not torch.equal(first, smoothed_rows(2, rows, 3, how=how))


def test_signals_that_validate_are_not_varied_and_those_in_memory_stay_as_they_were() -> None:
    embedding = np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32)
    data, rows = cells.data_of(embedding), np.arange(20, 40)
    before = data.trials[0].averages.copy()
    batches = batches_of(data, augment={"parts": [{"kind": "smooth", "p": 1}]})

    ((signal, _),), _, _ = batches.draw(rows, 1)

    np.testing.assert_array_equal(data.trials[0].averages, before)
    assert np.array_equal(batches.averages.gather(rows).numpy(), before[rows])
    assert not np.isclose(signal.numpy(), before[rows]).any(1).all()
