"""Tests of several runs that are averaged, or compared item by item."""

from pathlib import Path

import numpy as np
import pytest
import torch

from brainhive_cli import aligner
from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.stores import SignalStore, TargetStore
from brainhive_cli.measurement.statistics import flip_signs
from brainhive_cli.measurement.units import Items
from brainhive_cli.reports.sentences.sentences import state_finding

QUICK = ("sheet_rows=0", "ceiling_splits=0")
DATASET = "demo-noise-0.3-40-concepts"
ENCODER = "brainhive_cli-models-encoders-python-example"


@pytest.fixture
def weaker(world, run_command, align_overrides, trained_run):
    """Second run of the same cells, trained for a single epoch."""
    return run_command("train-align", *align_overrides, "train.epochs=1").folder


def cosines(run_folder, home, subject):
    """Compute cosines [N, M] and targets [N] without the code of the package."""
    model = aligner.load(run_folder / "cells" / f"sub-{subject:02d}_seed-1" / "model")
    recording = SignalStore.open(
        home / f"signals/{DATASET}/default/sub-{subject:02d}.h5"
    )["test"]
    store = TargetStore.open(home / f"embeddings/{DATASET}/test/{ENCODER}.h5")
    with torch.inference_mode():
        signal = model.encode_signal(torch.from_numpy(0.2 * recording.averages), None)
        image = model.encode_image(
            {ENCODER: torch.from_numpy(np.array(store.embedding))}
        )
    target = np.array(
        [store.image_ids.index(image_id) for image_id in recording.pictures]
    )
    return torch.cosine_similarity(signal[:, None], image[None], dim=2).double(), target


def ranked(similarity, target):
    return (
        (similarity >= similarity[np.arange(len(target)), target][:, None])
        .sum(1)
        .tolist()
    )


def test_an_ensemble_averages_the_similarities_of_its_runs(
    run_command, world, trained_run, weaker
):
    metrics = run_command(
        "eval-retrieval", f"run=[{trained_run}, {weaker.name}]", "sheet_rows=2"
    ).metrics

    for subject in (1, 2):
        (one, target), (other, _) = (
            cosines(run, world, subject) for run in (trained_run, weaker)
        )
        cell = metrics.items[f"sub-{subject:02d}_seed-1 · sub-{subject:02d}"]
        assert cell["ranks"] == ranked((one + other) / 2, target)
        assert cell["ranks"] != ranked(one, target)
        assert cell["backward_ranks"] == ranked(
            ((one + other) / 2).T, np.argsort(target)
        )
    assert metrics.facts.protocol.startswith(f"intra, {DATASET}, mean of 2 runs, ")
    names = [str(trained_run), str(world / "runs/train-align" / weaker.name)]
    assert metrics.facts.runs == names

    # and is compared with each of them alone, on the same items
    gains = metrics.facts.against
    assert [row.second for row in gains] == names
    for run, row in zip((trained_run, weaker), gains, strict=True):
        alone = [
            np.array(ranked(*cosines(run, world, subject))) == 1 for subject in (1, 2)
        ]
        top1 = np.concatenate(alone).mean()
        assert metrics.scopes[f"alone · {row.second}"]["top1"].value == top1
        assert row.difference == pytest.approx(metrics.overall["top1"].value - top1)
        assert row.n == 200
        assert row.low <= row.difference <= row.high
        assert Path(row.second).name in state_finding(metrics)


@pytest.mark.nightly
def test_two_runs_are_compared_item_by_item(run_command, world, trained_run, weaker):
    result = run_command(
        "eval-retrieval",
        f"run={trained_run}",
        f"against={weaker},{trained_run.name}",
        *QUICK,
    )

    worse, same = result.metrics.facts.against
    hits = [
        [np.array(ranked(*cosines(run, world, s))) == 1 for s in (1, 2)]
        for run in (trained_run, weaker)
    ]
    one, other = (np.concatenate(hit) for hit in hits)
    assert worse.difference == pytest.approx(one.mean() - other.mean())
    assert worse.difference > 0
    assert worse.n == 200
    assert worse.subjects == 2
    assert worse.second == str(weaker)
    assert same.difference == 0
    assert same.p_value == 1
    assert worse.test == "sign flips over 100 pictures, for these 2 subjects"
    flips = flip_signs(
        [a * 1.0 - b for a, b in zip(*hits, strict=True)], Items.from_sizes([100, 100])
    )
    assert worse.p_value == flips.p
    assert 0 < worse.low <= flips.low
    assert flips.high <= worse.high
    paired = "at least as wide as the interval of paired shares"
    assert worse.interval == f"inversion of: {worse.test}, {paired}"
    (limit,) = worse.limits
    assert "a single seed" in limit
    assert worse.least_p == flips.least_p
    assert 0 < worse.p_value < 0.05
    assert worse.low > 0.03
    assert worse.p_adjusted == pytest.approx(min(1, 2 * worse.p_value))
    assert [(row.tests, row.tests_of) for row in (worse, same)] == [
        (2, "1 metric × 2 pairs")
    ] * 2
    family = "over all 2 tests of this table: 1 metric × 2 pairs"
    (table,) = (table for table in result.tables if family in (table.note or ""))
    assert "difference, 95 % CI" in table.columns
    assert len(table.rows) == 2
    assert worse.test in table.note
    (table,) = (
        hit for hit in result.tables if hit.title.startswith("This run differs")
    )
    assert "epochs 20, not 1" in [line for _, line in table.rows]
    assert "p_value" in result.as_dict()["metrics"]["facts"]["against"][0]


@pytest.mark.nightly
def test_runs_on_other_subjects_or_galleries_are_not_compared(
    run_command, world, trained_run, align_overrides, tmp_path
):
    first_run_folder = run_command(
        "train-align", *align_overrides, "subjects=2", "train.epochs=1"
    ).folder
    noisier = [
        "dataset={kind: demo, noise: 0.6, subjects: 2, concepts: 8}",
    ]
    run_command(
        "embed",
        *noisier,
        "encoders=['python:brainhive_cli.models.encoders.python:example']",
    )
    elsewhere = run_command(
        "train-align", *align_overrides, *noisier, "train.epochs=1"
    ).folder

    with pytest.raises(BrainhiveError) as caught:
        run_command(
            "eval-retrieval",
            f"run={trained_run}",
            f"against={first_run_folder}",
            *QUICK,
        )
    for fact in (trained_run, first_run_folder, [1, 2], [2]):
        assert str(fact) in caught.value.message
    with pytest.raises(BrainhiveError, match="galleries") as caught:
        run_command(
            "eval-retrieval", f"run={trained_run}", f"against={elsewhere}", *QUICK
        )
    for name in ("this run", elsewhere):
        assert str(name) in caught.value.message
