"""NSD's stimuli in the real layout, with the real picture ids and a few pixels each."""

import csv
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.media.pictures import BadPicture
from brainhive_cli.data.published.nsd import CURATED, INFO, STIMULI, NsdPictures

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
    of_all = set(shared)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        shown = [f"subject{subject}_rep0" for subject in range(1, 9)]
        table.writerow(["", "cocoId", "cocoSplit", "nsdId", "shared1000", *shown])
        # others than the shared ones are shown to one subject each
        for n in range(count):
            trials = [100 * n + 1 if n in of_all or n % 8 == s else 0 for s in range(8)]
            table.writerow([n, 900 + n, "val2017", n, n in of_all, *trials])
    return path


def write_captions(root: Path, captions: list[list[str]], dtype: type = str) -> Path:
    path = root / CURATED
    np.save(path, np.array(captions, dtype), allow_pickle=True)
    return path


def nsd(**knobs: Any) -> Dataset:
    return NsdPictures(**knobs).build(Paths())


def test_what_all_subjects_saw_is_the_test_split(root: Path) -> None:
    train, test = (nsd().images(split) for split in ("train", "test"))
    assert nsd().splits == ("train", "test")
    assert test.image_ids == test.concepts == ("nsd00003", "nsd00006", "nsd00009")
    assert len(train) == 7 and not set(train.image_ids) & set(test.image_ids)
    np.testing.assert_array_equal(
        np.asarray(test.open(1)).ravel(), np.arange(5 * 27, 6 * 27)
    )


def test_the_thousand_shared_pictures_have_nsds_own_names(
    home: Path, shared: Path
) -> None:
    with (shared / "data/nsd/shared1000_ids.tsv").open() as file:
        known = list(csv.DictReader(file, delimiter="\t"))
    rows, root = [int(row["nsd_id_0based"]) for row in known], home / "data/nsd"
    write_stimuli(root, COUNT, side=1)
    write_info(root, COUNT, rows)
    test = nsd().images("test")
    assert [
        f"shared{n:04d}_{image_id}.png" for n, image_id in enumerate(test.image_ids, 1)
    ] == [row["file"] for row in known]
    assert np.asarray(test.open(999)).ravel()[0] == rows[999] * 3 % 256


def test_the_pictures_of_some_subjects_are_a_set_of_their_own_with_the_signals_of_nsd(
    root: Path,
) -> None:
    chosen = nsd(subjects="2,1")

    assert (chosen.name, chosen.recorded_as) == ("nsd-1-2", "nsd")
    # rows 0, 1 and 9 are theirs (8 would be subject 1's, but is shared)
    assert chosen.images("train").image_ids == ("nsd00001", "nsd00002", "nsd00010")
    assert chosen.images("test").image_ids == nsd().images("test").image_ids
    assert chosen.images("train").dataset == "nsd-1-2"
    np.testing.assert_array_equal(
        np.asarray(chosen.images("train").open(2)).ravel(),
        np.arange(9 * 27, 10 * 27) % 256,
    )
    with pytest.raises(RecipeError, match="nsd has no subject 9"):
        nsd(subjects=[9])


def test_missing_data_say_what_is_expected_where_and_how_to_get_it(home: Path) -> None:
    with pytest.raises(
        MissingData, match=r"no .*data/nsd/\*\*/nsd_stimuli\.hdf5"
    ) as caught:
        nsd().images("train")
    assert caught.value.hint == "brainhive fetch nsd"
    write_stimuli(home / "data/nsd", 3)
    with pytest.raises(
        MissingData, match=r"no .*data/nsd/\*\*/nsd_stim_info_merged\.csv"
    ):
        nsd().images("train")


def test_captions_are_those_of_the_pictures_row_without_empty_ones(root: Path) -> None:
    assert nsd().images("test").captions is None
    write_captions(root, [[f"{n} a", "", f"{n} b"] for n in range(10)], object)

    test = nsd().images("test")

    assert test.captions_of(1) == ["5 a", "5 b", "5 a", "5 b", "5 a"]
    assert pickle.loads(pickle.dumps(test)).captions_of(0)[0] == "2 a"


def test_damaged_stimuli_and_shared_pictures_that_are_not_said_are_refused(
    root: Path,
) -> None:
    images = nsd().images("test")
    stimuli = next(root.rglob(STIMULI))
    stimuli.write_bytes(stimuli.read_bytes()[:2000])
    with pytest.raises(
        BadPicture, match=r"nsd00006 in .*nsd_stimuli\.hdf5 cannot be decoded"
    ):
        images.open(1)
    with pytest.raises(
        BrainhiveError, match=r"nsd_stimuli\.hdf5 is damaged or cut short"
    ):
        nsd().images("test")
    write_stimuli(root, 10)
    next(root.rglob(INFO)).write_text("nsdId\n1\n")
    with pytest.raises(BrainhiveError, match="it has no 'shared1000'"):
        nsd().images("train")
