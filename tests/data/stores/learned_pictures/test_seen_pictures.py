"""Copies of training pictures under any name are not tested."""

import json
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps
from skimage import data
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.core.results import SEEN_COPIES, SeenPictures
from brainhive_cli.data.datasets import image_folder
from brainhive_cli.data.signals.holdout import SEPARATE_TEST
from brainhive_cli.data.stores import TargetStore, TrainingHistory
from brainhive_cli.training.alignment import model_files
from brainhive_cli.training.alignment.trained.tested_pictures import (
    ALTERED_WARNINGS,
    COPY_WARNING,
    TestedPictures,
)
from brainhive_cli.training.alignment.training.batches import choose_held_out
from tests.worlds.command_fixtures import paint_pictures

ENCODER = "brainhive_cli-models-encoders-python-example"
COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"
N_CONCEPTS, PER_CONCEPT = 16, 3
N_TEST = 4 * PER_CONCEPT
"""Test pictures: a quarter of the concepts."""
SMALL = (
    "seeds=1",
    "dim=16",
    "fuser.intermediate_size=16",
    "signal.scale=0.2",
    "train.epochs=2",
    "train.precision=fp32",
    "train.batch_size=24",
)
QUICK = ("sheet_rows=0", "ceiling_splits=0", "subjects=1")


@pytest.fixture
def photos(home):
    return paint_pictures(home / "photos", N_CONCEPTS, PER_CONCEPT)


def open_split(root, name):
    config = image_folder.Config(root=str(root), test_share=0.25)
    return config.build(Paths()).images(name)


def simulated(root, name="photos", test_share=0.25):
    images = (
        f"{{kind: image-folder, name: {name}, root: {root}, test_share: {test_share}}}"
    )
    return (
        f"dataset={{kind: simulated, images: {images}, meaning: {ENCODER}, subjects: "
        "1, noise: 0.1}"
    )


def copy_into_test(root, count):
    """Replace test pictures by training pictures, and return their names.

    The first is copied, and the others are saved in another format.
    """
    train_ids = open_split(root, "train").image_ids
    test_ids = open_split(root, "test").image_ids
    names = [test_ids[2 * number] for number in range(count)]
    for number, name in enumerate(names):
        source = root / f"{train_ids[5 * number]}.png"
        if number == 0:
            shutil.copy(source, root / f"{name}.png")
        else:
            Image.open(source).save(root / f"{name}.bmp")
            (root / f"{name}.png").unlink()
    return names


@pytest.mark.nightly
def test_copies_of_training_pictures_are_left_out_and_named(
    run_command, home, photos, capsys
):
    copies = copy_into_test(photos, 2)
    trained_run = train(run_command, simulated(photos))
    capsys.readouterr()

    metrics_with_copies = run_command(
        "eval-retrieval",
        f"run={trained_run}",
        "repetitions=[1,2]",
        "gallery=train+test",
        "subsets=3",
        *QUICK,
    ).metrics

    assert metrics_with_copies.facts.seen_in_training == SeenPictures(
        count=2, of=N_TEST, names=copies
    )
    line, *_ = metrics_with_copies.facts.warnings
    assert line.startswith(f"2 of the {N_TEST} test pictures of photos")
    assert copies[1] in line
    assert " ".join(capsys.readouterr().err.split()).count(line) == 1
    assert {
        metric.n
        for metrics in metrics_with_copies.scopes.values()
        for metric in metrics.values()
    } == {N_TEST - 2}
    assert (
        metrics_with_copies.overall["top1"].pool == N_CONCEPTS * PER_CONCEPT
    )  # they stay candidates
    (items,) = metrics_with_copies.items.values()
    assert not set(items["image_ids"]) & set(copies)

    explained = run_command(
        "explain",
        f"align_run={trained_run}",
        "analyses=[encoding,similarity]",
        "draws=20",
    ).metrics
    assert explained.facts.seen_in_training.names == copies
    assert {
        metric.n for metrics in explained.scopes.values() for metric in metrics.values()
    } == {N_TEST - 2}


@pytest.mark.nightly
def test_too_many_copies_are_refused_or_tested_with_a_caveat(run_command, home, photos):
    copies = copy_into_test(photos, 3)
    trained_run = train(run_command, simulated(photos))
    elsewhere = paint_pictures(home / "elsewhere", N_CONCEPTS, PER_CONCEPT)
    for number, name in enumerate(open_split(elsewhere, "test").image_ids[:5]):
        image_id = open_split(photos, "train").image_ids[number]
        shutil.copy(photos / f"{image_id}.png", elsewhere / f"{name}.png")
    # not the same signals
    other_dataset = simulated(elsewhere, "others").replace("noise: 0.1", "noise: 0.2")
    run_command("embed", other_dataset, COLOURS)

    with pytest.raises(
        BrainhiveError,
        match=f"on 3 of the {N_TEST} test pictures of photos .*same pixels",
    ):
        run_command("eval-retrieval", f"run={trained_run}", *QUICK)
    with pytest.raises(BrainhiveError, match="test pictures of others"):
        run_command(
            "eval-retrieval",
            f"run={trained_run / 'cells/sub-01_seed-1/model'}",
            other_dataset,
            *QUICK,
        )

    allowed = run_command(
        "eval-retrieval", f"run={trained_run}", "copies=allow", *QUICK
    ).metrics
    assert allowed.overall["top1"].n == N_TEST
    assert allowed.facts.seen_in_training.count == 0
    assert all(SEEN_COPIES in metric.caveats for metric in allowed.overall.values())
    (line,) = (line for line in allowed.facts.warnings if COPY_WARNING in line)
    assert line.startswith("3 of")
    assert all(copy in line for copy in copies)


def train(run_command, dataset):
    """Embed the pictures, train on them, and return the run."""
    run_command("embed", dataset, COLOURS)
    return Path(run_command("train-align", dataset, COLOURS, *SMALL).folder)


def test_copies_of_pictures_that_validate_are_not_trained_on(run_command, home, photos):
    run_command("embed", simulated(photos), COLOURS)
    store = TargetStore.open(home / f"embeddings/photos/train/{ENCODER}.h5")
    by_concept = choose_held_out(store.concepts, 0.5)
    assert store.pixels is not None
    assert len(set(store.pixels[:, 0])) == len(by_concept)
    copies, original = np.flatnonzero(~by_concept)[:3], np.flatnonzero(by_concept)[0]
    pixels = store.pixels.copy()
    pixels[copies] = pixels[original]
    # other pixels with the same hash: one is confirmed, one is not here
    pixels[copies[1:], 0] += 1

    def confirm(row, name):
        return "cropped" if row == copies[1] else None

    held_out = choose_held_out(
        store.concepts, 0.5, ("photos", store.image_ids, pixels, confirm)
    )

    assert np.flatnonzero(held_out != by_concept).tolist() == copies[:2].tolist()


def photograph_into_test(root, edit, suffix):
    """Replace a test picture by an edited training photograph, and return its name."""
    name = open_split(root, "test").image_ids[0]
    image_id = open_split(root, "train").image_ids[0]
    photograph = data.astronaut()[:256, 64:320]  # a photograph of many details
    Image.fromarray(photograph).save(root / f"{image_id}.png")
    (root / f"{name}.png").unlink()
    edit(Image.fromarray(photograph)).convert("RGB").save(
        root / f"{name}{suffix}", quality=75
    )
    return name


@pytest.mark.nightly
def test_near_copies_are_left_out_if_both_pictures_are_here(run_command, home, photos):
    name = photograph_into_test(photos, lambda picture: picture, ".jpg")
    trained_run = train(run_command, simulated(photos))

    left_out = run_command("eval-retrieval", f"run={trained_run}", *QUICK).metrics

    assert left_out.facts.seen_in_training == SeenPictures(
        count=1, of=N_TEST, names=[name]
    )
    assert left_out.overall["top1"].n == N_TEST - 1

    learned = model_files.read_history(
        trained_run / "cells/sub-01_seed-1/model"
    ).pictures
    store = TargetStore.open(home / f"embeddings/photos/test/{ENCODER}.h5")
    other_stand_in = SimpleNamespace(
        name="others", pictured_as="others", people="others", holdout=SEPARATE_TEST
    )
    models = {1: [TrainingHistory(pictures=learned)]}
    tested_pictures = TestedPictures(
        other_stand_in, "test", 1, {"e": store}, models, lambda row, name: None
    )
    (line,) = (
        line for line in tested_pictures.warnings if ALTERED_WARNINGS[None] in line
    )
    assert line.startswith("1 of")
    assert name in line


@pytest.mark.nightly
def test_mirrored_pictures_are_tested_with_a_warning(run_command, home, photos):
    name = photograph_into_test(photos, ImageOps.mirror, ".png")
    trained_run = train(run_command, simulated(photos))

    metrics = run_command("eval-retrieval", f"run={trained_run}", *QUICK).metrics

    assert metrics.overall["top1"].n == N_TEST
    assert SEEN_COPIES not in metrics.caveats
    warning = ALTERED_WARNINGS["mirrored"]
    (line,) = (line for line in metrics.facts.warnings if warning in line)
    assert line.startswith(f"1 of the {N_TEST} test pictures of photos")
    assert name in line


def catch_error(run_command, *arguments):
    """Return the message, advice and exit code of an error, without its frames."""
    try:
        run_command(*arguments)
    except BrainhiveError as error:
        return error.message, error.hint, error.exit_code
    raise AssertionError("there is no error")


@pytest.mark.nightly
def test_trained_concepts_are_never_reported_as_tested(run_command, home, photos):
    all_pictures, split = simulated(photos, test_share=0), simulated(photos)
    renamed = simulated(photos, "others")
    run_command("embed", all_pictures, COLOURS)
    run_folder = run_command("train-align", all_pictures, COLOURS, *SMALL).folder

    evaluation = ["eval-retrieval", f"run={run_folder}"]
    message, _, _ = catch_error(run_command, *evaluation, split, *QUICK)
    assert "no test embeddings" in message
    run_command("embed", split, COLOURS)
    (signals,) = home.glob("signals/*/default/sub-01.h5")
    message, hint, _ = catch_error(run_command, *evaluation, split, *QUICK)
    assert "photos/test" in message
    assert shlex.quote(str(signals)) in hint
    signals.unlink()

    caveat = f"trained on {N_TEST} of the {N_TEST} test pictures of photos"
    message, _, exit_code = catch_error(run_command, *evaluation, split, *QUICK)
    assert message.startswith(str(run_folder))
    assert caveat in message
    assert exit_code == 1
    model = f"run={run_folder / 'cells/sub-01_seed-1/model'}"
    assert caveat in catch_error(run_command, "eval-retrieval", model, split, *QUICK)[0]
    run_command("embed", renamed, COLOURS)
    caveat = caveat.replace("photos", "others")
    assert caveat in catch_error(run_command, *evaluation, renamed, *QUICK)[0]
    assert not list(home.glob("runs/eval-retrieval/*/metrics.json"))


def test_stores_of_another_split_are_refused_with_a_command(run_command, home, photos):
    all_pictures, split = simulated(photos, test_share=0), simulated(photos)
    run_command("embed", all_pictures, COLOURS)
    run_command("train-align", all_pictures, COLOURS, *SMALL)
    run_command(
        "embed", split, COLOURS, "splits=test"
    )  # the train store has all pictures
    (signals,) = home.glob("signals/*/default/sub-01.h5")

    message, hint, _ = catch_error(run_command, "train-align", split, COLOURS, *SMALL)
    assert f"0 added, {N_TEST} removed" in message
    line = shlex.split(hint)
    assert line[:2] == ["brainhive", "embed"]
    assert line[-1] == "--again"
    assert CliRunner().invoke(app, line[1:]).exit_code == 0

    message, hint, _ = catch_error(run_command, "train-align", split, COLOURS, *SMALL)
    assert "photos/train" in message
    assert shlex.split(hint.partition(";")[0]) == ["rm", str(signals.resolve())]
    signals.unlink()
    assert run_command("train-align", split, COLOURS, *SMALL).metrics.facts.cells


@pytest.mark.nightly
def test_a_run_is_resumed_with_the_same_pictures_only(run_command, home, photos):
    split = simulated(photos)
    run_command("embed", split, COLOURS)
    run_folder = run_command("train-align", split, COLOURS, *SMALL).folder
    evaluation = ["eval-retrieval", f"run={run_folder}"]

    both_splits = run_command(*evaluation, "gallery=train+test", *QUICK)
    assert both_splits.metrics.overall["top1"].n == N_TEST
    message, _, _ = catch_error(run_command, *evaluation, "gallery=train")
    assert "trained on 36 of the 36 train pictures" in message

    identities = json.loads((run_folder / "embeddings.json").read_text())
    identities[ENCODER]["pictures"] = "0" * 16
    (run_folder / "embeddings.json").write_text(json.dumps(identities))
    for name in ("metrics.json", "SHA256SUMS"):
        (run_folder / name).unlink()
    message, _, _ = catch_error(run_command, "train-align", split, COLOURS, *SMALL)
    assert "other pictures" in message
