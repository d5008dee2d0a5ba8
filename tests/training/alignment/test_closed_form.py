"""Brain models that are fitted in closed form: what they start from, and a subject decoded by others' map."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cell_data import PICTURES, data_of, layout_of
from safetensors.torch import load_file

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.heads import Head
from brainhive_cli.training.alignment.batches import CellData
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.learned import Learned
from brainhive_cli.training.alignment.loop import fit
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.recipe import Train

ALPHA = 3.0


@pytest.fixture
def embedding() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32)


def shared(data: CellData, kind: str = "shared_ridge") -> Layout:
    """Lay out a closed form that predicts the embedding."""
    backbone = {"kind": kind, "alpha": ALPHA}
    return replace(
        layout_of(data), heads={"e": Head((8,), "e")}, backbone=backbone, fuser={"kind": "heads"}, dims={}
    )


def test_a_start_is_refused_by_a_closed_form_that_begins_with_no_weights(embedding):
    data = data_of(embedding)
    with pytest.raises(BrainhiveError, match="ridge begins with no weights"):
        fit(shared(data, "ridge"), data, [], Train(), start=Aligner(shared(data), Learned()))


def weights(run: Path, cell: str) -> torch.Tensor:
    return load_file(run / "cells" / cell / "model" / "model.safetensors")["backbone.weight"]


def test_a_shared_map_decodes_a_subject_left_out_and_fine_tuning_continues_it(go, small, world, runs):
    three, encoders = "dataset={kind: demo, noise: 0.3, subjects: 3, concepts: 40}", small[1]

    inter = go("train-align", three, encoders, "seeds=1", "backbone=shared_ridge", "mode=inter", runs)
    evaluated = go("eval-retrieval", f"run={inter.folder}", runs, "sheet_rows=0", "ceiling_splits=0")

    top1 = evaluated.metrics.scopes["all"]["top1"]  # of all three subjects
    assert top1.n == 300 and top1.low > top1.chance

    near, far = (
        go("train-align", encoders, "mode=finetune", "seeds=1", "subjects=1", f"finetune.share={share}", runs)
        for share in (0.01, 1)
    )
    start, one, all_pictures = (weights(run.folder, "sub-01_seed-1") for run in (inter, near, far))
    assert 0 < (one - start).norm() < 0.5 * (all_pictures - start).norm()
