"""Fixtures for tests of encoders."""

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def picture():
    """A smooth picture that is not square and fits no network."""
    generator = np.random.default_rng(0)
    small = Image.fromarray(generator.integers(0, 255, (9, 7, 3), dtype=np.uint8))
    return small.resize((70, 90), Image.Resampling.BICUBIC)


@pytest.fixture
def make_cubic_matrix():
    """Return a function that makes the matrix [K, N] of a cubic interpolation.

    It interpolates N values at K positions that are `step` apart, repeating the ends.
    """

    def make_matrix(n_values, n_positions, step):
        matrix = np.zeros((n_positions, n_values))
        sharpness = -0.75
        centres = (np.arange(n_positions) + 0.5) * step - 0.5
        for row, centre in enumerate(centres):
            for tap in np.floor(centre) + np.arange(-1, 3):
                x = abs(centre - tap)
                if x <= 1:
                    weight = (sharpness + 2) * x**3 - (sharpness + 3) * x**2 + 1
                else:
                    weight = sharpness * (x**3 - 5 * x**2 + 8 * x - 4)
                matrix[row, int(np.clip(tap, 0, n_values - 1))] += weight
        return matrix

    return make_matrix


@pytest.fixture
def embed():
    """Return a function that encodes a picture as a vector [D]."""

    def encode(encoder, picture):
        with torch.no_grad():
            embedding = encoder.module(encoder.preprocess(picture)[None])
        return embedding[0]

    return encode


@pytest.fixture
def measure_error():
    """Return a function that measures an embedding's largest error.

    The unit is the standard deviation of the expected embedding.
    """

    def measure(embedding, expected):
        reference = torch.as_tensor(expected, dtype=torch.float64)
        assert embedding.shape == reference.shape
        return float((embedding - reference).abs().max() / reference.std())

    return measure
