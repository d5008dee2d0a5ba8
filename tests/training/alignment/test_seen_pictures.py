"""Copies of training pictures are known under any name: no model is tested on them, wherever it is tested."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from worlds import paint

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import UNKNOWN_PICTURES
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.tables import Table
from brainhive_cli.data.datasets import StimulusSet, image_folder
from brainhive_cli.data.stores.target_store import Blank, TargetStore, TargetWriter
from brainhive_cli.training.alignment.validation import held_out_of

ENCODER = "brainhive_cli-models-encoders-python-example"
COLOURS = "encoders=['python:brainhive_cli.models.encoders.python:example']"
CONCEPTS, EACH = 16, 3
TEST = 4 * EACH
"""Pictures of a quarter of the concepts."""
SMALL = (
    *("seeds=1", "dim=16", "fuser.intermediate_size=16", "signal.scale=0.2", "train.epochs=2"),
    *("train.precision=fp32", "train.batch_size=24"),
)
QUICK = ("sheet_rows=0", "concept_rows=0", "subjects=1")


@pytest.fixture
def photos(home: Path) -> Path:
    return paint(home / "photos", CONCEPTS, EACH)


def split_of(root: Path, name: str) -> StimulusSet:
    return image_folder.Config(root=str(root), test_share=0.25).build(Paths()).images(name)


def simulated(root: Path, name: str = "photos") -> str:
    images = f"{{kind: image-folder, name: {name}, root: {root}, test_share: 0.25}}"
    return f"dataset={{kind: simulated, images: {images}, meaning: {ENCODER}, subjects: 1, noise: 0.1}}"


def copy_into_test(root: Path, count: int) -> list[str]:
    """Put training pictures in the place of some test pictures: the first as it is, others coded anew."""
    seen, tested = split_of(root, "train").image_ids, split_of(root, "test").image_ids
    names = [tested[2 * number] for number in range(count)]
    for number, name in enumerate(names):
        source = root / f"{seen[5 * number]}.png"
        if number == 0:
            shutil.copy(source, root / f"{name}.png")
        else:
            Image.open(source).save(root / f"{name}.bmp")
            (root / f"{name}.png").unlink()
    return names


def test_copies_of_training_pictures_are_left_out_of_what_is_tested_counted_and_named(
    go, home, photos, capsys
):
    copies = copy_into_test(photos, 2)
    go("embed", simulated(photos), COLOURS)
    run = f"run={go('train-align', simulated(photos), COLOURS, *SMALL).folder}"
    capsys.readouterr()

    more = ("repetitions=[1,2]", "gallery=train+test", "subsets={ways: 3, draws: 60}")
    found = go("eval-retrieval", run, *more, *QUICK).metrics

    assert found.notes["seen_in_training"] == {"count": 2, "of": TEST, "names": copies}
    line, *_ = found.notes["warnings"]
    assert line.startswith(f"2 of the {TEST} test pictures of photos were seen") and copies[1] in line
    assert " ".join(capsys.readouterr().err.split()).count(line) == 1
    assert {metric.n for metrics in found.scopes.values() for metric in metrics.values()} == {TEST - 2}
    assert found.overall["top1"].pool == CONCEPTS * EACH  # they stay candidates
    (items,) = found.items.values()
    assert not set(items["image_ids"]) & set(copies)


def test_explain_leaves_them_out_too(go, home, photos):
    pytest.importorskip("matplotlib")
    copies = copy_into_test(photos, 2)
    go("embed", simulated(photos), COLOURS)
    run = go("train-align", simulated(photos), COLOURS, *SMALL).folder

    few = ("analyses=[windows,encoding,similarity]", "draws=20", "figures=[]", "components=4")
    found = go("explain", f"align_run={run}", "window={width_ms: 500, step_ms: 500}", *few).metrics

    assert found.notes["seen_in_training"]["names"] == copies
    assert {metric.n for metrics in found.scopes.values() for metric in metrics.values()} == {TEST - 2}


def test_more_copies_than_can_be_left_out_are_refused_also_of_a_model_folder_on_other_data(go, home, photos):
    copy_into_test(photos, 3)
    go("embed", simulated(photos), COLOURS)
    run = go("train-align", simulated(photos), COLOURS, *SMALL).folder
    elsewhere = paint(home / "elsewhere", CONCEPTS, EACH)
    for number, name in enumerate(split_of(elsewhere, "test").image_ids[:5]):
        seen = split_of(photos, "train").image_ids[number]
        shutil.copy(photos / f"{seen}.png", elsewhere / f"{name}.png")
    go("embed", simulated(elsewhere, "others"), COLOURS)

    with pytest.raises(BrainhiveError, match=f"on 3 of the {TEST} test pictures of photos .*by pixels"):
        go("eval-retrieval", f"run={run}", *QUICK)
    model = run / "cells/sub-01_seed-1/model"
    with pytest.raises(BrainhiveError, match="test pictures of others"):
        go("eval-retrieval", f"run={model}", simulated(elsewhere, "others"), *QUICK)


def test_copies_of_pictures_that_validate_are_not_trained_on(go, home, photos):
    go("embed", simulated(photos), COLOURS)
    store = TargetStore.open(home / f"embeddings/photos/train/{ENCODER}.h5")
    by_concept = held_out_of(store.concepts, 0.5)
    assert store.pixels is not None and len(set(store.pixels)) == len(by_concept)
    copy, original = np.flatnonzero(~by_concept)[0], np.flatnonzero(by_concept)[0]
    pixels = store.pixels.copy()
    pixels[copy] = pixels[original]

    held_out = held_out_of(store.concepts, 0.5, pixels)

    assert np.flatnonzero(held_out != by_concept).tolist() == [copy] and held_out[copy]


def test_near_duplicates_are_tested_with_a_warning(go, home, photos):
    name, seen = split_of(photos, "test").image_ids[0], split_of(photos, "train").image_ids[0]
    pixels = np.array(Image.open(photos / f"{seen}.png"))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(photos / f"{name}.png")
    go("embed", simulated(photos), COLOURS)
    run = go("train-align", simulated(photos), COLOURS, *SMALL).folder

    found = go("eval-retrieval", f"run={run}", *QUICK).metrics

    assert found.overall["top1"].n == TEST and found.notes["seen_in_training"]["count"] == 0
    line, *_ = found.notes["warnings"]
    assert line.startswith(f"1 of the {TEST} test pictures") and "near-duplicates" in line and name in line


def forget_pixels(store: Path) -> None:
    """Write a store anew as one for which no pixels were decoded."""
    found = TargetStore.open(store)
    store.unlink()
    Blank(store, found.image_ids, found.concepts, found.shape, "float32", found.attributes).create()
    writer = TargetWriter(store)
    writer.write(np.arange(len(found.done)), np.array(found.embedding))
    writer.close()
    writer.finish()


@pytest.mark.parametrize("split", ["train", "test"])
def test_stores_without_pixels_get_a_caveat(go: Callable[..., object], home: Path, photos: Path, split: str):
    go("embed", simulated(photos), COLOURS)
    forget_pixels(home / "embeddings/photos" / split / f"{ENCODER}.h5")
    run = go("train-align", simulated(photos), COLOURS, *SMALL).folder

    result = go("eval-retrieval", f"run={run}", *QUICK)

    assert UNKNOWN_PICTURES in result.metrics.caveats and UNKNOWN_PICTURES == "pictures unknown"
    assert all(UNKNOWN_PICTURES in table.title for table in result.tables if isinstance(table, Table))
