"""SAMGA's target: layers of one network, weighted by learned weights that subjects may shift."""

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from brainhive_cli.models.blocks import refuse_other_embeddings
from brainhive_cli.models.fusers import SizedFuserConfig
from brainhive_cli.models.fusers.mean import common_width

BIAS_DROPOUT = 0.3
"""Probability that a training sample is weighted without its subject's bias; SAMGA's."""


class Config(SizedFuserConfig):
    """The image side of SAMGA (arXiv 2604.17782, published repository), and the map that both sides share.

    SAMGA's token has 512 values.
    """

    cites = ("jiang2026",)
    takes_subjects = True

    hidden: PositiveInt = Field(1024, description="Width of the map that all layers share; SAMGA's.")
    signal_dim: PositiveInt = Field(1024, description="Width of what the brain encoder gives; SAMGA's.")
    centre: int | None = Field(
        None,
        ge=0,
        description="Place, from 0 in the order of `encoders`, of the layer that weighs most at first; "
        "default: the middle. Another's logit is its distance from there, below 0.",
    )

    @property
    def signal_width(self) -> int:
        """Width of what the brain encoder gives."""
        return self.signal_dim

    def build(self, dims: dict[str, int], dim: int, subjects: int) -> "Router":
        """Make a fuser of embeddings of one width, by encoder, to tokens [B, D]; for so many subjects.

        Raises:
            RecipeError: if the encoders differ in width.
        """
        return Router(dims, dim, subjects, self)


TINY = Config(hidden=8, signal_dim=8)


class Router(nn.Module):
    """Maps of layers, their weighted sum, and the map that signals pass too.

    Args:
        dims: Width of each encoder's embedding, by the encoder's key.
        dim: D, width of the token.
        subjects: How many subjects there are.
        config: The knobs.
    """

    def __init__(self, dims: dict[str, int], dim: int, subjects: int, config: Config) -> None:
        super().__init__()
        self.dims, self.bias_dropout, count = dict(dims), BIAS_DROPOUT, len(dims)

        # at first the layer in the centre weighs most
        centre = count // 2 if config.centre is None else config.centre
        self.pre = nn.Linear(common_width(dims), config.hidden)
        self.layers = nn.ModuleList(nn.Linear(config.hidden, dim) for _ in dims)
        self.global_logits = nn.Parameter(-(torch.arange(count, dtype=torch.float32) - centre).abs())
        self.subject_bias = nn.Parameter(torch.zeros(subjects, count))
        self.signal = nn.Linear(config.signal_dim, dim)
        self.share = nn.Linear(dim, dim)

    def forward(self, embeddings: dict[str, Tensor], subject: Tensor | None = None) -> Tensor:
        """Weigh embeddings, each [B, D_encoder], of subjects [B]: a token [B, D].

        Without subjects, and in evaluation, all are weighted alike: a picture has one token for everyone.
        """
        # map every layer's embedding to the width of the token, and weigh the layers
        refuse_other_embeddings(embeddings, self.dims)
        mapped = torch.stack(
            [layer(self.pre(embeddings[key])) for layer, key in zip(self.layers, self.dims, strict=True)], -2
        )  # [B, L, D]
        weights = self.weights(subject if self.training else None)
        return self.share((weights[..., None].to(mapped.dtype) * mapped).sum(-2))

    def weights(self, subject: Tensor | None) -> Tensor:
        """Return the weights of the layers, [B, L] of subjects [B], or [L] for everyone."""
        if subject is None:
            return self.global_logits.softmax(-1)
        # SAMGA drops the subject's bias of some samples in training
        with_bias = F.dropout(torch.ones_like(subject, dtype=torch.float32), self.bias_dropout, True) > 0
        return (self.global_logits + self.subject_bias[subject] * with_bias[:, None]).softmax(-1)

    def of_signal(self, predicted: Tensor) -> Tensor:
        """Map what the brain encoder gives, [B, signal_dim], to tokens [B, D]; the last map is shared."""
        return self.share(self.signal(predicted))
