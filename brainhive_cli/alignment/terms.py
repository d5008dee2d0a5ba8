"""The section `terms` of an align recipe: losses, their weights over epochs, and when they are active."""

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from brainhive_cli.core import parts
from brainhive_cli.core.course import Course, Wave, at
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.recipe import Section

MIDDLE = 0.5
"""The part of an epoch after which it is asked what is active in it: a wave may start at 0."""


class Term(Section):
    """One loss term: a prediction, its target, the loss between them, and how much it counts when."""

    prediction: str = Field(description="head, or another output of the backbone in training")
    target: str | None = Field(None, description="whose target; default: the prediction's own")
    loss: Annotated[Any, parts.part("losses", "clip")] = Field(
        "clip", validate_default=True, description="between the prediction and its target"
    )
    weight: Annotated[float, Field(gt=0)] | Course | Wave = Field(
        1.0,
        description="number, or {from, to, epochs: [a, b], course: linear|cosine}, or {base, peak, epochs: "
        "[a, b], course: sine}, which rises and falls",
    )
    epochs: tuple[int, int] | None = Field(
        None, description="active from the first up to, not including, the second; default: always"
    )

    @model_validator(mode="after")
    def _is_active(self) -> Self:
        if self.epochs is not None and not 0 <= self.epochs[0] < self.epochs[1]:
            raise ValueError("epochs are two, the first before the second")
        return self

    @property
    def of(self) -> str:
        """Whose target the prediction is compared with."""
        return self.target or self.prediction

    def weight_at(self, epoch: float) -> float:
        """Return the weight at a moment of an epoch, counted from 0; 0 where the term is not active."""
        if self.epochs is not None and not self.epochs[0] <= epoch < self.epochs[1]:
            return 0.0
        return at(self.weight, epoch)


def check(terms: Sequence[Term], epochs: int) -> None:
    """Refuse terms that cannot be trained together, or have no effect.

    Raises:
        RecipeError: naming the term or the epoch.
    """
    for number, term in enumerate(terms):
        if not any(term.weight_at(epoch + MIDDLE) for epoch in range(epochs)):
            raise RecipeError(
                f"terms[{number}] has no effect: its weight is 0 in all {epochs} epochs",
                f"terms[{number}].epochs within [0, {epochs}], or leave it out",
            )
    for epoch in range(epochs):
        if not any(term.weight_at(epoch + MIDDLE) for term in terms):
            raise RecipeError(f"no term is active in epoch {epoch}", "a term whose epochs include it")
        mixing_of(terms, epoch)


def mixing_of(terms: Sequence[Term], epoch: int) -> tuple[float, float]:
    """Return how the signals of an epoch are mixed: alpha (0: not at all), and the share that is mixed.

    Raises:
        RecipeError: if two active terms want different ones.
    """
    active = [term.loss for term in terms if term.weight_at(epoch + MIDDLE)]
    losses = [loss for loss in active if getattr(loss, "mix_alpha", 0.0)]
    wanted = sorted({(loss.mix_alpha, loss.mix_share) for loss in losses})
    if len(wanted) > 1:
        key, place = ("mix_alpha", 0) if wanted[0][0] != wanted[1][0] else ("mix_share", 1)
        one, other = (each[place] for each in wanted[:2])
        raise RecipeError(
            f"in epoch {epoch} terms mix signals with {key} {one:g} and {other:g}",
            f"one loss.{key}, or other epochs",
        )
    return wanted[0] if wanted else (0.0, 1.0)
