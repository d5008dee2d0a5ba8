"""Tests of pictures that are held out in folds."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.results.measurements import SEEN_PICTURES
from brainhive_cli.core.runs import RunFolder, artifacts
from brainhive_cli.data.signals import Sensors, Trials
from brainhive_cli.data.stores.signal_store import SignalStore, build_store_path
from brainhive_cli.evaluation.retrieval.scopes import select_scopes
from brainhive_cli.models.encoders.python import example
from tests.worlds.command_fixtures import COLOURS, use_home

COUNT, FOLDS = 26, 4
DATASET = "dataset={kind: image-folder, holdout: {by: pictures, folds: 4}}"
RIDGE = ("backbone=ridge", "backbone.alpha=auto", "seeds=0", "train.validation=0")


@pytest.fixture(scope="module")
def home(tmp_path_factory, run_command):
    random = np.random.default_rng(0)
    with use_home(tmp_path_factory.mktemp("folds")) as home:
        root, inputs, ids = home / "data/image-folder", [], []
        module, preprocess = example()
        for number in range(COUNT):
            path = root / f"train/{'six' if number % 2 else 'nine'}/{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(random.integers(0, 256, (2, 2, 3), np.uint8))
            coarse.resize((16, 16), Image.Resampling.NEAREST).save(path)
            inputs.append(preprocess(Image.open(path)))
            ids.append(path.relative_to(root).with_suffix("").as_posix())
        features = module(torch.stack(inputs)).numpy() - 0.5
        evoked = features @ random.normal(size=(12, 40))
        signal = evoked[:, None, :, None] + 0.3 * random.normal(size=(COUNT, 2, 40, 1))
        space = Sensors([f"E{number}" for number in range(40)])
        recording = Trials.from_repetitions(
            signal.astype(np.float32), ids, space, np.zeros(1), None, "µV"
        )
        store = build_store_path(home / "signals", "image-folder", "default", 1)
        store.parent.mkdir(parents=True)
        SignalStore.write(store, {"train": recording})
        run_command("embed", DATASET, f"encoders=[{COLOURS!r}]")
        yield home


@pytest.fixture(scope="module")
def evaluated(home, run_command):
    run_command("train-align", DATASET, f"encoders=[{COLOURS!r}]", *RIDGE)
    return run_command("eval-retrieval", "repetitions=all", "sheet_rows=2")


def test_folds_are_pooled_among_the_candidates_of_each(evaluated):
    top1, facts = evaluated.metrics.overall["top1"], evaluated.metrics.facts

    # folds have equal numbers of pictures, so two of 26 pictures are left over
    assert (top1.n, top1.pool, top1.chance) == (24, 6, pytest.approx(1 / 6))
    assert top1.value > 0.5
    assert facts.answers[0].side == "above chance"
    assert SEEN_PICTURES not in top1.caveats
    assert "pictures" in top1.protocol
    assert "4 folds" in top1.protocol
    assert [row.second for row in facts.plain] == ["ridge"]


def test_questions_stay_within_folds_and_curves_are_pooled(
    evaluated,
):
    metrics = evaluated.metrics
    picture, _, concept = metrics.facts.answers

    assert concept.question == "which concept"
    assert "folds" in picture.test
    assert list(select_scopes(metrics, "repetitions")) == ["1", "2"]
    two_repetitions = metrics.scopes["repetitions · 2"]["top1"]
    assert two_repetitions.value == metrics.overall["top1"].value


def test_no_fold_learns_from_what_it_tests(home, run_command):
    run_command(
        "train-align",
        DATASET,
        f"encoders=[{COLOURS!r}]",
        *RIDGE,
        "train.shuffled_labels=true",
    )
    shuffled = run_command("eval-retrieval", "sheet_rows=0")

    assert shuffled.metrics.facts.answers[0].side != "above chance"
    assert shuffled.metrics.facts.seen_in_training.count == 0


def test_clusters_come_from_a_file_that_is_in_the_fingerprint(home, run_command):
    encoders = f"encoders=[{COLOURS!r}]"
    held_out = "held_out={by: clusters, folds: 2}"

    # files directly in the folder `train` have a concept each
    root = home / "data/flat/train"
    root.mkdir(parents=True)
    image_folder = home / "data/image-folder"
    flat_id_of = {}
    for path in sorted((image_folder / "train").rglob("*.png")):
        (root / path.name).symlink_to(path)
        image_id = path.relative_to(image_folder).with_suffix("").as_posix()
        flat_id_of[image_id] = f"train/{path.stem}"

    # the same signals with these image ids
    store = build_store_path(home / "signals", "image-folder", "default", 1)
    train = SignalStore.open(store).splits["train"]
    flat_store = build_store_path(home / "signals", "flat", "default", 1)
    flat_store.parent.mkdir(parents=True)
    recording = Trials(
        train.signal[:],
        [flat_id_of[name] for name in train.image_ids],
        train.space,
        times_s=np.zeros(1),
        rate_hz=None,
        unit="µV",
    )
    SignalStore.write(flat_store, {"train": recording})
    flat = "dataset={kind: image-folder, root: data/flat"
    file = run_command("embed", flat + "}", encoders, held_out).files["split"]
    split = json.loads(file.read_text())
    tests = [set(variant["test_ids"]) for variant in split["variants"]]
    size = len(tests[0])
    assert size > 1
    assert len(tests[1]) == size
    assert not tests[0] & tests[1]
    assert file.name == f"{split['name']}.json"
    assert split["params"] == {}
    assert file.name.startswith("clusters_k2-")

    by_file = f"{flat}, holdout: {{by: pictures, split: {file}}}}}"
    run_folder = run_command("train-align", by_file, encoders, *RIDGE).folder
    result = run_command(
        "eval-retrieval", f"run={run_folder}", "sheet_rows=0", "baseline=none"
    )
    metrics = result.metrics
    top1 = metrics.overall["top1"]
    slope = metrics.scopes["nearest training picture"]["nearest_slope"]
    assert top1.n == 2 * size
    assert top1.pool == size
    assert "clusters_k2-" in top1.protocol
    assert slope.n == top1.n
    assert slope.low is not None
    assert slope.chance == 0
    run_artifacts = artifacts.read(RunFolder(result.folder))
    titles = [artifact.title for artifact in run_artifacts]
    assert "Score against the nearest training picture" in titles
    verified = run_command("runs", f"words=[verify,{result.folder.name}]")
    assert verified.exit_code == 0
    assert verified.details["cell"].endswith("seed-0")

    # the content of the file names the run, and ids on both sides are refused
    split["variants"][0]["train_ids"].pop()
    file.write_text(json.dumps(split))
    assert run_command("train-align", by_file, encoders, *RIDGE).folder != run_folder
    split["variants"][0]["train_ids"] += list(tests[0])
    file.write_text(json.dumps(split))
    with pytest.raises(BrainhiveError, match="twice"):
        run_command("train-align", by_file, encoders, *RIDGE)
