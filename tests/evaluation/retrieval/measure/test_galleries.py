"""Tests of small and large galleries, and of tables over subjects and seeds."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from brainhive_cli import aligner
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import Metric
from brainhive_cli.data.stores.signal_store import SignalStore
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.training.alignment.trained.tested_person import TestedPerson

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
    seen = [stores["test"].image_ids.index(image_id) for image_id in recording.pictures]
    own = cosine[torch.arange(100), torch.tensor(seen)][:, None]
    assert (
        metrics.items["sub-01_seed-1 · sub-01"]["ranks"]
        == (cosine >= own).sum(1).tolist()
    )
    top1 = metrics.overall["top1"]
    assert (top1.pool, top1.split) == (340, "test") and top1.chance == pytest.approx(
        1 / 340
    )
    assert "gallery train+test" in top1.protocol
    assert metrics.scopes["all · backward"]["top1"].pool == 100


def test_variants_of_a_sweep_are_evaluated_as_trained(
    run_command, world, align_overrides, tmp_path
):
    runs = (f"paths.runs={tmp_path}", "subjects=1", "train.epochs=4")
    published = "published={values: {top1: 0.5}, source: its Table 1}"
    swept = run_command(
        "train-align",
        *align_overrides,
        *runs,
        "sweep={signal.window_ms: [[0, 400], [400, 1000]]}",
        published,
    ).folder
    plain = run_command(
        "train-align", *align_overrides, *runs, "signal.window_ms=[0, 400]"
    ).folder

    result = run_command(
        "eval-retrieval", runs[0], f"run={swept}", "sheet_rows=0", "ceiling_splits=0"
    )
    alone = run_command(
        "eval-retrieval", runs[0], f"run={plain}", "sheet_rows=0", "ceiling_splits=0"
    ).metrics

    metrics, variants = result.metrics, ["window_ms=0+400", "window_ms=400+1000"]
    assert not metrics.overall
    early, late = (metrics.scopes[f"{variant} · all"] for variant in variants)
    assert (
        without_protocol(early) == without_protocol(alone.overall)
        and late["top1"].n == 100
    )
    assert early["mean_rank"].value < late["mean_rank"].value  # simulated signals fade
    titled = [
        [table for table in result.tables if table.title.startswith(f"{v}: ")]
        for v in variants
    ]
    assert all(titled) and sum(map(len, titled)) == len(result.tables) - 1
    (pair,) = metrics.facts.comparisons
    assert [pair.first, pair.second] == variants and pair.difference > 0
    assert result.tables[-1].title.startswith(f"Comparison of {variants[0]}")
    assert result.tables[-1].rows[0][1] == variants[1]
    for refused in (f"against={swept}", f"run=[{plain}, {swept}]", f"run={swept}:lr=1"):
        with pytest.raises(BrainhiveError) as caught:
            run_command(
                "eval-retrieval",
                runs[0],
                *(() if "run" in refused else (f"run={plain}",)),
                refused,
            )
        assert (
            f"{swept.name}:{variants[0]} or {swept.name}:{variants[1]}"
            in caught.value.hint
        )


def without_protocol(found: Mapping[str, Metric]) -> dict[str, Metric]:
    return {name: replace(metric, protocol="") for name, metric in found.items()}


def test_only_shown_searches_the_pictures_that_were_shown(
    run_command, trained_run, monkeypatch, tmp_path
):
    shown = {1: np.arange(60), 2: np.arange(30, 70)}
    read = TestedPerson.read
    monkeypatch.setattr(
        TestedPerson,
        "read",
        lambda person, split: read(person, split).take(shown[person.subject]),
    )
    given = (
        f"run={trained_run}",
        f"paths.runs={tmp_path}",
        "sheet_rows=0",
        "ceiling_splits=0",
    )

    every = run_command("eval-retrieval", *given).metrics
    only = run_command("eval-retrieval", *given, "only_shown=true").metrics

    assert (every.overall["top1"].pool, only.overall["top1"].pool) == (100, 70)
    assert "pictures that were shown" in only.overall["top1"].protocol
    for cell, found in only.items.items():
        assert (np.array(found["ranks"]) <= every.items[cell]["ranks"]).all()
    assert every.facts.gallery.digest != only.facts.gallery.digest
