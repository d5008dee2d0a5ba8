"""The encoders' own features, joined to one token; nothing is trained."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.blocks import refuse_other_embeddings
from brainhive_cli.models.fusers import FuserConfig


class Config(FuserConfig):
    """Features as they are: of one encoder NICE's (arXiv 2308.13234) and ATM's (arXiv 2403.07721) target."""

    normalise: bool = Field(
        True, description="Bring each encoder's features to unit length first, so that all weigh the same."
    )

    def token_dim(self, dims: dict[str, int], dim: int) -> int:
        """Return the width of the token, given the encoders' widths and the recipe's `dim`."""
        return sum(dims.values())

    def build(self, dims: dict[str, int], dim: int) -> "Concatenation":
        """Make a fuser of embeddings of these widths, by encoder, to tokens [B, D].

        Raises:
            BrainhiveError: if D is not the sum of the widths.
        """
        return Concatenation(dims, dim, self.normalise)


TINY = Config()


class Concatenation(nn.Module):
    """Embeddings joined in the order of `dims`.

    Args:
        dims: Width of each encoder's embedding, by the encoder's key.
        dim: D, their sum.
        normalise: Whether each is brought to unit length first.
    """

    def __init__(self, dims: dict[str, int], dim: int, normalise: bool) -> None:
        super().__init__()
        if dim != sum(dims.values()):
            raise BrainhiveError(f"embeddings of {dims} make no token of {dim}", f"dim={sum(dims.values())}")
        self.dims, self.normalise = dict(dims), normalise

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Join embeddings, each [B, D_encoder], to a token [B, D].

        Raises:
            BrainhiveError: if the encoders or their widths are not those it was made for.
        """
        refuse_other_embeddings(embeddings, self.dims)
        # in the order of `dims`, whatever the order of the given embeddings
        ordered = [embeddings[key] for key in self.dims]
        if self.normalise:
            ordered = [F.normalize(embedding, dim=-1) for embedding in ordered]
        return torch.cat(ordered, -1)
