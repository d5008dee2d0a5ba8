"""Soft contrast of maps: each place of a predicted map should find those of an augmented picture's map."""

from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.losses import LossContext
from brainhive_cli.models.losses._pairs import cosines, cross_entropy, mixed
from brainhive_cli.models.mixing import Mixing


class Config(parts.Config):
    """The contrastive loss of MindEye1's low level (arXiv 2305.18274), on the maps of a picture encoder.

    Its labels are how similar the places of the picture's map are to those of the augmented picture's.
    """

    temperature: float = Field(
        0.075, gt=0, description="What cosines are divided by, of predictions and of labels; MindEye1's."
    )
    augmented: str = Field(
        "", description="Target of the augmented picture, by its name; default: the picture's own."
    )

    def build(self) -> "SoftContrast":
        """Make the loss."""
        return SoftContrast(self)


TINY = Config()


class SoftContrast(nn.Module):
    """Mean of the cross-entropies with soft labels in both directions."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def forward(self, predicted: Tensor, target: Tensor, context: LossContext) -> Tensor:
        """Compare predictions [B, D], or maps [B, S, D] place by place, with targets, as a scalar.

        Raises:
            BrainhiveError: if they are not pairs, or there is no such target.
        """
        name = self.config.augmented
        if name and name not in context.targets:
            there = ", ".join(context.targets) or "none"
            raise BrainhiveError(f"soft_cont.augmented names the target {name!r}", f"there are: {there}")
        augmented = context.targets[name] if name else target
        (one, other, third), mixing = _by_place(predicted, target, augmented, context.mixing)
        logits = cosines(one, third) / self.config.temperature  # [B·S, B·S], a prediction a row
        alike = cosines(other.detach(), third.detach()) / self.config.temperature  # a picture a row
        to_target = cross_entropy(logits, mixed(alike.softmax(1), mixing), 1)
        to_prediction = cross_entropy(logits, mixed(alike.softmax(0), mixing), 0)
        return (to_target + to_prediction) / 2


def _by_place(
    predicted: Tensor, target: Tensor, augmented: Tensor, mixing: Mixing | None
) -> tuple[list[Tensor], Mixing | None]:
    """Flatten maps [B, S, D] to [B·S, D], and the mixing of B signals to that of their places."""
    flat = [each.flatten(0, -2) for each in (predicted, target, augmented.float())]
    places = len(flat[0]) // len(predicted)
    if mixing is None or places == 1:
        return flat, mixing
    return flat, mixing.of_places(places)
