"""Tests of small and large galleries, and of tables over subjects and seeds."""

import numpy as np
import pytest
import torch

from brainhive_cli import aligner
from brainhive_cli.commands import compare
from brainhive_cli.data.stores import SignalStore, TargetStore

pytestmark = pytest.mark.nightly

DATASET = "demo-noise-0.3-40-concepts"
ENCODER = "brainhive_cli-models-encoders-python-example"


def test_training_pictures_are_candidates_too_when_asked(
    run_command, world, trained_run
):
    metrics = run_command(
        "eval-retrieval", f"run={trained_run}", "gallery=train+test", "sheet_rows=3"
    ).metrics

    model = aligner.load(trained_run / "cells" / "sub-01_seed-1" / "model")
    recording = SignalStore.open(world / f"signals/{DATASET}/default/sub-01.h5")["test"]
    stores = {
        split: TargetStore.open(world / f"embeddings/{DATASET}/{split}/{ENCODER}.h5")
        for split in ("test", "train")
    }
    with torch.inference_mode():
        signal = model.encode_signal(torch.from_numpy(0.2 * recording.averages), None)
        pictures = np.concatenate([stores["test"].embedding, stores["train"].embedding])
        image = model.encode_image({ENCODER: torch.from_numpy(pictures)})
    cosine = torch.cosine_similarity(signal[:, None], image[None], dim=2)
    indexs = [
        stores["test"].image_ids.index(image_id) for image_id in recording.pictures
    ]
    own_cosine = cosine[torch.arange(100), torch.tensor(indexs)][:, None]
    assert (
        metrics.items["sub-01_seed-1 · sub-01"]["ranks"]
        == (cosine >= own_cosine).sum(1).tolist()
    )
    top1 = metrics.overall["top1"]
    assert (top1.pool, top1.split) == (340, "test")
    assert top1.chance == pytest.approx(1 / 340)
    assert "gallery train+test" in top1.protocol
    assert metrics.scopes["all · backward"]["top1"].pool == 100


def test_runs_of_a_sweep_are_evaluated_side_by_side(
    run_command, world, align_overrides, tmp_path
):
    runs = [f"paths.runs={tmp_path}", "subjects=1", "train.epochs=4"]
    quick = ["sheet_rows=0", "ceiling_splits=0"]
    swept = run_command(
        "train-align",
        *align_overrides,
        *runs,
        "sweep={signal.window_ms: [[0, 400], [400, 1000]]}",
    )
    plain_run_folder = run_command(
        "train-align", *align_overrides, *runs, "signal.window_ms=[0, 400]"
    ).folder
    names = ["eval-retrieval · window_ms=0+400", "eval-retrieval · window_ms=400+1000"]

    result = run_command("eval-retrieval", runs[0], f"run={swept.folder.name}", *quick)
    first_result = run_command(
        "eval-retrieval", runs[0], f"run={plain_run_folder}", *quick
    )

    # the first value is the plain training, whose evaluation is found
    metrics = result.metrics
    facts = metrics.facts
    assert facts.step_runs[names[0]] == f"eval-retrieval/{first_result.folder.name}"
    early, late = (metrics.scopes[name] for name in names)
    assert early == first_result.metrics.overall
    assert late["top1"].n == 100
    assert early["mean_rank"].value < late["mean_rank"].value  # simulated signals fade
    (pair,) = facts.comparisons
    assert [pair.first, pair.second] == names
    assert pair.difference > 0
    steps, differences = result.printed_tables
    assert [row[1] for row in steps.rows] == [
        name.partition(" · ")[2] for name in names
    ]
    assert differences.title.startswith(f"Comparison of {names[0]}")
    assert differences.rows[0][1] == names[1]

    # `compare` shows the runs of the workflow, with the same difference
    recipe = compare.Recipe.resolve("compare", None, {}, [f"runs={result.folder}"])
    (group,) = compare.compare_runs(recipe)
    assert [finished_run.label for finished_run in group.runs] == [
        "window_ms=0+400",
        "window_ms=400+1000",
    ]
    (difference,) = group.differences
    assert difference.p_adjusted == pair.p_adjusted
    assert difference.difference == pair.difference
