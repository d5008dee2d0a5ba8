"""Fusers: embeddings of a picture to the one token [B, D] that a head predicts.

A fuser whose Config has `takes_subjects: ClassVar[bool] = True` is also built for a number of subjects, and
called with their indices [B] in training. One whose Config has `signal_dim` has a method `of_signal`, which
maps what the brain encoder gives, so wide, to tokens.
"""

from torch import nn

from brainhive_cli.core import parts


class FuserConfig(parts.Config):
    """Base of the Configs of fusers whose token is as wide as the recipe says."""

    def token_dim(self, dims: dict[str, int], dim: int) -> int:
        """Return the width of the token, given the encoders' widths and the recipe's `dim`: the latter."""
        return dim


def build(config: parts.Config, dims: dict[str, int], dim: int, subjects: int) -> nn.Module:
    """Make a fuser of embeddings of these widths, by key, to tokens [B, D].

    Raises:
        BrainhiveError: if it does not go with the widths.
    """
    counts = (subjects,) if getattr(config, "takes_subjects", False) else ()
    return parts.build_module(config, dims, dim, *counts)
