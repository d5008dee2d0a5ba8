"""Objective of training: the weighted sum of the loss terms of a recipe, each active
when it says.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from itertools import chain, pairwise
from typing import Annotated, Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from brainhive_cli.core import foreign_code, parts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.recipe import Section
from brainhive_cli.models.course import (
    Course,
    Epochs,
    Wave,
    at,
    count_courses,
    count_epochs,
)
from brainhive_cli.models.heads import comparable
from brainhive_cli.models.losses import LossContext, ScaledConfig

Tensors = Mapping[str, Tensor]


class Term(Section):
    """One loss term: a prediction, its target, the loss between them, and how much it
    counts when.
    """

    prediction: str = Field(
        description="head, or another output of the backbone in training"
    )
    target: str | None = Field(
        None,
        description=(
            "head whose target, or one of `targets`; default: the prediction's own"
        ),
    )
    loss: Annotated[Any, parts.part("losses", "clip")] = Field(
        "clip",
        validate_default=True,
        description="between the prediction and its target",
    )
    loss_of: Annotated[int, Field(ge=0)] | None = Field(
        None,
        exclude_if=lambda index: index is None,  # older runs do not name it
        description=(
            "index, from 0, of an earlier term whose loss this one takes, with the "
            "scale it learns"
        ),
    )
    weight: Annotated[float, Field(gt=0)] | Course | Wave = Field(
        1.0,
        description="number, or {from, to, epochs: [a, b], course: linear|cosine}, by "
        "default over the epochs in which the term is active, or {base, "
        "peak, epochs: [a, b], course: sine}, up and down",
    )
    epochs: Epochs | None = Field(
        None,
        description="active from the first up to, not including, the second: epochs, "
        "or shares of the stage (1/3), which a training of another length "
        "keeps; default: always",
    )
    stage: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="stage of train.stages, from 0, in which the term is active, and "
        "whose epochs and shares its own are; default: the whole training",
    )

    @model_validator(mode="after")
    def _has_one_loss(self) -> Self:
        if self.loss_of is not None and self.loss != parts.resolve("losses", "clip"):
            raise ValueError("loss has no effect with loss_of: leave one of them out")
        return self

    @property
    def of(self) -> str:
        """Name of the target with which the prediction is compared."""
        return self.target or self.prediction

    def in_stage(self, start: int, length: int) -> Self:
        """Count its epochs, and those of its courses, in epochs of the training.

        Args:
            start: First epoch of its stage.
            length: Epochs of its stage.
        """
        # of a term that is active throughout only the courses are counted so
        is_everywhere = self.epochs is None and self.stage is None
        active = count_epochs(self.epochs or (Fraction(0), Fraction(1)), start, length)
        term = count_courses(self, active, start, length)
        return (
            term
            if is_everywhere
            else term.model_copy(update={"epochs": active, "stage": None})
        )

    def weight_at(self, moment: float) -> float:
        """Return the weight at a moment, in epochs from 0; 0 where the term is not
        active.
        """
        if self.epochs is not None and not self.epochs[0] <= moment < self.epochs[1]:
            return 0.0
        return at(self.weight, moment)


def check(terms: Sequence[Term], epochs: int) -> None:
    """Refuse terms, in epochs of the training, that cannot be trained together, or have
    no effect.

    Raises:
        RecipeError: naming the term or the epoch.
    """
    # a shared loss is built by an earlier term
    for number, term in enumerate(terms):
        first = term.loss_of
        if first is not None and (first >= number or terms[first].loss_of is not None):
            raise RecipeError(
                f"terms[{number}].loss_of is {first}",
                "an earlier term that has a loss of its own",
            )
    # between two borders the same terms are active; at a border itself a wave may be 0
    spans = [
        span
        for term in terms
        for span in (term.epochs, getattr(term.weight, "epochs", None))
        if span
    ]
    borders = {
        *map(float, range(epochs + 1)),
        *(float(end) for end in chain(*spans) if end < epochs),
    }
    moments = [(one + other) / 2 for one, other in pairwise(sorted(borders))]

    # a term that never counts is a mistake in the recipe
    for number, term in enumerate(terms):
        if not any(map(term.weight_at, moments)):
            raise RecipeError(
                (
                    f"terms[{number}] has no effect: its weight is 0 in all {epochs} "
                    "epochs"
                ),
                (
                    f"terms[{number}].epochs within [0, {epochs}], shares of the stage "
                    "(1/3), or leave it out"
                ),
            )

    # every moment needs an active term, and one way of mixing signals
    for moment in moments:
        if not any(term.weight_at(moment) for term in terms):
            raise RecipeError(
                f"no term is active in epoch {int(moment)}",
                "a term whose epochs include it",
            )
        mixing_of(terms, moment)


def mixing_of(terms: Sequence[Term], moment: float) -> tuple[float, float]:
    """Return how signals are mixed at a moment: alpha (0: not at all), and the share
    that is mixed.

    Raises:
        RecipeError: if two active terms want different ones.
    """
    # losses of the active terms; a shared loss is that of the earlier term
    active = [term for term in terms if term.weight_at(moment)]
    losses = [
        term.loss if term.loss_of is None else terms[term.loss_of].loss
        for term in active
    ]
    contrastive = [loss for loss in losses if isinstance(loss, ScaledConfig)]
    wanted = sorted(
        {(loss.mix_alpha, loss.mix_share) for loss in contrastive if loss.mix_alpha}
    )

    # a batch is mixed once for all terms
    if len(wanted) > 1:
        raise RecipeError(
            f"in epoch {int(moment)} terms mix signals with (mix_alpha, mix_share) "
            f"{wanted[0]} and {wanted[1]}",
            "one loss.mix_alpha and loss.mix_share, or other epochs",
        )
    return wanted[0] if wanted else (0.0, 1.0)


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
                    _named("target", term.of, targets),
                )
                # centred cosine: contrastive losses, which have a scale, compare
                # centred vectors
                if self.is_centred and hasattr(loss, "logit_scale"):
                    pair = comparable(pair[0], True), comparable(pair[1], True)
                value = loss(*pair, context)
                # a user's loss may return anything
                if not isinstance(value, Tensor) or value.shape != ():
                    seen = (
                        list(value.shape)
                        if isinstance(value, Tensor)
                        else type(value).__name__
                    )
                    raise RecipeError(
                        f"{foreign_code.name_of(loss, 'the loss')} gives {seen} as the "
                        f"loss of {term.prediction}, not one number",
                        "end it in .mean() over the batch and the values",
                    )
                values.append(weight * value)
            return torch.stack(values).sum()

    def of_pairs(
        self, predicted: Tensors, targets: Tensors, context: LossContext
    ) -> Tensor:
        """Return the scaled similarity of each prediction and its target, [B], in the
        first contrastive term.

        Raises:
            RecipeError: if no active term has one.
        """
        for term, loss in zip(self.terms, self, strict=True):
            # the first active term whose loss compares pairs decides
            of_pairs = getattr(loss, "of_pairs", None)
            if of_pairs is not None and term.weight_at(_moment_of(context)):
                return of_pairs(predicted[term.prediction], targets[term.of], context)
        raise RecipeError(
            "train.alternatives=uncertainty needs the similarities of clip",
            "a term of clip",
        )

    def continue_from(self, learned: Tensors) -> None:
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
