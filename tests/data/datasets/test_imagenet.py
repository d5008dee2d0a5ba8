"""ImageNet-1k in the layouts in which it is distributed, with a few small pictures."""

import io
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.core.errors import BrainhiveError, MissingData, MissingExtra
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import BadPicture, Dataset
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
    "train": [(f"{TENCH}_10026", TENCH), (f"{TENCH}_9", TENCH), (f"{GOLDFISH}_18", GOLDFISH)],
    "validation": [("ILSVRC2012_val_00000262", GOLDFISH), ("ILSVRC2012_val_00000293", TENCH)],
    "test": [("ILSVRC2012_test_00000001", None), ("ILSVRC2012_test_00000002", None)],
}
"""Split to (name, class) of its pictures; ImageNet's test pictures have no class."""
BYTES = {name: jpeg(n) for n, name in enumerate(name for some in CONTENT.values() for name, _ in some)}


def as_folders(root: Path) -> None:
    for split, some in CONTENT.items():
        for name, of in some:
            path = root / FOLDER[split] / (of or "") / f"{name}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(BYTES[name])


def rows(split: str) -> list[dict[str, Any]]:
    """The rows of ILSVRC/imagenet-1k: a picture's class follows its name; -1 stands for none."""
    label = {TENCH: 0, GOLDFISH: 1, None: -1}
    return [
        {
            "image": {"bytes": BYTES[name], "path": f"{name}_{of}.JPEG" if of else f"{name}.JPEG"},
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


def test_every_form_gives_the_same_pictures_names_and_classes(root: Path, written: str) -> None:
    dataset = imagenet()
    assert dataset.splits == ("train", "validation", "test")
    for split, some in CONTENT.items():
        images = dataset.images(split)
        found = {
            id_.rsplit("/", 1)[-1]: (n, of)
            for n, (id_, of) in enumerate(zip(images.image_ids, images.concepts, strict=True))
        }
        assert {name: of for name, (_, of) in found.items()} == {name: of or name for name, of in some}
        for name, (index, _) in found.items():
            with Image.open(io.BytesIO(BYTES[name])) as picture:
                assert images.open(index).tobytes() == picture.tobytes()


def test_an_id_is_the_path_in_a_folder_and_the_own_name_in_an_archive(root: Path, written: str) -> None:
    above = {"folder": f"train/{TENCH}/"}.get(written, "")
    assert imagenet().images("train").image_ids[0] == f"{above}{TENCH}_10026"


@pytest.mark.parametrize(
    ("layout", "split"),
    [
        ("ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG", "validation"),
        ("ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_10026.JPEG", "train"),
        ("validation/tench/one.png", "validation"),
        ("default/test/0000.parquet", "test"),
        ("data/train-00000-of-00294.parquet", "train"),
    ],
)
def test_other_layouts_are_recognised(root: Path, layout: str, split: str) -> None:
    path = root / layout
    if path.suffix == ".parquet":
        write_rows(path, rows("train"))
    else:
        path.parent.mkdir(parents=True)
        path.write_bytes(jpeg(0))
    assert imagenet().splits == (split,)
    assert imagenet().images(split).open(0).size == (12, 8)


def test_folders_of_classes_may_be_links(root: Path, tmp_path: Path) -> None:
    as_folders(tmp_path / "all")
    (root / "train").mkdir(parents=True)
    (root / "train" / TENCH).symlink_to(tmp_path / "all/train" / TENCH)
    assert imagenet().images("train").image_ids == (
        f"train/{TENCH}/{TENCH}_10026",
        f"train/{TENCH}/{TENCH}_9",
    )


def test_an_image_id_column_names_pictures_and_a_row_does_where_nothing_else_can(root: Path) -> None:
    some = rows("train")
    write_rows(
        root / "data/train-00000.parquet", [{**row, "image_id": f"x/{n}.JPEG"} for n, row in enumerate(some)]
    )
    write_rows(
        root / "data/validation-00000.parquet",
        [{**row, "image": {"bytes": row["image"]["bytes"], "path": None}} for row in some],
    )
    train, validation = (imagenet().images(split) for split in ("train", "validation"))
    assert (train.image_ids[0], train.concepts[0]) == ("x/0", TENCH)
    assert (validation.image_ids[2], validation.concepts[2]) == ("validation-00000/000002", GOLDFISH)


def test_the_order_of_many_shards_is_theirs(root: Path) -> None:
    names = [f"{TENCH}_{number}" for number in range(9, -1, -1)]
    for shard, name in enumerate(names):
        picture = {"bytes": jpeg(0), "path": f"{name}.JPEG"}
        write_rows(root / f"data/train-{shard:05d}-of-00010.parquet", [{"image": picture, "label": 0}])
    assert imagenet().images("train").image_ids == tuple(names)


def test_a_picture_that_cannot_be_decoded_is_named(
    root: Path, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BYTES, f"{TENCH}_9", BYTES[f"{TENCH}_9"][:300])
    WRITE[written](root)
    images = imagenet().images("train")
    index = next(n for n, name in enumerate(images.image_ids) if name.endswith("_9"))
    with pytest.raises(BadPicture, match=rf"{TENCH}_9\b.* cannot be decoded"):
        images.open(index)
    assert images.open(1 - index if index < 2 else 0).size == (12, 8)


def test_an_archive_that_breaks_after_it_was_listed_is_a_bad_picture(root: Path) -> None:
    as_parquet(root)
    images = imagenet().images("train")
    for path in root.rglob("*train*"):
        path.write_bytes(b"\xff" * 600 + path.read_bytes()[600:])
    with pytest.raises(BadPicture, match=rf"{TENCH}_10026 in .*train.* cannot be decoded"):
        images.open(0)


@pytest.mark.parametrize("left", ["version https://git-lfs.github.com/spec/v1\n", "", 0.5])
def test_an_archive_that_is_cut_short_is_one_clear_error(root: Path, left: str | float) -> None:
    path = write_rows(root / "train-0.parquet", rows("train"))
    data = path.read_bytes()
    if isinstance(left, str):
        path.write_text(left)
    else:
        path.write_bytes(data[: int(left * len(data))])
    with pytest.raises(BrainhiveError, match=r"train-0\.\w+ is damaged or cut short: ") as caught:
        imagenet().images("train")
    assert "\n" not in caught.value.message and caught.value.hint


def test_a_parquet_without_pictures_is_refused(root: Path) -> None:
    write_rows(root / "train-0.parquet", [{"emb": 0.5, "image_id": "a"}])
    with pytest.raises(
        BrainhiveError, match=r"train-0\.parquet has no pictures: none of its columns emb, image_id"
    ):
        imagenet().images("train")


def test_two_pictures_of_one_image_id_are_refused(root: Path) -> None:
    for shard in range(2):
        write_rows(root / f"train-{shard}.parquet", rows("train"))
    with pytest.raises(
        BrainhiveError, match=rf"train-1\.\w+ and .*train-0\.\w+ have one image id, '{TENCH}_10026'"
    ):
        imagenet().images("train")


def test_a_split_that_is_not_there_says_what_is_expected_where(root: Path) -> None:
    for split in ("train", "validation", "test"):
        with pytest.raises(MissingData, match=rf"no {split} pictures in .*data/imagenet: neither") as caught:
            imagenet().images(split)
        assert caught.value.hint == "brainhive fetch imagenet"
    write_rows(root / "data/train-00000-of-00001.parquet", rows("train"))
    assert imagenet().splits == ("train",)
    with pytest.raises(
        MissingData, match=r"no test pictures in .*: neither test/n01440764/\*\.JPEG, nor test-\*"
    ):
        imagenet().images("test")
    with pytest.raises(MissingData, match="has no split 'dev'"):
        imagenet().images("dev")


def test_a_split_in_two_forms_is_refused(root: Path) -> None:
    as_folders(root)
    as_parquet(root)
    problem = "train is there several times: .*parquet and .*data/imagenet/train"
    with pytest.raises(MissingData, match=problem):
        imagenet().images("train")


def test_without_pyarrow_parquet_is_refused_with_the_line_that_installs_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.mkdir(parents=True)
    (root / "train-0.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match="needs pyarrow") as caught:
        imagenet().images("train")
    assert caught.value.hint == "pip install 'brainhive[parquet]'"


def test_what_opens_pictures_travels_light_to_another_process(root: Path, written: str) -> None:
    images = imagenet().images("train")
    fresh = pickle.dumps(images.open)
    images.open(0)
    used = pickle.dumps(images.open)
    assert used == fresh and BYTES[f"{TENCH}_10026"] not in used
    assert [pickle.loads(used)(index).size for index in (2, 0, 1)] == [(12, 8)] * 3
