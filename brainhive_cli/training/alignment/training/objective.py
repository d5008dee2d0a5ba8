"""Weighted sum of the loss terms of a recipe."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from brainhive_cli.core.base import RecipeError
from brainhive_cli.core.files import foreign_code
from brainhive_cli.core.recipes import parts
from brainhive_cli.models import LossContext, flatten_vectors
from brainhive_cli.models.backbones import Tensors
from brainhive_cli.training.alignment import Term


class ScoresPairs(Protocol):
    """Contrastive loss that can score each prediction with its own target."""

    def score_pairs(
        self, predicted: Tensor, target: Tensor, context: LossContext
    ) -> Tensor:
        """Return the scaled similarities [B]."""


class Objective(nn.ModuleList):
    """Loss terms with weights that depend on the epoch. A loss may have parameters.

    Args:
        terms: Loss terms. Their order names the parameters of the losses, such as
            `0.logit_scale`.
        is_centred: True if contrastive losses compare vectors without their mean.
    """

    def __init__(self, terms: Sequence[Term], is_centred: bool = False) -> None:
        super().__init__()
        for term in terms:
            # two terms may share a loss and its parameters
            if term.loss_of is None:
                self.append(parts.build_module(term.loss))
            else:
                self.append(self[term.loss_of])
        self.terms = tuple(terms)
        self.is_centred = is_centred

    def forward(
        self, predicted: Tensors, targets: Tensors, context: LossContext
    ) -> Tensor:
        """Compute the weighted sum of the active terms.

        It is computed in float32, because bfloat16 is too coarse for cosines.

        Args:
            predicted: Predictions [B, *shape] of the whole batch, by name.
            targets: Targets [B, *shape], by name.
            context: Step of the training, stimuli and mixing of the batch.

        Raises:
            RecipeError: if a term names an unknown prediction or target, or if a loss
                does not return a scalar.
        """
        device = next(iter(predicted.values())).device.type
        context = replace(context, targets=targets)
        values = []
        # the meta device, on which costs are counted, has no autocast
        has_autocast = torch.amp.is_autocast_available(device)
        with torch.autocast(device, enabled=False) if has_autocast else nullcontext():
            for term, loss in zip(self.terms, self, strict=True):
                weight = term.weight_at(count_epochs(context))
                if not weight:
                    continue
                prediction = _get_tensor("prediction", term.prediction, predicted)
                target = _get_tensor("target", term.target_name, targets)
                # contrastive losses have a scale
                if self.is_centred and hasattr(loss, "logit_scale"):
                    prediction = flatten_vectors(prediction, True)
                    target = flatten_vectors(target, True)
                value = loss(prediction, target, context)
                _check_scalar(value, loss, term)
                values.append(weight * value)
            # all weights are 0 in the first step of a wave that begins at 0
            if not values:
                values = [0 * prediction.sum() for prediction in predicted.values()]
            return torch.stack(values).sum()

    def compare_pairs(
        self, predicted: Tensors, targets: Tensors, context: LossContext
    ) -> Tensor:
        """Score each prediction with its own target by the first contrastive term.

        Returns:
            Scaled similarities [B].

        Raises:
            RecipeError: if no active term is contrastive.
        """
        for term, loss in zip(self.terms, self, strict=True):
            is_active = term.weight_at(count_epochs(context)) != 0
            if is_active and hasattr(loss, "score_pairs"):
                target = targets[term.target_name]
                scorer = cast(ScoresPairs, loss)
                return scorer.score_pairs(predicted[term.prediction], target, context)
        raise RecipeError(
            "train.alternatives=uncertainty needs the similarities of clip",
            "add a term with loss clip",
        )

    def copy_matching(self, weights: Tensors) -> None:
        """Copy the parameters of another model's losses that have the same shape.

        Parameters that do not learn keep the values of the recipe.
        """
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad or name not in weights:
                continue
            if weights[name].shape == parameter.shape:
                parameter.data.copy_(weights[name])


def _check_scalar(value: object, loss: nn.Module, term: Term) -> None:
    """Raise an error unless a loss, which may be a user's, returned a scalar tensor."""
    if isinstance(value, Tensor) and value.shape == ():
        return
    description = type(value).__name__
    if isinstance(value, Tensor):
        description = str(list(value.shape))
    raise RecipeError(
        f"{foreign_code.name_object(loss, 'the loss')} gives {description} as the loss "
        f"of {term.prediction}, not one number",
        "end it in .mean() over the batch and the values",
    )


def count_epochs(context: LossContext) -> float:
    """Return the number of finished epochs, with the share of the current epoch."""
    return context.epoch + context.step % context.steps / context.steps


def _get_tensor(kind: str, name: str, tensors: Tensors) -> Tensor:
    """Return a prediction or target in float32. Errors name its `kind`.

    Raises:
        RecipeError: if the name is unknown.
    """
    if name not in tensors:
        raise RecipeError(
            f"a term names the {kind} {name!r}, which does not exist",
            f"choose from {', '.join(tensors)}",
        )
    return tensors[name].float()
