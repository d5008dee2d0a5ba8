"""Cross-domain similarity local scaling: what is near to everything counts less.

Source: Conneau et al. 2018 (arXiv 1710.04087), section 2.3.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.measurement.corrections import Compared


class Config(parts.Config):
    """Twice the similarity, less the mean similarities of signal and picture with their neighbours."""

    neighbours: int = Field(5, gt=0, description="nearest of the other side that are averaged")

    def build(self) -> Callable[[Compared], Compared]:
        """Make the correction."""
        return partial(scale_locally, neighbours=self.neighbours)


TINY = Config()


def scale_locally(compared: Compared, neighbours: int) -> Compared:
    """Subtract from twice the similarities what signals and pictures have with their neighbours."""
    corrected = 2 * compared.similarities
    for axis, size in enumerate(corrected.shape):
        nearest = compared.similarities.topk(min(neighbours, size), axis).values
        corrected = corrected - nearest.mean(axis, keepdim=True)
    return replace(compared, similarities=corrected)
