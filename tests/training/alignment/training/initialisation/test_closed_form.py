"""Backbones with a closed form: their starts, and new subjects."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.files.hdf5 import LazyRows
from brainhive_cli.data.signals import trials as trials_module
from brainhive_cli.models.backbones.ridge import Ridge
from brainhive_cli.models.heads import Head
from brainhive_cli.training.alignment import FROM_MEAN, Train
from brainhive_cli.training.alignment.training import fit, loop
from tests.worlds.alignment_cells import PICTURES, make_cell_data, make_layout


def weights(run_folder, cell):
    return load_file(run_folder / "cells" / cell / "model" / "model.safetensors")[
        "backbone.weight"
    ]


@pytest.mark.nightly
def test_a_shared_map_decodes_new_subjects_and_can_be_fine_tuned(
    run_command, align_overrides, world, runs
):
    three, encoders = (
        "dataset={kind: demo, noise: 0.3, subjects: 3, concepts: 40}",
        align_overrides[1],
    )

    inter = run_command(
        "train-align",
        three,
        encoders,
        "seeds=1",
        "backbone=shared_ridge",
        "mode=inter",
        runs,
    )
    evaluated = run_command(
        "eval-retrieval",
        f"run={inter.folder}",
        runs,
        "sheet_rows=0",
        "ceiling_splits=0",
    )

    top1 = evaluated.metrics.scopes["all"]["top1"]  # of all three subjects
    assert top1.n == 300
    assert top1.low > top1.chance

    near_run, far_run = (
        run_command(
            "train-align",
            encoders,
            "mode=finetune",
            "seeds=1",
            "subjects=1",
            f"finetune.share={share}",
            runs,
        )
        for share in (0.01, 1)
    )
    start, single_run, all_pictures = (
        weights(tuned_run.folder, "sub-01_seed-1")
        for tuned_run in (inter, near_run, far_run)
    )
    assert 0 < (single_run - start).norm() < 0.5 * (all_pictures - start).norm()


@pytest.fixture
def cell():
    """Make data of two subjects. The second saw few pictures, some without a target."""
    random = np.random.default_rng(0)
    embedding = random.normal(size=(PICTURES, 8)).astype(np.float32)
    data = make_cell_data(embedding, 2)
    held_out = data.held_out.copy()
    held_out[-1] = True
    second = data.trials[1].take(np.arange(0, 40, 2))
    unknown = np.where(second.stimulus == 20, -1, second.stimulus)
    second = replace(second, stimulus=unknown)
    data = replace(data, trials=[data.trials[0], second], held_out=held_out)
    layout = replace(
        make_layout(data, "ridge"),
        heads={"e": Head((8,), "e")},
        dims={},
        similarity=FROM_MEAN,
    )
    return layout, data


def test_a_closed_form_learns_from_no_held_out_picture(cell, monkeypatch):
    calls, solve = dict[int, Any](), Ridge.fit

    def keep(self, subject, signal, targets, remaining):
        values = []

        def read_rows(rows):
            values.append(targets(rows))
            return values[-1]

        solve(self, subject, signal, read_rows, remaining)
        calls[subject] = signal, torch.cat([value["e"] for value in values]), remaining

    monkeypatch.setattr(Ridge, "fit", keep)
    layout, data = cell

    model = fit(layout, data, [], Train(validation=0.25), seed=1)

    learned_rows = []
    for trials, (signal, targets, remaining) in zip(
        data.trials, calls.values(), strict=True
    ):
        numbers = trials.stimulus.tolist()
        is_held_out = [
            number >= 0 and bool(data.held_out[number]) for number in numbers
        ]
        rows = [
            row
            for row, number in enumerate(numbers)
            if number >= 0 and not is_held_out[row]
        ]
        assert np.array_equal(signal, trials.averages[rows])
        assert np.array_equal(remaining, trials.averages[np.flatnonzero(is_held_out)])
        stimuli = torch.tensor([numbers[row] for row in rows])
        assert torch.equal(targets, data.targets.gather(stimuli)["e"])
        learned_rows.append(targets)
    assert list(calls) == [1, 2]
    assert not model.training
    # each trial counts once in the mean target
    torch.testing.assert_close(model.means["e"].data, torch.cat(learned_rows).mean(0))


def test_a_closed_form_is_measured_on_what_it_held_out(cell, monkeypatch):
    calls = list[Any]()
    monkeypatch.setattr(
        loop, "summarise_validation", lambda *arguments: calls.append(arguments) or []
    )
    ended = list[tuple[int, Any]]()

    class Folder:
        def at_end(self, aligner, epoch, metrics):
            ended.append((epoch, metrics))

    layout, data = cell

    fit(layout, data, [], Train(validation=0.25), seed=1, callbacks=Folder())  # type: ignore[arg-type]

    ((ranks, ((_, rows),), _, seed, _),) = calls
    # 15 and the last of the first subject, 8 of the second
    assert rows.tolist() == list(range(15)) + [59] + list(range(60, 68))
    assert seed == 1
    assert len(ranks) == 24
    assert ended == [(1, [])]


def test_a_closed_form_that_cannot_continue_refuses_a_start(
    cell,
):
    layout, data = cell
    first_fit = fit(layout, data, [], Train(), seed=1)
    with pytest.raises(BrainhiveError, match=layout.backbone["kind"]):
        fit(layout, data, [], Train(), start=first_fit, seed=1)


@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_closed_form_reads_signals_in_blocks(cell, monkeypatch, is_mapped):
    monkeypatch.setattr(trials_module, "MAX_STIMULI_PER_READ", 8)
    layout, data = cell
    expected = fit(layout, data, [], Train(validation=0.25), seed=1)
    reads = list[int]()

    def read_late(trials):
        signal = trials.signal

        def read_rows(rows):
            reads.append(len(signal[rows]))
            return signal[rows]

        return replace(trials, signal=LazyRows(signal.shape, signal.dtype, read_rows))

    late = replace(data, trials=list(map(read_late, data.trials)), is_mapped=is_mapped)

    model = fit(layout, late, [], Train(validation=0.25), seed=1)

    # every stimulus with a picture once, and at most a block of them at a time
    n_learned = 0
    n_all = 0
    for trials in data.trials:
        n_learned += int(trials.counts[trials.stimulus >= 0].sum())
        n_all += len(trials.signal)
    n_repetitions = data.trials[0].max_repetitions
    assert max(reads) <= 8 * n_repetitions
    assert sum(reads) == (n_learned if is_mapped else n_all)
    for name, weight in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
