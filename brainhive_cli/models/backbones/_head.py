"""The head that most brain encoders end in: flattened features to a token."""

from torch import Tensor, nn


class Residual(nn.Module):
    """x + fn(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, D] to [B, D]."""
        return x + self.fn(x)


def projection_head(features: int, dim: int, dropout: float) -> nn.Sequential:
    """Map features [B, F] to tokens [B, D]: Linear, x + Dropout(Linear(GELU(x))), LayerNorm.

    Source: NICE (arXiv 2308.13234), as the BrainHiVE repository has it for all its convolutional encoders.
    """
    return nn.Sequential(
        nn.Linear(features, dim),
        Residual(nn.Sequential(nn.GELU(), nn.Linear(dim, dim), nn.Dropout(dropout))),
        nn.LayerNorm(dim),
    )
