"""Networks of the fusers: joins, maps, branches, levels and SAMGA's router."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models.blocks import (
    Dropout,
    ResidualMLP,
    order_embeddings,
)

BIAS_DROPOUT = 0.3
"""Probability that a training sample is weighted without its subject's bias by the
router; SAMGA's.
"""


def get_common_width(dims: dict[str, int]) -> int:
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
        self.dims = dict(dims)
        self.is_mean = is_mean
        self.normalise = normalise
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
            get_common_width(dims) if is_mean else sum(dims.values()), dim
        )
        # without a width, the brain encoder predicts tokens itself
        self.signal = nn.Linear(signal_dim, dim) if signal_dim else nn.Identity()

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Map embeddings, each [B, D_encoder], to a token [B, D]."""
        return self.image(self.join(embeddings))

    def of_signal(self, predicted: Tensor) -> Tensor:
        """Map what the brain encoder gives, [B, signal_dim], to tokens [B, D]."""
        return self.signal(predicted)


class Branches(nn.Module):
    """Branches, a map of all of them, and a block.

    Args:
        dims: Width of each encoder's embedding, by the encoder's key.
        dim: D, width of the token.
        config: The knobs.
    """

    def __init__(self, dims: dict[str, int], dim: int, config: Any) -> None:
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


class Levels(nn.Module):
    """Weights of levels for each feature, and two maps.

    Args:
        dims: Width of each encoder's embedding, by the encoder's key.
        dim: D, width of the token.
        config: The knobs.
    """

    def __init__(self, dims: dict[str, int], dim: int, config: Any) -> None:
        super().__init__()
        self.dims = dict(dims)
        width = get_common_width(dims)
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


class Router(nn.Module):
    """Maps of layers, their weighted sum, and the map that signals pass too.

    Args:
        dims: Width of each encoder's embedding, by the encoder's key.
        dim: D, width of the token.
        subjects: How many subjects there are.
        config: The knobs.
    """

    def __init__(
        self, dims: dict[str, int], dim: int, subjects: int, config: Any
    ) -> None:
        super().__init__()
        self.dims = dict(dims)
        self.bias_dropout = BIAS_DROPOUT
        count = len(dims)

        # at first the layer in the middle weighs most: another's logit is its distance
        # from there, below 0
        self.pre = nn.Linear(get_common_width(dims), config.hidden)
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
