"""THINGS-EEG and THINGS-MEG in the distributed layout, with a few pictures."""

import pickle
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.files.inputs import require_inputs
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.files import ids
from brainhive_cli.data.published import things_eeg
from brainhive_cli.data.published.things_eeg import MONTAGE
from brainhive_cli.data.signals.selection import Signal
from brainhive_cli.data.stores.recordings import Recordings
from tests.publishers import things_files
from tests.worlds.array_trials import arrange

CONCEPTS = {
    "train": ["00001_aardvark", "00002_abacus"],
    "test": ["00001_aircraft_carrier"],
}
FOLDER = {"train": "training_images", "test": "test_images"}


def list_paths(split):
    return [
        f"{FOLDER[split]}/{concept}/{concept[6:]}_01b.jpg"
        for concept in CONCEPTS[split]
    ]


def make_signal(split, channels=63, samples=10):
    shape = len(CONCEPTS[split]), 3, channels, samples
    return np.random.default_rng(0).normal(size=shape).astype(np.float16)


def make_content(split, **changes):
    return things_files.eeg_content(make_signal(split), list_paths(split), **changes)


@pytest.fixture
def root(home):
    """Write THINGS-EEG in the distributed layout, below home."""
    root = home / "data/things-eeg"
    for split in CONCEPTS:
        write_pictures(root / "Image_set", split)
        things_files.save_eeg(root, 1, split, make_content(split))
    return root


def write_pictures(folder, split, number=4):
    for path in list_paths(split):
        (folder / path).parent.mkdir(parents=True)
        Image.new("RGB", (number, number)).save(folder / path)


def save(root, split, content):
    return things_files.save_eeg(root, 1, split, content)


def make_eeg(**keys):
    return things_eeg.Distributed(**keys).build(Paths())


def test_signals_and_pictures_meet_by_image_id(root):
    for split in ("train", "test"):
        images = make_eeg().images(split)
        recording = make_eeg().recording(1, split)
        assert images.image_ids == tuple(
            path.removesuffix(".jpg") for path in list_paths(split)
        )
        assert images.concepts == tuple(CONCEPTS[split])
        assert ids.match_ids(recording.pictures, images.image_ids, "").tolist() == list(
            range(len(images))
        )
        np.testing.assert_array_equal(arrange(recording).signal, make_signal(split))
        assert (recording.rate_hz, recording.times_s[1]) == (250.0, 0.004)
        assert recording.unit == "whitened"
        assert images.open(0).size == (4, 4)


def test_a_caption_names_the_concept_as_its_folder_does(
    root,
):
    (root / "Image_set/test_images/ice_9_cream").mkdir()
    Image.new("RGB", (4, 4)).save(root / "Image_set/test_images/ice_9_cream/one.jpg")
    captions = {}
    for split in ("train", "test"):
        # worker processes get pickled pictures
        images = pickle.loads(pickle.dumps(make_eeg().images(split)))
        captions[split] = [images.get_captions(row) for row in range(len(images))]

    assert captions["train"] == [
        ["This picture is aardvark"],
        ["This picture is abacus"],
    ]
    assert captions["test"] == [
        ["This picture is aircraft_carrier"],
        ["This picture is ice_9_cream"],
    ]


def test_published_files_give_signals_times_and_pictures(
    golden,
):
    root = golden / "prepare/formats/whitened_pt"
    expected = {
        split: np.load(golden / f"prepare/eeg250_{split}.npz")["data"]
        for split in CONCEPTS
    }
    for split, folder in (("train", "training_images"), ("test", "test_images")):
        recording = make_eeg(root=str(root)).recording(1, split)
        assert isinstance(recording.signal, np.memmap)
        assert recording.signal.dtype == np.float16
        signal = arrange(recording).signal
        assert signal.shape == expected[split].shape
        # compare means, as repetitions come in another order
        np.testing.assert_allclose(
            signal.mean(1, np.float32), expected[split].mean(1), atol=2e-3
        )
        np.testing.assert_allclose(
            recording.times_s, np.arange(expected[split].shape[-1]) / 250, atol=1e-9
        )
        assert recording.image_ids[0].startswith(f"{folder}/00001_")
        assert recording.space.names == MONTAGE


def test_bare_pickles_named_npy_are_in_the_order_of_the_pictures(golden, home):
    formats = golden / "prepare/formats"
    root = home / "data/things-eeg"
    index = np.load(formats / "image_metadata.npy", allow_pickle=True).item()
    for split, folder in (("train", "train_images"), ("test", "test_images")):
        for concept, name in zip(
            index[f"{split}_img_concepts"], index[f"{split}_img_files"], strict=True
        ):
            (root / folder / concept).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(root / folder / concept / name)
    (root / "Preprocessed_data_250Hz").symlink_to(
        formats / "bare_pickle/Preprocessed_data_250Hz"
    )
    require_inputs(Recordings(make_eeg(), Paths(), Signal()).list_inputs([1]))
    for split in CONCEPTS:
        recording = make_eeg().recording(1, split)
        expected = make_eeg(root=str(formats / "whitened_pt")).recording(1, split)
        assert isinstance(recording.signal, np.memmap)
        assert recording.signal.dtype == np.float64
        assert list(recording.pictures) == list(expected.pictures)
        assert recording.times_s[0] == pytest.approx(0)

    # a missing folder of pictures is noticed
    shape = list(arrange(make_eeg().recording(1, "train")).signal.shape)
    concepts = list(index["train_img_concepts"])
    shutil.rmtree(root / "train_images" / concepts[0])
    n_left = shape[0] - concepts.count(concepts[0])
    numbers = rf"{re.escape(str(shape))}.* {n_left} .*{shape[0]}"
    with pytest.raises(BrainhiveError, match=numbers):
        make_eeg().recording(1, "train")


def test_two_preparations_must_be_told_apart(root):
    things_files.save(
        make_content("train"), root / "Preprocessed_data_100Hz/sub-01/train.pt"
    )
    with pytest.raises(
        MissingData, match="Preprocessed_data_100Hz, Preprocessed_data_250Hz_whiten"
    ):
        make_eeg().recording(1, "train")
    assert (
        make_eeg(signals="Preprocessed_data_250Hz_whiten")
        .recording(1, "train")
        .max_repetitions
        == 3
    )


def make_meg(**keys):
    return parts.load("datasets", "things-meg").Config(**keys).build(Paths())


def test_meg_is_read_as_it_is_published(home):
    things_files.save_meg(
        home / "elsewhere",
        4,
        "train",
        things_files.meg_content(make_signal("train", 271, 201), list_paths("train")),
    )
    recording = make_meg(root=str(home / "elsewhere")).recording(4, "train")
    assert isinstance(recording.signal, np.memmap)
    assert recording.signal.dtype == np.float16
    assert len(set(recording.space.names)) == 271
    assert recording.space.names[0] == "MEG001"
    assert (recording.rate_hz, recording.unit, recording.times_s[1]) == (
        200.0,
        "z-score",
        0.005,
    )
    assert list(recording.pictures) == [
        path.removesuffix(".jpg") for path in list_paths("train")
    ]


def test_lists_that_do_not_fit_the_signal_are_refused(root):
    times_s = np.arange(-20, 41) / 250
    paths = np.array([["a.jpg"] * 3, ["a.jpg", "b.jpg", "a.jpg"]])
    for changes, facts in (
        ({"times": times_s}, r"\[6, 63, 10\].* 61 times.* 10"),
        ({"ch_names": ["Oz", "POz"]}, "2 channels.* 63"),
        ({"img": paths}, "row 1 .*'img'"),
    ):
        path = save(root, "train", {**make_content("train"), **changes})
        with pytest.raises(BrainhiveError, match=facts) as caught:
            make_eeg().recording(1, "train")
        assert caught.value.message.startswith(str(path))
    save(root, "train", {"eeg": np.zeros((2, 3, 63, 10))})
    with pytest.raises(BrainhiveError, match=r"\['eeg'\].* eeg and img"):
        make_eeg().recording(1, "train")


def test_missing_files_are_named_with_the_command_to_get_them(home, monkeypatch):
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    monkeypatch.setenv("BRAINHIVE_HOME", "..")
    expected = rf"{home}/data/things-eeg/\*\*/training_images/<concept>"
    with pytest.raises(MissingData, match=expected) as caught:
        make_eeg().images("train")
    assert caught.value.hint == "brainhive fetch things-eeg"
    with pytest.raises(MissingData, match=r"Preprocessed_data_\*/sub-07/test\.pt"):
        make_eeg().recording(7, "test")
