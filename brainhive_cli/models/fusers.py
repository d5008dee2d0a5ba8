"""Fusers: embeddings of a picture to the one token [B, D] that a head predicts.

A fuser with a method `of_signal` also maps what the brain encoder gives to tokens.
"""

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models.blocks import (
    Dropout,
    FusionEncoder,
    HiddenDropout,
    InnerWidth,
    ResidualMLP,
    Share,
    order_embeddings,
)

BIAS_DROPOUT = 0.3
"""Probability that a training sample is weighted without its subject's bias by the
router; SAMGA's.
"""
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


def build(
    config: FuserConfig, dims: dict[str, int], dim: int, subjects: int
) -> nn.Module:
    """Make a fuser of embeddings of these widths, by key, to tokens [B, D].

    Raises:
        BrainhiveError: if it does not go with the widths.
    """
    # only fusers with weights for subjects take their number
    counts = (subjects,) if config.takes_subjects else ()
    return parts.build_module(config, dims, dim, *counts)


def common_width(dims: dict[str, int]) -> int:
    """Return the width that all encoders have.

    Raises:
        RecipeError: if they differ in width.
    """
    if len(widths := set(dims.values())) != 1:
        listed = ", ".join(f"{key} ({width})" for key, width in dims.items())
        raise RecipeError(
            f"this fuser takes embeddings of one width, not {listed}",
            "fuser.kind=branches",
        )
    return widths.pop()


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

    def build(self, dims: dict[str, int], dim: int) -> "Join":
        """Make a fuser of embeddings of these widths, by encoder, to tokens as wide as
        all of them.
        """
        join = Join(dims, is_mean=False, normalise=self.normalise)
        if self.signal_dim:
            join.signal = nn.Linear(self.signal_dim, dim)
        return join


class Join(nn.Module):
    """The mean of embeddings, or these joined in the order of `dims`.

    Args:
        dims: Width of each encoder's embedding, by the encoder's key.
        is_mean: Whether they are averaged, not joined.
        normalise: Whether each is brought to unit length first: it then weighs the same
            in cosines.
    """

    def __init__(
        self, dims: dict[str, int], is_mean: bool, normalise: bool = False
    ) -> None:
        super().__init__()
        self.dims, self.is_mean, self.normalise = dict(dims), is_mean, normalise
        self.signal: nn.Module = nn.Identity()

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Join embeddings, each [B, D_encoder], to a token [B, D]."""
        ordered = order_embeddings(embeddings, self.dims)
        if self.normalise:
            ordered = [F.normalize(embedding, dim=-1) for embedding in ordered]
        return torch.stack(ordered).mean(0) if self.is_mean else torch.cat(ordered, -1)

    def of_signal(self, predicted: Tensor) -> Tensor:
        """Map what the brain encoder gives, [B, signal_dim], to tokens [B, D]."""
        return self.signal(predicted)


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
        return common_width(dims)

    def build(self, dims: dict[str, int], dim: int) -> "Join":
        """Make a fuser of embeddings of these widths, by encoder, to tokens [B, D]."""
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

    def build(self, dims: dict[str, int], dim: int) -> "LinearMaps":
        """Make a fuser of embeddings of these widths, by encoder, to tokens [B, D].

        Raises:
            RecipeError: if a mean is wanted of different widths.
        """
        return LinearMaps(dims, dim, self.join == "mean", self.signal_dim)


class LinearMaps(nn.Module):
    """A map of embeddings, joined or averaged, and a map of signals.

    Args:
        dims: Width of each encoder's embedding, by the encoder's key.
        dim: D, width of the token.
        is_mean: Whether embeddings are averaged, not joined.
        signal_dim: Width of what the brain encoder gives; None: it gives tokens.
    """

    def __init__(
        self, dims: dict[str, int], dim: int, is_mean: bool, signal_dim: int | None
    ) -> None:
        super().__init__()
        self.join = Join(dims, is_mean)
        # a mean is as wide as one encoder, a concatenation as all of them
        self.image = nn.Linear(
            common_width(dims) if is_mean else sum(dims.values()), dim
        )
        # without a width, the brain encoder predicts tokens itself
        self.signal = nn.Linear(signal_dim, dim) if signal_dim else nn.Identity()

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Map embeddings, each [B, D_encoder], to a token [B, D]."""
        return self.image(self.join(embeddings))

    def of_signal(self, predicted: Tensor) -> Tensor:
        """Map what the brain encoder gives, [B, signal_dim], to tokens [B, D]."""
        return self.signal(predicted)


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

    def build(self, dims: dict[str, int], dim: int) -> "Branches":
        """Make a fuser of embeddings of these widths, by encoder, to tokens [B, D]."""
        return Branches(dims, dim, self)


class Branches(nn.Module):
    """Branches, a map of all of them, and a block.

    Args:
        dims: Width of each encoder's embedding, by the encoder's key.
        dim: D, width of the token.
        config: The knobs.
    """

    def __init__(self, dims: dict[str, int], dim: int, config: BranchesConfig) -> None:
        super().__init__()
        self.dims = dict(dims)

        # a branch of equal width for each depth, and a map of all branches
        self.branches = nn.ModuleList(
            nn.Linear(width, config.width) for width in dims.values()
        )
        self.dropout = Dropout(config.dropout)
        self.input_proj = nn.Linear(len(dims) * config.width, dim)
        self.block = ResidualMLP(dim, config.hidden, config.dropout)

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Fuse embeddings, each [B, D_encoder], to a token [B, D]."""
        # one branch for each depth, joined and mixed
        pairs = zip(self.branches, order_embeddings(embeddings, self.dims), strict=True)
        joined = torch.cat(
            [self.dropout(branch(embedding)) for branch, embedding in pairs], -1
        )
        return self.block(self.input_proj(joined))  # [B, D]


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

    def build(self, dims: dict[str, int], dim: int) -> "Levels":
        """Make a fuser of embeddings of one width, by encoder, to tokens [B, D].

        Raises:
            RecipeError: if the encoders differ in width.
        """
        return Levels(dims, dim, self)


class Levels(nn.Module):
    """Weights of levels for each feature, and two maps.

    Args:
        dims: Width of each encoder's embedding, by the encoder's key.
        dim: D, width of the token.
        config: The knobs.
    """

    def __init__(self, dims: dict[str, int], dim: int, config: LevelsConfig) -> None:
        super().__init__()
        self.dims, width = dict(dims), common_width(dims)
        self.learned = nn.Parameter(torch.zeros(config.learned, width))  # [learned, D]
        # [K + learned, D]
        self.scale = nn.Parameter(torch.rand(len(dims) + config.learned, width))
        self.adapter = nn.Sequential(
            nn.Linear(width, config.hidden),
            nn.ELU(),
            Dropout(config.dropout),
            nn.Linear(config.hidden, dim),
        )

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Mix embeddings, each [B, D] and brought to unit length, to a token [B, D]."""
        # embeddings of unit length, and the learned vectors behind them
        # [B, K, D]
        seen = F.normalize(
            torch.stack(order_embeddings(embeddings, self.dims), -2), dim=-1
        )
        learned = self.learned.to(seen.dtype).expand(*seen.shape[:-2], -1, -1)
        levels = torch.cat([seen, learned], -2)  # [B, K + learned, D]

        # weigh the levels of each feature, then map to the token
        return self.adapter((self.scale.softmax(0).to(seen.dtype) * levels).sum(-2))


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

    def build(self, dims: dict[str, int], dim: int, subjects: int) -> "Router":
        """Make a fuser of embeddings of one width, by encoder, to tokens [B, D]; for so
        many subjects.

        Raises:
            RecipeError: if the encoders differ in width.
        """
        return Router(dims, dim, subjects, self)


class Router(nn.Module):
    """Maps of layers, their weighted sum, and the map that signals pass too.

    Args:
        dims: Width of each encoder's embedding, by the encoder's key.
        dim: D, width of the token.
        subjects: How many subjects there are.
        config: The knobs.
    """

    def __init__(
        self, dims: dict[str, int], dim: int, subjects: int, config: RouterConfig
    ) -> None:
        super().__init__()
        self.dims, self.bias_dropout, count = dict(dims), BIAS_DROPOUT, len(dims)

        # at first the layer in the middle weighs most: another's logit is its distance
        # from there, below 0
        self.pre = nn.Linear(common_width(dims), config.hidden)
        self.layers = nn.ModuleList(nn.Linear(config.hidden, dim) for _ in dims)
        self.global_logits = nn.Parameter(
            -(torch.arange(count, dtype=torch.float32) - count // 2).abs()
        )
        # [subjects, L], all alike at first
        self.subject_bias = nn.Parameter(torch.zeros(subjects, count))

        # the last map is shared, so that signals and pictures meet in one space
        self.signal = nn.Linear(config.signal_dim, dim)
        self.share = nn.Linear(dim, dim)

    def forward(
        self, embeddings: dict[str, Tensor], subject: Tensor | None = None
    ) -> Tensor:
        """Weigh embeddings, each [B, D_encoder], of subjects [B]: a token [B, D].

        Without subjects, and in evaluation, all are weighted alike: a picture has one
        token for everyone.
        """
        # map every layer's embedding to the width of the token, and weigh the layers
        pairs = zip(self.layers, order_embeddings(embeddings, self.dims), strict=True)
        # [B, L, D]
        mapped = torch.stack(
            [layer(self.pre(embedding)) for layer, embedding in pairs], -2
        )
        weights = self.weights(subject if self.training else None)  # [B, L] or [L]
        return self.share((weights[..., None].to(mapped.dtype) * mapped).sum(-2))

    def weights(self, subject: Tensor | None) -> Tensor:
        """Return the weights of the layers, [B, L] of subjects [B], or [L] for
        everyone.
        """
        if subject is None:
            return self.global_logits.softmax(-1)  # [L]
        # SAMGA drops the subject's bias of some samples in training
        with_bias = (
            F.dropout(
                torch.ones_like(subject, dtype=torch.float32), self.bias_dropout, True
            )
            > 0
        )
        return (
            self.global_logits + self.subject_bias[subject] * with_bias[:, None]
        ).softmax(-1)

    def of_signal(self, predicted: Tensor) -> Tensor:
        """Map what the brain encoder gives, [B, signal_dim], to tokens [B, D]; the last
        map is shared.
        """
        return self.share(self.signal(predicted))


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
