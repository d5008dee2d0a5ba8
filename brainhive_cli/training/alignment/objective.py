"""What training lowers: the weighted sum of loss terms."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from brainhive_cli.core import foreign_code, parts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models.heads import comparable
from brainhive_cli.models.losses import LossContext
from brainhive_cli.training.alignment.terms import Term, mixing_of


class Objective(nn.ModuleList):
    """Loss terms, each with its weight at an epoch; a loss may learn, as its scale.

    Args:
        terms: In the order of the recipe, by which the parameters of losses are named (`0.logit_scale`).
        is_centred: Whether contrastive losses compare vectors without their mean.
    """

    def __init__(self, terms: Sequence[Term], is_centred: bool = False) -> None:
        super().__init__(parts.build_module(term.loss) for term in terms)
        self.terms, self.is_centred = tuple(terms), is_centred

    def forward(
        self, predicted: Mapping[str, Tensor], targets: Mapping[str, Tensor], context: LossContext
    ) -> Tensor:
        """Sum the active terms over the whole batch, [B, *shape] by head: a scalar.

        They are computed in float32, also under autocast: bfloat16 is too coarse for cosines over 0.004.

        Raises:
            RecipeError: if a term names a prediction or target that does not exist, or a loss gives anything
                but a scalar.
        """
        device = next(iter(predicted.values())).device.type
        is_cast = torch.amp.is_autocast_available(device)  # not on meta, where memory is estimated
        with torch.autocast(device, enabled=False) if is_cast else nullcontext():
            return self._sum(predicted, targets, replace(context, targets=targets))

    def _sum(
        self, predicted: Mapping[str, Tensor], targets: Mapping[str, Tensor], context: LossContext
    ) -> Tensor:
        values = []
        for term, loss in zip(self.terms, self, strict=True):
            if weight := term.weight_at(context.moment):
                pair = _named("prediction", term.prediction, predicted), _named("target", term.of, targets)
                if self.is_centred and hasattr(loss, "logit_scale"):
                    pair = comparable(pair[0], True), comparable(pair[1], True)
                value = loss(*pair, context)
                if not isinstance(value, Tensor) or value.shape != ():
                    seen = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                    raise RecipeError(
                        f"{foreign_code.name_of(loss, 'the loss')} gives {seen} as the loss of "
                        f"{term.prediction}, not one number",
                        "end it in .mean() over the batch and the values",
                    )
                values.append(weight * value)
        return torch.stack(values).sum()

    def mixing(self, moment: float) -> tuple[float, float]:
        """Return how signals are mixed at a moment: alpha (0: not at all), and how many of them."""
        return mixing_of(self.terms, moment)

    def continue_from(self, learned: Mapping[str, Tensor]) -> None:
        """Start learned values from those of another model's losses; fixed ones stay the recipe's."""
        for name, parameter in self.named_parameters():
            if parameter.requires_grad and name in learned and learned[name].shape == parameter.shape:
                parameter.data.copy_(learned[name])


def _named(kind: str, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    if name not in tensors:
        raise RecipeError(f"a term names the {kind} {name!r}", f"there are: {', '.join(tensors)}")
    return tensors[name].float()
