"""Fusers: embeddings of a picture to the one token [B, D] that a head predicts.

A fuser with a method `of_signal` also maps what the brain encoder gives to tokens.
"""

from typing import ClassVar

from torch import nn

from brainhive_cli.core import parts


class FuserConfig(parts.Config):
    """Base of fusers' Configs; the defaults are those of a fuser of embeddings alone."""

    takes_subjects: ClassVar[bool] = False
    """Whether it is built for a number of subjects, and called with their indices [B] in training."""

    @property
    def signal_width(self) -> int | None:
        """Width of what the brain encoder gives, for `of_signal`; None if it gives tokens."""
        return None


class SizedFuserConfig(FuserConfig):
    """Base of the Configs of fusers whose token is as wide as the recipe says."""

    def token_dim(self, dims: dict[str, int], dim: int) -> int:
        """Return the width of the token, given the encoders' widths and the recipe's `dim`: the latter."""
        return dim


def build(config: FuserConfig, dims: dict[str, int], dim: int, subjects: int) -> nn.Module:
    """Make a fuser of embeddings of these widths, by key, to tokens [B, D].

    Raises:
        BrainhiveError: if it does not go with the widths.
    """
    counts = (subjects,) if config.takes_subjects else ()
    return parts.build_module(config, dims, dim, *counts)
