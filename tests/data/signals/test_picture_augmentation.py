"""Pictures that training varies: by chance, by torch's random numbers, and not at all where all is off."""

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.data.signals.augmentations import PictureAugment, augmented

OFF = {"crop": 0.0, "flip": 0.0, "jitter": 0.0, "grey": 0.0}


@pytest.fixture
def picture() -> Image.Image:
    drawn = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(drawn)


def made(picture: Image.Image, seed: int = 0, **chances: float) -> np.ndarray:
    torch.manual_seed(seed)
    return np.asarray(augmented(picture, PictureAugment(heads=["image"], **{**OFF, **chances})))


def test_off_changes_nothing(picture: Image.Image):
    assert np.array_equal(made(picture), np.asarray(picture))


def test_each_change_is_what_it_says_and_keeps_the_size(picture: Image.Image):
    original = np.asarray(picture)

    assert np.array_equal(made(picture, flip=1), original[:, ::-1])
    grey = made(picture, grey=1)
    assert (grey == grey[..., :1]).all() and grey.shape == original.shape
    for change in ({"crop": 1.0}, {"jitter": 1.0}):
        found = made(picture, **change)
        assert found.shape == original.shape and not np.array_equal(found, original)


def test_the_seed_decides_and_chances_are_kept(picture: Image.Image):
    everything = {"crop": 0.5, "flip": 0.5, "jitter": 0.5, "grey": 0.5}
    assert np.array_equal(made(picture, 3, **everything), made(picture, 3, **everything))

    flipped = [
        np.array_equal(made(picture, seed, flip=0.3), np.asarray(picture)[:, ::-1]) for seed in range(400)
    ]

    assert np.mean(flipped) == pytest.approx(0.3, abs=0.07)  # 3 sd
