"""Cross-domain similarity local scaling: what is near to everything counts less.

Source: Conneau et al. 2018 (arXiv 1710.04087), section 2.3.
"""

from dataclasses import replace

from pydantic import Field, PositiveInt

from brainhive_cli.measurement.corrections import Compared, Correction


class Config(Correction):
    """Twice the similarity, less the mean similarities of signal and picture with their neighbours."""

    neighbours: PositiveInt = Field(5, description="nearest of the other side that are averaged")

    def correct(self, compared: Compared) -> Compared:
        """Subtract from twice the similarities what signals and pictures have with their neighbours."""
        corrected = 2 * compared.similarities
        for axis, size in enumerate(corrected.shape):
            nearest = compared.similarities.topk(min(self.neighbours, size), axis).values
            corrected = corrected - nearest.mean(axis, keepdim=True)
        return replace(compared, similarities=corrected)


TINY = Config()
