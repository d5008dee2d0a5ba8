"""What tests of encoders share: a picture, and what an embedding is compared with."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from brainhive_cli.models.encoders import Encoder


@pytest.fixture
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def picture() -> Image.Image:
    """A smooth picture, neither square nor of a network's size."""
    generator = np.random.default_rng(0)
    small = Image.fromarray(generator.integers(0, 255, (9, 7, 3), dtype=np.uint8))
    return small.resize((70, 90), Image.Resampling.BICUBIC)


@pytest.fixture
def cubic() -> Callable[[int, int, float], np.ndarray]:
    """Make the matrix that interpolates `old` values at `new` places `step` apart,
    repeating the ends.
    """

    def matrix_of(old: int, new: int, step: float) -> np.ndarray:
        matrix, a = np.zeros((new, old)), -0.75
        for place, centre in enumerate((np.arange(new) + 0.5) * step - 0.5):
            for tap in np.floor(centre) + np.arange(-1, 3):
                x = abs(centre - tap)
                near, far = (
                    (a + 2) * x**3 - (a + 3) * x**2 + 1,
                    a * (x**3 - 5 * x**2 + 8 * x - 4),
                )
                matrix[place, int(np.clip(tap, 0, old - 1))] += near if x <= 1 else far
        return matrix

    return matrix_of


@pytest.fixture
def embed() -> Callable[[Encoder, Image.Image], torch.Tensor]:
    """Return a function that encodes a picture as a vector [D]."""

    def encode(encoder: Encoder, picture: Image.Image) -> torch.Tensor:
        with torch.no_grad():
            embedding: torch.Tensor = encoder.module(encoder.preprocess(picture)[None])
        return embedding[0]

    return encode


@pytest.fixture
def difference() -> Callable[[torch.Tensor, object], float]:
    """Measure an embedding's largest difference from what is expected, relative to the
    latter's spread.
    """

    def measure(embedding: torch.Tensor, expected: object) -> float:
        known = torch.as_tensor(expected, dtype=torch.float64)
        assert embedding.shape == known.shape
        return float((embedding - known).abs().max() / known.std())

    return measure
