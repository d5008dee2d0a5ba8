"""BRIDGE's target: a projection of each depth of a network, joined and mixed by one block."""

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from brainhive_cli.models.blocks import Dropout, InnerWidth, ResidualMLP, Share, refuse_other_embeddings
from brainhive_cli.models.fusers import SizedFuserConfig


class Config(SizedFuserConfig):
    """The image side of BRIDGE (NeurIPS 2026, published repository)."""

    cites = ("bridge2026",)

    width: PositiveInt = Field(256, description="Width of each encoder's branch; BRIDGE's.")
    hidden: InnerWidth = Field(1024, description="Width inside the block; BRIDGE's.")
    dropout: Share = Field(0.1, description="Probability of dropping a unit; BRIDGE's.")

    def build(self, dims: dict[str, int], dim: int) -> "Branches":
        """Make a fuser of embeddings of these widths, by encoder, to tokens [B, D]."""
        return Branches(dims, dim, self)


TINY = Config(width=4, hidden=8)


class Branches(nn.Module):
    """Branches, a map of all of them, and a block.

    Args:
        dims: Width of each encoder's embedding, by the encoder's key.
        dim: D, width of the token.
        config: The knobs.
    """

    def __init__(self, dims: dict[str, int], dim: int, config: Config) -> None:
        super().__init__()
        self.dims = dict(dims)
        self.branches = nn.ModuleList(nn.Linear(width, config.width) for width in dims.values())
        self.dropout = Dropout(config.dropout)
        self.input_proj = nn.Linear(len(dims) * config.width, dim)
        self.block = ResidualMLP(dim, config.hidden, config.dropout)

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Fuse embeddings, each [B, D_encoder], to a token [B, D]."""
        refuse_other_embeddings(embeddings, self.dims)
        # one branch for each depth, joined and mixed
        pairs = zip(self.branches, self.dims, strict=True)
        joined = torch.cat([self.dropout(branch(embeddings[key])) for branch, key in pairs], -1)
        return self.block(self.input_proj(joined))
