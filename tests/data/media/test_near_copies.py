"""Near-copies of pictures: found after edits that keep the picture, silent among pictures alike by nature."""

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
from brainhive_cli.data.media.near_copies import confirm_near_copy, find_candidates, hash_picture
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
        (tested_row, learned_row): confirm_near_copy(tested[tested_row], learned[learned_row])
        for tested_row, learned_row, _ in find_candidates(hash_all(tested), hash_all(learned))
    }
    return {rows: verdict for rows, verdict in verdicts.items() if verdict}


def read_set(simulation: ModuleType, name: str) -> Pictures:
    needs_files = name not in ("demo", "gratings", "gabors")
    if needs_files and not SHARED.is_dir():
        pytest.skip(f"no shared folder at {SHARED}")
    return list(simulation.SETS[name]())


COPIES = (
    *("JPEG 75", "10 % brighter", "10 % darker", "palette of 64"),
    *("half size", "double size", "one pixel"),
)
PREPARED = (
    *(
        "centre square",
        "centre of the square",
        "20 % off the left",
        "20 % off the bottom",
        "letterbox",
        "padded",
    ),
    *("aperture", "elliptic aperture", "blurred", "grey", "equalised", "equalised, square"),
)
CROPPED = ("2 % off each side", "5 % off each side", "5 % off, size, JPEG")


@pytest.mark.parametrize("edit", COPIES)
def test_an_edited_picture_is_a_copy_of_its_original_and_of_no_other(simulation, drawn, edit):
    edited = [simulation.COPIES[edit](picture) for picture in drawn]
    assert not {*map(digest_pixels, edited)} & {*map(digest_pixels, drawn)}  # exact digests miss all of them
    assert judge(edited, drawn) == {(row, row): "copy" for row in range(len(drawn))}


@pytest.mark.parametrize("edit", COPIES)
def test_edited_photographs_are_copies(simulation, edit):
    photos = read_set(simulation, "photos")
    edited = [simulation.COPIES[edit](photo) for photo in photos[:12]]
    assert judge(edited, photos) == {(row, row): "copy" for row in range(12)}


@pytest.mark.parametrize("edit", PREPARED)
def test_photographs_prepared_as_stimuli_are_copies_whichever_of_the_two_was_learned(simulation, edit):
    photos = read_set(simulation, "4:3 photos")[:24]
    edited = [simulation.PREPARED[edit](photo) for photo in photos[:4]]
    expected = {(row, row) for row in range(4)}
    assert {*judge(edited, photos)} == {*judge(photos, edited)} == expected
    assert {*judge(edited, photos).values()} <= {*near_copies.COPIES}


def test_an_original_is_a_copy_of_what_was_learned_from_an_edited_one(simulation, drawn):
    small = [simulation.resize(picture, 0.5) for picture in drawn]
    assert judge(drawn, small) == {(row, row): "copy" for row in range(len(drawn))}


@pytest.mark.parametrize("edit", ["mirrored", "mirrored, JPEG 75"])
def test_a_mirrored_picture_is_called_mirrored(simulation, drawn, edit):
    edited = [simulation.MIRRORED[edit](picture) for picture in drawn]
    assert judge(edited, drawn) == {(row, row): "mirrored" for row in range(len(drawn))}


def test_a_mirrored_picture_costs_no_second_hash(simulation, drawn):
    mirrored = [simulation.mirror(picture) for picture in drawn]
    candidates = find_candidates(hash_all(mirrored), hash_all(drawn), max_distance=1)
    assert [(candidate.tested, candidate.learned) for candidate in candidates] == [
        (row, row) for row in range(len(drawn))
    ]


@pytest.mark.parametrize("edit", CROPPED)
def test_a_cropped_photograph_is_called_cropped_whichever_of_the_two_was_learned(simulation, edit):
    photos = read_set(simulation, "photos")[:8]
    edited = [simulation.CROPPED[edit](photo) for photo in photos]
    expected = {(row, row): "cropped" for row in range(8)}
    assert judge(edited, photos) == expected
    assert judge(photos, edited) == expected


def test_a_crop_of_one_side_is_confirmed_by_moving_the_edges(simulation, drawn):
    edited = [simulation.CROPPED["4 % off the left"](picture) for picture in drawn[:8]]
    verdicts = [confirm_near_copy(*pair) for pair in zip(edited, drawn[:8], strict=True)]
    assert verdicts == ["cropped"] * 8


def test_a_mirrored_and_cropped_picture_is_called_mirrored(simulation, drawn):
    edited = [simulation.mirror(simulation.CROPPED["5 % off each side"](picture)) for picture in drawn[:6]]
    assert judge(edited, drawn) == {(row, row): "mirrored" for row in range(6)}


@pytest.mark.parametrize("name", ["photos", "rsa92"])
def test_few_different_photographs_are_candidates_and_none_are_copies(simulation, name):
    pictures = read_set(simulation, name)
    candidates = find_candidates(hash_all(pictures), hash_all(pictures))
    different = [(row, learned) for row, learned, _ in candidates if row != learned]
    assert len(different) <= len(pictures) ** 2 / 1000
    assert not any(confirm_near_copy(pictures[row], pictures[learned]) for row, learned in different)


def test_handwritten_digits_are_alike_and_no_copies(simulation):
    digits = read_set(simulation, "digits")
    tested = [digit for row, digit in enumerate(digits) if row % 50 >= 40]
    learned = [digit for row, digit in enumerate(digits) if row % 50 < 40]
    candidates = find_candidates(hash_all(tested), hash_all(learned))
    assert candidates  # their hashes are near: pixels decide
    assert judge(tested, learned) == {}
    assert judge([simulation.compress(digit, 75) for digit in learned[:5]], learned) == {
        (row, row): "copy" for row in range(5)
    }


@pytest.mark.parametrize("name", ["gratings", "gabors"])
def test_gratings_are_not_compared_with_each_other(simulation, name):
    pictures = read_set(simulation, name)
    assert find_candidates(hash_all(pictures), hash_all(pictures), 128) == []


def test_without_the_least_number_of_details_gratings_would_be_called_mirrored(simulation, monkeypatch):
    pictures = read_set(simulation, "gratings")
    monkeypatch.setattr(near_copies, "MIN_DETAILS", 0)
    verdicts = judge(pictures, pictures)
    assert "mirrored" in {verdict for (tested, learned), verdict in verdicts.items() if tested != learned}


def test_demo_pictures_that_differ_in_colour_and_texture_alone_are_no_copies(simulation):
    tested = [demo.draw(scene) for scene in demo.scenes("test")]
    learned = [demo.draw(scene) for scene in demo.scenes("train")[::24]]
    assert judge(tested[::4], learned) == {}
    assert judge(tested[:20], tested[20:40]) == {}


def test_without_pixels_hashes_of_lookalikes_would_raise_an_alarm(simulation, monkeypatch):
    tested = [demo.draw(scene) for scene in demo.scenes("test")[:60]]
    monkeypatch.setattr(near_copies, "MIN_CORRELATION", 0.8)
    assert "copy" in judge(tested[:30], tested[30:]).values()


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_constant_pictures_have_no_hash(mode):
    constant = hash_all([Image.new(mode, (50, 50), level) for level in ("white", "black", "gray")])
    assert not constant.any()
    assert find_candidates(constant, constant) == []
    assert confirm_near_copy(Image.new(mode, (50, 50), "red"), Image.new(mode, (50, 50), "blue")) == ""


def test_noise_is_a_copy_of_itself_alone():
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(50)]
    assert judge(noise, noise) == {(row, row): "copy" for row in range(50)}


def test_a_clip_is_known_by_its_middle_frame(simulation, drawn):
    frames = [drawn[row : row + 3] for row in range(0, 9, 3)]
    clips = [Clip(np.stack([np.asarray(frame) for frame in clip]), 3.0) for clip in frames]
    compressed = [simulation.compress(clip[1], 75) for clip in frames]
    candidates = find_candidates(hash_all(clips), hash_all(compressed))
    assert [(candidate.tested, candidate.learned) for candidate in candidates] == [(0, 0), (1, 1), (2, 2)]
    assert confirm_near_copy(clips[0], compressed[0]) == "copy"
    assert confirm_near_copy(clips[0], frames[0][0]) == ""


def test_candidates_are_those_of_a_bare_loop_whatever_the_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    learned = (
        rng.integers(0, 2**63, (300, near_copies.WORDS), dtype=np.uint64) & ~near_copies._HAS_FEW_DETAILS
    )
    flips = np.array([1 << bit for bit in range(20)], np.uint64)
    tested = learned[rng.integers(0, 300, 20)] ^ flips[:, None]
    learned = np.concatenate([learned] * 2 + [np.zeros((1, near_copies.WORDS), np.uint64)])
    monkeypatch.setattr(near_copies, "MAX_EVEN_DISTANCE", 40)

    expected = []
    for row, hashes in enumerate(tested):
        distances = [
            min(
                even + min(odd, 64 - odd)
                for first, second in near_copies._PAIRS
                for even, odd in [
                    np.bitwise_count(
                        hashes[2 * first : 2 * first + 2] ^ other[2 * second : 2 * second + 2]
                    ).astype(int)
                ]
            )
            for other in learned[:600]
        ]
        order = np.argsort(distances, kind="stable")[: near_copies.NEAREST]
        expected += [(row, column, distances[column]) for column in order if distances[column] <= 40]
    for pairs in (1, 1000, 2**18):
        monkeypatch.setattr(near_copies, "_BLOCK_PAIRS", pairs)
        assert find_candidates(tested, learned, max_distance=40) == expected


def test_nothing_learned_or_tested_gives_no_candidates(drawn):
    hashes, none = hash_all(drawn[:2]), np.empty((0, near_copies.WORDS), np.uint64)
    assert find_candidates(none, hashes) == find_candidates(hashes, none) == []
