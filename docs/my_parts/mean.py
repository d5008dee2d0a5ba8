"""my_parts/mean.py: mean of embeddings of equal width."""

import torch
from torch import Tensor, nn

from brainhive_cli import api


class Config(api.FuserConfig):
    """No keys."""

    def token_dim(self, dims: dict[str, int], dim: int) -> int:
        """Return D, the width of the token; `dims` are the encoders' widths, `dim` is
        the recipe's.
        """
        return next(iter(dims.values()))

    def build(self, dims: dict[str, int], dim: int) -> "Mean":
        """Build a fuser of embeddings of these widths, by encoder, to tokens [B, D]."""
        return Mean()


TINY = Config()


class Mean(nn.Module):
    """Fuser without parameters; those of others learn with the backbone."""

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Fuse embeddings, each [B, D], to tokens [B, D]."""
        return torch.stack(list(embeddings.values())).mean(0)
