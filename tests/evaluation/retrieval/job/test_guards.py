"""Tests of refusals and caveats of an evaluation."""

import hashlib
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.files.documents import SHA256SUMS
from brainhive_cli.core.results.measurements import (
    CAVEATS,
    SELECTED_ON_TEST,
    TWINS,
)
from brainhive_cli.data.stores import SignalStore, TargetStore
from brainhive_cli.measurement.ranks import rank_targets
from brainhive_cli.models.heads import Head
from brainhive_cli.reports.sentences.sentences import explain_chance
from brainhive_cli.training.alignment import model as aligners
from tests.tools.changed_stores import resealed

DATASET = "demo-noise-0.3-40-concepts"
QUICK = ("sheet_rows=0", "ceiling_splits=0")


@pytest.fixture
def own(world, trained_run, tmp_path, monkeypatch):
    """Copy of the world and its run, which a test may change."""
    shutil.copytree(world, tmp_path / "own")
    monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path / "own"))
    shutil.rmtree(tmp_path / "own" / "runs" / "eval-retrieval", ignore_errors=True)
    return tmp_path / "own"


def chance_is_in(metric):
    return metric.low <= metric.chance <= metric.high


@pytest.mark.nightly
@pytest.mark.parametrize("control", ["shuffled", "permuted"])
def test_a_control_is_at_chance_in_both_directions(
    run_command, trained_run, evaluation_result, control, capsys
):
    """Draws vary more if subjects share labels than with labels of their own."""
    result = run_command(
        "eval-retrieval",
        f"run={trained_run}",
        f"control={control}",
        "sheet_rows=0",
        "ceiling_splits=0",
    )
    metrics = result.metrics

    assert metrics.facts.verdict == "at chance"
    assert "at chance" not in capsys.readouterr().err  # which a control is meant to be
    assert chance_is_in(metrics.overall["mean_rank"])
    assert chance_is_in(metrics.scopes["all · backward"]["mean_rank"])
    assert metrics.overall["top1"].value <= 0.03
    argument = {"shuffled": "shuffled signals", "permuted": "permuted labels"}[control]
    assert metrics.facts.protocol.startswith(f"intra, {DATASET}, {argument}, ")
    assert metrics.caveats == ["simulated"]
    assert metrics.facts.protocol.endswith(", simulated")
    control_metrics, overall = (
        metrics.facts.control,
        evaluation_result.metrics.overall,
    )
    assert (control_metrics.kind, control_metrics.n, control_metrics.pool) == (
        control,
        200,
        100,
    )
    assert control_metrics.draws >= 200
    for name in ("top1", "top5", "mean_rank", "mrr"):
        metric, chance = control_metrics.metrics[name], overall[name].chance
        assert metric["measured"] == pytest.approx(overall[name].value)
        assert metric["mean"] == pytest.approx(chance, rel=0.1)
        assert metric["low"] <= chance <= metric["high"]
        assert metric["p"] == 1 / (1 + control_metrics.draws)
    assert result.tables[1].note.startswith("1000 draws")
    rank = control_metrics.metrics["mean_rank"]
    of_own_labels = 2 * 1.96 * np.sqrt((100**2 - 1) / 12 / 200)
    ratio = (rank["high"] - rank["low"]) / of_own_labels
    # permuted labels are the same for all subjects, shuffled ones are not
    assert ratio > 1.1 if control == "permuted" else 0.85 < ratio < 1.1


@pytest.mark.nightly
def test_labels_that_were_permuted_in_the_test_set_are_noticed(
    run_command, own, trained_run, capsys
):
    sound = run_command("eval-retrieval", f"run={trained_run}", *QUICK).metrics
    assert sound.facts.verdict == "above chance"
    assert "at chance" not in capsys.readouterr().err

    for path in (own / "signals" / DATASET / "default").glob("sub-*.h5"):
        with resealed(path) as file:
            file["test/signal"][...] = np.random.default_rng(0).permutation(
                file["test/signal"][()]
            )
    result = run_command("eval-retrieval", f"run={trained_run}", *QUICK, again=True)
    metrics = result.metrics
    rows = [row[0] for row in result.tables[0].rows]
    assert rows[0] == "all"
    assert "ridge" in rows
    warned = " ".join(capsys.readouterr().err.split())
    run_command("eval-retrieval", f"run={trained_run}", *QUICK, "baseline=none")

    assert metrics.facts.verdict == "at chance"
    assert "at chance" in " ".join(capsys.readouterr().err.split())
    assert explain_chance(metrics, result.folder / "ridge.yaml") in warned
    assert "30 other orders" in warned
    controls = [
        run_command(
            "eval-retrieval",
            f"run={trained_run}",
            f"control={control}",
            *QUICK,
            again=True,
        ).metrics
        for control in ("shuffled", "permuted")
    ]
    assert min(each.facts.control.metrics["mean_rank"]["p"] for each in controls) > 0.05
    assert "at chance" not in capsys.readouterr().err  # which a control is meant to be


@pytest.mark.nightly
def test_a_model_of_several_heads_is_evaluated_by_one_of_them(
    run_command, own, trained_run
):
    """The second head predicts the embedding, by weights without training."""
    run, encoder = (
        own / "runs" / "train-align" / trained_run.name,
        "brainhive_cli-models-encoders-python-example",
    )
    folder = run / "cells" / "sub-01_seed-1" / "model"
    model = aligners.load(folder)
    heads = {**model.layout.heads, "colours": Head((12,), encoder)}
    torch.manual_seed(0)
    aligner = aligners.Aligner(replace(model.layout, heads=heads), model.learned).eval()
    (run / SHA256SUMS).unlink(missing_ok=True)
    aligner.save(folder)
    asked = [f"run={run}", "subjects=1", "sheet_rows=0", "ceiling_splits=0"]

    found, token = (
        run_command("eval-retrieval", *asked, *head).metrics
        for head in (["head=colours"], [])
    )

    recording = SignalStore.open(own / f"signals/{DATASET}/default/sub-01.h5")["test"]
    store = TargetStore.open(own / f"embeddings/{DATASET}/test/{encoder}.h5")
    with torch.inference_mode():
        signal = torch.from_numpy(0.2 * recording.averages)
        predicted = aligner.predict(signal, torch.zeros(len(signal), dtype=torch.long))[
            "colours"
        ]
    target = torch.tensor(
        [store.image_ids.index(image_id) for image_id in recording.pictures]
    )
    expected = rank_targets(
        predicted, torch.from_numpy(np.array(store.embedding)), target
    )
    assert found.items["sub-01_seed-1 · sub-01"]["ranks"] == expected.tolist()
    assert token.items["sub-01_seed-1 · sub-01"]["ranks"] != expected.tolist()
    assert "head colours" in found.facts.protocol
    assert "head" not in token.facts.protocol
    with pytest.raises(BrainhiveError, match="head") as caught:
        run_command("eval-retrieval", *asked, "head=latent")
    assert "colours" in caught.value.hint + caught.value.message


def digests(folder):
    files = (
        path
        for path in folder.rglob("*")
        if path.is_file() and "eval-retrieval" not in path.parts
    )
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.nightly
def test_an_evaluation_changes_no_model_store_or_result(run_command, own, trained_run):
    trained_run = own / "runs" / "train-align" / trained_run.name
    everything = ["repetitions=[1]", "gallery=train+test", "subjects=1"]
    initial_digests = digests(own)

    first_metrics = run_command(
        "eval-retrieval", f"run={trained_run}", *everything
    ).metrics
    second_metrics = run_command(
        "eval-retrieval", f"run={trained_run}", *everything, again=True
    ).metrics

    assert digests(own) == initial_digests
    assert first_metrics == second_metrics


@pytest.mark.nightly
def test_selection_on_test_is_a_caveat_and_published_are_shown(
    run_command, own, trained_run
):
    run = own / "runs" / "train-align" / trained_run.name
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["published"] = {
        "values": {"top1": 0.757, "top5": 0.946},
        "source": "its Table 1",
    }
    (run / SHA256SUMS).unlink(missing_ok=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for folder in run.glob("cells/*/model"):
        model = aligners.load(folder)
        model.learned = replace(model.learned, selection="test")
        model.save(folder)

    result = run_command("eval-retrieval", f"run={run}", "sheet_rows=0")

    found = result.metrics.overall.values()
    assert all(
        metric.protocol.endswith("selected on test") and metric.selected
        for metric in found
    )
    assert len(result.tables) >= 3
    assert CAVEATS[SELECTED_ON_TEST] in str(result.tables[0].rows)
    rows = next(
        table for table in result.tables if "its Table 1" in table.title
    ).as_dict()["rows"]
    by_design = result.metrics.scopes["plain · design alone"]
    assert rows == [
        {
            "top-1": 0.757,
            "top-5": 0.946,
            "how its set-up differs": "–",
        },
        {
            "top-1": by_design["top1"].value,
            "top-5": by_design["top5"].value,
            "how its set-up differs": "the design alone, without signals, in this run",
        },
    ]


@pytest.mark.parametrize("noise", [0, 1e-6])
def test_duplicate_candidates_are_a_caveat_with_both_scores(
    own, run_command, trained_run, noise
):
    """Issue 84, row E: 20 of 60 pictures had a duplicate, without a warning."""
    (path,) = (own / "embeddings" / DATASET / "test").glob("*.h5")
    with resealed(path) as file:
        file["embedding"][:10] = file["embedding"][10:20] * (1 + noise)

    metrics = run_command(
        "eval-retrieval", f"run={trained_run}", *QUICK, "baseline=none"
    ).metrics

    assert TWINS in metrics.caveats
    assert TWINS in metrics.overall["top1"].caveats
    warning, shares = metrics.facts.warnings
    assert warning.startswith("20 of the 100 test pictures of ")
    with_twin, others = map(float, re.findall(r"\d\.\d{3}", shares))
    store = TargetStore.open(path)
    twins = set(store.image_ids[np.arange(20)])
    hits = {True: [], False: []}
    for cell in metrics.facts.cells:
        items = metrics.items[cell]
        for name, rank in zip(items["image_ids"], items["ranks"], strict=True):
            hits[name in twins].append(rank == 1)
    assert with_twin == pytest.approx(np.mean(hits[True]), abs=1e-3)
    assert others == pytest.approx(np.mean(hits[False]), abs=1e-3)
