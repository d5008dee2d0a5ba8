"""Brain models that are fitted in closed form: what they start from, and a subject
decoded by others' map.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file


def weights(run: Path, cell: str) -> torch.Tensor:
    return load_file(run / "cells" / cell / "model" / "model.safetensors")[
        "backbone.weight"
    ]


def test_a_shared_map_decodes_a_subject_left_out_and_fine_tuning_continues_it(
    go, small, world, runs
):
    three, encoders = (
        "dataset={kind: demo, noise: 0.3, subjects: 3, concepts: 40}",
        small[1],
    )

    inter = go(
        "train-align",
        three,
        encoders,
        "seeds=1",
        "backbone=shared_ridge",
        "mode=inter",
        runs,
    )
    evaluated = go(
        "eval-retrieval",
        f"run={inter.folder}",
        runs,
        "sheet_rows=0",
        "ceiling_splits=0",
    )

    top1 = evaluated.metrics.scopes["all"]["top1"]  # of all three subjects
    assert top1.n == 300 and top1.low > top1.chance

    near, far = (
        go(
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
    start, one, all_pictures = (
        weights(run.folder, "sub-01_seed-1") for run in (inter, near, far)
    )
    assert 0 < (one - start).norm() < 0.5 * (all_pictures - start).norm()
