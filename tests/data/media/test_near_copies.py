"""Near-copies of pictures: found after edits that keep the picture, silent among
pictures alike by nature.
"""

import importlib
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.data.datasets import Clip
from brainhive_cli.data.media import near_copies
from brainhive_cli.data.media.decoding import digest_pixels
from brainhive_cli.data.media.near_copies import (
    confirm_near_copy,
    find_candidates,
    hash_picture,
)
from brainhive_cli.demo import pictures as demo

ROOT = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("BRAINHIVE_SHARED") or ROOT.parent / "shared")
Pictures = list[Image.Image]


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    """The benchmark's sets of pictures and edits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module("near_copies")


@pytest.fixture(scope="module")
def drawn() -> Pictures:
    """12 training pictures of the demo, of 12 concepts, at 128 px."""
    return [demo.draw(scene, 128) for scene in demo.scenes("train")[:72:6]]


def hash_all(pictures: Pictures) -> np.ndarray:
    return np.array([hash_picture(picture) for picture in pictures])


def judge(tested: Pictures, learned: Pictures) -> dict[tuple[int, int], str]:
    """Verdicts of all candidates that are confirmed, by tested and learned row."""
    verdicts = {
        (tested_row, learned_row): confirm_near_copy(
            tested[tested_row], learned[learned_row]
        )
        for tested_row, learned_row, _ in find_candidates(
            hash_all(tested), hash_all(learned)
        )
    }
    return {rows: verdict for rows, verdict in verdicts.items() if verdict}


def read_set(simulation: ModuleType, name: str) -> Pictures:
    needs_files = name not in ("demo", "gratings", "gabors")
    if needs_files and not SHARED.is_dir():
        pytest.skip(f"no shared folder at {SHARED}")
    return list(simulation.SETS[name]())


COPIES = ("JPEG 75", "palette of 64", "half size", "one pixel")
PREPARED = (
    "centre square",
    "20 % off the left",
    "letterbox",
    "aperture",
    "grey",
    "equalised, square",
)
CROPPED = "5 % off, size, JPEG"


def test_an_edited_picture_is_a_copy_of_its_original_and_of_no_other(simulation, drawn):
    for edit in COPIES:
        edited = [simulation.COPIES[edit](picture) for picture in drawn]
        # exact digests miss all
        assert not {*map(digest_pixels, edited)} & {*map(digest_pixels, drawn)}
        assert judge(edited, drawn) == {
            (row, row): "copy" for row in range(len(drawn))
        }, edit


def test_photographs_prepared_as_stimuli_are_copies_whichever_of_the_two_was_learned(
    simulation,
):
    """Issue 60, row 9: 60 of 60 central squares of 4:3 photographs were not noticed."""
    photos = read_set(simulation, "4:3 photos")[:8]
    for edit in PREPARED:
        edited = [simulation.PREPARED[edit](photo) for photo in photos[:3]]
        expected = {(row, row) for row in range(3)}
        assert {*judge(edited, photos)} == {*judge(photos, edited)} == expected, edit
        assert {*judge(edited, photos).values()} <= {*near_copies.COPIES}


def test_a_mirrored_picture_is_called_mirrored(simulation, drawn):
    edited = [simulation.MIRRORED["mirrored, JPEG 75"](picture) for picture in drawn]
    assert judge(edited, drawn) == {(row, row): "mirrored" for row in range(len(drawn))}


def test_a_cropped_photograph_is_called_cropped_whichever_of_the_two_was_learned(
    simulation,
):
    photos = read_set(simulation, "photos")[:8]
    edited = [simulation.CROPPED[CROPPED](photo) for photo in photos]
    expected = {(row, row): "cropped" for row in range(8)}
    assert judge(edited, photos) == expected
    assert judge(photos, edited) == expected


@pytest.mark.parametrize("name", ["photos", "rsa92"])
def test_few_different_photographs_are_candidates_and_none_are_copies(simulation, name):
    pictures = read_set(simulation, name)
    candidates = find_candidates(hash_all(pictures), hash_all(pictures))
    different = [(row, learned) for row, learned, _ in candidates if row != learned]
    assert len(different) <= len(pictures) ** 2 / 1000
    assert not any(
        confirm_near_copy(pictures[row], pictures[learned])
        for row, learned in different
    )


def test_handwritten_digits_are_alike_and_no_copies(simulation):
    digits = read_set(simulation, "digits")
    tested = [digit for row, digit in enumerate(digits) if row % 50 >= 40]
    learned = [digit for row, digit in enumerate(digits) if row % 50 < 40]
    candidates = find_candidates(hash_all(tested), hash_all(learned))
    assert candidates  # their hashes are near: pixels decide
    assert judge(tested, learned) == {}
    assert judge(
        [simulation.compress(digit, 75) for digit in learned[:5]], learned
    ) == {(row, row): "copy" for row in range(5)}


def test_constant_pictures_have_no_hash():
    mode = "RGB"
    constant = hash_all(
        [Image.new(mode, (50, 50), level) for level in ("white", "black", "gray")]
    )
    assert not constant.any()
    assert find_candidates(constant, constant) == []
    assert (
        confirm_near_copy(
            Image.new(mode, (50, 50), "red"), Image.new(mode, (50, 50), "blue")
        )
        == ""
    )


def test_a_clip_is_known_by_its_middle_frame(simulation, drawn):
    frames = [drawn[row : row + 3] for row in range(0, 9, 3)]
    clips = [
        Clip(np.stack([np.asarray(frame) for frame in clip]), 3.0) for clip in frames
    ]
    compressed = [simulation.compress(clip[1], 75) for clip in frames]
    candidates = find_candidates(hash_all(clips), hash_all(compressed))
    assert [(tested, learned) for tested, learned, _ in candidates] == [
        (0, 0),
        (1, 1),
        (2, 2),
    ]
    assert confirm_near_copy(clips[0], compressed[0]) == "copy"
    assert confirm_near_copy(clips[0], frames[0][0]) == ""
