"""Near-copies are found after edits, but not among different pictures."""

import importlib

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageOps
from scipy.fft import dctn
from skimage import data as photographs

from brainhive_cli.data.media import (
    Clip,
    confirm_near_copy,
    find_candidates,
    near_copies,
)
from brainhive_cli.data.media.near_copies import count_details, hash_picture
from brainhive_cli.data.media.picture_digests import digest_pixels
from brainhive_cli.demo import pictures as demo
from tools.shared_folders import CHECKOUT, SHARED

Pictures = list[Image.Image]


@pytest.fixture(scope="module")
def simulation():
    """Import the benchmark, which has sets of pictures and edits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(CHECKOUT / "benchmarks")
        return importlib.import_module("near_copies")


@pytest.fixture(scope="module")
def drawn_pictures():
    """Draw 12 training pictures of the demo, of 12 concepts, at 128 px."""
    return [demo.draw_scene(scene, 128) for scene in demo.list_scenes("train")[:72:6]]


def hash_all(pictures):
    return np.array([hash_picture(picture) for picture in pictures])


def judge(pictures, learned):
    """Return the likeness of each confirmed candidate by test and training row."""
    verdicts = {}
    for tested_row, learned_row, _ in find_candidates(
        hash_all(pictures), hash_all(learned)
    ):
        likeness = confirm_near_copy(pictures[tested_row], learned[learned_row])
        if likeness:
            verdicts[tested_row, learned_row] = likeness
    return verdicts


def read_set(simulation, name):
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


def test_an_edited_picture_is_a_copy_of_its_original(simulation, drawn_pictures):
    for edit in COPIES:
        edited = [simulation.COPIES[edit](picture) for picture in drawn_pictures]
        # exact digests miss all
        assert not set(map(digest_pixels, edited)) & set(
            map(digest_pixels, drawn_pictures)
        )
        assert judge(edited, drawn_pictures) == {
            (row, row): "copy" for row in range(len(drawn_pictures))
        }, edit


@pytest.mark.nightly
def test_photographs_prepared_as_stimuli_are_copies(simulation):
    """Central squares of 4:3 photographs once went unnoticed, 60 of 60."""
    photos = read_set(simulation, "4:3 photos")[:8]
    for edit in PREPARED:
        edited = [simulation.PREPARED[edit](photo) for photo in photos[:3]]
        expected = {(row, row) for row in range(3)}
        assert set(judge(edited, photos)) == set(judge(photos, edited)) == expected, (
            edit
        )
        assert set(judge(edited, photos).values()) <= set(near_copies.COPIES)


def test_a_mirrored_picture_is_called_mirrored(simulation, drawn_pictures):
    edited = [
        simulation.MIRRORED["mirrored, JPEG 75"](picture) for picture in drawn_pictures
    ]
    assert judge(edited, drawn_pictures) == {
        (row, row): "mirrored" for row in range(len(drawn_pictures))
    }


def test_a_cropped_photograph_is_called_cropped(simulation):
    photos = read_set(simulation, "photos")[:8]
    edited = [simulation.CROPPED[CROPPED](photo) for photo in photos]
    expected = {(row, row): "cropped" for row in range(8)}
    assert judge(edited, photos) == expected
    assert judge(photos, edited) == expected


@pytest.mark.parametrize("name", ["photos", "rsa92"])
def test_different_photographs_are_no_copies(simulation, name):
    pictures = read_set(simulation, name)
    candidates = find_candidates(hash_all(pictures), hash_all(pictures))
    different = [(row, learned) for row, learned, _ in candidates if row != learned]
    assert len(different) <= len(pictures) ** 2 / 1000
    assert not any(
        confirm_near_copy(pictures[row], pictures[learned])
        for row, learned in different
    )


@pytest.mark.nightly
def test_handwritten_digits_are_alike_and_no_copies(simulation):
    digits = read_set(simulation, "digits")
    tested_digits = [digit for row, digit in enumerate(digits) if row % 50 >= 40]
    learned = [digit for row, digit in enumerate(digits) if row % 50 < 40]
    candidates = find_candidates(hash_all(tested_digits), hash_all(learned))
    assert candidates  # their hashes are near: pixels decide
    assert judge(tested_digits, learned) == {}
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


def test_a_clip_is_known_by_its_middle_frame(simulation, drawn_pictures):
    frames = [drawn_pictures[row : row + 3] for row in range(0, 9, 3)]
    clips = [
        Clip(np.stack([np.asarray(frame) for frame in clip]), 3.0) for clip in frames
    ]
    compressed = [simulation.compress(clip[1], 75) for clip in frames]
    candidates = find_candidates(hash_all(clips), hash_all(compressed))
    assert [(tested_row, learned) for tested_row, learned, _ in candidates] == [
        (0, 0),
        (1, 1),
        (2, 2),
    ]
    assert confirm_near_copy(clips[0], compressed[0]) == "copy"
    assert confirm_near_copy(clips[0], frames[0][0]) == ""


def paint_blocks(chroma=1, swaps=False):
    """Paint 16 x 16 blocks with fixed luminances.

    Args:
        chroma: 1 for colours, -1 for the opposite colours, 0 for grey.
        swaps: If True, exchange the two channels of chroma.
    """
    random = np.random.default_rng(0)
    grid = np.ones((8, 8))
    light = np.kron(random.integers(100, 160, (16, 16)), grid)
    colours = np.kron(random.integers(-60, 60, (2, 16, 16)), grid)
    layers = [light] + list(128 + chroma * colours[:: -1 if swaps else 1])
    channels = [Image.fromarray(layer.astype(np.uint8)) for layer in layers]
    return Image.merge("YCbCr", channels).convert("RGB")


def test_a_grey_drawing_is_a_copy_and_a_recoloured_one_is_not():
    coloured = paint_blocks()
    crop = coloured.crop((6, 6, 118, 118))
    for other_picture, whole_picture, cropped in (
        (coloured, "copy", "cropped"),
        (paint_blocks(-1), "", ""),
        (paint_blocks(swaps=True), "", ""),
        (paint_blocks(0), "copy", "cropped"),
    ):
        assert confirm_near_copy(coloured, other_picture) == whole_picture
        assert confirm_near_copy(other_picture, coloured) == whole_picture
        assert confirm_near_copy(crop, other_picture) == cropped
        assert confirm_near_copy(other_picture, crop) == cropped
        # hashes have no colours, so that all are candidates
        hashes = hash_all([coloured, other_picture])
        assert find_candidates(hashes[:1], hashes[1:])


def test_a_part_of_a_mirrored_picture_is_called_mirrored():
    photo = Image.fromarray(photographs.astronaut())
    mirrored = ImageOps.mirror(photo)
    for box in ((26, 26, 486, 486), (0, 0, 430, 512), (82, 0, 512, 512)):
        crop = mirrored.crop(box)
        assert confirm_near_copy(crop, photo) == "mirrored"
        assert confirm_near_copy(photo, crop) == "mirrored"
        assert confirm_near_copy(mirrored, crop) == "cropped"
        assert find_candidates(hash_all([crop]), hash_all([photo]))


def draw_hashes(random, count, few_bits):
    """Draw hashes [N, 24] whose even and odd words differ by bits around the limits.

    Some hashes are mirrored, have few details or belong to constant pictures.
    """
    choice = random.choice([0, 1, 20, 21, 24], (count, 1))
    odd_bits = random.choice([0, 3, 13, 14, 15], (count, 1))
    # hashes of a single bit are near to constant pictures
    views = np.random.default_rng(0).integers(0, 2**63, (2, 1), dtype=np.uint64)
    views = np.array([[2**62], [0]], np.uint64) if few_bits else views
    hashes = np.repeat(views, near_copies.VIEWS, 1).T.reshape(1, -1).repeat(count, 0)
    lowest_bit = np.uint64(1)
    hashes[:, ::2] ^= (lowest_bit << choice.astype(np.uint64)) - lowest_bit
    hashes[:, 1::2] ^= (lowest_bit << odd_bits.astype(np.uint64)) - lowest_bit
    hashes[random.random(count) < 0.3, 1::2] ^= ~near_copies._HAS_FEW_DETAILS
    # some hashes have a random view
    other_integers = random.integers(0, 2**63, count, dtype=np.uint64)
    hashes[np.arange(count), random.integers(0, near_copies.WORDS, count)] ^= (
        other_integers
    )
    hashes[random.random(count) < 0.3, 1::2] |= near_copies._HAS_FEW_DETAILS
    hashes[random.random(count) < 0.1] = 0
    return hashes


def list_nearest(array, learned, limit):
    """List the candidates of each tested picture, pair by pair and bit by bit."""
    has_few = int(near_copies._HAS_FEW_DETAILS)
    expected = []
    for row, arguments in enumerate(array.tolist()):
        nearest_pairs = []
        for other_row, other_hashes in enumerate(learned.tolist()):
            if not any(arguments) or not any(other_hashes):
                continue
            bits = []
            for first_view, second in near_copies._PAIRS:
                bit_count = (
                    arguments[2 * first_view] ^ other_hashes[2 * second]
                ).bit_count()
                left_hash, two = (
                    arguments[2 * first_view + 1],
                    other_hashes[2 * second + 1],
                )
                odd_bits = (left_hash ^ two).bit_count()
                total = bit_count + min(odd_bits, 64 - odd_bits)
                if bit_count <= 20 and total <= limit and not left_hash & two & has_few:
                    bits.append(total)
            nearest_pairs += [(min(bits), other_row)] if bits else []
        expected += [(row, other, total) for total, other in sorted(nearest_pairs)[:4]]

    return expected


@pytest.mark.nightly
@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from([0, 8, 34]), st.booleans())
def test_candidates_are_the_nearest_by_any_two_views(seed, limit, few_bits):
    random = np.random.default_rng(seed)
    tested_hashes, learned = (draw_hashes(random, count, few_bits) for count in (6, 14))
    expected = list_nearest(tested_hashes, learned, limit)
    assert find_candidates(tested_hashes, learned, limit) == expected


def flip_bits(random, hashes, number):
    """Flip up to a number of random bits of each word."""
    lowest_bit = np.uint64(1)
    flipped = hashes.copy()
    for _ in range(number):
        bits = lowest_bit << random.integers(0, 64, hashes.shape, np.uint64)
        flipped ^= np.where(random.random(hashes.shape) < 0.6, bits, np.uint64(0))
    return flipped


@pytest.mark.parametrize("limit", range(11))
def test_few_changed_bits_are_found(limit):
    random = np.random.default_rng(limit)
    learned = random.integers(0, 2**63, (40, near_copies.WORDS), np.uint64)
    joined_array = np.concatenate(
        [flip_bits(random, learned, value) for value in (1, 4, 7)]
    )
    joined_array[::3, 1::2] ^= ~near_copies._HAS_FEW_DETAILS
    joined_array[7] = learned[9] = 0
    candidates = find_candidates(joined_array, learned, limit)

    assert candidates == list_nearest(joined_array, learned, limit)
    assert candidates or limit == 0
    assert find_candidates(joined_array[:0], learned, limit) == []
    assert find_candidates(joined_array, learned[:0], limit) == []


def test_four_of_many_equal_pictures_are_candidates():
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**63, (1, near_copies.WORDS), np.uint64).repeat(60, 0)
    hashes[:, 1::2] &= ~near_copies._HAS_FEW_DETAILS
    expected = [(row, learned, 0) for row in range(60) for learned in range(4)]
    for limit in (8, 34):
        assert find_candidates(hashes, hashes, limit) == expected


def test_views_are_compared_with_the_whole_and_parts_with_parts():
    """View 0 is the picture inside its borders, 1 to 9 are parts of it, and 10 and 11
    include the borders.
    """
    pairs = set(near_copies._PAIRS)
    assert pairs == (
        {(0, view) for view in range(10)}
        | {(view, 0) for view in range(10)}
        | {(view, view) for view in (9, 10, 11)}
    )


def test_details_are_counted_as_by_scipys_cosine_transform():
    random = np.random.default_rng(0)
    ramp, noise = np.tile(np.arange(64) * 4, (64, 1)), random.integers(0, 256, (64, 64))
    frequency = np.hypot(*np.mgrid[:64, :64])
    for pixels in (ramp, noise, ramp // 2 + noise // 2):
        grey = pixels.astype(np.uint8)
        energy = np.square(dctn(grey.astype(float), norm="ortho") * frequency)
        expected = energy.sum() ** 2 / np.square(energy).sum()
        details = count_details(Image.fromarray(grey))
        assert details == pytest.approx(expected, rel=1e-3)
    assert count_details(Image.new("L", (64, 64))) == 0
    # rounding alone
    constant = count_details(Image.new("L", (64, 64), 80))
    assert constant < near_copies.MIN_DETAILS


@pytest.mark.parametrize(
    ("box", "is_border"),
    [
        ((8, 4, 60, 56), True),
        ((0, 16, 64, 48), True),
        ((16, 0, 48, 64), True),
        # smaller than half of the picture
        ((0, 17, 64, 48), False),
        ((8, 8, 39, 64), False),
    ],
)
def test_a_border_of_one_level_around_a_rectangle_is_measured(box, is_border):
    left_px, top, right_px, bottom = box
    grey = np.full((64, 64), 30, np.int16)
    # levels of a border differ a little
    grey[::2] += 10
    grey[top:bottom, left_px:right_px] = 200
    margins = near_copies._measure_borders(grey)
    expected = [left_px / 64, top / 64, 1 - right_px / 64, 1 - bottom / 64]
    assert margins.tolist() == (expected if is_border else [0.0] * 4)


def test_a_disc_or_a_picture_without_content_has_no_border():
    rows, columns = np.mgrid[:64, :64]
    disc = np.where((rows - 32) ** 2 + (columns - 32) ** 2 < 600, 200, 30)
    for grey in (disc, np.full((64, 64), 30)):
        assert not near_copies._measure_borders(grey.astype(np.int16)).any()
