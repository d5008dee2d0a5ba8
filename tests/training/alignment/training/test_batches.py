"""Training batches, epochs, held-out pictures and ranks."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.data.files.hdf5 import LazyRows
from brainhive_cli.data.stores.learned_pictures import hash_names
from brainhive_cli.data.targets.model_input import spec_of
from brainhive_cli.training.alignment import Aligner, Recipe
from brainhive_cli.training.alignment.training import batches as module
from brainhive_cli.training.alignment.training.batches import (
    USUAL,
    Batches,
    CellData,
    Feedback,
    choose_held_out,
    compute_top1,
    list_test_queries,
    list_validation_queries,
    open_bank,
    rank_queries,
    summarise_validation,
)
from tests.worlds import alignment_cells as cells
from tests.worlds.alignment_cells import (
    CPU_LAUNCH,
    PICTURES,
    make_batches,
    make_layout,
    make_targets,
)
from tests.worlds.array_trials import make_trials

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)

WIDTHS = {1: 3, 4: 5, 7: 4}


def voxels(subject, repetitions=1):
    """Make signals [N, V, 1] whose values tell subject and stimulus."""
    pictures, width = np.arange(PICTURES), WIDTHS[subject]
    averages = (
        np.repeat(100.0 * subject + pictures, width)
        .reshape(-1, width, 1)
        .astype(np.float32)
    )
    regions = {"V1": (0, 1), "FFA": tuple(range(2, width))}
    signal = np.repeat(averages[:, None], repetitions, 1)
    return make_trials(subject, signal, pictures, (), None, regions=regions)


def data_of(repetitions=1):
    targets = make_targets({"e": torch.arange(PICTURES, dtype=torch.float32)[:, None]})
    trials = [voxels(subject, repetitions) for subject in WIDTHS]
    return CellData(trials, targets, np.zeros(PICTURES, bool), None)


def test_targets_follow_the_order_of_the_subjects_micro_batches():
    batches = make_batches(data_of(2), batch_size=60)
    parts, targets, _ = batches.draw(np.arange(0, 3 * PICTURES, 4), 1)

    assert [tuple(signal.shape[1:]) for signal, _ in parts] == [(3, 1), (5, 1), (4, 1)]
    assert [subject.unique().tolist() for _, subject in parts] == [[0], [1], [2]]
    joined = torch.cat([signal[:, 0, 0] for signal, _ in parts])
    tensor = torch.tensor(list(WIDTHS))[torch.cat([subject for _, subject in parts])]
    assert torch.equal(joined, 100.0 * tensor + targets["e"][:, 0])

    parts, targets, _ = make_batches(data_of()).draw(np.array([150, 3, 120]), 1)
    # none of the second subject
    assert [subject.tolist() for _, subject in parts] == [[0], [2, 2]]
    assert targets["e"][:, 0].tolist() == [3, 0, 30]


def test_all_processes_mix_signals_alike_and_within_a_subject():
    rows = np.random.default_rng(0).permutation(3 * PICTURES)[:41]
    drawn_by_process = [
        make_batches(data_of(), replace(CPU_LAUNCH, rank=rank, processes=2)).draw(
            rows, 4, (0.5, 1.0)
        )
        for rank in (0, 1)
    ]

    first_mixing, other_mixing = (context.mixing for _, _, context in drawn_by_process)
    assert first_mixing is not None
    assert other_mixing is not None
    assert torch.equal(first_mixing.partner, other_mixing.partner)
    subjects = torch.cat(
        [subject for parts, _, _ in drawn_by_process for _, subject in parts]
    )
    assert torch.equal(subjects[first_mixing.partner], subjects)
    clean = torch.cat([100.0 * torch.tensor(list(WIDTHS))[subjects]]) + torch.cat(
        [targets["e"][:, 0] for _, targets, _ in drawn_by_process]
    )
    mixed = torch.cat(
        [signal[:, 0, 0] for parts, _, _ in drawn_by_process for signal, _ in parts]
    )
    assert torch.allclose(first_mixing.mix(clean), mixed, atol=1e-3)
    assert not torch.allclose(clean, mixed)


def test_subjects_with_different_signals_do_not_train_together():
    regions = {"V1": (0, 1), "FFA": (2, 3, 4)}
    for other_spec, difference in (
        ({"channels": tuple("abcde")}, "sensors"),
        ({"rate_hz": 100.0}, "sampling rate"),
        ({"regions": {"V1": (0,)}}, "regions"),
    ):
        what_is_read = {
            "signal": voxels(4).averages,
            "rate_hz": None,
            "regions": regions,
            **other_spec,
        }
        with pytest.raises(
            BrainhiveError, match=f"subjects 1 and 4 differ in their {difference}"
        ):
            spec_of(
                [
                    voxels(1),
                    make_trials(4, stimulus=np.arange(PICTURES), **what_is_read),
                ]
            )


def of_subjects(count, repetitions=3):
    """Make trials of subjects of different widths, the last with half the pictures."""
    trials = [
        replace(voxels(list(WIDTHS)[index % 3], repetitions), subject=index + 1)
        for index in range(count)
    ]
    trials[-1] = trials[-1].take(np.arange(PICTURES // 2))
    targets = make_targets({"e": torch.arange(PICTURES, dtype=torch.float32)[:, None]})
    return CellData(
        trials, targets, np.zeros(PICTURES, bool), None, repetitions="single"
    )


def test_an_epoch_has_mindeye2s_steps_with_balanced_subjects():
    """Source: Train.py of MindEye2, (750 * 40) // 42 steps for seven subjects, (750 *
    num_sessions) // 24 for a single subject.
    """
    for recipe, subjects, steps, share in (
        ("papers/mindeye2", 7, 714, 6),  # 42 a step, 30,000 trials an epoch
        ("papers/mindeye2-1h", 1, 31, 24),  # 750 trials: an hour
    ):
        train = Recipe.resolve("train-align", recipe, {}, []).train
        batches = Batches(
            replace(of_subjects(subjects), epoch_trials=train.epoch_trials),
            train,
            CPU_LAUNCH,
        )

        epoch = batches.split_epoch(42, 3)
        whose = batches.samples.subject.numpy()
        assert len(epoch) == batches.steps == steps
        for rows in epoch:
            assert (
                np.bincount(whose[rows], minlength=subjects).tolist()
                == [share] * subjects
            )
        joined_array = np.concatenate(epoch)
        for subject in range(subjects):  # all trials of each, in rounds
            counts = np.bincount(joined_array[whose[joined_array] == subject])[
                np.flatnonzero(whose == subject)
            ]
            assert counts.max() - counts.min() <= 1
            assert counts.min() > 0
        assert all(
            np.array_equal(first_step, two)
            for first_step, two in zip(epoch, batches.split_epoch(42, 3), strict=True)
        )
        assert not np.array_equal(epoch[0], batches.split_epoch(42, 4)[0])


CPU = torch.device("cpu")


def data_with(alternatives):
    random = np.random.default_rng(0)
    first_person, *other_people = (
        random.normal(size=(PICTURES, 8)).astype(np.float32)
        for _ in range(alternatives)
    )
    return cells.make_cell_data(first_person, alternatives=other_people)


def test_the_next_blur_of_each_sample_is_that_of_ubp(golden):
    tensors = load_file(golden / "methods/ubp_strength.safetensors")
    feedback = Feedback(len(tensors["expected.similarity.0"]), {"picture": 3}, CPU)
    step = 0
    while f"index.{step}" in tensors:
        feedback.update(tensors[f"index.{step}"], tensors[f"logit.{step}"])
        step += 1
        assert torch.allclose(feedback.running, tensors[f"expected.similarity.{step}"])
        assert torch.equal(feedback.level, tensors[f"expected.strength.{step}"])
    assert step


def test_a_batch_has_the_targets_that_feedback_chose():
    data = data_with(3)
    batches = make_batches(data, alternatives="uncertainty")
    rows = batches.split_epoch(0, 0)[0]
    similarity = torch.zeros(len(rows))
    similarity[2], similarity[5] = 50.0, -50.0
    # a running value may be outside only where the newest moved far from it
    for _ in range(2):
        batches.feedback.update(torch.from_numpy(np.sort(rows)), similarity)  # type: ignore[union-attr]
    (_, targets, context), source = batches.draw(rows, 0), data.targets.sources["e"]
    level = batches.feedback.level[torch.from_numpy(np.sort(rows))]  # type: ignore[union-attr]
    assert level[2] == 0
    assert level[5] == 2
    assert (level == USUAL).sum() == len(rows) - 2
    expected = source.gather(context.stimuli, level)
    assert torch.equal(targets["e"], expected)


def test_the_gallery_is_the_level_that_the_recipe_names():
    data = data_with(3)
    rows = make_batches(data, alternatives="uncertainty").split_epoch(0, 0)[0]
    source = data.targets.sources["e"]
    # levels from weak to strong are alternatives 0 1 2, then 1 0 2, then 1 2 0
    for gallery_level, order in enumerate(([0, 1, 2], [1, 0, 2], [1, 2, 0])):
        batches = make_batches(
            data, alternatives="uncertainty", gallery_level=gallery_level
        )
        levels = torch.arange(len(batches.feedback.level)) % 3
        batches.feedback.level.copy_(levels)
        _, targets, context = batches.draw(rows, 0)
        level = levels[torch.from_numpy(np.sort(rows))]
        expected = source.gather(context.stimuli, torch.tensor(order)[level])
        assert torch.equal(targets["e"], expected)


def ragged(subject, seed, width):
    """Make five pictures with up to three trials. Absent trials are not finite."""
    random = np.random.default_rng(seed)
    counts = random.integers(1, 4, 5)
    signal = random.normal(size=(5, 3, width, 2)).astype(np.float32)
    signal[np.arange(3) >= counts[:, None]] = np.nan
    return make_trials(subject, signal, random.permutation(5), counts=counts)


@PROPERTY
@given(
    st.integers(0, 10**6),
    st.sampled_from(["averages", "singles", "stimuli"]),
    st.booleans(),
    st.booleans(),
)
def test_rows_of_a_bank_are_the_signals_of_their_subject(
    seed, rows, is_mapped, is_wide
):
    random = np.random.default_rng(seed)
    trials = [ragged(n + 1, seed + n, 3 + n * is_wide) for n in range(3)]

    bank = open_bank(trials, CPU_LAUNCH.device, is_mapped, rows)

    expected, stimuli, owners = list[Any](), list[int](), list[int]()
    for owner, recording in enumerate(trials):
        by_picture = np.split(recording.signal, recording.first_trials[1:])
        for row, single in enumerate(by_picture):
            # a picture with fewer trials has its last one as padding
            absent = [single[-1]] * (recording.max_repetitions - len(single))
            values = {
                "averages": [single.mean(0)],
                "singles": list(single),
                "stimuli": [np.stack(list(single) + list(absent))],
            }[rows]
            expected += values
            stimuli += [int(recording.stimulus[row])] * len(values)
            owners += [owner] * len(values)
    assert bank.stimulus.tolist() == stimuli
    assert bank.subject.tolist() == owners
    chosen_rows = np.sort(random.choice(len(expected), random.integers(1, 9)))
    parts = bank.split(chosen_rows)
    assert np.concatenate(parts).tolist() == chosen_rows.tolist()
    shapes = {(owners[row], np.shape(expected[row])) for row in chosen_rows}
    if not is_wide and len({recording.max_repetitions for recording in trials}) == 1:
        assert len(parts) == 1
    elif is_wide:
        assert len(parts) == len(shapes)
    single_bank = open_bank(trials[:1], CPU_LAUNCH.device, is_mapped, rows)
    assert single_bank.gather(chosen_rows[:0]).shape == (0,) + tuple(
        np.shape(expected[0])
    )
    for partial_part in parts:
        gathered = bank.gather(partial_part)
        for row, signal in zip(partial_part, gathered, strict=True):
            np.testing.assert_allclose(signal, expected[row], atol=1e-6)


def known_pictures(copies, distances=None):
    """Make random digests and hashes of 12 pictures. Hashes of copies differ in few
    bits.
    """
    random = np.random.default_rng(0)
    pixels = random.integers(1, 2**63, (12, 25), dtype=np.uint64)
    for copy, original in copies.items():
        pixels[copy] = pixels[original]
        bits = (distances or {}).get(copy)
        if bits is not None:
            pixels[copy, 0] += 1
            # the same bits of all views, in their words of odd frequencies
            pixels[copy, 2::2] ^= np.uint64((1 << bits) - 1)
    return pixels


IDS = [f"p{row}" for row in range(12)]
CONCEPTS = [f"c{row // 3}" for row in range(12)]


@pytest.mark.parametrize("unit", ["concepts", "pictures"])
def test_copies_of_held_out_pictures_are_held_out_too(unit):
    held_out = choose_held_out(CONCEPTS, 0.25, by=unit)
    original, (first_copy, second, third) = (
        np.flatnonzero(held_out)[0],
        np.flatnonzero(~held_out)[[0, 4, 8]],
    )
    pixels = known_pictures(
        {first_copy: original, second: original, third: original}, {second: 8, third: 9}
    )
    compared = list[tuple[int, int]]()

    def confirm(row, name):
        compared.append((row, name))
        return "copy"

    pictures = ("set", IDS, pixels, confirm)
    held_out_rows = choose_held_out(CONCEPTS, 0.25, pictures, unit)

    # equal pixels are not compared, and hashes of nine bits' distance are not near
    assert np.flatnonzero(held_out_rows & ~held_out).tolist() == [first_copy, second]
    assert compared == [(second, hash_names("set", IDS).tolist()[original])]
    for likeness, count in (("mirrored", 1), ("cropped", 2), (None, 1), ("", 1)):
        confirmed = ("set", IDS, pixels, lambda row, name, kind=likeness: kind)
        second_held_out = choose_held_out(CONCEPTS, 0.25, confirmed, unit)
        assert (second_held_out & ~held_out).sum() == count
        assert second_held_out[held_out].all()
    unknown = choose_held_out(CONCEPTS, 0.25, ("set", IDS, None, confirm), unit)
    assert np.array_equal(unknown, held_out)


@pytest.mark.parametrize(("share", "count"), [(0, 0), (0.25, 1), (0.5, 2), (0.9, 4)])
def test_a_share_of_whole_concepts_or_pictures_is_held_out(share, count):
    held_out = choose_held_out(CONCEPTS, share).reshape(4, 3)
    assert held_out.all(1).sum() == held_out.any(1).sum() == count
    by_picture = choose_held_out(CONCEPTS, share, by="pictures")
    assert by_picture.sum() == round(12 * share)
    # the same in every run, whatever the order
    order = np.random.default_rng(1).permutation(12)
    shuffled = choose_held_out([CONCEPTS[row] for row in order], share)
    assert np.array_equal(shuffled, held_out.ravel()[order])


def test_signals_lie_in_memory_unless_they_are_mapped():
    trials = [ragged(1, 0, 3), ragged(2, 1, 3)]
    for rows in ("averages", "singles", "stimuli"):
        for is_mapped, kind in ((False, torch.Tensor), (True, LazyRows)):
            bank = open_bank(trials, CPU_LAUNCH.device, is_mapped, rows)  # type: ignore[arg-type]
            assert {type(signal) for signal in bank.signals} == {kind}


def test_the_held_out_of_a_share_are_the_same_in_every_version():
    """Runs of different versions must have the same validation pictures."""
    by_concept = choose_held_out([f"c{row % 7}" for row in range(21)], 0.3)
    by_picture = choose_held_out(["same"] * 21, 0.3, by="pictures")

    assert np.flatnonzero(by_concept).tolist() == [2, 4, 9, 11, 16, 18]
    assert np.flatnonzero(by_picture).tolist() == [2, 5, 7, 10, 12, 18]


def test_a_person_whom_a_model_does_not_know_has_no_index():
    data = replace(
        data_of(), test_trials=[voxels(7), voxels(1), replace(voxels(4), subject=9)]
    )

    queries = list_test_queries(data, CPU_LAUNCH.device)

    assert [bank.subject.unique().tolist() for bank, _ in queries] == [[2], [0], [-1]]
    for (bank, rows), subject in zip(queries, (7, 1, 4), strict=True):
        assert rows.tolist() == list(range(PICTURES))
        expected = 100.0 * subject + torch.arange(PICTURES)
        assert torch.equal(bank.gather(rows)[:, 0, 0], expected)


def signals_of(batches, seed, rows, **fields):
    parts, _, _ = batches.draw(np.asarray(rows), seed, **fields)
    return torch.cat([signal for signal, _ in parts])


SMOOTH = {"kind": "smooth", "p": 0.5}


@pytest.mark.parametrize(
    "augment",
    [
        {"parts": [{**SMOOTH, "drawn": "each_step"}]},
        {"repetitions": 1},
        {"repetitions": 1, "parts": [SMOOTH]},
    ],
    ids=["smoothed", "mixed repetitions", "both"],
)
def test_each_process_and_step_draws_augmentations_of_its_own(
    augment,
):
    # both processes have the same signals
    embedding = np.ones((PICTURES, 8), np.float32)
    first_trials = cells.simulate_trials(1, embedding)
    trials = first_trials.take(np.tile(np.arange(PICTURES // 2), 2))
    trials = trials.change(stimulus=np.arange(PICTURES))
    data = replace(
        cells.make_cell_data(embedding),
        trials=[trials],
        held_out=np.zeros(PICTURES, bool),
    )

    def draw(rank, seed):
        launch = replace(CPU_LAUNCH, rank=rank, processes=2)
        return signals_of(
            make_batches(data, launch, augment=augment), seed, np.arange(PICTURES)
        )

    assert torch.equal(draw(0, 1), draw(0, 1))
    assert not torch.equal(draw(0, 1), draw(0, 2))
    assert not torch.equal(draw(0, 1), draw(1, 1))


def test_mixtures_differ_between_processes_and_steps():
    def draw(rank, seed):
        launch = replace(CPU_LAUNCH, rank=rank, processes=2)
        _, _, context = make_batches(data_of(), launch).draw(
            np.arange(80), seed, (0.5, 1.0)
        )
        return context.mixing

    first_draw, repeated_draw, other_draw = draw(0, 1), draw(1, 1), draw(0, 2)
    assert torch.equal(first_draw.share, repeated_draw.share)
    assert not torch.equal(first_draw.share, other_draw.share)
    # halves are of the two processes
    assert not torch.equal(first_draw.share[:40], first_draw.share[40:])
    # no trial is mixed beyond its half, or its subject
    halves, subjects = torch.arange(80) // 40, torch.arange(80) // PICTURES
    for kind in (halves, subjects):
        assert torch.equal(kind[first_draw.partner], kind)
    assert sorted(first_draw.partner.tolist()) == list(range(80))
    no_mixing = make_batches(data_of()).draw(np.arange(80), 1)[2]
    assert no_mixing.mixing is None
    assert no_mixing.stimuli.tolist() == list(range(60)) + list(range(20))


def test_what_is_drawn_once_depends_on_seed_and_subject_alone():
    embedding = np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32)

    def bank(seed, subjects, position=0):
        trials = [cells.simulate_trials(1, embedding) for _ in subjects]
        numbered = [
            replace(trial, subject=subject)
            for trial, subject in zip(trials, subjects, strict=True)
        ]
        data = replace(cells.make_cell_data(embedding), trials=numbered, seed=seed)
        parts = [SMOOTH] * (position + 1)
        fixed_draws = make_batches(data, augment={"parts": parts}).fixed_draws
        assert list(fixed_draws) == list(range(position + 1))
        return list(fixed_draws[position].signals)  # type: ignore[arg-type]

    (first_bank,), (two, repeated_bank) = bank(0, [1]), bank(0, [2, 1])
    assert first_bank.shape == (PICTURES, 2)
    assert torch.equal(first_bank, repeated_bank)
    assert not torch.equal(first_bank, two)
    assert not torch.equal(first_bank, bank(1, [1])[0])
    assert not torch.equal(first_bank, bank(0, [1], 1)[0])
    each_step = {"parts": [{**SMOOTH, "drawn": "each_step"}]}
    assert not make_batches(
        cells.make_cell_data(embedding), augment=each_step
    ).fixed_draws


def test_what_was_drawn_once_belongs_to_its_sample_in_every_step():
    embedding = np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32)
    batches = make_batches(
        cells.make_cell_data(embedding, 2), augment={"parts": [SMOOTH]}
    )
    plain_batches = make_batches(cells.make_cell_data(embedding, 2))
    rows = np.arange(5, 2 * PICTURES, 7)

    first_signals, other_signals = (
        signals_of(batches, seed, rows[::-1]) for seed in (0, 1)
    )

    assert torch.equal(first_signals, other_signals)
    joined = torch.cat(list(batches.fixed_draws[0].signals))[rows]  # type: ignore[arg-type]
    signal = signals_of(plain_batches, 0, rows)
    is_plain = (first_signals == signal).all(-1)
    assert torch.equal(is_plain, joined >= 0.5)


@pytest.mark.parametrize("repetitions", ["average", "random", "single"])
def test_samples_are_averages_single_trials_or_drawn_averages(
    repetitions,
):
    # values name picture and trial; the last picture has a single trial
    values = np.arange(PICTURES)[:, None] * 10.0 + [1, 2, 4]
    signal = np.tile(values[..., None, None], (1, 1, 2, 12)).astype(np.float32)
    counts = np.full(PICTURES, 3)
    counts[-1], signal[-1, 1:] = 1, np.nan
    trials = make_trials(1, signal, np.arange(PICTURES), cells.CHANNELS, 100.0, counts)
    held_out = np.arange(PICTURES) < 15
    data = CellData(
        [trials], make_targets({"e": torch.zeros(PICTURES, 8)}), held_out, None,
        repetitions=repetitions,
    )  # fmt: skip
    batches = make_batches(data)

    signals_by_name = {
        repetition: signals_of(batches, seed, batches.rows)[:, 0, 0]
        for seed in range(8)
        for repetition in [seed]
    }
    means = torch.cat(list(signals_by_name.values()))
    last_mean = means[torch.div(means, 10, rounding_mode="floor") == PICTURES - 1]

    assert batches.samples.stimulus[torch.from_numpy(batches.rows)].min() == 15
    levels = {round(float(mean) % 10, 3) for mean in means if mean < 590}
    assert (
        levels
        == {
            "average": {2.333},
            "random": {1.5, 2.5, 3.0},
            "single": {1.0, 2.0, 4.0},
        }[repetitions]
    )
    assert (last_mean == 591).all()
    assert len(last_mean) == 8
    assert len(batches.rows) == (3 * 44 + 1 if repetitions == "single" else 45)
    assert batches.averages.signals[0].shape == (PICTURES, 2, 12)


def test_an_alternative_target_is_drawn_for_each_trial_and_step():
    batches = make_batches(data_with(3))
    rows = batches.split_epoch(0, 0)[0]
    source = batches.targets.sources["e"]

    def levels(seed):
        _, targets, context = batches.draw(rows, seed)
        options = torch.stack(
            [
                source.gather(context.stimuli, torch.full((len(rows),), level))
                for level in range(3)
            ]
        )
        is_drawn = (options == targets["e"]).all(-1)
        assert (is_drawn.sum(0) == 1).all()
        return is_drawn.int().argmax(0).tolist()

    drawn_levels = [levels(seed) for seed in range(6)]
    assert drawn_levels == [levels(seed) for seed in range(6)]
    assert set(np.ravel(drawn_levels)) == {0, 1, 2}
    assert len(set(map(tuple, drawn_levels))) > 1


def test_epochs_of_another_seed_or_number_are_in_another_order():
    batches = make_batches(data_of())
    orders = [
        np.concatenate(batches.split_epoch(seed, epoch)).tolist()
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    assert len(set(map(tuple, orders))) == 4
    assert all(sorted(order) == list(range(3 * PICTURES)) for order in orders)


@pytest.mark.parametrize(
    ("changes", "knobs"),
    [
        ({"held_out": np.ones(PICTURES, bool)}, {}),
        ({"epoch_trials": 100}, {"batch_size": 2}),
        ({"epoch_trials": 17}, {"batch_size": 18}),
        ({}, {"batch_size": 179, "last_batch": "keep"}),
    ],
    ids=["all held out", "no trial a subject", "no step", "fewer than processes"],
)
def test_an_epoch_without_steps_or_trials_is_refused(changes, knobs):
    data, launch = replace(data_of(), **changes), replace(CPU_LAUNCH, processes=2)
    with pytest.raises(RecipeError):
        make_batches(data, launch, **knobs)


def test_the_smallest_epochs_that_can_be_are_taken():
    two = replace(CPU_LAUNCH, processes=2)
    assert make_batches(data_of(), two, batch_size=178, last_batch="keep").steps == 2
    assert make_batches(data_of(), two, batch_size=179, last_batch="drop").steps == 1
    for size, steps in ((3, 6), (18, 1)):
        data = replace(data_of(), epoch_trials=18)
        batches = make_batches(data, batch_size=size)
        assert batches.steps == steps
        assert len(batches.split_epoch(0, 0)) == steps
    for last_batch in ("even", "keep", "drop"):
        whole_batches = make_batches(data_of(), batch_size=60, last_batch=last_batch)
        assert whole_batches.steps == 3
        assert list(map(len, whole_batches.split_epoch(0, 0))) == [60] * 3
    # a single subject whose pictures are all held out leaves no equal shares
    trials = [voxels(1), voxels(4).take(np.arange(5))]
    held_out = np.arange(PICTURES) < 5
    partly = replace(data_of(), trials=trials, held_out=held_out)
    assert len(make_batches(partly).rows) == PICTURES - 5
    with pytest.raises(RecipeError):
        make_batches(replace(partly, epoch_trials=18))


def test_feedback_needs_three_alternatives_of_every_target():
    for alternatives in ({"a": 2}, {"a": 3, "b": 2}, {"a": 4}, {}):
        with pytest.raises(RecipeError):
            Feedback(4, alternatives, CPU)


@pytest.fixture
def model_and_data():
    embedding = np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32)
    data = cells.make_cell_data(embedding, 2)
    torch.manual_seed(0)
    # each subject has a layer of its own, and new ones have their mean
    model = Aligner(replace(make_layout(data), subject_layer="linear")).eval()
    assert model.subject_layer is not None
    for parameter in model.subject_layer.parameters():
        torch.nn.init.normal_(parameter)
    return model, data


def rank_slowly(model, data, trials, index, rows):
    """Rank by the cosine with each picture that some row shows."""
    numbers = sorted({int(trials.stimulus[row]) for row in rows})
    ranks = []
    with torch.no_grad():
        for row in rows:
            signal = torch.from_numpy(trials.averages[[row]])
            subject = None if index is None else torch.tensor([index])
            token = model.encode_signal(signal, subject)[0]
            cosines = []
            for stimulus in numbers:
                target = data.targets.gather(torch.tensor([stimulus]))
                picture = model.encode_image(target)[0]
                cosines.append(torch.cosine_similarity(token, picture, 0).item())
            own_cosine = cosines[numbers.index(int(trials.stimulus[row]))]
            ranks.append(1 + sum(cosine > own_cosine for cosine in cosines))
    return ranks


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_pictures_are_ranked_among_those_that_the_rows_show(
    model_and_data,
    monkeypatch,
    block,
):
    monkeypatch.setattr(module, "SIGNALS_PER_BATCH", block)
    model, data = model_and_data
    trial = data.trials[1].take(np.array([3, 9, 3, 20, 30, 9, 59]))
    stranger = replace(data.trials[0], subject=5).take(np.arange(10, 22))
    data = replace(data, test_trials=[trial, stranger])

    ranks = rank_queries(
        model.train(),
        list_test_queries(data, CPU_LAUNCH.device),
        data.targets,
        "fp32",
        CPU_LAUNCH,
    )

    slowly = rank_slowly(model, data, trial, 1, range(7))
    new_slowly = rank_slowly(model, data, stranger, None, range(12))
    assert ranks.tolist() == slowly + new_slowly
    assert not model.training
    assert len(rank_queries(model, [], data.targets, "fp32", CPU_LAUNCH)) == 0


def test_held_out_pictures_are_measured_by_subject(model_and_data, monkeypatch):
    data = model_and_data[1]
    second = data.trials[1].take(np.arange(PICTURES - 1, 9, -1))
    data = replace(data, trials=[data.trials[0], second])
    bank = open_bank(data.trials, CPU_LAUNCH.device, False)
    ((_, rows),) = queries = list_validation_queries(data, bank)
    assert rows.tolist() == list(range(15)) + list(range(105, 110))
    calls = list[Any]()
    monkeypatch.setattr(
        module, "summarise_ranks", lambda *arguments, **k: calls.append((arguments, k))
    )

    ranks = torch.arange(20)
    summarise_validation(ranks, queries, data, 3, [])

    (((groups, pool), fields),) = calls
    assert [group.tolist() for group in groups] == [
        list(range(15)),
        list(range(15, 20)),
    ]
    # pictures count once, however many subjects saw them
    assert pool == 15
    assert fields["seeds"] == (3,)
    assert fields["split"] == "validation"
    assert list(fields["items"].ids[1]) == [14, 13, 12, 11, 10]
    assert summarise_validation(torch.empty(0), [], data, 3, []) == []
    without_held_out = replace(data, held_out=np.zeros(PICTURES, bool))
    assert list_validation_queries(without_held_out, bank) == []


def test_the_share_of_first_places_is_unknown_without_signals():
    assert compute_top1(torch.tensor([1, 2, 1, 4])) == 0.5
    assert compute_top1(torch.empty(0)) is None
