"""Backbone of a brain model and a diffusion prior that samples a head's tokens."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core.base import RecipeError
from brainhive_cli.core.recipes import parts
from brainhive_cli.models import Decoded, Heads, SignalSpec, backbones
from brainhive_cli.models.backbones import BackboneConfig

DENOISED = "denoised"
"""Name of the training output that compares the prior's tokens with true tokens."""
SIGNALS_PER_BATCH = 32
"""Number of signals that are sampled at once. Attention over 515 tokens takes 13 MB per
signal and layer.
"""


class Config(BackboneConfig):
    """Settings of MindEye1's high level (arXiv 2305.18274).

    Brain model and prior learn together, or the prior alone in a stage with `freeze:
    [backbone.brain]`. A loss term `{prediction: denoised, loss: mse, weight: 30}`
    trains the prior (30 is MindEye1's). As decoded tokens are already sampled,
    `reconstruct` takes the prior `identity`.
    """

    cites = ("scotti2023",)
    called = "A brain model with a diffusion prior"
    takes_spec = True

    backbone: Any = parts.part_field(
        "backbones", "voxel-ridge", "Brain model that predicts the heads."
    )
    prior: Annotated[Any, parts.part_validator("priors", "mindeye1")] = Field(
        "mindeye1",
        validate_default=True,
        description=(
            "Diffusion prior of the head `head`, whose shape decides `tokens` and "
            "`dim`."
        ),
    )

    condition: Literal["head", "voxel_tokens"] = Field(
        "head",
        description="Condition of the prior: the tokens that the brain model predicts "
        "for the head, or mindeye2's tokens before their last projection, as in "
        "MindEye2.",
    )

    @property
    def streams(self) -> Sequence[str]:  # type: ignore[override]
        """Sets of `signal.region_split` that the brain model reads separately."""
        return self.backbone.streams

    def build(self, spec: SignalSpec, heads: Heads) -> "WithPrior":
        """Make brain model and prior.

        Raises:
            RecipeError: if the prior's head is absent or not tokens, or the brain model
                has no voxel tokens.
        """
        head_name = self.prior.head
        token_heads = [name for name, head in heads.items() if len(head.shape) == 2]
        if head_name not in token_heads:
            raise RecipeError(
                f"backbone.prior.head is {head_name!r}, and needs to be a head of "
                "tokens",
                f"heads of tokens: {', '.join(token_heads) or 'none'}",
            )

        n_tokens, dim = heads[head_name].shape
        prior_config = self.prior.model_copy(update={"tokens": n_tokens, "dim": dim})
        prior = prior_config.build({}, None)
        brain = backbones.build(self.backbone, spec, heads)
        takes_voxel_tokens = self.condition == "voxel_tokens"
        if takes_voxel_tokens and not hasattr(brain, "predict_with_voxel_tokens"):
            raise RecipeError(
                f"backbone.condition is voxel_tokens, which {self.backbone.kind} "
                "does not have",
                "backbone.condition=head, or backbone.backbone.kind=mindeye2",
            )
        return WithPrior(brain, prior, heads, head_name, takes_voxel_tokens)


class VoxelTokenPredictor(Protocol):
    """Brain model that also returns tokens before their last projection."""

    def predict_with_voxel_tokens(
        self, signal: Tensor, subject_index: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return tokens [B, S, D] before the last projection, and heads by name."""
        ...


TINY = Config(
    backbone={"kind": "voxel-ridge", "hidden": 8},
    prior={"kind": "mindeye1", "depth": 1, "heads": 1, "dim_head": 4, "timesteps": 3},
)
"""Small enough for tests."""


class WithPrior(nn.Module):
    """Brain model that predicts heads, and prior that samples the tokens of a head.

    Attributes:
        head: Name of the head that the prior samples.
        takes_voxel_tokens: If True, voxel tokens condition the prior instead of the
            predicted tokens of the head.
    """

    def __init__(
        self, brain: Any, prior: Any, heads: Heads, head: str, takes_voxel_tokens: bool
    ) -> None:
        super().__init__()
        self.brain = brain
        self.prior = prior
        self.heads = heads
        self.head = head
        self.takes_voxel_tokens = takes_voxel_tokens

    def forward(
        self, signal: Tensor, subject_index: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Predict every head, [B, *shape] by name, with the brain model alone."""
        return backbones.predict(self.brain, self.heads, signal, subject_index)

    def learn(
        self,
        signal: Tensor,
        subject_index: Tensor,
        targets: Mapping[str, Tensor],
        context: Any,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Predict heads and `denoised` tokens in a training step.

        The noise comes from torch's global generator, so it differs with the number of
        processes.

        Returns:
            Predictions by name, including `denoised` [B, S, D], and the targets that
            replace the given targets, including a target for `denoised`.
        """
        replaced: dict[str, Tensor] = {}
        if self.takes_voxel_tokens:
            condition, predicted = self.brain.predict_with_voxel_tokens(
                signal, subject_index
            )
        else:
            predicted, replaced = backbones.learn(
                self.brain, self.heads, signal, subject_index, targets, context
            )
            condition = predicted[self.head]

        denoised, target = self.prior.learn(condition, targets[self.head])
        return {**predicted, DENOISED: denoised}, {**replaced, DENOISED: target}

    def decode(
        self, signal: Tensor, subject_index: Tensor | None, seeds: Sequence[int]
    ) -> Decoded:
        """Decode heads [B, *shape], and sample the tokens of the prior's head.

        Args:
            signal: Signals [B, C, T].
            subject_index: Index [B] of each signal's subject, or None.
            seeds: Seed [B] of each signal.
        """
        if self.takes_voxel_tokens:
            condition, predicted = self.brain.predict_with_voxel_tokens(
                signal, subject_index
            )
            decoded = Decoded(predicted)
        else:
            decoded = backbones.decode(
                self.brain, self.heads, signal, subject_index, seeds
            )
            condition = decoded.tensors[self.head]

        batches = []
        for start in range(0, len(seeds), SIGNALS_PER_BATCH):
            rows = slice(start, start + SIGNALS_PER_BATCH)
            batches.append(self.prior.sample(condition[rows], seeds[rows]))
        tensors = decoded.tensors | {self.head: torch.cat(batches)}
        return Decoded(tensors, decoded.texts)
