"""NSD's stimuli in the real layout, with the real picture ids and a few pixels each."""

import csv
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.datasets import BadPicture
from brainhive_cli.datasets._pictures import Pictures
from brainhive_cli.datasets.nsd import INFO, STIMULI, Config

COUNT = 73000
SHARED = [2, 5, 8]


@pytest.fixture
def root(home: Path) -> Path:
    """Ten pictures, three of which all subjects saw."""
    root = home / "data/nsd"
    write_stimuli(root, 10)
    write_info(root, 10, SHARED)
    return root


def write_stimuli(root: Path, count: int, side: int = 3) -> Path:
    path = root / "nsddata_stimuli/stimuli/nsd" / STIMULI
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(count * side * side * 3, dtype=np.int64).astype(np.uint8)
    with h5py.File(path, "w") as file:
        file["imgBrick"] = pixels.reshape(count, side, side, 3)
    return path


def write_info(root: Path, count: int, shared: list[int]) -> Path:
    path = root / "nsddata/experiments/nsd" / INFO
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", "cocoId", "cocoSplit", "nsdId", "shared1000"])
        table.writerows([n, 900 + n, "val2017", n, n in shared] for n in range(count))
    return path


def nsd() -> Pictures:
    return Config().build(Paths())


def test_what_all_subjects_saw_is_the_test_split(root: Path) -> None:
    train, test = (nsd().images(split) for split in ("train", "test"))
    assert nsd().splits == ("train", "test")
    assert test.image_ids == test.concepts == ("nsd00003", "nsd00006", "nsd00009")
    assert len(train) == 7 and not set(train.image_ids) & set(test.image_ids)
    np.testing.assert_array_equal(np.asarray(test.open(1)).ravel(), np.arange(5 * 27, 6 * 27))


def test_the_thousand_shared_pictures_have_nsds_own_names(home: Path, shared: Path) -> None:
    with (shared / "data/nsd/shared1000_ids.tsv").open() as file:
        known = list(csv.DictReader(file, delimiter="\t"))
    rows, root = [int(row["nsd_id_0based"]) for row in known], home / "data/nsd"
    write_stimuli(root, COUNT, side=1)
    write_info(root, COUNT, rows)
    test = nsd().images("test")
    assert [f"shared{n:04d}_{image_id}.png" for n, image_id in enumerate(test.image_ids, 1)] == [
        row["file"] for row in known
    ]
    assert len(nsd().images("train")) == COUNT - 1000
    assert np.asarray(test.open(999)).ravel()[0] == rows[999] * 3 % 256


def test_what_opens_pictures_holds_no_open_file(root: Path) -> None:
    images = nsd().images("train")
    fresh = pickle.dumps(images.open)
    images.open(0)
    assert pickle.dumps(images.open) == fresh
    assert pickle.loads(fresh)(3).tobytes() == images.open(3).tobytes()


def test_a_picture_that_cannot_be_read_is_named(root: Path) -> None:
    images = nsd().images("test")
    path = next(root.rglob(STIMULI))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadPicture, match=r"nsd00006 in .*nsd_stimuli\.hdf5 cannot be decoded"):
        images.open(1)


def test_a_file_cut_short_is_one_clear_error(root: Path) -> None:
    path = next(root.rglob(STIMULI))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BrainhiveError, match=r"nsd_stimuli\.hdf5 is damaged or cut short"):
        nsd().images("test")


def test_a_file_of_another_layout_is_refused(root: Path) -> None:
    with h5py.File(next(root.rglob(STIMULI)), "w") as file:
        file["images"] = np.zeros((10, 3, 4, 4), np.float16)
    with pytest.raises(BrainhiveError, match="it has no dataset imgBrick"):
        nsd().images("test")


@pytest.mark.parametrize("written", ["", "nsdId,shared1000\n", "nsdId,shared1000\n10,True\n", "nsdId\n1\n"])
def test_shared_pictures_that_are_not_said_or_not_there_are_no_split(root: Path, written: str) -> None:
    next(root.rglob(INFO)).write_text(written)
    with pytest.raises(BrainhiveError, match=r"all subjects saw|it has no 'shared1000'"):
        nsd().images("train")


def test_missing_data_say_what_is_expected_where_and_how_to_get_it(home: Path) -> None:
    with pytest.raises(MissingData, match=r"no .*data/nsd/\*\*/nsd_stimuli\.hdf5") as caught:
        nsd().images("train")
    assert "naturalscenesdataset.org" in caught.value.hint
    write_stimuli(home / "data/nsd", 3)
    with pytest.raises(MissingData, match=r"no .*data/nsd/\*\*/nsd_stim_info_merged\.csv"):
        nsd().images("train")
    with pytest.raises(MissingData, match="has no split 'validation'"):
        nsd().images("validation")
