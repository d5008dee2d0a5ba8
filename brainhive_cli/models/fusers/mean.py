"""The mean of features of one width, as of one network that sees a picture several ways."""

import torch
from torch import Tensor, nn

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models.blocks import refuse_other_embeddings
from brainhive_cli.models.fusers import FuserConfig


class Config(FuserConfig):
    """Features averaged as they are; nothing is trained (with a map behind it: `linear`, NeuroBridge)."""

    def token_dim(self, dims: dict[str, int], dim: int) -> int:
        """Return the width that all encoders have.

        Raises:
            RecipeError: if they differ in width.
        """
        return common_width(dims)

    def build(self, dims: dict[str, int], dim: int) -> "Mean":
        """Make a fuser of embeddings of these widths, by encoder, to tokens [B, D]."""
        return Mean(dims)


TINY = Config()


class Mean(nn.Module):
    """The mean of embeddings.

    Args:
        dims: Width of each encoder's embedding, by the encoder's key.
    """

    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__()
        self.dims = dict(dims)

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Average embeddings, each [B, D], to a token [B, D]."""
        refuse_other_embeddings(embeddings, self.dims)
        return torch.stack([embeddings[key] for key in self.dims]).mean(0)


def common_width(dims: dict[str, int]) -> int:
    """Return the width that all encoders have.

    Raises:
        RecipeError: if they differ in width.
    """
    if len(widths := set(dims.values())) != 1:
        listed = ", ".join(f"{key} ({width})" for key, width in dims.items())
        raise RecipeError(f"this fuser takes embeddings of one width, not {listed}", "fuser.kind=branches")
    return widths.pop()
