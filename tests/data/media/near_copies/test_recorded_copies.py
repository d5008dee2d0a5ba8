"""Hashes, details and verdicts of fixed pictures beside those that were recorded."""

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.data.media import (
    Clip,
    confirm_near_copy,
    describe_pixels,
    find_candidates,
    near_copies,
)
from brainhive_cli.data.media.near_copies import count_details, hash_picture
from brainhive_cli.data.media.picture_digests import digest_pixels

VERDICTS = ("", "copy", "cropped", "mirrored")
Pixels = np.ndarray


def texture(seed, height=120, width=160):
    """Draw a texture whose amplitudes fall with frequency, as a photograph's do:
    [H, W, 3].
    """
    random = np.random.default_rng(seed)
    frequency = np.hypot(
        np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width) * width
    )
    amplitude = 1 / np.maximum(frequency, 2)
    shape = (3,) + tuple(amplitude.shape)
    spectrum = amplitude * (
        random.standard_normal(shape) + 1j * random.standard_normal(shape)
    )
    levels = np.fft.irfft2(spectrum, (height, width)).transpose(1, 2, 0)
    # mostly grey, with colours of its own
    levels = 0.8 * levels.mean(-1, keepdims=True) + 0.2 * levels
    return np.clip(128 + 40 * levels / levels.std(), 0, 255).astype(np.uint8)


def bordered(seed):
    """Draw a texture within borders of uneven width."""
    pixels = np.full((128, 192, 3), 20, np.uint8)
    pixels[10:110, 24:180] = texture(seed, 100, 156)
    return pixels


def grating():
    """Draw stripes, which have few details."""
    wave = 128 + 100 * np.sin(np.arange(100) / 4)
    return np.tile(wave, (80, 1))[..., None].repeat(3, -1).astype(np.uint8)


PICTURES = {
    "wide": texture(0),
    "tall": texture(1, 200, 90),
    "square": texture(2, 64, 64),
    "bordered": bordered(3),
    "stripes": grating(),
}


def bits(hashes):
    return np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8))


def test_hashes_and_views_of_pictures(recorded):
    facts = {}
    for name, pixels in PICTURES.items():
        picture = Image.fromarray(pixels)
        grey = picture.convert("L").resize((64, 64))
        facts[name] = {
            "bits": bits(hash_picture(picture)),
            "views": near_copies._locate_views(grey, picture.size),
            "details": count_details(grey),
        }
    frames = np.stack([texture(seed, 40, 40) for seed in range(4)])
    clip = Clip(frames, 3.0)
    pictures = [Image.fromarray(frame) for frame in frames]
    assert np.array_equal(hash_picture(clip), hash_picture(pictures[2]))
    assert describe_pixels(clip)[0] == digest_pixels(clip)
    assert np.array_equal(describe_pixels(clip)[1:], hash_picture(clip))
    recorded(4, **facts, digests=[digest_pixels(pictures[0]), digest_pixels(clip)])


def test_details_of_windows_and_their_correlations(recorded):
    squares = np.stack([texture(seed, 64, 64)[..., 0] for seed in range(3)])
    squares = squares.astype(np.float32)
    windows = np.array([[0.031, 0.107, 0.2, 0.013], [0, 0, 0, 0]])
    details, whole_windows = near_copies._measure_details(
        squares, windows, 25
    ).swapaxes(0, 1)
    blurred = whole_windows * np.exp(-near_copies._make_frequencies(25) / 6)
    correlations = {
        highest: near_copies._correlate(whole_windows[0], other_details, highest)
        for highest in (8, 10, 24)
        for other_details in (
            np.concatenate([details, blurred, 0 * whole_windows[:1]]),
        )
    }
    recorded(
        4,
        dct=near_copies._make_dct(0.1, 0.23, 9, 4),
        details=details,
        first=details[:, :12],
        correlations=correlations,
        default=near_copies._correlate(whole_windows, details),
    )


def test_candidates_of_hashes(recorded):
    random = np.random.default_rng(0)
    learned = random.integers(0, 2**63, (9, 24), np.uint64)
    learned[:, 1::2] &= ~near_copies._HAS_FEW_DETAILS
    learned[4] = 0
    tested_learned = learned[[0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8]].copy()
    # more and more bits differ
    for row in range(len(tested_learned)):
        for index in range(24):
            count = 2 * row + index % 3
            flipped = random.choice(63, count, replace=False).astype(np.uint64)
            tested_learned[row, index] ^= np.bitwise_or.reduce(
                np.uint64(1) << flipped, initial=np.uint64(0)
            )
    tested_learned[3, 1::2] ^= ~near_copies._HAS_FEW_DETAILS
    learned[5, 1::2] = tested_learned[1, 1::2]
    learned[6:, 0] = tested_learned[1, 0]
    matchs_by_name = {
        limit: [
            list(match) for match in find_candidates(tested_learned, learned, limit)
        ]
        for limit in (0, 7, 34, 60)
    }
    assert find_candidates(tested_learned, learned) == [
        tuple(row) for row in matchs_by_name[34]
    ]
    recorded(**{str(limit): matches for limit, matches in matchs_by_name.items()})


def mix(single_pixels, other_pixels, share):
    return (1 - share) * single_pixels + share * other_pixels


def edits():
    """Give series of edits of a picture, from those that keep it to those that make it
    another one.
    """
    pixels, other_texture = texture(0).astype(float), texture(9).astype(float)
    height, width = pixels.shape[:2]
    grey = pixels.mean(-1, keepdims=True)
    swapped, s = pixels[..., [1, 0, 2]], np.s_[10:-6, 8:-14]
    series = {
        "blended": [mix(pixels, other_texture, share) for share in (0.1, 0.2, 0.22)],
        "a part blended": [
            mix(pixels[s], other_texture[s], share) for share in (0.15, 0.2)
        ],
        "colours swapped": [mix(pixels, swapped, share) for share in (0.3, 0.5, 0.6)],
        "without colours": [mix(pixels, grey, share) for share in (0.8, 1.15, 1.2)],
        "left": [pixels[:, round(share * width) :] for share in (0.1, 0.26, 0.28)],
        "all sides": [
            pixels[
                round(share * height) : round((1 - share) * height),
                round(share * width) : round((1 - share) * width),
            ]
            for share in (0.15, 0.18)
        ],
        "mirrored": [pixels[:, ::-1], pixels[4:-9, ::-1][:, 12:-3]],
        "upside down": [pixels[::-1]],
        "dark": [pixels * 0.3, 255 - pixels, np.round(pixels / 60) * 60],
    }
    return {
        name: [np.clip(edit, 0, 255).astype(np.uint8) for edit in sery]
        for name, sery in series.items()
    }


@pytest.mark.parametrize("name", list(edits()))
def test_verdicts_of_edited_pictures(recorded, name):
    original, verdicts = Image.fromarray(texture(0)), []
    for edited in edits()[name]:
        picture = Image.fromarray(edited)
        both_verdicts = (
            confirm_near_copy(picture, original),
            confirm_near_copy(original, picture),
        )
        verdicts.append([VERDICTS.index(verdict) for verdict in both_verdicts])
    recorded(verdicts=verdicts)
