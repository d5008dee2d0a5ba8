"""Visual Blur Perception's target: one network's features of several blurs, mixed feature by feature."""

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from brainhive_cli.models.blocks import Dropout, Share, refuse_other_embeddings
from brainhive_cli.models.fusers import SizedFuserConfig
from brainhive_cli.models.fusers.mean import common_width


class Config(SizedFuserConfig):
    """The image side of Visual Blur Perception (AAAI 2026, published repository)."""

    cites = ("liu2026",)

    learned: int = Field(4, ge=0, description="Learned vectors that are mixed in; VBP's.")
    hidden: PositiveInt = Field(768, description="Width between the two maps; VBP's.")
    dropout: Share = Field(0.85, description="Probability of dropping a hidden unit; VBP's.")

    def build(self, dims: dict[str, int], dim: int) -> "Levels":
        """Make a fuser of embeddings of one width, by encoder, to tokens [B, D].

        Raises:
            RecipeError: if the encoders differ in width.
        """
        return Levels(dims, dim, self)


TINY = Config(learned=2, hidden=8)


class Levels(nn.Module):
    """Weights of levels for each feature, and two maps.

    Args:
        dims: Width of each encoder's embedding, by the encoder's key.
        dim: D, width of the token.
        config: The knobs.
    """

    def __init__(self, dims: dict[str, int], dim: int, config: Config) -> None:
        super().__init__()
        self.dims, width = dict(dims), common_width(dims)
        self.learned = nn.Parameter(torch.zeros(config.learned, width))
        self.scale = nn.Parameter(torch.rand(len(dims) + config.learned, width))
        self.adapter = nn.Sequential(
            nn.Linear(width, config.hidden), nn.ELU(), Dropout(config.dropout), nn.Linear(config.hidden, dim)
        )

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Mix embeddings, each [B, D] and brought to unit length, to a token [B, D]."""
        # embeddings of unit length, and the learned vectors behind them
        refuse_other_embeddings(embeddings, self.dims)
        seen = torch.stack([F.normalize(embeddings[key], dim=-1) for key in self.dims], -2)  # [B, K, D]
        learned = self.learned.to(seen.dtype).expand(*seen.shape[:-2], -1, -1)
        levels = torch.cat([seen, learned], -2)  # [B, K + learned, D]

        # weigh the levels of each feature, then map to the token
        return self.adapter((self.scale.softmax(0).to(seen.dtype) * levels).sum(-2))
