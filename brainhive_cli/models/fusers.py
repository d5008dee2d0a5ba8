"""Fusers, which combine the embeddings of a picture into a token [B, D].

The method `of_signal` of some fusers also maps outputs of a backbone to tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from brainhive_cli.core.recipes import parts
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
    description="Width of the backbone's output, which a linear map converts to a "
    "token. null if the output is the token.",
)
"""Key `signal_dim` of fusers that can map signals."""


class FuserConfig(parts.Config):
    """Base class of the Configs of fusers."""

    changes_one: ClassVar[bool] = True
    """False if the embedding of a single encoder is the target as it is."""
    takes_subjects: ClassVar[bool] = False
    """If True, the fuser is built for a number of subjects. In training it also takes
    their indices [B].
    """

    @property
    def signal_width(self) -> int | None:
        """Width of the backbone's output for `of_signal`, or None for tokens."""
        return getattr(self, "signal_dim", None)

    def token_dim(self, dims: dict[str, int], dim: int) -> int:
        """Return the width of the token, by default the recipe's.

        Args:
            dims: Width of each encoder's embedding, keyed by encoder.
            dim: Width in the recipe.
        """
        return dim


def build_fuser(
    config: FuserConfig, dims: dict[str, int], dim: int, subjects: int
) -> nn.Module:
    """Build a fuser.

    Args:
        config: Config of the fuser.
        dims: Width of each encoder's embedding, keyed by encoder.
        dim: Width D of the token.
        subjects: Number of subjects.

    Raises:
        BrainhiveError: if the fuser cannot combine these widths.
    """
    if config.takes_subjects:
        return parts.build_module(config, dims, dim, subjects)
    return parts.build_module(config, dims, dim)


class FusionEncoderConfig(FuserConfig):
    """Fusion encoder of BrainHiVE: a sum of projected embeddings, and a residual MLP.

    It is trained with the backbone (BrainHiVE, arXiv 2602.07495).
    """

    cites = ("zheng2026",)
    called = "joined by BrainHiVE's fusion encoder"

    intermediate_size: InnerWidth = Field(
        1024, description="Width inside the residual MLP; BrainHiVE's."
    )
    dropout: HiddenDropout = 0.1

    def build(self, dims: dict[str, int], dim: int) -> FusionEncoder:
        """Build the fuser of embeddings of widths `dims` to tokens [B, D]."""
        from brainhive_cli.models.blocks import FusionEncoder

        return FusionEncoder(dims, dim, self.intermediate_size, self.dropout)


class HeadsConfig(FuserConfig):
    """A head for each encoder's embedding, without fusion. Nothing is trained.

    Retrieval ranks by the mean of the heads' cosines. Short for the key `heads`.
    """

    def token_dim(self, dims: dict[str, int], dim: int) -> int:
        """Return the sum of the widths of all heads."""
        return sum(dims.values())

    def build(self, dims: dict[str, int], dim: int) -> nn.Module:
        """Build the identity: the embeddings are the targets, keyed by encoder."""
        from torch import nn

        return nn.Identity()


class ConcatenationConfig(FuserConfig):
    """Concatenated embeddings of the encoders. The image side is not trained.

    With a single encoder, this is the target of NICE (arXiv 2308.13234), ATM (arXiv
    2403.07721) and AlignVis, which maps signals by `signal_dim`.
    """

    called = "concatenated"
    changes_one = False

    normalise: bool = Field(
        True,
        description=(
            "If true, each embedding is first scaled to unit length, so that all have "
            "the same weight."
        ),
    )
    signal_dim: int | None = SIGNAL_DIM

    def token_dim(self, dims: dict[str, int], dim: int) -> int:
        """Return the sum of the widths of all encoders."""
        return sum(dims.values())

    def build(self, dims: dict[str, int], dim: int) -> Join:
        """Build the fuser of embeddings of widths `dims` to tokens [B, D]."""
        from torch import nn

        from brainhive_cli.models.fuser_networks import Join

        join = Join(dims, is_mean=False, normalise=self.normalise)
        if self.signal_dim:
            join.signal = nn.Linear(self.signal_dim, dim)
        return join


class MeanConfig(FuserConfig):
    """Mean of embeddings of the same width, such as of differently degraded pictures.

    Nothing is trained. The fuser `linear` can follow a mean by a map (NeuroBridge).
    """

    called = "averaged"
    changes_one = False

    def token_dim(self, dims: dict[str, int], dim: int) -> int:
        """Return the common width of all encoders.

        Raises:
            RecipeError: if they differ in width.
        """
        from brainhive_cli.models.fuser_networks import get_common_width

        return get_common_width(dims)

    def build(self, dims: dict[str, int], dim: int) -> Join:
        """Build the fuser of embeddings of widths `dims` to tokens [B, D]."""
        from brainhive_cli.models.fuser_networks import Join

        return Join(dims, is_mean=True)


class LinearConfig(FuserConfig):
    """Linear map of the embeddings, and with `signal_dim` of the backbone's output.

    Source: Shallow Alignment (arXiv 2601.21948); NeuroBridge (AAAI 2026).
    """

    cites = ("du2026", "zhang2026")
    called = "joined by a linear map"

    join: Literal["concatenate", "mean"] = Field(
        "concatenate",
        description="Combination of several embeddings before the map.",
    )
    signal_dim: int | None = SIGNAL_DIM

    def build(self, dims: dict[str, int], dim: int) -> LinearMaps:
        """Build the fuser of embeddings of widths `dims` to tokens [B, D].

        Raises:
            RecipeError: for the mean of embeddings of different widths.
        """
        from brainhive_cli.models.fuser_networks import LinearMaps

        return LinearMaps(dims, dim, self.join == "mean", self.signal_dim)


class BranchesConfig(FuserConfig):
    """Image side of BRIDGE: projected and concatenated embeddings, and a residual MLP.

    The embeddings come from several depths of a network (NeurIPS 2026, published
    repository).
    """

    cites = ("bridge2026",)
    called = "joined by BRIDGE's branches"

    width: PositiveInt = Field(
        256, description="Width of each projected embedding; BRIDGE's."
    )
    hidden: InnerWidth = Field(1024, description="Width inside the MLP; BRIDGE's.")
    dropout: Share = Field(0.1, description="Probability of dropping a unit; BRIDGE's.")

    def build(self, dims: dict[str, int], dim: int) -> Branches:
        """Build the fuser of embeddings of widths `dims` to tokens [B, D]."""
        from brainhive_cli.models.fuser_networks import Branches

        return Branches(dims, dim, self)


class LevelsConfig(FuserConfig):
    """Image side of Visual Blur Perception: a weighted sum of blur levels.

    Each feature of the embeddings of differently blurred pictures has its own weights
    (AAAI 2026, published repository).
    """

    cites = ("liu2026",)
    called = "mixed as in Visual Blur Perception"

    learned: int = Field(
        4, ge=0, description="Number of learned vectors in the sum; VBP's."
    )
    hidden: PositiveInt = Field(768, description="Width between the two maps; VBP's.")
    dropout: Share = Field(
        0.85, description="Probability of dropping a hidden unit; VBP's."
    )

    def build(self, dims: dict[str, int], dim: int) -> Levels:
        """Build the fuser of embeddings of widths `dims` to tokens [B, D].

        Raises:
            RecipeError: if the encoders differ in width.
        """
        from brainhive_cli.models.fuser_networks import Levels

        return Levels(dims, dim, self)


class RouterConfig(FuserConfig):
    """Image side of SAMGA: a weighted sum of the layers of a network.

    The weights have a bias for each subject. A last map is shared with the signals
    (arXiv 2604.17782, published repository). SAMGA's token has 512 values.
    """

    cites = ("jiang2026",)
    called = "weighted by SAMGA's router"
    takes_subjects = True

    hidden: PositiveInt = Field(
        1024,
        description="Output width of the first map, which all layers share; SAMGA's.",
    )
    signal_dim: PositiveInt = Field(
        1024, description="Width of the backbone's output; SAMGA's."
    )

    def build(self, dims: dict[str, int], dim: int, subjects: int) -> Router:
        """Build the fuser of embeddings of widths `dims` to tokens [B, D].

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
"""Fusers by kind, each small enough for tests."""
