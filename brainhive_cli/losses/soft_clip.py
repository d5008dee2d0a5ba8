"""Soft CLIP: each prediction should find its target, and other targets by how similar they are to it."""

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.losses import LossContext
from brainhive_cli.losses._pairs import MixAlpha, cosines, cross_entropy, mixed


class Config(parts.Config):
    """CLIP's loss with the similarities among the targets as labels (MindEye, arXiv 2305.18274)."""

    initial_logit_scale: float = Field(
        2.6592, description="Logarithm of the scale that training starts from: ln(1 / 0.07); CLIP's."
    )
    learn_scale: bool = Field(
        True, description="Whether training changes the scale. False keeps it: a fixed temperature."
    )
    target_temperature: float = Field(
        0.0075,
        gt=0,
        description="What cosines among the targets are divided by before their softmax is the label; "
        "MindEye's last (it rises from 0.004). Near 0 it is CLIP's loss.",
    )
    mix_alpha: MixAlpha = 0.0

    def build(self) -> "SoftClipLoss":
        """Make the loss."""
        return SoftClipLoss(self.initial_logit_scale, self.learn_scale, self.target_temperature)


TINY = Config()


class SoftClipLoss(nn.Module):
    """Mean of the cross-entropies with soft labels in both directions; `logit_scale` is of the cosines."""

    def __init__(self, initial_logit_scale: float, learn_scale: bool, target_temperature: float) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(initial_logit_scale), requires_grad=learn_scale)
        self.target_temperature = target_temperature

    def forward(self, predicted: Tensor, target: Tensor, context: LossContext) -> Tensor:
        """Compare predictions [B, ...] with all targets [B, ...], as a scalar.

        The label of a mixed signal is mixed from those of two targets.

        Raises:
            BrainhiveError: if they are not pairs, or the mixing is of another batch.
        """
        cosine = cosines(predicted, target)  # [B, B]
        logits = cosine * self.logit_scale.exp()
        fixed = target.detach()  # or targets would become similar so that the labels are easy
        labels = (cosines(fixed, fixed) / self.target_temperature).softmax(1)
        to_target = cross_entropy(logits, mixed(labels, context.mixing), 1)
        to_prediction = cross_entropy(logits, mixed(labels.T, context.mixing), 0)
        return (to_target + to_prediction) / 2
