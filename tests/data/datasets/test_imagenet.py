"""ImageNet-1k in the layouts in which it is distributed, with a few small pictures."""

import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.datasets.imagenet import Config

TENCH, GOLDFISH = "n01440764", "n01443537"
"""The first two classes: labels 0 and 1."""
FOLDER = {"train": "train", "validation": "val", "test": "test"}


def jpeg(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "jpeg")
    return file.getvalue()


CONTENT = {
    "train": [
        (f"{TENCH}_10026", TENCH),
        (f"{TENCH}_9", TENCH),
        (f"{GOLDFISH}_18", GOLDFISH),
    ],
    "validation": [
        ("ILSVRC2012_val_00000262", GOLDFISH),
        ("ILSVRC2012_val_00000293", TENCH),
    ],
    "test": [("ILSVRC2012_test_00000001", None), ("ILSVRC2012_test_00000002", None)],
}
"""Split to (name, class) of its pictures; ImageNet's test pictures have no class."""
BYTES = {
    name: jpeg(n)
    for n, name in enumerate(name for some in CONTENT.values() for name, _ in some)
}


def as_folders(root: Path) -> None:
    for split, some in CONTENT.items():
        for name, of in some:
            path = root / FOLDER[split] / (of or "") / f"{name}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(BYTES[name])


def rows(split: str) -> list[dict[str, Any]]:
    """The rows of ILSVRC/imagenet-1k: a picture's class follows its name; -1 stands for
    none.
    """
    label = {TENCH: 0, GOLDFISH: 1, None: -1}
    return [
        {
            "image": {
                "bytes": BYTES[name],
                "path": f"{name}_{of}.JPEG" if of else f"{name}.JPEG",
            },
            "label": label[of],
        }
        for name, of in CONTENT[split]
    ]


def write_rows(path: Path, made: list[dict[str, Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow reads parquet files")
    path.parent.mkdir(parents=True, exist_ok=True)
    pytest.importorskip("pyarrow.parquet").write_table(
        pyarrow.Table.from_pylist(made), path, row_group_size=2
    )
    return path


def as_parquet(root: Path) -> None:
    for split in CONTENT:
        write_rows(root / f"data/{split}-00000-of-00001.parquet", rows(split))


WRITE: dict[str, Callable[[Path], None]] = {"folder": as_folders, "parquet": as_parquet}


@pytest.fixture
def root(home: Path) -> Path:
    return home / "data/imagenet"


@pytest.fixture(params=WRITE)
def written(request: pytest.FixtureRequest, root: Path) -> Iterator[str]:
    WRITE[request.param](root)
    yield request.param


def imagenet(**knobs: Any) -> Dataset:
    return Config(**knobs).build(Paths())


def test_every_form_gives_the_same_pictures_names_and_classes(
    root: Path, written: str
) -> None:
    dataset = imagenet()
    assert dataset.splits == ("train", "validation", "test")
    above = {"folder": f"train/{TENCH}/"}.get(written, "")
    assert dataset.images("train").image_ids[0] == f"{above}{TENCH}_10026"
    assert pickle.loads(pickle.dumps(dataset.images("train").open))(2).size == (12, 8)
    for split, some in CONTENT.items():
        images = dataset.images(split)
        found = {
            id_.rsplit("/", 1)[-1]: (n, of)
            for n, (id_, of) in enumerate(
                zip(images.image_ids, images.concepts, strict=True)
            )
        }
        assert {name: of for name, (_, of) in found.items()} == {
            name: of or name for name, of in some
        }
        for name, (index, _) in found.items():
            with Image.open(io.BytesIO(BYTES[name])) as picture:
                assert images.open(index).tobytes() == picture.tobytes()


def test_a_split_in_two_forms_is_refused(root: Path) -> None:
    as_folders(root)
    as_parquet(root)
    problem = "train is there several times: .*parquet and .*data/imagenet/train"
    with pytest.raises(MissingData, match=problem):
        imagenet().images("train")


def test_a_parquet_that_is_cut_short_or_has_pictures_twice_is_one_clear_error(
    root: Path,
) -> None:
    path = write_rows(root / "train-0.parquet", rows("train"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        BrainhiveError, match=r"train-0\.\w+ is damaged or cut short: "
    ) as caught:
        imagenet().images("train")
    assert "\n" not in caught.value.message and caught.value.hint
    write_rows(path, [{"emb": 0.5, "image_id": "a"}])
    with pytest.raises(
        BrainhiveError, match=r"has no pictures: none of its columns emb, image_id"
    ):
        imagenet().images("train")
    for shard in range(2):
        write_rows(root / f"train-{shard}.parquet", rows("train"))
    with pytest.raises(BrainhiveError, match=rf"'{TENCH}_10026'"):
        imagenet().images("train")


def test_a_split_that_is_not_there_says_what_is_expected_where(root: Path) -> None:
    with pytest.raises(
        MissingData, match=r"no train pictures in .*data/imagenet: neither"
    ) as caught:
        imagenet().images("train")
    assert caught.value.hint == "brainhive fetch imagenet"
    with pytest.raises(MissingData, match="has no split 'dev'"):
        imagenet().images("dev")
