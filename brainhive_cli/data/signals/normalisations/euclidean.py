"""Euclidean alignment: afterwards the mean product X X^T of a subject's trials is the identity.

Source: He and Wu 2020, IEEE Transactions on Biomedical Engineering 67 (arXiv 1808.05464).
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.data.signals.normalisations import Chunks, Normaliser, Statistics, align


class Config(parts.Config):
    """Like `whiten`, but signals are not centred, and the size of the result depends on their samples."""

    cites = ("he2020",)
    removes_scale: ClassVar[bool] = True
    keeps_mean: ClassVar[bool] = True
    """Whether channels are only mixed, so that a linear subject layer does the same."""

    shrinkage: float = Field(
        0.0, ge=0, le=1, description="share of the reference that is replaced by its mean variance"
    )

    def measure(self, signals: Chunks) -> Statistics:
        """Average X X^T over a subject's training signals: [C, C]."""
        count, total = 0, np.zeros((1, 1))
        for chunk in signals:
            flat = chunk.transpose(1, 0, 2).reshape(chunk.shape[1], -1).astype(np.float64)  # [C, n T]
            count, total = count + len(chunk), total + flat @ flat.T
        return {"reference": total / count}

    def build(self, statistics: Statistics) -> Normaliser:
        """Make the normalisation that signals of these statistics need."""
        return align(statistics["reference"], self.shrinkage)


TINY = Config(shrinkage=0.1)
