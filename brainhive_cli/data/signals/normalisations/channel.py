"""Each channel, or voxel, gets mean 0 and variance 1."""

from typing import ClassVar

import numpy as np

from brainhive_cli.core import parts
from brainhive_cli.data.signals.normalisations import Chunks, Normaliser, Statistics, inverse_spread, measure


class Config(parts.Config):
    """Without knobs."""

    removes_scale: ClassVar[bool] = True
    """Whether signals that are multiplied by a number come out the same."""

    def measure(self, signals: Chunks) -> Statistics:
        """Measure a subject's training signals."""
        return measure(signals, with_products=False)

    def build(self, statistics: Statistics) -> Normaliser:
        """Make the normalisation that signals of these statistics need."""
        spread = inverse_spread(statistics["covariance"])
        return Normaliser(statistics["mean"].astype(np.float32), spread.astype(np.float32))


TINY = Config()
