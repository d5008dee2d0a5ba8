"""Tests of eval-retrieval against ranks that are computed without its code."""

import re

import h5py
import numpy as np
import pytest
import torch

from brainhive_cli import aligner
from brainhive_cli.commands import eval_retrieval
from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.core.files.inputs import require_inputs
from brainhive_cli.core.runs import Launch, OpenRun, RunFolder, artifacts, list_inputs
from brainhive_cli.evaluation.retrieval import measure, run
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.reports.pages.page import FINDING

COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"
ENCODER = "brainhive_cli-models-encoders-python-example"
DATASET = "demo-noise-0.3-40-concepts"
THINGS = (
    "dataset=things-eeg",
    COLOURS,
    "subjects=1",
    "seeds=1",
    "dim=32",
    "fuser.intermediate_size=32",
)
QUICK = (
    "train.precision=fp32",
    "train.epochs=10",
    "train.batch_size=40",
    "train.lr=2e-3",
)


def rank_directly(run_folder, home, subject):
    """Rank the pictures for each signal without the code of the command.

    Args:
        run: Run of train-align.
        home: Home with the stores.
        subject: Number of the subject.

    Returns:
        Rank [N] of the seen picture, and the number of candidates.
    """
    model = aligner.load(run_folder / "cells" / f"sub-{subject:02d}_seed-1" / "model")
    store = home / "signals" / DATASET / "default" / f"sub-{subject:02d}.h5"
    with h5py.File(store) as file:
        counts = file["test/repetitions"][()]
        trials = file["test/signal"][()]  # [n, C, T]
        signal = 0.2 * trials.reshape(len(counts), -1, *trials.shape[1:]).mean(1)
        seen_ids = file["test/image_id"][()][np.cumsum(counts) - counts]
    with h5py.File(home / "embeddings" / DATASET / "test" / f"{ENCODER}.h5") as file:
        embedding = file["embedding"][()]
        candidate_ids = list(file["image_id"][()])
    with torch.inference_mode():
        tokens = model.encode_signal(
            torch.from_numpy(signal), torch.zeros(len(signal), dtype=torch.long)
        )
        gallery = model.encode_image({ENCODER: torch.from_numpy(embedding)})
    cosine = torch.cosine_similarity(tokens[:, None], gallery[None], dim=2).numpy()
    target = np.array([candidate_ids.index(image_id) for image_id in seen_ids])
    seen_cosine = cosine[np.arange(len(target)), target][:, None]
    return 1 + (cosine > seen_cosine).sum(1), len(gallery)


def test_ranks_and_scores_are_those_of_a_plain_computation(
    world, trained_run, evaluation_result
):
    metrics = evaluation_result.metrics

    all_ranks = []
    for subject in (1, 2):
        ranks, pool = rank_directly(trained_run, world, subject)
        all_ranks.append(ranks)
        cell = f"sub-{subject:02d}_seed-1 · sub-{subject:02d}"
        assert metrics.items[cell]["ranks"] == ranks.tolist()
        scores = metrics.scopes[cell]
        assert scores["top1"].value == pytest.approx((ranks == 1).mean())
        assert scores["top5"].value == pytest.approx((ranks <= 5).mean())
        assert scores["median_rank"].value == np.median(ranks)
        assert scores["top1"].pool == pool == 100
    top1 = np.mean(np.concatenate(all_ranks) == 1)
    assert metrics.overall["top1"].value == pytest.approx(top1)


def test_a_metric_never_travels_alone(evaluation_result):
    for metric in evaluation_result.metrics.overall.values():
        assert (metric.n, metric.pool) == (200, 100)
        assert (metric.seeds, metric.split) == ((1,), "test")
        for fact in (
            "intra",
            DATASET,
            "17 channels",
            "0 to 1000 ms",
            "250 Hz",
            "16 repetitions",
            "uV",
            "simulated",
        ):
            assert fact in metric.protocol
        assert metric.selected is False
        assert metric.name == "median_rank" or metric.low <= metric.value <= metric.high
        assert metric.chance is not None
    top1 = evaluation_result.metrics.overall["top1"]
    assert top1.chance == pytest.approx(0.01)
    assert top1.these_subjects[0] > top1.chance
    table = evaluation_result.tables[0]
    assert "100 candidates" in table.note
    assert "95 % CI" in table.note
    assert table.rows[-1][0] == "chance"
    assert table.rows[0][1].small


@pytest.mark.nightly
def test_what_is_shown_are_as_many_queries_as_asked(run_command, world, trained_run):
    with_sheet = run_command("eval-retrieval", f"run={trained_run}", "sheet_rows=2")
    without_sheet = run_command("eval-retrieval", f"run={trained_run}", "sheet_rows=0")

    run_artifacts = artifacts.read(RunFolder(with_sheet.folder))
    (sheet,) = (
        artifact
        for artifact in run_artifacts
        if artifact.section == "Retrieval" and artifact.kind == "sheet"
    )
    assert [len(row.tiles) for row in sheet.rows] == [6, 6]
    assert sheet.sample
    assert sheet.sample.n_tested == 100
    cell_items = next(iter(with_sheet.metrics.items.values()))
    for row in sheet.rows:
        # the first tile has the seen picture, the others have the five best candidates
        index = cell_items["image_ids"].index(row.query)
        assert (row.rank, row.n_candidates) == (cell_items["ranks"][index], 100)
        right_ranks = [
            tile_rank
            for tile_rank, tile in enumerate(row.tiles[1:], start=1)
            if tile.verdict == "right"
        ]
        assert right_ranks == ([row.rank] if row.rank <= 5 else [])
    (bars,) = (artifact for artifact in run_artifacts if artifact.section == FINDING)
    assert [sum(line.values) for line in bars.lines] == pytest.approx([1, 1], abs=1e-3)
    other_artifacts = artifacts.read(RunFolder(without_sheet.folder))
    assert "sheet" not in {artifact.kind for artifact in other_artifacts}


def test_without_pictures_a_run_is_finished_without_its_sheet(
    run_command, trained_run, evaluation_result, monkeypatch
):
    def refuse(name, splits, images, split):
        raise MissingData(f"no pictures of {name}", "fetch them")

    monkeypatch.setattr("brainhive_cli.data.datasets._list_split", refuse)
    overrides = [
        f"run={trained_run}",
        "sheet_rows=2",
        "baseline=none",
        "ceiling_splits=0",
    ]
    recipe = eval_retrieval.Recipe.resolve("eval-retrieval", None, {}, overrides)
    inputs = list_inputs(eval_retrieval, recipe)
    (pictures,) = (item for item in inputs if item.error is not None)
    assert pictures.is_optional
    assert not pictures.is_missing
    require_inputs(inputs)

    result = run_command("eval-retrieval", *overrides)
    assert result.metrics.overall == evaluation_result.metrics.overall
    run_artifacts = artifacts.read(RunFolder(result.folder))
    kinds = {artifact.kind for artifact in run_artifacts}
    assert "curve" in kinds
    assert "sheet" not in kinds


@pytest.mark.nightly
def test_trials_of_bad_pictures_are_left_out_and_counted(
    run_command, things_home, capsys
):
    root = things_home / "data" / "things-eeg"
    for name in ("training_images/concept_0/1.png", "test_images/concept_3/0.png"):
        (root / name).write_bytes(b"no picture")
    run_command("embed", "dataset=things-eeg", COLOURS, "skip_bad=true")

    trained = run_command("train-align", *THINGS, *QUICK, "train.validation=0.25")
    result = run_command("eval-retrieval")

    messages = capsys.readouterr().err
    assert re.search(r"subject 1 train\W+1 ", messages)
    assert re.search(r"subject 1 test\W+1 ", messages)
    top1 = result.metrics.overall["top1"]
    # the bad picture is not among the candidates, so 11 of 12 pictures are left
    assert (top1.n, top1.pool) == (11, 11)
    assert top1.low > top1.chance
    assert trained.metrics.scopes["sub-01_seed-1"]["top1"].n in (19, 20)


def test_a_ridge_is_measured_on_the_study_of_its_run(
    trained_run, tmp_path, monkeypatch
):
    arguments = [f"run={trained_run}", "baseline=ridge"]
    job = run.RetrievalRun.resolve(
        Recipe.resolve("eval-retrieval", None, {}, arguments)
    )
    measurements = []
    monkeypatch.setattr(
        measure,
        "measure_cell",
        lambda models, tests, recipe: measurements.append(tests),
    )
    open_run = OpenRun(RunFolder(tmp_path), Launch(0, 1, torch.device("cpu")))

    run._fit_ridge(job, open_run)

    for tests in measurements:
        assert tests.run.name != job.tests.run.name
        assert tests.study is job.tests.study
    assert len(measurements) == 2


def test_a_model_named_by_its_label_is_the_same_model(
    run_command, trained_run, evaluation_result
):
    RunFolder(trained_run).set_label("a, b: c")
    try:
        for key in ("run", "align_run"):
            result = run_command("eval-retrieval", f"{key}='a, b: c'", "sheet_rows=0")
            assert result.folder.name == evaluation_result.folder.name
        labelled = run_command(
            "eval-retrieval", f"run={trained_run}", "sheet_rows=0", "run.label=x"
        )
        assert labelled.folder == evaluation_result.folder
        assert labelled.label == "x"
        assert RunFolder(trained_run).label == "a, b: c"
    finally:
        RunFolder(trained_run).set_label("")
        RunFolder(evaluation_result.folder).set_label("")
