"""Networks of the fusers."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainhive_cli.core.base import RecipeError
from brainhive_cli.models.blocks import (
    Dropout,
    ResidualMLP,
    order_embeddings,
)


def get_common_width(dims: dict[str, int]) -> int:
    """Return the common width of all encoders.

    Args:
        dims: Width of each encoder's embedding, keyed by encoder.

    Raises:
        RecipeError: if they differ in width.
    """
    widths = set(dims.values())
    if len(widths) != 1:
        encoders = ", ".join(f"{key} ({width})" for key, width in dims.items())
        raise RecipeError(
            f"this fuser takes embeddings of one width, not {encoders}",
            "fuser.kind=branches",
        )
    return widths.pop()


class Join(nn.Module):
    """Mean of embeddings, or their concatenation in the order of `dims`.

    Args:
        dims: Width of each encoder's embedding, keyed by encoder.
        is_mean: If True, they are averaged.
        normalise: If True, each is first scaled to unit length, so that all have the
            same weight in cosines.
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
        """Combine embeddings [B, D_encoder], keyed by encoder, to tokens [B, D]."""
        ordered = order_embeddings(embeddings, self.dims)
        if self.normalise:
            ordered = [F.normalize(embedding, dim=-1) for embedding in ordered]
        return torch.stack(ordered).mean(0) if self.is_mean else torch.cat(ordered, -1)

    def of_signal(self, predicted: Tensor) -> Tensor:
        """Map outputs [B, signal_dim] of the backbone to tokens [B, D]."""
        return self.signal(predicted)


class LinearMaps(nn.Module):
    """Linear map of concatenated or averaged embeddings, and linear map of signals.

    Args:
        dims: Width of each encoder's embedding, keyed by encoder.
        dim: Width D of the token.
        is_mean: If True, embeddings are averaged.
        signal_dim: Width of the backbone's output, or None if it gives tokens.
    """

    def __init__(
        self, dims: dict[str, int], dim: int, is_mean: bool, signal_dim: int | None
    ) -> None:
        super().__init__()
        self.join = Join(dims, is_mean)
        width = get_common_width(dims) if is_mean else sum(dims.values())
        self.image = nn.Linear(width, dim)
        self.signal = nn.Linear(signal_dim, dim) if signal_dim else nn.Identity()

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Map embeddings [B, D_encoder], keyed by encoder, to tokens [B, D]."""
        return self.image(self.join(embeddings))

    def of_signal(self, predicted: Tensor) -> Tensor:
        """Map outputs [B, signal_dim] of the backbone to tokens [B, D]."""
        return self.signal(predicted)


class Branches(nn.Module):
    """Linear map of each embedding, linear map of all results, and a residual MLP.

    Args:
        dims: Width of each encoder's embedding, keyed by encoder.
        dim: Width D of the token.
        config: `BranchesConfig`.
    """

    def __init__(self, dims: dict[str, int], dim: int, config: Any) -> None:
        super().__init__()
        self.dims = dict(dims)

        self.branches = nn.ModuleList(
            nn.Linear(width, config.width) for width in dims.values()
        )
        self.dropout = Dropout(config.dropout)
        self.input_proj = nn.Linear(len(dims) * config.width, dim)
        self.block = ResidualMLP(dim, config.hidden, config.dropout)

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Fuse embeddings [B, D_encoder], keyed by encoder, to tokens [B, D]."""
        ordered = order_embeddings(embeddings, self.dims)
        projections = []
        for branch, embedding in zip(self.branches, ordered, strict=True):
            projections.append(self.dropout(branch(embedding)))
        return self.block(self.input_proj(torch.cat(projections, -1)))


class Levels(nn.Module):
    """Weighted sum of levels with weights for each feature, and a perceptron.

    Args:
        dims: Width of each encoder's embedding, keyed by encoder.
        dim: Width D of the token.
        config: `LevelsConfig`.
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
        """Fuse embeddings [B, D_encoder], keyed by encoder, to tokens [B, D]."""
        stacked = torch.stack(order_embeddings(embeddings, self.dims), -2)
        encoded = F.normalize(stacked, dim=-1)  # [B, K, D_encoder]
        learned = self.learned.to(encoded.dtype).expand(*encoded.shape[:-2], -1, -1)
        levels = torch.cat([encoded, learned], -2)  # [B, K + learned, D_encoder]

        weights = self.scale.softmax(0).to(encoded.dtype)
        return self.adapter((weights * levels).sum(-2))


class Router(nn.Module):
    """Weighted sum of mapped layers, and a last map that signals also pass.

    Args:
        dims: Width of each layer's embedding, keyed by layer.
        dim: Width D of the token.
        subjects: Number of subjects.
        config: `RouterConfig`.
    """

    def __init__(
        self, dims: dict[str, int], dim: int, subjects: int, config: Any
    ) -> None:
        super().__init__()
        self.dims = dict(dims)
        # Probability that the router ignores a training sample's subject (SAMGA).
        self.bias_dropout = 0.3
        n_layers = len(dims)
        self.pre = nn.Linear(get_common_width(dims), config.hidden)
        self.layers = nn.ModuleList(nn.Linear(config.hidden, dim) for _ in dims)
        # the initial logit is minus the distance from the middle layer
        layer_numbers = torch.arange(n_layers, dtype=torch.float32)
        self.global_logits = nn.Parameter(-(layer_numbers - n_layers // 2).abs())
        self.subject_bias = nn.Parameter(torch.zeros(subjects, n_layers))
        # signals and pictures share the last map
        self.signal = nn.Linear(config.signal_dim, dim)
        self.share = nn.Linear(dim, dim)

    def forward(
        self, embeddings: dict[str, Tensor], subject: Tensor | None = None
    ) -> Tensor:
        """Fuse the embeddings of layers to tokens [B, D].

        Args:
            embeddings: Embeddings [B, D_encoder], keyed by layer.
            subject: Subject indices [B] for the weights in training. Without them, and
                in evaluation, all subjects have the same weights.
        """
        ordered = order_embeddings(embeddings, self.dims)
        projections = []
        for layer, embedding in zip(self.layers, ordered, strict=True):
            projections.append(layer(self.pre(embedding)))
        stacked = torch.stack(projections, -2)  # [B, L, D]
        weights = self.weights(subject if self.training else None)  # [B, L] or [L]
        return self.share((weights[..., None].to(stacked.dtype) * stacked).sum(-2))

    def weights(self, subject: Tensor | None) -> Tensor:
        """Compute the weights of the layers for a training step.

        Args:
            subject: Subject indices [B], or None for the weights of everyone.

        Returns:
            Weights [B, L], or [L] without subjects.
        """
        if subject is None:
            return self.global_logits.softmax(-1)
        # ignore the subject's bias of random samples
        ones = torch.ones_like(subject, dtype=torch.float32)
        has_bias = F.dropout(ones, self.bias_dropout, True) > 0
        bias = self.subject_bias[subject] * has_bias[:, None]
        return (self.global_logits + bias).softmax(-1)

    def of_signal(self, predicted: Tensor) -> Tensor:
        """Map outputs [B, signal_dim] of the backbone to tokens [B, D]."""
        return self.share(self.signal(predicted))
