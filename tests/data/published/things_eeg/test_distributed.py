"""THINGS-EEG and THINGS-MEG in the layout in which they are distributed, with contents
of a few pictures.
"""

import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from brainhive_cli.core import parts
from brainhive_cli.core.command import require_inputs
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.files import ids
from brainhive_cli.data.published import things_eeg
from brainhive_cli.data.published.things_eeg import MONTAGE
from brainhive_cli.data.signals.selection import Signal
from brainhive_cli.data.stores.recordings import Recordings
from tests.publishers import things_files

CONCEPTS = {
    "train": ["00001_aardvark", "00002_abacus"],
    "test": ["00001_aircraft_carrier"],
}
FOLDER = {"train": "training_images", "test": "test_images"}


def pictures(split: str) -> list[str]:
    return [
        f"{FOLDER[split]}/{concept}/{concept[6:]}_01b.jpg"
        for concept in CONCEPTS[split]
    ]


def signal(split: str, channels: int = 63, samples: int = 10) -> NDArray[np.float16]:
    shape = len(CONCEPTS[split]), 3, channels, samples
    return np.random.default_rng(0).normal(size=shape).astype(np.float16)


def content(split: str, **changes: Any) -> dict[str, Any]:
    return things_files.eeg_content(signal(split), pictures(split), **changes)


@pytest.fixture
def root(home: Path) -> Path:
    """The real layout of THINGS-EEG, below home."""
    root = home / "data/things-eeg"
    for split in CONCEPTS:
        paint(root / "Image_set", split)
        things_files.save_eeg(root, 1, split, content(split))
    return root


def paint(folder: Path, split: str, side: int = 4) -> None:
    for path in pictures(split):
        (folder / path).parent.mkdir(parents=True)
        Image.new("RGB", (side, side)).save(folder / path)


def save(root: Path, split: str, made: dict[str, Any]) -> Path:
    return things_files.save_eeg(root, 1, split, made)


def eeg(**knobs: Any) -> Dataset:
    return things_eeg.Distributed(**knobs).build(Paths())


def test_signals_and_pictures_meet_by_image_id(root: Path) -> None:
    for split in ("train", "test"):
        images, recording = eeg().images(split), eeg().recording(1, split)
        assert images.image_ids == tuple(
            path.removesuffix(".jpg") for path in pictures(split)
        )
        assert images.concepts == tuple(CONCEPTS[split])
        assert ids.match_ids(
            recording.image_ids, images.image_ids, ""
        ).tolist() == list(range(len(images)))
        np.testing.assert_array_equal(recording.signal, signal(split))
        assert (recording.rate_hz, recording.times_s[1], recording.unit) == (
            250.0,
            0.004,
            "whitened",
        )
        assert images.open(0).size == (4, 4)


def test_a_picture_has_one_caption_that_names_its_concept_as_its_folder_does(
    root: Path,
) -> None:
    (root / "Image_set/test_images/ice_9_cream").mkdir()
    Image.new("RGB", (4, 4)).save(root / "Image_set/test_images/ice_9_cream/one.jpg")
    captions = {
        split: [
            pickle.loads(pickle.dumps(images)).captions_of(row)
            for row in range(len(images))
        ]
        for split, images in (
            (split, eeg().images(split)) for split in ("train", "test")
        )
    }

    assert captions["train"] == [
        ["This picture is aardvark"],
        ["This picture is abacus"],
    ]
    assert captions["test"] == [
        ["This picture is aircraft_carrier"],
        ["This picture is ice_9_cream"],
    ]


def test_the_published_files_give_samples_times_and_pictures_that_belong_together(
    golden: Path,
) -> None:
    root = golden / "prepare/formats/whitened_pt"
    expected = {
        split: np.load(golden / f"prepare/eeg250_{split}.npz")["data"]
        for split in CONCEPTS
    }
    for split, folder in (("train", "training_images"), ("test", "test_images")):
        found = eeg(root=str(root)).recording(1, split)
        assert isinstance(found.signal, np.memmap) and found.signal.dtype == np.float16
        assert found.signal.shape == expected[split].shape
        # the means over repetitions, which come in another order
        np.testing.assert_allclose(
            found.signal.mean(1, np.float32), expected[split].mean(1), atol=2e-3
        )
        np.testing.assert_allclose(
            found.times_s, np.arange(expected[split].shape[-1]) / 250, atol=1e-9
        )
        assert (
            found.image_ids[0].startswith(f"{folder}/00001_")
            and found.space.names == MONTAGE
        )


def test_bare_pickles_named_npy_are_in_the_order_of_the_pictures(
    golden: Path, home: Path
) -> None:
    formats, root = golden / "prepare/formats", home / "data/things-eeg"
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
    require_inputs(Recordings(eeg(), Paths(), Signal()).inputs([1]))
    for split in CONCEPTS:
        found, expected = (
            eeg().recording(1, split),
            eeg(root=str(formats / "whitened_pt")).recording(1, split),
        )
        assert isinstance(found.signal, np.memmap) and found.signal.dtype == np.float64
        assert list(found.image_ids) == list(expected.image_ids) and found.times_s[
            0
        ] == pytest.approx(0)
    shape, concepts = (
        list(eeg().recording(1, "train").signal.shape),
        list(index["train_img_concepts"]),
    )
    shutil.rmtree(root / "train_images" / concepts[0])
    left = shape[0] - concepts.count(concepts[0])
    what = re.escape(f"signals {shape} come with {left} image ids, not {shape[0]}")
    with pytest.raises(BrainhiveError, match=what):
        eeg().recording(1, "train")


def test_two_preparations_must_be_told_apart(root: Path) -> None:
    things_files.save(
        content("train"), root / "Preprocessed_data_100Hz/sub-01/train.pt"
    )
    with pytest.raises(
        MissingData, match="Preprocessed_data_100Hz, Preprocessed_data_250Hz_whiten"
    ):
        eeg().recording(1, "train")
    assert (
        eeg(signals="Preprocessed_data_250Hz_whiten")
        .recording(1, "train")
        .signal.shape[1]
        == 3
    )


def meg(**knobs: Any) -> Dataset:
    return parts.load("datasets", "things-meg").Config(**knobs).build(Paths())


def test_meg_is_read_as_it_is_published(home: Path) -> None:
    things_files.save_meg(
        home / "elsewhere",
        4,
        "train",
        things_files.meg_content(signal("train", 271, 201), pictures("train")),
    )
    recording = meg(root=str(home / "elsewhere")).recording(4, "train")
    assert (
        isinstance(recording.signal, np.memmap) and recording.signal.dtype == np.float16
    )
    assert (
        len(set(recording.space.names)) == 271 and recording.space.names[0] == "MEG001"
    )
    assert (recording.rate_hz, recording.unit, recording.times_s[1]) == (
        200.0,
        "z-score",
        0.005,
    )
    assert list(recording.image_ids) == [
        path.removesuffix(".jpg") for path in pictures("train")
    ]


def test_an_axis_that_does_not_fit_its_list_is_refused(root: Path) -> None:
    for changes, what in (
        (
            {"times": np.arange(-20, 41) / 250},
            r"\[2, 3, 63, 10\] come with 61 times, not 10",
        ),
        ({"ch_names": ["Oz", "POz"]}, "come with 2 channels, not 63"),
        (
            {"img": np.array([["a.jpg"] * 3, ["a.jpg", "b.jpg", "a.jpg"]])},
            "row 1 are of several pictures",
        ),
    ):
        path = save(root, "train", {**content("train"), **changes})
        with pytest.raises(BrainhiveError, match=what) as caught:
            eeg().recording(1, "train")
        assert caught.value.message.startswith(str(path))
    save(root, "train", {"eeg": np.zeros((2, 3, 63, 10))})
    with pytest.raises(
        BrainhiveError, match=r"has keys \['eeg'\], not a dict of eeg and img"
    ):
        eeg().recording(1, "train")


def test_missing_data_say_what_is_expected_where_and_how_to_get_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    monkeypatch.setenv("BRAINHIVE_HOME", "..")
    expected = rf"no pictures in {home}/data/things-eeg/\*\*/training_images/<concept>"
    with pytest.raises(MissingData, match=expected) as caught:
        eeg().images("train")
    assert caught.value.hint == "brainhive fetch things-eeg"
    with pytest.raises(
        MissingData, match=r"no recording .*Preprocessed_data_\*/sub-07/test\.pt"
    ):
        eeg().recording(7, "test")
