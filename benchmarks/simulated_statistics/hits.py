"""Hits of a logistic model whose subjects and items are normal in logits."""

import numpy as np
from scipy.stats import norm

from benchmarks.simulated_statistics import Random, Values

ITEMS = 200
ITEM_SD = 1.5
"""Standard deviation in logits. Published values of subjects spread by up to 1."""


def draw_hits(random: Random, logits: Values) -> Values:
    """Draw hits (1 or 0) whose probabilities have these logits."""
    return (random.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float64)


def mean_hit(centre: float, sd: float) -> float:
    """Integrate the logistic function over a normal distribution."""
    z = np.linspace(-8, 8, 4001)
    return float(np.average(1 / (1 + np.exp(-centre - sd * z)), weights=norm.pdf(z)))
