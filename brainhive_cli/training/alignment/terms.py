"""Loss terms, each of which compares a prediction with a target during some epochs."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, Protocol, Self, runtime_checkable

from pydantic import (
    Field,
    model_validator,
)

from brainhive_cli.core.base import RecipeError
from brainhive_cli.core.recipes import Section, added_field, parts
from brainhive_cli.models import (
    Course,
    EpochRange,
    Wave,
    resolve_courses,
    resolve_epochs,
    value_at,
)


@runtime_checkable
class MixesSignals(Protocol):
    """Config of a loss on mixed signals, such as MixCo."""

    mix_alpha: float
    mix_share: float


class Term(Section):
    """Loss term: a prediction, its target, their loss, and its weight over time."""

    prediction: str = Field(
        description="head, or another output of the backbone in training"
    )
    target: str | None = Field(
        None,
        description="head whose target is taken, or a name of `targets`; default: the "
        "prediction's own",
    )
    loss: Any = parts.part_field(
        "losses", "clip", "loss between the prediction and its target"
    )
    loss_of: Annotated[int, Field(ge=0)] | None = added_field(
        None,
        description="index, from 0, of an earlier term whose loss and learned scale it "
        "shares",
    )
    weight: Annotated[float, Field(gt=0)] | Course | Wave = Field(
        1.0,
        description="number; or {from, to, epochs: [a, b], course: linear|cosine}, by "
        "default over the active epochs; or {base, peak, epochs: [a, b], course: "
        "sine}, up and down",
    )
    epochs: EpochRange | None = Field(
        None,
        description="first active epoch and first one after; shares of the stage (1/3) "
        "fit any length; default: all",
    )
    stage: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="stage of train.stages, from 0, in which the term is active and "
        "its epochs count; default: the whole training",
    )

    @model_validator(mode="after")
    def _refuse_second_loss(self) -> Self:
        """Refuse a loss that differs from the default if the term shares another."""
        if self.loss_of is not None and self.loss != parts.resolve("losses", "clip"):
            raise ValueError("loss has no effect with loss_of: leave one of them out")
        return self

    @property
    def target_name(self) -> str:
        """Name of the target that the prediction is compared with."""
        return self.target or self.prediction

    def in_stage(self, start: int, length: int) -> Self:
        """Copy the term with epochs counted from the start of the whole training.

        Args:
            start: First epoch of the term's stage.
            length: Number of epochs of the stage.
        """
        active_epochs = resolve_epochs(
            self.epochs or (Fraction(0), Fraction(1)), start, length
        )
        term = resolve_courses(self, active_epochs, start, length)
        if self.epochs is None and self.stage is None:
            return term
        return term.model_copy(update={"epochs": active_epochs, "stage": None})

    def weight_at(self, moment: float) -> float:
        """Return the weight after `moment` epochs, or 0 if the term is not active."""
        if self.epochs is not None and not self.epochs[0] <= moment < self.epochs[1]:
            return 0.0
        return value_at(self.weight, moment)


def check_active(terms: Sequence[Term], epochs: int) -> None:
    """Check that each term has an effect, and that each epoch has an active term.

    Args:
        terms: Terms with epochs counted from the start of the training.
        epochs: Number of epochs of the training.

    Raises:
        RecipeError: naming the term or the epoch.
    """
    # a shared loss is built by an earlier term
    for number, term in enumerate(terms):
        owner = term.loss_of
        if owner is not None and (owner >= number or terms[owner].loss_of is not None):
            raise RecipeError(
                f"terms[{number}].loss_of is {owner}, which is no earlier term with a "
                "loss of its own",
                f"set the index of such a term, below {number}",
            )

    # moments between the borders of epochs, where the active terms change
    borders = {float(epoch) for epoch in range(epochs + 1)}
    for term in terms:
        ranges = [term.epochs]
        if isinstance(term.weight, Course | Wave):
            ranges.append(term.weight.epochs)
        for epoch_range in ranges:
            if epoch_range:
                borders.update(float(end) for end in epoch_range if end < epochs)
    moments = [(start + stop) / 2 for start, stop in pairwise(sorted(borders))]

    # a term that never counts is a mistake in the recipe
    for number, term in enumerate(terms):
        if not any(term.weight_at(moment) for moment in moments):
            raise RecipeError(
                f"terms[{number}] has no effect: its weight is 0 in all {epochs} "
                "epochs",
                f"set terms[{number}].epochs within [0, {epochs}] or as shares of the "
                "stage (1/3), or leave the term out",
            )

    # every moment needs an active term, and active terms must mix signals alike
    for moment in moments:
        if not any(term.weight_at(moment) for term in terms):
            raise RecipeError(
                f"no term is active in epoch {int(moment)}",
                "add a term whose epochs include it",
            )
        find_mixing(terms, moment)


def find_mixing(terms: Sequence[Term], moment: float) -> tuple[float, float]:
    """Find the mixing of signals (as MixCo) by the terms that are active at a moment.

    Args:
        terms: Terms with epochs counted from the start of the training.
        moment: Number of epochs since the start of the training.

    Returns:
        `mix_alpha` of Beta(alpha, alpha) for the weights, and the share of signals that
        are mixed. (0, 1) if no signals are mixed.

    Raises:
        RecipeError: if two active terms mix signals differently.
    """
    mixings = set()
    for term in terms:
        if not term.weight_at(moment):
            continue
        loss = term.loss if term.loss_of is None else terms[term.loss_of].loss
        if isinstance(loss, MixesSignals) and loss.mix_alpha:
            mixings.add((loss.mix_alpha, loss.mix_share))
    if not mixings:
        return 0.0, 1.0

    # a batch is mixed once for all terms
    mixing, *others = sorted(mixings)
    if others:
        raise RecipeError(
            f"in epoch {int(moment)} terms mix signals with (mix_alpha, mix_share) "
            f"{mixing} and {others[0]}",
            "set one loss.mix_alpha and loss.mix_share, or separate epochs",
        )
    return mixing
