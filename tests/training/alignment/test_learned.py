"""What a model learned from stands in its folder, and is not lost when another begins
from it.
"""

import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from layouts import one_token, spec_of
from safetensors.torch import load_file, save_file

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import (
    SELECTED_ON_TEST,
    TRAINED_ON_SIMULATED,
    UNKNOWN_HISTORY,
    UNKNOWN_PICTURES,
    UNKNOWN_SELECTION,
)
from brainhive_cli.data.signals.normalisations import Normaliser
from brainhive_cli.training.alignment import model as aligners
from brainhive_cli.training.alignment.learned import FILE, Learned, LearnedPictures
from brainhive_cli.training.alignment.model import Aligner

LAYOUT = one_token(spec_of(("Oz", "Pz"), 10, (1, 2)), 8, {"e": 4})
IDS = ["train/cat/1", "train/cat/2", "train/dog/1"]
MEAN = Normaliser(np.zeros((2, 1), np.float32), np.ones((2, 1), np.float32))
OTHER = Normaliser(np.ones((2, 1), np.float32), np.ones((2, 1), np.float32))
KEPT = {
    "normalisers": {1: MEAN, 2: OTHER},
    "normaliser": MEAN,
    "whiteners": {2: np.arange(8, dtype=np.float32).reshape(2, 2, 2)},
    "recorded_channels": ("Oz", "P7"),
}


def known_by(*digests: int) -> np.ndarray:
    """What pixels without a perceptual hash are known by: [N, 25]."""
    return np.array([[digest, *[0] * 24] for digest in digests], np.uint64)


def learned(dataset: str = "faces", ids: list[str] = IDS, **fields: object) -> Learned:
    given = {
        "selection": "validation",
        "dataset": dataset,
        "recordings": "eeg",
        "people": {"eeg": (1, 2)},
    }
    given = given | {"has_all_subjects": True} | fields
    pixels = known_by(*(zlib.crc32(image_id.encode()) for image_id in ids))
    return Learned(pictures=LearnedPictures.of(dataset, ids, pixels), **given)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Aligner(LAYOUT, learned=learned(**KEPT)).save(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_folder_says_what_its_model_learned_from(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())

    assert config["format"] == 7
    assert (
        config["learned"]["selection"] == "validation"
        and config["learned"]["dataset"] == "faces"
    )
    assert (
        config["learned"]["people"] == {"eeg": [1, 2]}
        and config["learned"]["pictures"]["count"] == 3
    )
    for found in (aligners.load(folder).learned, aligners.learned_in(folder)):
        assert found.subjects == (1, 2) and found.recorded_channels == ("Oz", "P7")
        assert [*found.normalisers] == [1, 2] and found.normaliser_of(
            2
        ).digest == OTHER.digest
        assert (
            found.normaliser_of(3).digest
            == found.normaliser_of(1).digest
            == MEAN.digest
        )
        np.testing.assert_array_equal(found.whiteners[2], KEPT["whiteners"][2])
        assert found.pictures.contain(
            "faces", ["train/dog/1", "test/dog/1"]
        ).tolist() == [True, False]
        # another data set's are other pictures
        assert not found.pictures.contain("other", IDS).any()
        assert found.caveats == []


def test_a_history_of_another_model_or_format_or_without_one_of_its_facts_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    path = folder / "config.json"
    sound = json.loads(path.read_text())
    facts = {
        name: fact for name, fact in sound["learned"].items() if name != "is_simulated"
    }
    for config, words in (
        ({**sound, "learned": facts}, r"learned\.is_simulated, which it must have"),
        ({**sound, "format": 6}, r"config\.json: format: .*7, got 6"),
    ):
        path.write_text(json.dumps(config))
        with pytest.raises(BrainhiveError, match=words) as caught:
            aligners.load(folder)
    assert caught.value.hint == "run train-align --again, or copy it again"

    path.write_text(json.dumps(sound))
    Aligner(LAYOUT, learned=learned(ids=["other"])).save(tmp_path / "other")
    (folder / FILE).write_bytes((tmp_path / "other" / FILE).read_bytes())
    with pytest.raises(BrainhiveError, match="does not belong to its config"):
        aligners.load(folder)


def test_pictures_are_known_again_by_their_pixels_under_any_name(folder: Path) -> None:
    found = aligners.load(folder).learned.pictures
    copy, other = (
        known_by(zlib.crc32(name)) for name in (b"train/cat/1", b"test/cat/1")
    )

    assert found.contain("others", ["test/new"], copy).all()
    assert not found.contain("others", ["test/new"], other).any()
    assert not found.contain("others", ["test/new"]).any()
    # a file that was changed since
    assert found.contain("faces", ["train/cat/2"], other).all()


def test_a_history_is_as_good_as_the_worst_that_it_began_from() -> None:
    for before, own, both in (
        ("test", "last epoch", [SELECTED_ON_TEST]),
        ("last epoch", "test", [SELECTED_ON_TEST]),
        ("", "validation", [UNKNOWN_SELECTION]),
        ("last epoch", "validation", []),
    ):
        assert learned(selection=own).after(learned(selection=before)).caveats == both
    unknown = replace(
        learned("drawn", ["a"]), pictures=LearnedPictures.of("drawn", ["a"])
    )
    assert learned().after(unknown).caveats == unknown.caveats == [UNKNOWN_PICTURES]
    assert learned().after(Learned()).caveats == Learned().caveats == [UNKNOWN_HISTORY]
    assert learned(selection="test").after(Learned()).caveats == [
        UNKNOWN_HISTORY,
        SELECTED_ON_TEST,
    ]


@pytest.mark.parametrize("saved_by", ["another program", "another training"])
def test_changed_weights_beside_a_history_have_an_unknown_one(
    folder: Path, tmp_path: Path, saved_by: str
) -> None:
    """Issue 60, row 6: weights that learned from test trials kept the old history, and
    had a top-1 of 1.00 of 30 without a caveat.
    """
    file = folder / "model.safetensors"
    assert Learned.read_next_to(file).caveats == []
    if saved_by == "another program":
        save_file(load_file(file), file)
    else:
        Aligner(LAYOUT, learned=learned()).save(tmp_path / "other")
        file.write_bytes((tmp_path / "other" / file.name).read_bytes())

    for found in (
        aligners.load(folder).learned,
        aligners.learned_in(folder),
        Learned.read_next_to(file),
    ):
        assert UNKNOWN_HISTORY in found.caveats and found.subjects == (1, 2)


def test_a_child_says_of_each_tested_subject_whether_it_is_new() -> None:
    """Issue 60, row 12: a child of a run on subject 3, trained on 1 and 2 and tested on
    3, read as a new model does.
    """
    child = learned().after(learned(people={"eeg": (3,)}))

    known, new = "trained on subject", "new subject"
    assert child.describe_subjects("eeg", [3]) == f"{known} 3"
    assert child.describe_subjects("eeg", [2, 4, 3]) == f"{known} 2, 3; {new} 4"
    assert child.describe_subjects("meg", [3]) == f"{new} 3"
    assert new not in child.after(Learned()).describe_subjects("eeg", [4])


def test_subjects_pictures_and_simulation_are_inherited() -> None:
    before = learned(
        "drawn", ["a"], people={"eeg": (1, 3), "meg": (4,)}, is_simulated=True
    )

    found = learned(people={"eeg": (2,)}).after(before)

    assert found.people == {"eeg": (1, 2, 3), "meg": (4,)} and found.subjects == (
        1,
        2,
        3,
    )
    assert found.dataset == "drawn + faces"
    assert (
        found.pictures.contain("drawn", ["a"]).all()
        and found.pictures.contain("faces", IDS).all()
    )
    assert found.caveats == [TRAINED_ON_SIMULATED]
    assert replace(found, selection="").caveats == [
        TRAINED_ON_SIMULATED,
        UNKNOWN_SELECTION,
    ]
