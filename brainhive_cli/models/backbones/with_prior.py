"""A brain model and a diffusion prior in one: tokens of a head are sampled from those
that it predicts.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models import backbones
from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.heads import Decoded, Heads
from brainhive_cli.models.signal_spec import SignalSpec

DENOISED = "denoised"
"""The further output in training: what the prior makes of noised tokens, and their
target.
"""
SIGNALS_AT_ONCE = 32
"""Signals whose tokens are sampled at once: attention over 515 tokens needs 13 MB a row
and layer.
"""


class Config(BackboneConfig):
    """MindEye1's high level (arXiv 2305.18274): both learn together, or the prior after
    its brain model.

    A loss term `{prediction: denoised, loss: mse, weight: 30}` trains the prior (30 is
    MindEye1's weight); a stage with `freeze: [backbone.brain]` trains it alone. With
    decoded tokens sampled already, `reconstruct` takes the prior `identity`.
    """

    cites = ("scotti2023",)
    takes_spec = True

    backbone: Any = parts.part_field(
        "backbones", "voxel-ridge", "Brain model that predicts the heads."
    )
    prior: Annotated[Any, parts.part_validator("priors", "mindeye1")] = Field(
        "mindeye1",
        validate_default=True,
        description=(
            "Diffusion prior of the head that it names, whose shape decides `tokens` "
            "and `dim`."
        ),
    )

    condition: Literal["head", "voxel_tokens"] = Field(
        "head",
        description="What the prior is given: the brain's tokens of its head, or those "
        "of mindeye2 before their last projection, as MindEye2 does.",
    )

    @property
    def streams(self) -> Sequence[str]:  # type: ignore[override]
        """Streams of its brain model."""
        return self.backbone.streams

    def build(self, spec: SignalSpec, heads: Heads) -> "WithPrior":
        """Make both.

        Raises:
            RecipeError: if there is no such head, or it is not tokens.
        """
        # the prior samples tokens, so that its head must be tokens
        head_name = self.prior.head
        if head_name not in heads or len(heads[head_name].shape) != 2:
            tokens = [name for name, head in heads.items() if len(head.shape) == 2]
            raise RecipeError(
                f"backbone.prior.head is {head_name!r}, and needs to be a head of "
                "tokens",
                f"heads of tokens: {', '.join(tokens) or 'none'}",
            )

        # the shape of the head decides the sizes of the prior
        count, dim = heads[head_name].shape
        prior = self.prior.model_copy(update={"tokens": count, "dim": dim}).build(
            {}, None
        )
        brain = backbones.build(self.backbone, spec, heads)
        # tokens before the last projection exist in MindEye2 alone
        if self.condition == "voxel_tokens" and not hasattr(brain, "with_voxel_tokens"):
            raise RecipeError(
                f"backbone.condition is voxel_tokens, which {self.backbone.kind} "
                "does not have",
                "backbone.condition=head, or backbone.backbone.kind=mindeye2",
            )
        return WithPrior(
            brain, prior, heads, head_name, self.condition == "voxel_tokens"
        )


TINY = Config(
    backbone={"kind": "voxel-ridge", "hidden": 8},
    prior={"kind": "mindeye1", "depth": 1, "heads": 1, "dim_head": 4, "timesteps": 3},
)
"""Small enough for tests."""


class WithPrior(nn.Module):
    """The brain model predicts; what is decoded, and what training adds, goes through
    the prior.
    """

    def __init__(
        self, brain: Any, prior: Any, heads: Heads, head: str, takes_inner: bool
    ) -> None:
        super().__init__()
        self.brain = brain
        self.prior = prior
        self.heads = heads
        self.head = head
        self.takes_inner = takes_inner

    def forward(
        self, signal: Tensor, subject_index: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Predict every head, [B, *shape] by name, as the brain model does; nothing is
        sampled.
        """
        return backbones.predict(self.brain, self.heads, signal, subject_index)

    def learn(
        self,
        signal: Tensor,
        subject_index: Tensor,
        targets: Mapping[str, Tensor],
        context: Any,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Predict as the brain model does in training, and `denoised` [B, S, D] from
        noised targets.

        The noise is torch's: several processes that share a batch draw other noise than
        one.
        """
        # tokens on which the prior is conditioned, and the heads
        if self.takes_inner:
            condition, predicted = self.brain.with_voxel_tokens(signal, subject_index)
            replaced: dict[str, Tensor] = {}
        else:
            predicted, replaced = backbones.learn(
                self.brain, self.heads, signal, subject_index, targets, context
            )
            condition = predicted[self.head]

        # the prior's prediction and its target, both [B, S, D]
        denoised, target = self.prior.learn(condition, targets[self.head])
        return {**predicted, DENOISED: denoised}, {**replaced, DENOISED: target}

    def decode(
        self, signal: Tensor, subject_index: Tensor | None, seeds: Sequence[int]
    ) -> Decoded:
        """Decode every head, [B, *shape] by name; the tokens of the prior's are sampled
        by one seed a row.
        """
        # decode all heads, and the tokens that condition the prior
        if self.takes_inner:
            condition, predicted = self.brain.with_voxel_tokens(signal, subject_index)
            decoded = Decoded(predicted)
        else:
            decoded = backbones.decode(
                self.brain, self.heads, signal, subject_index, seeds
            )
            condition = decoded.tensors[self.head]

        # sample in blocks, as attention needs memory for each row
        blocks = [
            slice(start, start + SIGNALS_AT_ONCE)
            for start in range(0, len(seeds), SIGNALS_AT_ONCE)
        ]
        sampled = torch.cat(
            [self.prior.sample(condition[rows], seeds[rows]) for rows in blocks]
        )
        # sampled tokens replace the predicted ones
        return Decoded({**decoded.tensors, self.head: sampled}, decoded.texts)
