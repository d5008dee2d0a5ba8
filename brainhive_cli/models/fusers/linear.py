"""A learned linear map of the encoders' features, and one of what the brain encoder gives."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.models.blocks import refuse_other_embeddings
from brainhive_cli.models.fusers import SizedFuserConfig
from brainhive_cli.models.fusers.mean import common_width


class Config(SizedFuserConfig):
    """One linear map on each side: Shallow Alignment (arXiv 2601.21948), NeuroBridge (AAAI 2026)."""

    cites = ("du2026", "zhang2026")

    join: Literal["concatenate", "mean"] = Field(
        "concatenate", description="What is mapped of several encoders: all features, or their mean."
    )
    signal_dim: int | None = Field(
        None, gt=0, description="Width of what the brain encoder gives, which is mapped too; null: it is not."
    )

    @property
    def signal_width(self) -> int | None:
        """Width of what the brain encoder gives."""
        return self.signal_dim

    def build(self, dims: dict[str, int], dim: int) -> "LinearMaps":
        """Make a fuser of embeddings of these widths, by encoder, to tokens [B, D].

        Raises:
            RecipeError: if a mean is wanted of different widths.
        """
        return LinearMaps(dims, dim, self.join == "mean", self.signal_dim)


TINY = Config()


class LinearMaps(nn.Module):
    """A map of embeddings, joined or averaged, and a map of signals.

    Args:
        dims: Width of each encoder's embedding, by the encoder's key.
        dim: D, width of the token.
        is_mean: Whether embeddings are averaged, not joined.
        signal_dim: Width of what the brain encoder gives; None: it gives tokens.
    """

    def __init__(self, dims: dict[str, int], dim: int, is_mean: bool, signal_dim: int | None) -> None:
        super().__init__()
        self.dims, self.is_mean = dict(dims), is_mean
        self.image = nn.Linear(common_width(dims) if is_mean else sum(dims.values()), dim)
        self.signal = nn.Linear(signal_dim, dim) if signal_dim else nn.Identity()

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Map embeddings, each [B, D_encoder], to a token [B, D]."""
        refuse_other_embeddings(embeddings, self.dims)
        # in the order that the map was trained with
        ordered = [embeddings[key] for key in self.dims]
        return self.image(torch.stack(ordered).mean(0) if self.is_mean else torch.cat(ordered, -1))

    def of_signal(self, predicted: Tensor) -> Tensor:
        """Map what the brain encoder gives, [B, signal_dim], to tokens [B, D]."""
        return self.signal(predicted)
