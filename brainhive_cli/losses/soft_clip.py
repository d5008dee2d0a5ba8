"""Soft CLIP: each signal should find its image, and images like it by how alike they are."""

from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.core.mixing import Mixing
from brainhive_cli.losses._pairs import MixAlpha, as_mixed, cosines, cross_entropy, scaled


class Config(parts.Config):
    """CLIP's loss with the similarities among the images as targets (MindEye, arXiv 2305.18274)."""

    initial_logit_scale: float = Field(
        2.6592, description="Logarithm of the scale that training starts from: ln(1 / 0.07); CLIP's."
    )
    learn_scale: bool = Field(
        True, description="Whether training moves the scale. False keeps it: a fixed temperature."
    )
    target_temperature: float = Field(
        0.0075,
        gt=0,
        description="What cosines among the images are divided by before their softmax is the target; "
        "MindEye's last (it rises from 0.004). Near 0 it is CLIP's loss.",
    )
    mix_alpha: MixAlpha = 0.0

    def build(self) -> "SoftClipLoss":
        """Make the loss."""
        return SoftClipLoss(self.target_temperature, None if self.learn_scale else self.initial_logit_scale)


TINY = Config()
"""It has no size."""


class SoftClipLoss(nn.Module):
    """Mean of the cross-entropies with soft targets in both directions, over the batch.

    Args:
        target_temperature: Of the softmax of cosines among the images.
        fixed_logit_scale: Logarithm of the scale, instead of the one that is learned.
    """

    def __init__(self, target_temperature: float, fixed_logit_scale: float | None = None) -> None:
        super().__init__()
        self.target_temperature, self.fixed_logit_scale = target_temperature, fixed_logit_scale

    def forward(
        self, signal_tokens: Tensor, image_tokens: Tensor, logit_scale: Tensor, mixing: Mixing | None = None
    ) -> Tensor:
        """Compare tokens with all images.

        Args:
            signal_tokens: [B, D].
            image_tokens: [B, D], row by row those of the signals.
            logit_scale: Logarithm of the scale, a scalar.
            mixing: How the signals were mixed; a target is then mixed from those of two images.

        Returns:
            A scalar.

        Raises:
            BrainhiveError: if the tokens are not pairs, or the mixing is of another batch.
        """
        cosine = cosines(signal_tokens, image_tokens)  # [B, B]
        logits = scaled(cosine, logit_scale, self.fixed_logit_scale)
        fixed = image_tokens.detach()  # or images would become alike so that the target is easy
        alike = (cosines(fixed, fixed) / self.target_temperature).softmax(1)
        to_image = cross_entropy(logits, as_mixed(alike, mixing), 1)
        to_signal = cross_entropy(logits, as_mixed(alike.T, mixing), 0)
        return (to_image + to_signal) / 2
