"""Random items that are alike: neighbouring clips, and pictures of a concept."""

import numpy as np
from scipy.signal import lfilter

from benchmarks.simulated_statistics import Random, Values
from brainhive_cli.measurement.units import StimulusGrouping

PICTURES_PER_CONCEPT = 5
CLIPS = StimulusGrouping("neighbours", medium="clip")


def draw_film(random: Random, *shape: int, correlation: float = 0.9) -> Values:
    """Draw features [..., N, D] of clips whose neighbours correlate."""
    features = random.normal(size=shape)
    features[..., 1:, :] *= (1 - correlation**2) ** 0.5
    return np.asarray(lfilter([1.0], [1.0, -correlation], features, -2))


def draw_concepts(
    random: Random,
    *shape: int,
    pictures: int = PICTURES_PER_CONCEPT,
    picture_sd: float = 0.5,
) -> Values:
    """Draw features [..., N, D] of pictures that are alike within a concept."""
    n_concepts = shape[-2] // pictures
    centres = random.normal(size=shape[:-2] + (n_concepts, shape[-1]))
    noise = picture_sd * random.normal(size=shape)
    return np.repeat(centres, pictures, -2) + noise
