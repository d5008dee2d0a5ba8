"""Similarity corrections: a correction uses all test signals together, so it is a control and no result."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.measurement.ranks import unit

DECIMALS = 12
"""Tolerance of cosines: above the rounding of float64, below that of float32 tokens, as ties of ranks are."""


@dataclass(frozen=True)
class Compared:
    """One subject's signals compared with a gallery; a correction maps it to another, and knows no targets.

    Attributes:
        signals: Signal tokens [N, D].
        gallery: Gallery tokens [M, D].
        similarities: [N, M] in float64: cosines, or as the corrections before have left them.
    """

    signals: Tensor
    gallery: Tensor
    similarities: Tensor

    @classmethod
    def of(cls, signals: Tensor, gallery: Tensor) -> Self:
        """Compare tokens by their cosines; those that differ by rounding alone are equal."""
        cosines = unit(signals) @ unit(gallery.to(signals.device)).T
        return cls(signals, gallery, cosines.round(decimals=DECIMALS))

    def as_tokens(self) -> tuple[Tensor, Tensor]:
        """Give unit tokens [N, M + 1] and [M, M + 1] whose cosines have the similarities' order, both ways.

        Whatever ranks tokens thereby ranks corrected ones.
        """
        centred = self.similarities - self.similarities.mean()
        scaled = centred / torch.linalg.vector_norm(centred, dim=1).max().clamp(min=1)
        rest = (1 - scaled.square().sum(1, keepdim=True)).clamp(min=0).sqrt()
        one_hot = torch.eye(scaled.shape[1], device=scaled.device)
        return torch.cat([scaled, rest], 1), F.pad(one_hot, (0, 1))


class Correction(parts.Config):
    """Base of the package's corrections: `correct` is what a Config builds."""

    def build(self) -> Callable[[Compared], Compared]:
        """Make the correction."""
        return self.correct

    def correct(self, compared: Compared) -> Compared:
        """Correct the similarities."""
        raise NotImplementedError
