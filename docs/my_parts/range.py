"""my_parts/range.py: channels divided by their largest training value."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from brainhive_cli import api


class Config(api.Config):
    """No keys."""

    def measure(self, signals: Iterable[NDArray]) -> Mapping[str, NDArray]:
        """Measure a subject's training signals, chunks [n, C, T]."""
        return {
            "largest": np.max([abs(chunk).max((0, 2)) for chunk in signals], axis=0)
        }

    def build(self, statistics: Mapping[str, NDArray]) -> api.Normaliser:
        """Build mean [C, 1] or [C, T] and matrix [C, C] or [C, 1], of the statistics of
        a subject or their mean over subjects.
        """
        largest = statistics["largest"][:, None].astype(np.float32)
        return api.Normaliser(np.zeros_like(largest), 1 / largest)


TINY = Config()
