"""Fine-tuning of a model to a new subject, with a share of its data."""

import itertools

import numpy as np
import pytest
from safetensors.torch import load_file

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.training.alignment.stages import Finetune
from brainhive_cli.training.alignment.training.training_data import take_share
from tests.worlds.array_trials import make_trials

THREE = "dataset={kind: demo, noise: 0.3, subjects: 3, concepts: 40}"


@pytest.fixture
def own_runs(world, tmp_path):
    """Return an override with a folder of runs for this test."""
    return f"paths.runs={tmp_path / 'runs'}"


def take_pictures(share):
    """Take a share of trials, two for each picture, where 20 pictures are held out."""
    pictures = np.repeat(np.random.default_rng(1).permutation(200), 2)
    signal = np.broadcast_to(pictures[:, None, None], (400, 2, 3)).astype(np.float32)
    trials = take_share(
        make_trials(1, signal, pictures, ("O1", "O2")),
        np.arange(200) < 20,
        Finetune(share=share),
    )
    assert np.array_equal(trials.averages[:, 0, 0], trials.stimulus)
    assert trials.channels == ("O1", "O2")
    rows, counts = np.unique(trials.stimulus, return_counts=True)
    assert (counts == 2).all()  # whole pictures
    return set(rows.tolist())


def test_a_share_has_whole_pictures_and_is_part_of_larger_shares():
    shares = [take_pictures(share) for share in (0.01, 0.1, 0.5, 1.0)]

    # 1 % of 180 is 2, and 1 of the 20 held out
    assert [len(share) for share in shares] == [3, 20, 100, 200]
    assert [
        len({picture for picture in share if picture < 20}) for share in shares
    ] == [1, 2, 10, 20]
    assert all(smaller < larger for smaller, larger in itertools.pairwise(shares))
    assert take_pictures(0.1) == take_pictures(0.1)


def recorded_in_sessions():
    """Make three pictures with up to three repetitions, whose signals are the number of
    the session.
    """
    sessions = np.array([[2, 0, 0], [1, 2, -1], [1, 0, -1], [2, -1, -1]], np.int8)
    single = np.broadcast_to(sessions[..., None, None] + 1, (4, 3, 5, 1)).astype(
        np.float32
    )
    counts = (sessions >= 0).sum(1)
    return make_trials(1, single, [7, 3, 5, 9], (), None, counts, sessions=sessions)


def test_first_sessions_are_exactly_their_trials():
    for count, share, stimuli, counts, averages in (
        (1, 1.0, [7, 5], [2, 1], [1, 1]),
        (2, 0.5, [7, 3, 5], [2, 1, 2], [1, 2, 1.5]),
        (3, 1.0, [7, 3, 5, 9], [3, 2, 2, 1], [5 / 3, 2.5, 1.5, 3]),
    ):
        trials = take_share(
            recorded_in_sessions(),
            np.zeros(10, bool),
            Finetune(sessions=count, share=share),
        )

        rows = [stimuli.index(stimulus) for stimulus in trials.stimulus]
        assert len(rows) == len(set(rows)) == max(1, round(share * len(stimuli)))
        assert trials.counts.tolist() == [counts[row] for row in rows]
        assert trials.averages.shape[1:] == (5, 1)
        assert trials.averages.dtype == np.float32
        assert trials.averages[:, 0, 0].tolist() == pytest.approx(
            [averages[row] for row in rows]
        )
        assert trials.sessions.max() < count
        assert np.array_equal(trials.singles[:, 0, 0], trials.sessions + 1)


def load_weights(run_folder, cell):
    return load_file(run_folder / "cells" / cell / "model" / "model.safetensors")


def measure_distance(weights, other_weights):
    return max(
        float((weights[key] - other_weights[key]).abs().max()) for key in weights
    )


def test_new_subjects_start_from_the_joint_model_of_their_seed(
    run_command, align_overrides, own_runs
):
    joint = run_command(
        "train-align",
        *align_overrides,
        THREE,
        own_runs,
        "mode=joint",
        "subjects=1,2",
        "seeds=1,2",
        "train.epochs=2",
    )
    frozen_training = [
        "mode=finetune",
        "seeds=1,2",
        "train.epochs=1",
        "train.lr=1e-9",
        "finetune.share=0.1",
        own_runs,
    ]

    result = run_command(
        "train-align", *align_overrides, *frozen_training, "backbone=nice", "dim=8"
    )  # what the model is made of is the run's

    assert list(result.metrics.facts.cells) == ["sub-03_seed-1", "sub-03_seed-2"]
    for seed in (1, 2):
        mine, theirs = (
            load_weights(result.folder, f"sub-03_seed-{seed}"),
            load_weights(joint.folder, f"all_seed-{seed}"),
        )
        other_weights = load_weights(joint.folder, f"all_seed-{3 - seed}")
        assert (
            measure_distance(mine, theirs)
            < 1e-6
            < measure_distance(mine, other_weights)
        )
        top1 = result.metrics.scopes[f"sub-03_seed-{seed}"]["top1"]
        assert top1.n == top1.pool == 6  # a tenth of the 60 that are held out
    with pytest.raises(BrainhiveError, match="subject 1"):
        run_command(
            "train-align",
            *align_overrides,
            *frozen_training,
            f"finetune.run={joint.folder.name}",
            "subjects=1,3",
        )
    with pytest.raises(BrainhiveError, match="is fine-tuned itself"):
        run_command(
            "train-align",
            *align_overrides,
            *frozen_training,
            f"finetune.run={result.folder.name}",
            "subjects=1",
        )
    second_result = run_command(
        "train-align",
        *align_overrides,
        *frozen_training,
        f"finetune.run={joint.folder.name}",
        "subjects=3",
    )
    # the recipe that was run names the run and the subjects
    assert second_result.folder == result.folder
    evaluated = run_command(
        "eval-retrieval", f"run={result.folder}", own_runs, "sheet_rows=0"
    )
    assert {cell.seed for cell in evaluated.metrics.facts.cells.values()} == {1, 2}


def test_what_cannot_be_fine_tuned_is_said_in_one_line(
    run_command, align_overrides, own_runs
):
    with pytest.raises(MissingData, match="no finished train-align run"):
        run_command("train-align", *align_overrides, own_runs, "mode=finetune")
    tuned_arguments = (
        ("train-align",) + align_overrides + (own_runs, "mode=finetune", "subjects=3")
    )
    intra = run_command(
        "train-align",
        *align_overrides,
        THREE,
        own_runs,
        "subjects=1,2",
        "train.epochs=1",
    ).folder.name
    with pytest.raises(BrainhiveError, match="sub-01_seed-1, sub-02_seed-1"):
        run_command(*tuned_arguments, f"finetune.run={intra}")
    with pytest.raises(RecipeError, match=r"sessions is .* subject 3") as unnamed:
        run_command(*tuned_arguments, f"finetune.run={intra}", "finetune.sessions=1")
    assert "finetune.share" in unnamed.value.hint
