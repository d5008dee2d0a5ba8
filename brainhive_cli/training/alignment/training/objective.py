"""Objective of training: the weighted sum of the loss terms of a recipe, each active
when it says.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from brainhive_cli.core import foreign_code, parts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models.heads import flatten_vectors
from brainhive_cli.models.losses import LossContext
from brainhive_cli.training.alignment.terms import Term

Tensors = Mapping[str, Tensor]


class Objective(nn.ModuleList):
    """Loss terms, each with its weight at an epoch; a loss may learn, as its scale.

    Args:
        terms: In the order of the recipe, by which the parameters of losses are named
            (`0.logit_scale`).
        is_centred: Whether contrastive losses compare vectors without their mean.
    """

    def __init__(self, terms: Sequence[Term], is_centred: bool = False) -> None:
        super().__init__()
        for term in terms:  # one module of two terms learns one scale of both
            self.append(
                parts.build_module(term.loss)
                if term.loss_of is None
                else self[term.loss_of]
            )
        self.terms, self.is_centred = tuple(terms), is_centred

    def forward(
        self, predicted: Tensors, targets: Tensors, context: LossContext
    ) -> Tensor:
        """Sum the active terms over the whole batch, [B, *shape] by head: a scalar.

        They are computed in float32, also under autocast: bfloat16 is too coarse for
        cosines over 0.004.

        Raises:
            RecipeError: if a term names a prediction or target that does not exist, or
                a loss gives anything but a scalar.
        """
        device = next(iter(predicted.values())).device.type
        # not on meta, where memory is estimated
        is_cast = torch.amp.is_autocast_available(device)
        context, values = replace(context, targets=targets), []
        with torch.autocast(device, enabled=False) if is_cast else nullcontext():
            for term, loss in zip(self.terms, self, strict=True):
                # inactive terms are not computed
                if not (weight := term.weight_at(_moment_of(context))):
                    continue
                pair = (
                    _named("prediction", term.prediction, predicted),
                    _named("target", term.target_name, targets),
                )
                # centred cosine: contrastive losses, which have a scale, compare
                # centred vectors
                if self.is_centred and hasattr(loss, "logit_scale"):
                    pair = (
                        flatten_vectors(pair[0], True),
                        flatten_vectors(pair[1], True),
                    )
                value = loss(*pair, context)
                # a user's loss may return anything
                if not isinstance(value, Tensor) or value.shape != ():
                    seen = (
                        list(value.shape)
                        if isinstance(value, Tensor)
                        else type(value).__name__
                    )
                    raise RecipeError(
                        f"{foreign_code.name_object(loss, 'the loss')} gives {seen} as "
                        f"the loss of {term.prediction}, not one number",
                        "end it in .mean() over the batch and the values",
                    )
                values.append(weight * value)
            # a wave begins at its base, which may be 0: no term counts in that step
            if not values:
                values = [0 * prediction.sum() for prediction in predicted.values()]
            return torch.stack(values).sum()

    def compare_pairs(
        self, predicted: Tensors, targets: Tensors, context: LossContext
    ) -> Tensor:
        """Return the scaled similarity of each prediction and its target, [B], in the
        first contrastive term.

        Raises:
            RecipeError: if no active term has one.
        """
        for term, loss in zip(self.terms, self, strict=True):
            # the first active term whose loss compares pairs decides
            of_pairs = getattr(loss, "score_pairs", None)
            if of_pairs is not None and term.weight_at(_moment_of(context)):
                return of_pairs(
                    predicted[term.prediction], targets[term.target_name], context
                )
        raise RecipeError(
            "train.alternatives=uncertainty needs the similarities of clip",
            "a term of clip",
        )

    def copy_matching(self, learned: Tensors) -> None:
        """Start learned values from those of another model's losses; fixed ones stay
        the recipe's.
        """
        for name, parameter in self.named_parameters():
            if (
                parameter.requires_grad
                and name in learned
                and learned[name].shape == parameter.shape
            ):
                parameter.data.copy_(learned[name])


def _moment_of(context: LossContext) -> float:
    """Count the epochs that are done, with the part of this one."""
    return context.epoch + context.step % context.steps / context.steps


def _named(kind: str, name: str, tensors: Tensors) -> Tensor:
    if name not in tensors:
        raise RecipeError(
            f"a term names the {kind} {name!r}", f"there are: {', '.join(tensors)}"
        )
    return tensors[name].float()
