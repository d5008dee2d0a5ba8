"""THINGS-EEG and THINGS-MEG in the layout in which they are distributed, with contents of a few pictures."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli import store
from brainhive_cli.datasets import _things, things_eeg, things_meg
from brainhive_cli.errors import BrainhiveError, MissingData
from brainhive_cli.pipelines._data import Signal, require_signals
from brainhive_cli.recipe import Paths
from brainhive_cli.recordings import path_of

CONCEPTS = {"train": ["00001_aardvark", "00002_abacus"], "test": ["00001_aircraft_carrier"]}
FOLDER = {"train": "training_images", "test": "test_images"}


def pictures(split: str) -> list[str]:
    return [f"{FOLDER[split]}/{concept}/{concept[6:]}_01b.jpg" for concept in CONCEPTS[split]]


def content(split: str, key: str = "eeg", channels: int = 63, **more: Any) -> dict[str, Any]:
    paths = pictures(split)
    signal = torch.randn(len(paths), 3, channels, 10, generator=torch.Generator().manual_seed(0))
    return {key: signal, "img": [[f"/somewhere/else/Image_set/{path}"] * 3 for path in paths], **more}


@pytest.fixture
def root(home: Path) -> Path:
    """The real layout of THINGS-EEG, below home."""
    root = home / "data/things-eeg"
    for split in CONCEPTS:
        for path in pictures(split):
            (root / "Image_set" / path).parent.mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(root / "Image_set" / path)
        save(root, split, content(split))
    return root


def save(root: Path, split: str, made: dict[str, Any], subject: str = "sub-01") -> Path:
    path = root / "Preprocessed_data_250Hz_whiten" / subject / f"{split}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(made, path)
    return path


def eeg(**knobs: Any) -> _things.Things:
    return things_eeg.Config(**knobs).build(Paths())


def test_signals_and_pictures_meet_by_image_id(root: Path) -> None:
    for split in ("train", "test"):
        images, recording = eeg().images(split), eeg().recording(1, split)
        assert images.image_ids == tuple(path.removesuffix(".jpg") for path in pictures(split))
        assert images.concepts == tuple(CONCEPTS[split])
        assert store.match_ids(recording.image_ids, images.image_ids, "").tolist() == list(range(len(images)))
        np.testing.assert_array_equal(recording.signal[:], content(split)["eeg"])
        assert (recording.rate_hz, recording.times_s[1], recording.unit) == (250.0, 0.004, "whitened")
        assert images.open(0).size == (4, 4)


def test_the_montage_has_oz_once_and_poz(root: Path) -> None:
    channels = eeg().recording(1, "train").channels
    assert len(set(channels)) == len(channels) == 63
    assert (channels.index("POz"), channels.index("Oz")) == (57, 61)
    assert eeg().channels is not None and len(set(eeg().channels or ())) == 17
    assert {"Oz", "POz"} <= set(eeg().channels or ()) <= set(channels)


def test_a_channel_list_in_the_file_wins(root: Path) -> None:
    names = [f"E{number}" for number in range(63)]
    save(root, "train", content("train", ch_names=names))
    assert eeg().recording(1, "train").channels == tuple(names)
    save(root, "train", content("train", ch_names=names[:5]))
    with pytest.raises(BrainhiveError, match="has 63 channels, its list names 5"):
        eeg().recording(1, "train")


def test_times_in_the_file_win(root: Path) -> None:
    save(root, "train", content("train", times=np.arange(10) / 250 - 0.2))
    assert eeg().recording(1, "train").times_s[0] == -0.2


def test_paths_without_the_image_folder_match_by_stem(root: Path) -> None:
    made = content("train")
    made["img"] = [[Path(path).name] * 3 for path in pictures("train")]
    save(root, "train", made)
    recording = eeg().recording(1, "train")
    assert list(recording.image_ids) == ["aardvark_01b", "abacus_01b"]
    assert store.match_ids(recording.image_ids, eeg().images("train").image_ids, "").tolist() == [0, 1]


def in_numpy(made: dict[str, Any]) -> dict[str, Any]:
    return {
        "eeg": made["eeg"].numpy(),
        "img": np.array(made["img"]),
        "ch_names": np.array(["x"] * 63, dtype=object),
    }


@pytest.mark.parametrize("major", [1, 2])
def test_numpy_arrays_are_plain_data(root: Path, major: int) -> None:
    path = save(root, "train", in_numpy(content("train")))
    if major == 1:  # where NumPy 1 says its maker of arrays lives
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data.replace(b"numpy._core", b"numpy.core"))
    recording = eeg().recording(1, "train")
    np.testing.assert_array_equal(recording.signal, content("train")["eeg"])
    assert recording.image_ids[0] == "training_images/00001_aardvark/aardvark_01b"


class Danger:
    """What a pickle may hold and no signal needs."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


def test_python_objects_are_refused_unless_trusted(root: Path, home: Path) -> None:
    path = save(root, "train", content("train", other=Danger()))
    with pytest.raises(BrainhiveError, match="holds Python objects that could run code") as caught:
        eeg().recording(1, "train")
    assert caught.value.hint.endswith("dataset.trust_pickle=true") and not Path("executed").exists()
    assert eeg(trust_pickle=True).recording(1, "train").signal.shape[0] == 2
    assert path.is_file() and Path("executed").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_file_cut_short_is_one_clear_error(root: Path, share: float) -> None:
    path = save(root, "train", content("train"))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BrainhiveError, match=r"train\.pt cannot be read, or is cut short") as caught:
        eeg().recording(1, "train")
    assert "\n" not in caught.value.what


@pytest.mark.parametrize(
    ("made", "what"),
    [
        ({"data": torch.zeros(2, 3, 63, 10)}, r"has keys \['data'\], not 'eeg' and 'img'"),
        ({**content("train"), "eeg": torch.zeros(2, 63, 10)}, r"signals \[2, 63, 10\] for 2 pictures"),
        ({**content("train"), "eeg": torch.zeros(9, 3, 63, 10)}, r"signals \[9, 3, 63, 10\] for 2 pictures"),
    ],
)
def test_a_file_of_another_layout_says_what_it_has(root: Path, made: dict[str, Any], what: str) -> None:
    save(root, "train", made)
    with pytest.raises(BrainhiveError, match=what):
        eeg().recording(1, "train")


def test_missing_data_say_what_is_expected_where_and_how_to_get_it(home: Path) -> None:
    with pytest.raises(
        MissingData, match=r"no pictures in .*data/things-eeg/\*\*/training_images/<concept>"
    ) as caught:
        eeg().images("train")
    assert caught.value.hint.startswith("hf download ")
    with pytest.raises(MissingData, match=r"no recording .*Preprocessed_data\*/sub-07/test\.pt"):
        eeg().recording(7, "test")
    with pytest.raises(MissingData, match="has no split 'validation'"):
        eeg().images("validation")


def test_two_preparations_must_be_told_apart(root: Path) -> None:
    (root / "Preprocessed_data_100Hz/sub-01").mkdir(parents=True)
    torch.save(content("train"), root / "Preprocessed_data_100Hz/sub-01/train.pt")
    with pytest.raises(MissingData, match="Preprocessed_data_100Hz, Preprocessed_data_250Hz_whiten"):
        eeg().recording(1, "train")
    assert eeg(signals="Preprocessed_data_250Hz_whiten").recording(1, "train").signal.shape[1] == 3


def test_meg_is_read_alike(home: Path) -> None:
    save(home / "elsewhere", "test", content("test", "meg", 271), "sub-04")
    recording = things_meg.Config(root=str(home / "elsewhere")).build(Paths()).recording(4, "test")
    assert len(set(recording.channels)) == 271 and recording.channels[0] == "MEG001"
    assert (recording.rate_hz, recording.unit, recording.times_s[1]) == (200.0, "T", 0.005)


def test_signals_that_are_not_there_are_told_before_any_is_made(root: Path, home: Path) -> None:
    with pytest.raises(MissingData, match=r"sub-02/train\.pt, nor of 1 more") as caught:
        require_signals(eeg(), Paths(), Signal(), [1, 2, 3])
    assert caught.value.hint.endswith("; or those that are there: --subjects 1")

    require_signals(eeg(), Paths(), Signal(), [1])
    for subject in (2, 3):
        made = path_of(home / "signals", "things-eeg", "default", subject)
        made.parent.mkdir(parents=True, exist_ok=True)
        made.touch()
    require_signals(eeg(), Paths(), Signal(), [1, 2, 3])  # what was prepared needs no recording
