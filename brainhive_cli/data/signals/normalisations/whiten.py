"""Channels get mean 0, variance 1 and no correlations, rotated as little as possible (ZCA)."""

from typing import ClassVar

import numpy as np

from brainhive_cli.core import parts
from brainhive_cli.data.signals.normalisations import Chunks, Normaliser, Statistics, inverse_spread, measure


class Config(parts.Config):
    """Without knobs."""

    removes_scale: ClassVar[bool] = True

    def measure(self, signals: Chunks) -> Statistics:
        """Measure a subject's training signals."""
        return measure(signals, with_products=True)

    def build(self, statistics: Statistics) -> Normaliser:
        """Make the normalisation that signals of these statistics need."""
        variances, directions = np.linalg.eigh(statistics["covariance"])
        matrix = (directions * inverse_spread(variances)) @ directions.T
        return Normaliser(statistics["mean"].astype(np.float32), matrix.astype(np.float32))


TINY = Config()
