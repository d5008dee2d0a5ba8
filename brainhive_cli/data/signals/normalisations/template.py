"""The subject's mean response to all training pictures is subtracted.

Source: BRIDGE, its code, across subjects.
"""

import numpy as np

from brainhive_cli.core import parts
from brainhive_cli.data.signals.normalisations import Chunks, Normaliser, Statistics


class Config(parts.Config):
    """Without knobs; the size of signals stays."""

    cites = ("bridge2026",)

    def measure(self, signals: Chunks) -> Statistics:
        """Average a subject's training signals over pictures: [C, T]."""
        count, total = 0, np.zeros((1, 1))
        for chunk in signals:
            count, total = count + len(chunk), total + chunk.sum(0, dtype=np.float64)
        return {"mean": total / count}

    def build(self, statistics: Statistics) -> Normaliser:
        """Make the subtraction."""
        mean = statistics["mean"].astype(np.float32)
        return Normaliser(mean, np.ones((len(mean), 1), np.float32))


TINY = Config()
