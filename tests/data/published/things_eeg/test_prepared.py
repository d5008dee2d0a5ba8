"""THINGS in the forms that other projects prepare, as their scripts write them."""

import json
import pickle
import shutil

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.published.things_eeg import MONTAGE, Prepared
from brainhive_cli.data.recordings.contract import MergedPreparation
from tests.publishers import things_files
from tests.tools.trial_numbers import numbers_of_trials
from tests.worlds.array_trials import arrange

CONCEPTS, IMAGES, TESTS = 2, 3, 2


def make_preparation(root, stimuli="things-eeg", **keys):
    return Prepared(
        root=str(root), stimuli={"kind": stimuli, "root": str(root)}, **keys
    ).build(Paths())


def write_metadata(root):
    """Write the table of pictures, and return their ids by split."""
    train = []
    for c in range(CONCEPTS):
        for i in range(IMAGES):
            train.append((f"{c + 1:05d}_thing{c}", f"thing{c}_{i:02d}s.jpg"))
    test = [(f"{c + 1:05d}_probe{c}", f"probe{c}_01b.jpg") for c in range(TESTS)]
    table = {}
    for split, pictures in (("train", train), ("test", test)):
        table[f"{split}_img_concepts"] = [concept for concept, _ in pictures]
        table[f"{split}_img_files"] = [file for _, file in pictures]
    root.mkdir(parents=True, exist_ok=True)
    np.save(root / "image_metadata.npy", np.array(table, object), allow_pickle=True)
    return {
        "train": [f"training_images/{c}/{f[:-4]}" for c, f in train],
        "test": [f"test_images/{c}/{f[:-4]}" for c, f in test],
    }


def make_signal(*shape, dtype="float32"):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(dtype)


def dump(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=4)
    return path


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


@pytest.mark.parametrize(
    ("form", "channels", "rate_hz"),
    (
        ("whitened_pt", 63, 250),
        ("bare_pickle/Preprocessed_data_250Hz", 63, 250),
        ("authors_npy", 17, 100),
    ),
)
def test_published_forms_hold_what_was_recorded(
    golden, golden_eeg, form, channels, rate_hz, tmp_path
):
    formats = golden / "prepare/formats"
    shutil.copytree(formats / form, tmp_path / "prepared")
    shutil.copy(formats / "image_metadata.npy", tmp_path)
    preparation = make_preparation(tmp_path / "prepared")
    assert isinstance(preparation, MergedPreparation)
    assert preparation.subjects == (1,)
    assert len(preparation.files(1)) == 2
    ids = {}
    for split, name in (("train", "training"), ("test", "test")):
        recording = preparation.recording(1, split)
        assert (len(recording.space.names), recording.rate_hz) == (channels, rate_hz)
        ids[split] = list(recording.pictures)
        values = arrange(recording).signal
        if form == "authors_npy":
            golden_set = np.load(golden / "prepare/eeg100_authors.npz")
            expected = golden_set[f"time_{split}"]
            assert recording.times_s[0] == pytest.approx(-0.2)
        else:
            expected = np.load(golden / f"prepare/eeg250_{split}.npz")["data"][
                :, : values.shape[1]
            ]
            assert recording.times_s[0] == pytest.approx(0)
            assert len(recording.times_s) == expected.shape[-1]
        if form == "whitened_pt":  # repetitions in the order of sessions
            full = np.load(golden / f"prepare/eeg250_{split}.npz")["data"]
            np.testing.assert_allclose(
                values.mean(1, dtype=np.float64), full.mean(1), atol=5e-3
            )
            assert arrange(recording).sessions.shape == values.shape[:2]
            assert recording.sessions.max() == golden_eeg.size.sessions - 1
        else:
            np.testing.assert_allclose(values, expected, atol=1e-12)
        assert all(
            name.startswith(f"{'training' if split == 'train' else 'test'}_images/")
            for name in recording.image_ids
        )
    table = np.load(formats / "image_metadata.npy", allow_pickle=True).item()
    stems = [name.rsplit("/", 1)[1] + ".jpg" for name in ids["train"]]
    assert stems == list(table["train_img_files"])
    assert recording.provenance["stimulus_ms"] == 100
    if form == "whitened_pt":
        # test pictures were shown twice in each of four sessions
        assert arrange(recording).sessions.tolist() == 3 * [[0, 0, 1, 1, 2, 2, 3, 3]]


def test_neurobridge_arrays_by_concept_are_in_the_order_of_paths(
    tmp_path,
):
    for is_dict in (False, True):
        check_arrays(tmp_path / str(is_dict), is_dict)


def check_arrays(tmp_path, is_dict):
    ids = write_metadata(tmp_path)
    arrays = {
        "train": make_signal(CONCEPTS, IMAGES, 4, 63, 250),
        "test": make_signal(TESTS, 1, 8, 63, 250),
    }
    for split, array in arrays.items():
        path = tmp_path / f"preprocessed_eeg/sub-01/{split}.npy"
        if is_dict:
            times = np.arange(300) / 250 - 0.2
            dump(path, {"data": array, "ch_names": list(MONTAGE), "times": times})
        else:
            save(path, array)
    preparation = make_preparation(tmp_path)
    for split, array in arrays.items():
        recording = preparation.recording(1, split)
        assert list(recording.pictures) == ids[split]
        assert recording.rate_hz == 250
        np.testing.assert_array_equal(
            arrange(recording).signal[0:9], array.reshape(-1, *array.shape[2:])
        )
        assert recording.times_s[0] == pytest.approx(0)


def make_info(**changes):
    """Return the info.json of NeuroBridge's preprocess_eeg.py, with the times of whole
    epochs and the shapes of a session.
    """
    values = {
        "ch_names": list(MONTAGE)[::-1],
        "times": (np.arange(300) / 250 - 0.2).tolist(),
        "baseline_duration": 0.2,
        "after_duration": 1.0,
        "normalization": "zscore",
        "sfreq": 250.0,
        "precision": "fp16",
        "seed": 20200220,
        "train_data_shape": [8270, 2, 63, 250],
        "test_data_shape": [200, 20, 63, 250],
    }
    return {**values, **changes}


def write_neurobridge(root, **changes):
    """Write the arrays of subject 1, and their info.json."""
    write_metadata(root)
    folder = root / "preprocessed_eeg"
    save(
        folder / "sub-01/train.npy",
        make_signal(CONCEPTS, IMAGES, 4, 63, 250, dtype="float16"),
    )
    save(folder / "sub-01/test.npy", make_signal(TESTS, 1, 8, 63, 250, dtype="float16"))
    (folder / "info.json").write_text(json.dumps(make_info(**changes)))
    return root


def test_info_of_neurobridge_gives_unit_rate_and_channels(tmp_path, recorded):
    times = (np.arange(250) / 200 - 0.05).round(3).tolist()
    for root, changes, expected in (
        (tmp_path / "old", {}, ("z-score", 250.0, 0.0)),
        (tmp_path / "white", {"normalization": "mvnn"}, ("whitened", 250.0, 0.0)),
        (tmp_path / "plain", {"normalization": "none"}, ("whitened", 250.0, 0.0)),
        (tmp_path / "slow", {"sfreq": 200, "times": times}, ("z-score", 200.0, -0.05)),
    ):
        recording = make_preparation(write_neurobridge(root, **changes)).recording(
            1, "train"
        )
        assert (
            recording.unit,
            recording.rate_hz,
            recording.times_s[0],
        ) == pytest.approx(expected)
        assert list(recording.space.names) == make_info()["ch_names"]
        assert recording.provenance["info"]["normalization"] == changes.get(
            "normalization", "zscore"
        )
    recorded(digits=5, **numbers_of_trials(recording))


def test_atm_pickles_of_meg_are_read(tmp_path):
    montage = [f"M{n}" for n in range(5)]
    for folder, concepts in (("training_images", CONCEPTS), ("test_images", TESTS)):
        for concept in range(concepts):
            for image in range(IMAGES if folder == "training_images" else 1):
                picture_name = f"{concept + 1:05d}_thing{concept}"
                path = (
                    tmp_path
                    / folder
                    / picture_name
                    / f"thing{concept}_{image:02d}s.jpg"
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"")
    train, test = (
        make_signal(CONCEPTS, IMAGES, 1, 5, 201),
        make_signal(TESTS, 1, 12, 5, 201),
    )
    times = np.arange(201) / 200
    for name, array in (("training", train), ("zs_test", test)):
        content = {"meg_data": array, "ch_names": montage, "times": times}
        dump(tmp_path / f"Preprocessed/sub-02/preprocessed_meg_{name}.pkl", content)
    preparation = make_preparation(tmp_path, "things-meg")
    assert preparation.subjects == (2,)
    assert preparation.dataset == "things-meg"
    recording = preparation.recording(2, "train")
    np.testing.assert_array_equal(recording.signal[0:9], train.reshape(-1, 5, 201))
    assert recording.image_ids[1] == "training_images/00001_thing0/thing0_01s"
    assert recording.rate_hz == 200
    assert arrange(preparation.recording(2, "test")).signal.shape == (TESTS, 12, 5, 201)
    assert recording.provenance["stimulus_ms"] == 500
    assert list(recording.space.names) == montage
    np.testing.assert_allclose(recording.times_s, times)


def test_alignvis_pickles_of_meg_trials_are_grouped_by_picture(tmp_path):
    train, test = make_signal(3, 271, 201), make_signal(5, 271, 201)
    picture_names = [
        "training_images/a/a_01b.jpg",
        "training_images/b/b_01b.jpg",
        "training_images/c/c_01b.jpg",
    ]
    test_names = [f"test_images/{name}/{name}_02s.jpg" for name in "wvwwv"]
    for split, array, images in (
        ("train", train, picture_names),
        ("test", test, test_names),
    ):
        content = {
            "meg_data": array,
            "meg_labels": np.arange(len(array)),
            "meg_images": np.array(images, object),
        }
        dump(tmp_path / f"{split}_sub3.pkl", content)
    preparation = make_preparation(tmp_path, "things-meg")
    assert preparation.subjects == (3,)
    recording = preparation.recording(3, "test")
    assert list(recording.pictures) == ["test_images/v/v_02s", "test_images/w/w_02s"]
    assert recording.counts.tolist() == [2, 3]
    np.testing.assert_array_equal(recording.signal[0:2], test[[1, 4]])
    np.testing.assert_array_equal(recording.signal[2:5], test[[0, 2, 3]])
    assert recording.rate_hz == 200
    assert recording.provenance["stimulus_ms"] == 500
    np.testing.assert_allclose(recording.times_s, np.arange(201) / 200)


def write_ubp(tmp_path):
    """Write UBP's files of subject 1."""
    for split, folder in (("train", "training_images"), ("test", "test_images")):
        pictures = [f"{folder}/00001_thing/thing_{n:02d}s.jpg" for n in range(2)]
        things_files.save_eeg(
            tmp_path,
            1,
            split,
            things_files.eeg_content(
                make_signal(2, 3, 63, 10, dtype="float16"), pictures
            ),
        )
    return tmp_path


def test_swapped_files_are_refused(tmp_path):
    train, test = make_preparation(write_ubp(tmp_path)).files(1)
    renamed_train = train.rename(train.with_name("renamed"))
    test.rename(train)
    renamed_train.rename(test)
    with pytest.raises(BrainhiveError, match=r"train\.pt: test_images/\S+ .*train"):
        make_preparation(tmp_path).recording(1, "train")


def test_missing_repeated_and_damaged_files_are_named(tmp_path):
    write_ubp(tmp_path)
    path = make_preparation(tmp_path).files(1)[0]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BrainhiveError, match=r"train\.pt "):
        make_preparation(tmp_path).recording(1, "train")
    shutil.copytree(path.parent, tmp_path / "other/sub-01")
    with pytest.raises(MissingData, match=r"subject 1:.*other/sub-01"):
        make_preparation(tmp_path).files(1)
    with pytest.raises(MissingData, match=r"sub-07/train\.pt"):
        make_preparation(tmp_path).files(7)
