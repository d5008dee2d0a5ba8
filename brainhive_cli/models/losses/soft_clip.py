"""Soft CLIP: each prediction should find its target, and other targets by how similar they are to it."""

from typing import Literal

from pydantic import Field, PositiveFloat
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.course import at
from brainhive_cli.models.losses import LossContext
from brainhive_cli.models.losses._pairs import ScaledConfig, ScaledLoss, cosines, cross_entropy, mixed


class Config(ScaledConfig):
    """CLIP's loss with the similarities among the targets as labels (MindEye, arXiv 2305.18274)."""

    cites = ("scotti2023",)
    no_effect_with_temperature = (*ScaledConfig.no_effect_with_temperature, "target_temperature")

    target_temperature: PositiveFloat = Field(
        0.0075,
        description="What cosines among the targets are divided by before their softmax is the label; "
        "MindEye's last. Near 0 it is CLIP's loss. A `temperature` is of both: MindEye's is "
        "{from: 0.004, to: 0.0075, course: cosine}, over the epochs in which the term is active.",
    )
    items: Literal["signals", "frames"] = Field(
        "signals",
        description="frames: each frame of predictions [B, F, ...] is an item of its own, to be found among "
        "those of the whole batch (NEURONS)",
    )

    def build(self) -> "SoftClipLoss":
        """Make the loss."""
        return SoftClipLoss(self)


TINY = Config()


class SoftClipLoss(ScaledLoss):
    """Mean of the cross-entropies with soft labels in both directions."""

    def forward(self, predicted: Tensor, target: Tensor, context: LossContext) -> Tensor:
        """Compare predictions [B, ...] with all targets [B, ...], as a scalar.

        The label of a mixed signal is mixed from those of two targets.

        Raises:
            BrainhiveError: if they are not pairs, have no frames, or the mixing is of another batch.
        """
        # frames [B, F, ...] become items of the batch, [B · F, ...]
        config, mixing = self.config, context.mixing
        if config.items == "frames":
            if predicted.ndim < 3:
                raise BrainhiveError(
                    f"soft_clip.items is frames, and predictions {list(predicted.shape)} have none",
                    "a head of frames [F, ...], as `motion`, or items: signals",
                )
            mixing = None if mixing is None else mixing.repeat(predicted.shape[1])
            predicted, target = predicted.flatten(0, 1), target.flatten(0, 1)

        # compare the similarities of predictions and targets with those among the targets
        cosine = cosines(predicted, target)  # [B, B]
        logits = cosine * self.scale(context.epoch)
        softness = at(config.temperature or config.target_temperature, context.epoch)
        fixed = target.detach()  # or targets would become similar so that the labels are easy
        labels = (cosines(fixed, fixed) / softness).softmax(1)
        to_target = cross_entropy(logits, mixed(labels, mixing), 1)
        to_prediction = cross_entropy(logits, mixed(labels.T, mixing), 0)
        return (to_target + to_prediction) / 2
