"""Soft contrast of maps: each position of a predicted map should match those of an augmented picture's."""

from pydantic import Field, PositiveFloat
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.losses import Loss, LossConfig, LossContext
from brainhive_cli.models.losses._pairs import cosines, cross_entropy, mixed


class Config(LossConfig):
    """The contrastive loss of MindEye1's low level (arXiv 2305.18274), on the maps of a picture encoder.

    Its labels are the similarities of the picture's positions and those of the augmented picture.
    """

    cites = ("scotti2023",)

    temperature: PositiveFloat = Field(
        0.075, description="What cosines are divided by, of predictions and of labels; MindEye1's."
    )
    augmented: str = Field(
        "", description="Target of the augmented picture, by its name; default: the picture's own."
    )

    def build(self) -> "SoftContrast":
        """Make the loss."""
        return SoftContrast(self)


TINY = Config()


class SoftContrast(Loss):
    """Mean of the cross-entropies with soft labels in both directions."""

    def forward(self, predicted: Tensor, target: Tensor, context: LossContext) -> Tensor:
        """Compare predictions [B, D], or maps [B, S, D] position by position, with targets, as a scalar.

        Raises:
            BrainhiveError: if they are not pairs, or there is no such target.
        """
        # the augmented picture's target, by default the picture's own
        name = self.config.augmented
        if name and name not in context.targets:
            there = ", ".join(context.targets) or "none"
            raise BrainhiveError(f"soft_cont.augmented names the target {name!r}", f"there are: {there}")
        augmented = context.targets[name] if name else target

        # every position of a map is an item, [B·S, D]
        items, pictures, views = (maps.flatten(0, -2) for maps in (predicted, target, augmented.float()))
        mixing = context.mixing and context.mixing.repeat(len(items) // len(predicted))

        # labels are the similarities of the picture's positions and the augmented picture's
        logits = cosines(items, views) / self.config.temperature  # [B·S, B·S], a prediction a row
        labels = cosines(pictures.detach(), views.detach()) / self.config.temperature  # a picture a row
        to_target = cross_entropy(logits, mixed(labels.softmax(1), mixing), 1)
        to_prediction = cross_entropy(logits, mixed(labels.softmax(0), mixing), 0)
        return (to_target + to_prediction) / 2
