"""Items that are alike: neighbouring clips, and pictures of one concept."""

import numpy as np
from scipy.signal import lfilter

from benchmarks.simulated_statistics import Random, Values
from brainhive_cli.measurement.units import StimulusGrouping

EACH = 5
"""Pictures of a concept."""
CLIPS = StimulusGrouping("neighbours", medium="clip")


def draw_film(random: Random, *shape: int, near: float = 0.9) -> Values:
    """Draw features [..., N, D] of clips, of which neighbours correlate."""
    drawn = random.normal(size=shape)
    drawn[..., 1:, :] *= (1 - near**2) ** 0.5
    return np.asarray(lfilter([1.0], [1.0, -near], drawn, -2))


def draw_concepts(
    random: Random, *shape: int, pictures: int = EACH, by_picture: float = 0.5
) -> Values:
    """Draw features [..., N, D] of pictures, of which those of a concept are alike."""
    several = (*shape[:-2], shape[-2] // pictures, shape[-1])
    return np.repeat(
        random.normal(size=several), pictures, -2
    ) + by_picture * random.normal(size=shape)
