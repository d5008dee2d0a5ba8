"""Hashes, details and verdicts of fixed pictures beside those that were recorded."""

import numpy as np
import pytest
from PIL import Image

from brainhive_cli.data.media import (
    confirm_near_copy,
)

VERDICTS = ("", "copy", "cropped", "mirrored")


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
