"""Fine-tuning goes on from a model that never saw the subject, with a share of its data."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.alignment.finetune import share_of
from brainhive_cli.alignment.settings import Finetune
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.data.trials import Trials

THREE = "dataset={kind: demo, noise: 0.3, subjects: 3}"


@pytest.fixture
def here(world: Path, tmp_path: Path) -> str:
    """An override that gives this test runs of its own."""
    return f"paths.runs={tmp_path / 'runs'}"


def kept(share: float, seed: int = 0) -> set[int]:
    """Train on subject 1's trials of a share: two trials a picture, of pictures of which 20 are held out."""
    pictures = np.repeat(np.random.default_rng(1).permutation(200), 2)
    signal = np.broadcast_to(pictures[:, None, None], (400, 2, 3)).astype(np.float32)
    trials = share_of(
        Trials(1, signal, pictures, ("O1", "O2")), np.arange(200) < 20, Finetune(share=share, seed=seed)
    )
    assert np.array_equal(trials.signal[:, 0, 0], trials.stimulus) and trials.channels == ("O1", "O2")
    found, counts = np.unique(trials.stimulus, return_counts=True)
    assert (counts == 2).all()  # whole pictures
    return set(found.tolist())


def test_a_share_is_whole_pictures_of_both_kinds_and_part_of_every_larger_share():
    shares = [kept(share) for share in (0.01, 0.1, 0.5, 1.0)]

    assert [len(share) for share in shares] == [3, 20, 100, 200]  # 1 % of 180 is 2, and 1 of the 20 held out
    assert [len({picture for picture in share if picture < 20}) for share in shares] == [1, 2, 10, 20]
    assert all(smaller < larger for smaller, larger in itertools.pairwise(shares))
    assert kept(0.1) == kept(0.1) != kept(0.1, seed=1)


def weights(run: Path, cell: str) -> dict[str, torch.Tensor]:
    return load_file(run / "cells" / cell / "model" / "model.safetensors")


def moved(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[key] - other[key]).abs().max()) for key in one)


def test_new_subjects_start_from_the_joint_model_of_their_seed(go, small, here):
    joint = go(
        "train-align", *small, THREE, here, "mode=joint", "subjects=1,2", "seeds=1,2", "train.epochs=2"
    )
    still = ("mode=finetune", "seeds=1,2", "train.epochs=1", "train.lr=1e-9", "finetune.share=0.1", here)

    made = go(
        "train-align", *small, *still, "backbone=nice", "dim=8"
    )  # what the model is made of is the run's

    assert list(made.metrics.notes["cells"]) == ["sub-03_seed-1", "sub-03_seed-2"]
    for seed in (1, 2):
        mine, theirs = weights(made.folder, f"sub-03_seed-{seed}"), weights(joint.folder, f"all_seed-{seed}")
        other = weights(joint.folder, f"all_seed-{3 - seed}")
        assert moved(mine, theirs) < 1e-6 < moved(mine, other)
        top1 = made.metrics.scopes[f"sub-03_seed-{seed}"]["top1"]
        assert top1.n == top1.pool == 10  # a tenth of the 96 that are held out
    with pytest.raises(BrainhiveError, match="is fine-tuned itself"):
        go("train-align", *small, *still, f"finetune.run={made.folder.name}", "subjects=1")
    again = go("train-align", *small, *still, f"finetune.run={joint.folder.name}", "subjects=3")
    assert again.folder == made.folder  # the recipe that was run names the run and the subjects
    evaluated = go("eval-retrieval", f"run={made.folder}", here, "sheet_rows=0")
    assert {cell["seed"] for cell in evaluated.metrics.notes["cells"].values()} == {1, 2}


def test_a_run_that_leaves_one_out_is_fine_tuned_to_the_one_left_out(go, small, here):
    inter = go("train-align", *small, here, "mode=inter", "train.epochs=1")

    made = go("train-align", *small, here, "mode=finetune", "train.epochs=1", "train.lr=1e-9", "seeds=5")

    for cell in ("sub-01", "sub-02"):  # no model has seed 5, so that of the only seed is taken
        start = weights(inter.folder, f"{cell}_seed-1")
        assert moved(weights(made.folder, f"{cell}_seed-5"), start) < 1e-6


def test_what_cannot_be_fine_tuned_is_said_in_one_line(go, small, here):
    with pytest.raises(MissingData, match="no finished train-align run"):
        go("train-align", *small, here, "mode=finetune")
    go("train-align", *small, THREE, here, "mode=joint", "subjects=1,2", "train.epochs=1")
    with pytest.raises(BrainhiveError, match="has yet to see subject 1"):
        go("train-align", *small, here, "mode=finetune", "subjects=1,3")
    with pytest.raises(MissingData, match="no subject 9"):
        go("train-align", *small, here, "mode=finetune", "subjects=9")
    intra = go("train-align", *small, THREE, here, "subjects=1,2", "train.epochs=1")
    with pytest.raises(BrainhiveError, match="could start from sub-01_seed-1 or sub-02_seed-1"):
        go("train-align", *small, here, "mode=finetune", f"finetune.run={intra.folder.name}", "subjects=3")
