"""Maximum mean discrepancy: predictions should be distributed as targets are, whichever belongs to which."""

import torch
from pydantic import Field
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.losses import Loss, LossConfig, LossContext
from brainhive_cli.models.losses.mse import refuse_other_shape


class Config(LossConfig):
    """The squared discrepancy under Gaussian kernels (Gretton et al. 2012), as SAMGA's (arXiv 2604.17782)."""

    cites = ("gretton2012", "jiang2026")

    widths: tuple[float, ...] = Field(
        (0.1, 0.2, 0.5, 1.0, 2.0),
        min_length=1,
        description="Standard deviations of the kernels that are averaged, in units of vectors, which keep "
        "their length; SAMGA's.",
    )

    def build(self) -> "Discrepancy":
        """Make the loss."""
        return Discrepancy(self)


TINY = Config()


class Discrepancy(Loss):
    """The unbiased estimate of MMD², and 0 where that is negative."""

    def forward(self, predicted: Tensor, target: Tensor, context: LossContext) -> Tensor:
        """Compare the distributions of predictions and targets, both [B, ...], as a scalar.

        Raises:
            BrainhiveError: if their shapes differ, or there is one row.
        """
        refuse_other_shape(predicted, target)
        if (count := len(predicted)) < 2:
            raise BrainhiveError("mmd compares distributions, and the batch has one row", "a larger batch")
        predicted, target = predicted.flatten(1), target.flatten(1)

        # means over pairs of different rows within each side, less the mean between the sides
        within = (self._kernel(rows, rows) for rows in (predicted, target))
        apart = sum((kernel.sum() - kernel.trace()) / (count * (count - 1)) for kernel in within)
        return (apart - 2 * self._kernel(predicted, target).mean()).clamp(min=0)

    def _kernel(self, one: Tensor, other: Tensor) -> Tensor:
        """Average the kernels of all pairs of rows [B, D]: [B, B]."""
        lengths = one.square().sum(1)[:, None] + other.square().sum(1)
        squared = (lengths - 2 * one @ other.T).clamp(min=0)
        return torch.stack([(-squared / (2 * width**2)).exp() for width in self.config.widths]).mean(0)
