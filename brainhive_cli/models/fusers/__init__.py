"""Fusers: embeddings of a picture to the one token [B, D] that a head predicts.

A fuser whose Config has `takes_subjects: ClassVar[bool] = True` is also built for a number of subjects, and
called with their indices [B] in training. One whose Config has `signal_dim` has a method `of_signal`, which
maps what the brain encoder gives, so wide, to tokens.
"""

from torch import nn

from brainhive_cli.core import parts


def build(config: parts.Config, dims: dict[str, int], dim: int, subjects: int) -> nn.Module:
    """Make a fuser of embeddings of these widths, by key, to tokens [B, D].

    Raises:
        BrainhiveError: if it does not go with the widths.
    """
    counts = (subjects,) if getattr(config, "takes_subjects", False) else ()
    return parts.build_module(config, dims, dim, *counts)
