"""The encoders' own features as heads: each has its own loss; similarity is the mean of their cosines."""

from brainhive_cli.core import parts
from brainhive_cli.fusers.concatenation import Concatenation


class Config(parts.Config):
    """A part of the token for each encoder, each compared by itself; nothing is trained."""

    def token_dim(self, dims: dict[str, int], dim: int) -> int:
        """Say how wide the token is, given the encoders' widths and the recipe's `dim`."""
        return sum(dims.values())

    def build(self, dims: dict[str, int], dim: int) -> Concatenation:
        """Make a fuser of embeddings of these widths, by encoder, to tokens [B, D] of as many heads.

        Raises:
            BrainhiveError: if D is not the sum of the widths.
        """
        return Concatenation(dims, dim, separate=True)


TINY = Config()
"""It has no size."""
