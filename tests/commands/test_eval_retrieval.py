"""eval-retrieval: its numbers are what a plain computation gives, with all that they
must travel with.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from brainhive_cli import aligner
from brainhive_cli.commands import eval_retrieval
from brainhive_cli.core import artifacts
from brainhive_cli.core.command import require
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.jobs import OpenRun, list_inputs
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.evaluation.retrieval import baseline, measure, run

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


def plainly(run: Path, home: Path, subject: int) -> tuple[np.ndarray, int]:
    """Rank without the pipeline's code: mean over repetitions, tokens, cosines, count
    of better ones.
    """
    model = aligner.load(run / "cells" / f"sub-{subject:02d}_seed-1" / "model")
    with h5py.File(
        home / "signals" / DATASET / "default" / f"sub-{subject:02d}.h5"
    ) as file:
        signal, seen = 0.2 * file["test/signal"][()].mean(1), file["test/image_id"][()]
    with h5py.File(home / "embeddings" / DATASET / "test" / f"{ENCODER}.h5") as file:
        embedding, shown = file["embedding"][()], file["image_id"][()]
    with torch.inference_mode():
        tokens = model.encode_signal(
            torch.from_numpy(signal), torch.zeros(len(signal), dtype=torch.long)
        )
        gallery = model.encode_image({ENCODER: torch.from_numpy(embedding)})
    cosine = torch.cosine_similarity(tokens[:, None], gallery[None], dim=2).numpy()
    target = np.array([list(shown).index(image_id) for image_id in seen])
    own = cosine[np.arange(len(target)), target][:, None]
    return 1 + (cosine > own).sum(1), len(gallery)


def test_ranks_and_scores_are_those_of_a_plain_computation(world, trained, evaluated):
    metrics = evaluated.metrics

    for subject in (1, 2):
        ranks, pool = plainly(trained, world, subject)
        cell = f"sub-{subject:02d}_seed-1 · sub-{subject:02d}"
        assert metrics.items[cell]["ranks"] == ranks.tolist()
        found = metrics.scopes[cell]
        assert found["top1"].value == pytest.approx((ranks == 1).mean())
        assert found["top5"].value == pytest.approx((ranks <= 5).mean())
        assert found["median_rank"].value == np.median(ranks)
        assert found["top1"].pool == pool == 100
    everyone = np.concatenate(
        [plainly(trained, world, subject)[0] for subject in (1, 2)]
    )
    assert metrics.overall["top1"].value == pytest.approx((everyone == 1).mean())


def test_a_metric_never_travels_alone(evaluated):
    for metric in evaluated.metrics.overall.values():
        assert (metric.n, metric.pool, metric.seeds, metric.split) == (
            200,
            100,
            (1,),
            "test",
        )
        assert metric.protocol == (
            "intra, demo-noise-0.3-40-concepts, 17 channels, 0 to 1000 ms, 250 Hz, 16 "
            "repetitions averaged, uV, simulated"
        )
        assert metric.selected is False
        assert metric.name == "median_rank" or metric.low <= metric.value <= metric.high
        assert metric.chance is not None
    top1 = evaluated.metrics.overall["top1"]
    assert top1.chance == pytest.approx(0.01) and top1.these_subjects[0] > top1.chance
    table = evaluated.tables[0]
    assert "tested" in table.columns and "100 candidates. 95 % CI: " in table.note
    assert table.rows[-1][0] == "chance" and table.rows[0][1].small


@pytest.mark.nightly
def test_what_is_shown_are_as_many_queries_as_asked(go, world, trained):
    few, none = (
        go("eval-retrieval", f"run={trained}", f"sheet_rows={rows}") for rows in (2, 0)
    )

    run = RunFolder(few.folder)
    shown = {
        each.kind: each for each in artifacts.read(run) if each.section == "Retrieval"
    }
    assert len(shown["sheet"].rows) == 2 and [
        len(row.tiles) for row in shown["sheet"].rows
    ] == [6, 6]
    for row in shown["sheet"].rows:
        rank = int(row.tiles[0].lines[1].removeprefix("rank "))
        right = [
            place
            for place, tile in enumerate(row.tiles[1:], 1)
            if tile.verdict == "right"
        ]
        assert right == ([rank] if rank <= 5 else [])
    (bars,) = (
        each
        for each in artifacts.read(run)
        if each.title == "Ranks of the seen picture"
    )
    assert [sum(line.values) for line in bars.lines] == pytest.approx([1, 1], abs=1e-3)
    assert "sheet" not in {each.kind for each in artifacts.read(RunFolder(none.folder))}


def test_without_pictures_a_run_is_finished_without_its_sheet(
    go, trained, evaluated, monkeypatch
):
    def refuse(name, splits, images, split):
        raise MissingData(f"no pictures of {name}", "fetch them")

    monkeypatch.setattr("brainhive_cli.data.datasets._list_split", refuse)
    words = f"run={trained}", "sheet_rows=2", "baseline=none", "ceiling_splits=0"
    inputs = list_inputs(
        eval_retrieval, eval_retrieval.Recipe.resolve("eval-retrieval", None, {}, words)
    )
    assert "missing; done without" in [one.state for one in inputs]
    require(inputs)

    found = go("eval-retrieval", *words)
    assert found.metrics.overall == evaluated.metrics.overall
    drawn = {each.kind for each in artifacts.read(RunFolder(found.folder))}
    assert "curve" in drawn and "sheet" not in drawn


@pytest.mark.nightly
def test_trials_of_bad_pictures_are_left_out_everywhere_and_said_so(go, things, capsys):
    root = things / "data" / "things-eeg"
    for bad in ("training_images/concept_0/1.png", "test_images/concept_3/0.png"):
        (root / bad).write_bytes(b"no picture")
    go("embed", "dataset=things-eeg", COLOURS, "skip_bad=true")

    trained = go("train-align", *THINGS, *QUICK, "train.validation=0.25")
    found = go("eval-retrieval")

    errors = capsys.readouterr().err
    assert "subject 1 train: 1 trials left out" in errors
    assert "subject 1 test: 1 trials left out" in errors
    top1 = found.metrics.overall["top1"]
    # of 12: what cannot be seen is no candidate either
    assert (top1.n, top1.pool) == (11, 11)
    assert top1.low > top1.chance
    assert trained.metrics.scopes["sub-01_seed-1"]["top1"].n in (19, 20)


def test_a_ridge_shares_the_data_of_the_run_when_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Settings(SimpleNamespace):
        def model_copy(self, update: dict[str, Any]) -> "Settings":
            return Settings(**vars(self) | update)

    steps = list[Any]()
    job: Any = SimpleNamespace(runs=["the run"], recipe=Settings())
    fitted = SimpleNamespace(
        runs=[SimpleNamespace(share_data=steps.append)],
        groups=[("cell", "other")],
        open_models=lambda cells, device: cells,
    )
    ridge, trained = Settings(paths=Settings()), SimpleNamespace(folder=tmp_path)
    resolved = SimpleNamespace(resolve=lambda spec: fitted)
    monkeypatch.setattr(run, "TrainingRun", resolved)
    monkeypatch.setattr(run.driver, "run", lambda *of: trained)
    monkeypatch.setattr(run, "Job", resolved)
    monkeypatch.setattr(baseline, "write_ridge", lambda *of: ridge)
    monkeypatch.setattr(
        measure, "measure_cell", lambda models, spec: steps.append(models)
    )
    opened = OpenRun(RunFolder(tmp_path), Launch(0, 1, "cpu"))

    run._fit_ridge(job, opened)
    assert steps == ["the run", ("cell", "other")]
