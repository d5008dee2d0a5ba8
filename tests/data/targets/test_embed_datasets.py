"""embed, the whole way from the files of each data set of pictures to its stores."""

import io
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.stores import target_store
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.models.encoders.python import example

COLOURS = "python:brainhive_cli.models.encoders.python:example"
ROUNDING = 1e-6
"""Batches of other sizes round differently in float32."""
Write = Callable[[Path, list[bytes], list[bytes]], list[str]]
"""Lays out encoded training and test pictures; returns the training pictures' ids."""


def pictures(count: int, seed: int = 0) -> list[bytes]:
    random, encoded = np.random.default_rng(seed), []
    for _ in range(count):
        Image.fromarray(random.integers(0, 255, (6, 8, 3), dtype=np.uint8)).save(file := io.BytesIO(), "png")
        encoded.append(file.getvalue())
    return encoded


def names(count: int) -> list[str]:
    return [f"n01440764_{number}" for number in range(count)]


def imagenet_folders(data: Path, train: list[bytes], test: list[bytes]) -> list[str]:
    for path, encoded in ((data / "train/n01440764", train), (data / "test", test)):
        path.mkdir(parents=True)
        for number, picture in enumerate(encoded):
            (path / f"n01440764_{number}.JPEG").write_bytes(picture)
    return [f"train/n01440764/{name}" for name in names(len(train))]


def imagenet_parquet(data: Path, train: list[bytes], test: list[bytes]) -> list[str]:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow reads parquet files")
    write = pytest.importorskip("pyarrow.parquet").write_table
    data.mkdir(parents=True)
    for split, encoded in (("train", train), ("test", test)):
        rows = [
            {"image": {"bytes": picture, "path": f"n01440764_{number}.JPEG"}, "label": 0}
            for number, picture in enumerate(encoded)
        ]
        write(pyarrow.Table.from_pylist(rows), data / f"{split}-00000-of-00001.parquet", row_group_size=2)
    return names(len(train))


def nsd(data: Path, train: list[bytes], test: list[bytes]) -> list[str]:
    data.mkdir(parents=True)
    with h5py.File(data / "nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = np.stack([np.asarray(Image.open(io.BytesIO(one))) for one in (*train, *test)])
    shared = [f"{number},{number >= len(train)}" for number in range(len(train) + len(test))]
    (data / "nsd_stim_info_merged.csv").write_text("\n".join(["nsdId,shared1000", *shared]))
    return [f"nsd{number:05d}" for number in range(1, len(train) + 1)]


def coco(data: Path, train: list[bytes], test: list[bytes]) -> list[str]:
    for folder, encoded in (("train2017", train), ("test2017", test)):
        (data / folder).mkdir(parents=True)
        for number, picture in enumerate(encoded):
            (data / f"{folder}/{number:012d}.jpg").write_bytes(picture)
    return [f"train2017/{number:012d}" for number in range(len(train))]


LAYOUTS: list[tuple[str, Write]] = [
    ("imagenet", imagenet_folders),
    ("imagenet", imagenet_parquet),
    ("nsd", nsd),
    ("coco", coco),
]


def opened(home: Path, dataset: str, split: str) -> TargetStore:
    name = "brainhive_cli-models-encoders-python-example"
    return TargetStore.open(target_store.path_of(home / "embeddings", dataset, split, name))


def directly(encoded: list[bytes]) -> np.ndarray:
    module, preprocess = example()
    return module(torch.stack([preprocess(Image.open(io.BytesIO(one))) for one in encoded])).detach().numpy()


@pytest.mark.parametrize(("dataset", "write"), LAYOUTS)
def test_what_a_store_holds_of_a_data_set_is_its_pictures(go, home, dataset, write):
    train, test = pictures(8), pictures(3, seed=1)
    image_ids = write(home / "data" / dataset, train, test)

    argv = (f"dataset={dataset}", f"encoders=[{COLOURS!r}]", "batch_size=2", "run.workers=2")
    result = go("embed", *argv)

    assert (
        result.hint == f"brainhive train-prior --dataset {dataset} --encoders {COLOURS}"
    )  # nobody's stimuli
    found = opened(home, dataset, "train")
    assert found.image_ids == image_ids
    assert np.allclose(found.embedding, directly(train), atol=ROUNDING)
    assert np.allclose(opened(home, dataset, "test").embedding, directly(test), atol=ROUNDING)


def test_a_broken_picture_of_an_archive_is_named_and_can_be_skipped(go, home):
    whole = pictures(8)
    imagenet_parquet(home / "data/imagenet", [*whole[:5], whole[5][:60], *whole[6:]], whole[:2])
    argv = ("embed", "dataset=imagenet", f"encoders=[{COLOURS!r}]", "batch_size=2", "run.workers=2")

    with pytest.raises(BrainhiveError, match=r"1 pictures cannot be decoded: n01440764_5 in .*train"):
        go(*argv)
    go(*argv, "skip_bad=true")

    found = opened(home, "imagenet", "train")
    assert found.done.tolist() == [number != 5 for number in range(8)]
    assert np.allclose(found.embedding[found.done], np.delete(directly(whole), 5, axis=0), atol=ROUNDING)
