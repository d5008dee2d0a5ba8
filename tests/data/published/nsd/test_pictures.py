"""NSD's stimuli in the published layout, with published ids and a few pixels each."""

import csv
import pickle

import h5py
import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.media.pictures import BadPicture
from brainhive_cli.data.published.nsd import CAPTIONS, STIM_INFO, STIMULI, NsdPictures

COUNT = 73000
SHARED = {2, 5, 8}


@pytest.fixture
def root(home):
    """Ten pictures, three of which all subjects saw."""
    root = home / "data/nsd"
    write_stimuli(root, 10)
    write_info(root, 10, SHARED)
    return root


def write_stimuli(root, count, number=3):
    path = root / "nsddata_stimuli/stimuli/nsd" / STIMULI
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(count * number * number * 3, dtype=np.int64).astype(np.uint8)
    with h5py.File(path, "w") as file:
        file["imgBrick"] = pixels.reshape(count, number, number, 3)
    return path


def write_info(root, count, shared):
    path = root / "nsddata/experiments/nsd" / STIM_INFO
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        columns = [f"subject{subject}_rep0" for subject in range(1, 9)]
        table.writerow(
            ["", "cocoId", "cocoSplit", "nsdId", "shared1000"] + list(columns)
        )
        for row in range(count):
            # a picture that is not shared is shown to a single subject
            is_shared = row in shared
            trials = [0] * 8
            for subject in range(8):
                if is_shared or row % 8 == subject:
                    trials[subject] = 100 * row + 1
            table.writerow([row, 900 + row, "val2017", row, is_shared] + list(trials))
    return path


def write_captions(root, captions, dtype=str):
    path = root / CAPTIONS
    np.save(path, np.array(captions, dtype), allow_pickle=True)
    return path


def make_dataset(**keys):
    return NsdPictures(**keys).build(Paths())


def test_pictures_that_all_subjects_saw_are_the_test_split(root):
    train, test = (make_dataset().images(split) for split in ("train", "test"))
    assert make_dataset().splits == ("train", "test")
    assert test.image_ids == test.concepts == ("nsd00003", "nsd00006", "nsd00009")
    assert len(train) == 7
    assert not set(train.image_ids) & set(test.image_ids)
    np.testing.assert_array_equal(
        np.asarray(test.open(1)).ravel(), np.arange(5 * 27, 6 * 27)
    )


def test_the_thousand_shared_pictures_have_nsds_own_names(home, shared):
    with (shared / "data/nsd/shared1000_ids.tsv").open() as file:
        entries = list(csv.DictReader(file, delimiter="\t"))
    rows = [int(entry["nsd_id_0based"]) for entry in entries]
    root = home / "data/nsd"
    write_stimuli(root, COUNT, number=1)
    write_info(root, COUNT, set(rows))
    test = make_dataset().images("test")
    assert [
        f"shared{n:04d}_{image_id}.png" for n, image_id in enumerate(test.image_ids, 1)
    ] == [entry["file"] for entry in entries]
    assert np.asarray(test.open(999)).ravel()[0] == rows[999] * 3 % 256


def test_pictures_of_some_subjects_have_their_own_name(
    root,
):
    dataset = make_dataset(subjects="2,1")

    assert (dataset.name, dataset.recorded_as) == ("nsd-1-2", "nsd")
    # subjects 1 and 2 saw rows 0, 1 and 9, and the shared row 8
    assert dataset.images("train").image_ids == ("nsd00001", "nsd00002", "nsd00010")
    assert dataset.images("test").image_ids == make_dataset().images("test").image_ids
    assert dataset.images("train").dataset == "nsd-1-2"
    np.testing.assert_array_equal(
        np.asarray(dataset.images("train").open(2)).ravel(),
        np.arange(9 * 27, 10 * 27) % 256,
    )
    with pytest.raises(RecipeError, match="9"):
        make_dataset(subjects=[9])


def test_missing_files_are_named_with_the_command_to_get_them(home):
    with pytest.raises(MissingData, match=r"data/nsd/\*\*/nsd_stimuli\.hdf5") as caught:
        make_dataset().images("train")
    assert caught.value.hint == "brainhive fetch nsd"
    write_stimuli(home / "data/nsd", 3)
    with pytest.raises(MissingData, match=r"data/nsd/\*\*/nsd_stim_info_merged\.csv"):
        make_dataset().images("train")


def test_captions_are_read_by_row_without_empty_ones(root):
    assert make_dataset().images("test").captions is None
    write_captions(root, [[f"{n} a", "", f"{n} b"] for n in range(10)], object)

    test = make_dataset().images("test")

    assert test.get_captions(1) == ["5 a", "5 b", "5 a", "5 b", "5 a"]
    assert pickle.loads(pickle.dumps(test)).get_captions(0)[0] == "2 a"


def test_damaged_stimuli_and_tables_are_refused(
    root,
):
    images = make_dataset().images("test")
    stimuli = next(root.rglob(STIMULI))
    stimuli.write_bytes(stimuli.read_bytes()[:2000])
    with pytest.raises(BadPicture, match=r"nsd00006 in .*nsd_stimuli\.hdf5"):
        images.open(1)
    with pytest.raises(BrainhiveError, match=r"nsd_stimuli\.hdf5"):
        make_dataset().images("test")
    write_stimuli(root, 10)
    next(root.rglob(STIM_INFO)).write_text("nsdId\n1\n")
    with pytest.raises(BrainhiveError, match="shared1000"):
        make_dataset().images("train")
