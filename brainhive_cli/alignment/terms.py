"""The section `terms` of an align recipe: losses, their weights over epochs, and when they are active."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from brainhive_cli.core import parts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.recipe import Section


class Course(Section):
    """A weight that changes from one value to another between two epochs; outside of them it is constant."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    start: float = Field(alias="from", ge=0)
    stop: float = Field(alias="to", ge=0)
    epochs: tuple[int, int] = Field(description="first epoch with the first value, first with the second")
    course: Literal["linear", "cosine"] = "linear"

    @model_validator(mode="after")
    def _takes_time(self) -> Self:
        if not 0 <= self.epochs[0] < self.epochs[1]:
            raise ValueError("epochs are two, the first before the second")
        return self

    def at(self, epoch: int) -> float:
        """Return the value in an epoch, counted from 0."""
        first, last = self.epochs
        share = min(max((epoch - first) / (last - first), 0.0), 1.0)
        if self.course == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start + share * (self.stop - self.start)


class Term(Section):
    """One loss term: a prediction, its target, the loss between them, and how much it counts when."""

    prediction: str = Field(description="head, or another output of the backbone in training")
    target: str | None = Field(None, description="whose target; default: the prediction's own")
    loss: Annotated[Any, parts.part("losses", "clip")] = Field("clip", validate_default=True)
    weight: Annotated[float, Field(gt=0)] | Course = Field(
        1.0, description="number, or {from, to, epochs: [a, b], course: linear|cosine}"
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

    def weight_at(self, epoch: int) -> float:
        """Return the weight in an epoch, counted from 0; 0 where the term is not active."""
        if self.epochs is not None and not self.epochs[0] <= epoch < self.epochs[1]:
            return 0.0
        return self.weight.at(epoch) if isinstance(self.weight, Course) else self.weight


def check(terms: Sequence[Term], epochs: int) -> None:
    """Refuse terms that cannot be trained together, or have no effect.

    Raises:
        RecipeError: naming the term or the epoch.
    """
    for number, term in enumerate(terms):
        if not any(term.weight_at(epoch) for epoch in range(epochs)):
            raise RecipeError(
                f"terms[{number}] has no effect: its weight is 0 in all {epochs} epochs",
                f"terms[{number}].epochs within [0, {epochs}], or leave it out",
            )
    for epoch in range(epochs):
        if not any(term.weight_at(epoch) for term in terms):
            raise RecipeError(f"no term is active in epoch {epoch}", "a term whose epochs include it")
        mix_alpha(terms, epoch)


def mix_alpha(terms: Sequence[Term], epoch: int) -> float:
    """Return the alpha with which the signals of an epoch are mixed.

    Raises:
        RecipeError: if two active terms want different ones.
    """
    active = [term for term in terms if term.weight_at(epoch)]
    alphas = sorted({alpha for term in active if (alpha := getattr(term.loss, "mix_alpha", 0.0))})
    if len(alphas) > 1:
        raise RecipeError(
            f"in epoch {epoch} terms mix signals with alpha {alphas[0]:g} and {alphas[1]:g}",
            "one loss.mix_alpha, or other epochs",
        )
    return alphas[0] if alphas else 0.0
