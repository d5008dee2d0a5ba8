"""Channels get mean 0, variance 1 and no correlations, rotated as little as possible (ZCA)."""

from typing import ClassVar

import numpy as np

from brainhive_cli.core import parts
from brainhive_cli.data.signals.normalisations import Chunks, Normaliser, Statistics, inverse_root, measure


class Config(parts.Config):
    """Without knobs."""

    removes_scale: ClassVar[bool] = True

    def measure(self, signals: Chunks) -> Statistics:
        """Measure a subject's training signals."""
        return measure(signals, with_products=True)

    def build(self, statistics: Statistics) -> Normaliser:
        """Make the normalisation that signals of these statistics need."""
        matrix = inverse_root(statistics["covariance"])
        return Normaliser(statistics["mean"].astype(np.float32), matrix.astype(np.float32))


TINY = Config()
