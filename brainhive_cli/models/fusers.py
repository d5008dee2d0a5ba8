"""Fusers: embeddings of a picture to the one token [B, D] that a head predicts.

A fuser with a method `of_signal` also maps what the brain encoder gives to tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from brainhive_cli.core import parts
from brainhive_cli.models.sizes import HiddenDropout, InnerWidth, Share

if TYPE_CHECKING:
    from torch import nn

    from brainhive_cli.models.blocks import FusionEncoder
    from brainhive_cli.models.fuser_networks import (
        Branches,
        Join,
        Levels,
        LinearMaps,
        Router,
    )

SIGNAL_DIM: Any = Field(
    None,
    gt=0,
    description="Width of the brain encoder's output, which a linear map brings to the "
    "token's; null: the output is the token.",
)
"""The key `signal_dim` of fusers that may map signals."""


class FuserConfig(parts.Config):
    """Base of fusers' Configs; the defaults are those of a fuser of embeddings
    alone.
    """

    takes_subjects: ClassVar[bool] = False
    """Whether it is built for a number of subjects, and called with their indices [B]
    in training.
    """

    @property
    def signal_width(self) -> int | None:
        """Width of what the brain encoder gives, for `of_signal`; None if it gives
        tokens.
        """
        return getattr(self, "signal_dim", None)

    def token_dim(self, dims: dict[str, int], dim: int) -> int:
        """Return the width of the token, by the encoders' widths or the recipe's
        `dim`.
        """
        return dim


def build_fuser(
    config: FuserConfig, dims: dict[str, int], dim: int, subjects: int
) -> nn.Module:
    """Make a fuser of embeddings of these widths, by key, to tokens [B, D].

    Raises:
        BrainhiveError: if it does not go with the widths.
    """
    # only fusers with weights for subjects take their number
    counts = (subjects,) if config.takes_subjects else ()
    return parts.build_module(config, dims, dim, *counts)


class FusionEncoderConfig(FuserConfig):
    """BrainHiVE's fusion encoder: projections of several embeddings, summed, and one
    residual MLP.

    The fusion encoder that is trained with the brain encoder (BrainHiVE, arXiv
    2602.07495).
    """

    cites = ("zheng2026",)

    intermediate_size: InnerWidth = Field(
        1024, description="Width inside the block; BrainHiVE's."
    )
    dropout: HiddenDropout = 0.1

    def build(self, dims: dict[str, int], dim: int) -> FusionEncoder:
        """Make a fuser of embeddings of these widths, by encoder, to tokens [B, D]."""
        from brainhive_cli.models.blocks import FusionEncoder

        return FusionEncoder(dims, dim, self.intermediate_size, self.dropout)


class HeadsConfig(FuserConfig):
    """The encoders' own features, each the target of a head of its own; nothing is
    trained.

    A head for each encoder; retrieval ranks by the mean of their cosines. Short for the
    key `heads`.
    """

    def token_dim(self, dims: dict[str, int], dim: int) -> int:
        """Return the width of all heads together."""
        return sum(dims.values())

    def build(self, dims: dict[str, int], dim: int) -> nn.Module:
        """Make a fuser that leaves embeddings as they are: the target of each head, by
        the encoder's key.
        """
        from torch import nn

        return nn.Identity()


class ConcatenationConfig(FuserConfig):
    """The encoders' own features, joined to one token; nothing is trained for them.

    Features as they are: of one encoder NICE's (arXiv 2308.13234) and ATM's (arXiv
    2403.07721) target, and AlignVis', which maps signals by `signal_dim`.
    """

    normalise: bool = Field(
        True,
        description=(
            "Bring each encoder's features to unit length first, so that all weigh the "
            "same."
        ),
    )
    signal_dim: int | None = SIGNAL_DIM

    def token_dim(self, dims: dict[str, int], dim: int) -> int:
        """Return the sum of the encoders' widths."""
        return sum(dims.values())

    def build(self, dims: dict[str, int], dim: int) -> Join:
        """Make a fuser of embeddings of these widths, by encoder, to tokens as wide as
        all of them.
        """
        from torch import nn

        from brainhive_cli.models.fuser_networks import Join

        join = Join(dims, is_mean=False, normalise=self.normalise)
        if self.signal_dim:
            join.signal = nn.Linear(self.signal_dim, dim)
        return join


class MeanConfig(FuserConfig):
    """The mean of features of one width, as of one network that sees a picture several
    ways.

    Features averaged as they are; nothing is trained (with a map behind it: `linear`,
    NeuroBridge).
    """

    def token_dim(self, dims: dict[str, int], dim: int) -> int:
        """Return the width that all encoders have.

        Raises:
            RecipeError: if they differ in width.
        """
        from brainhive_cli.models.fuser_networks import get_common_width

        return get_common_width(dims)

    def build(self, dims: dict[str, int], dim: int) -> Join:
        """Make a fuser of embeddings of these widths, by encoder, to tokens [B, D]."""
        from brainhive_cli.models.fuser_networks import Join

        return Join(dims, is_mean=True)


class LinearConfig(FuserConfig):
    """A learned linear map of the encoders' features, and one of what the brain encoder
    gives.

    One linear map on each side: Shallow Alignment (arXiv 2601.21948), NeuroBridge (AAAI
    2026).
    """

    cites = ("du2026", "zhang2026")

    join: Literal["concatenate", "mean"] = Field(
        "concatenate",
        description="What is mapped of several encoders: all features, or their mean.",
    )
    signal_dim: int | None = SIGNAL_DIM

    def build(self, dims: dict[str, int], dim: int) -> LinearMaps:
        """Make a fuser of embeddings of these widths, by encoder, to tokens [B, D].

        Raises:
            RecipeError: if a mean is wanted of different widths.
        """
        from brainhive_cli.models.fuser_networks import LinearMaps

        return LinearMaps(dims, dim, self.join == "mean", self.signal_dim)


class BranchesConfig(FuserConfig):
    """BRIDGE's target: a projection of each depth of a network, joined and mixed by one
    block.

    The image side of BRIDGE (NeurIPS 2026, published repository).
    """

    cites = ("bridge2026",)

    width: PositiveInt = Field(
        256, description="Width of each encoder's branch; BRIDGE's."
    )
    hidden: InnerWidth = Field(1024, description="Width inside the block; BRIDGE's.")
    dropout: Share = Field(0.1, description="Probability of dropping a unit; BRIDGE's.")

    def build(self, dims: dict[str, int], dim: int) -> Branches:
        """Make a fuser of embeddings of these widths, by encoder, to tokens [B, D]."""
        from brainhive_cli.models.fuser_networks import Branches

        return Branches(dims, dim, self)


class LevelsConfig(FuserConfig):
    """Visual Blur Perception's target: one network's features of several blurs, mixed
    feature by feature.

    The image side of Visual Blur Perception (AAAI 2026, published repository).
    """

    cites = ("liu2026",)

    learned: int = Field(
        4, ge=0, description="Learned vectors that are mixed in; VBP's."
    )
    hidden: PositiveInt = Field(768, description="Width between the two maps; VBP's.")
    dropout: Share = Field(
        0.85, description="Probability of dropping a hidden unit; VBP's."
    )

    def build(self, dims: dict[str, int], dim: int) -> Levels:
        """Make a fuser of embeddings of one width, by encoder, to tokens [B, D].

        Raises:
            RecipeError: if the encoders differ in width.
        """
        from brainhive_cli.models.fuser_networks import Levels

        return Levels(dims, dim, self)


class RouterConfig(FuserConfig):
    """SAMGA's target: layers of one network, weighted by learned weights that subjects
    may shift.

    The image side of SAMGA (arXiv 2604.17782, published repository), and the map that
    both sides share. SAMGA's token has 512 values.
    """

    cites = ("jiang2026",)
    takes_subjects = True

    hidden: PositiveInt = Field(
        1024, description="Width of the map that all layers share; SAMGA's."
    )
    signal_dim: PositiveInt = Field(
        1024, description="Width of what the brain encoder gives; SAMGA's."
    )

    def build(self, dims: dict[str, int], dim: int, subjects: int) -> Router:
        """Make a fuser of embeddings of one width, by encoder, to tokens [B, D]; for so
        many subjects.

        Raises:
            RecipeError: if the encoders differ in width.
        """
        from brainhive_cli.models.fuser_networks import Router

        return Router(dims, dim, subjects, self)


TINY = {
    "branches": BranchesConfig(width=4, hidden=8),
    "concatenation": ConcatenationConfig(),
    "fusion-encoder": FusionEncoderConfig(intermediate_size=16),
    "heads": HeadsConfig(),
    "levels": LevelsConfig(learned=2, hidden=8),
    "linear": LinearConfig(),
    "mean": MeanConfig(),
    "router": RouterConfig(hidden=8, signal_dim=8),
}
"""The parts of this shelf by kind, each small enough for tests."""
