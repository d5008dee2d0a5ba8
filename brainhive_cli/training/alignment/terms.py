"""The section `terms` of an align recipe: losses, their weights over epochs, and when they are active."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.recipe import Section
from brainhive_cli.models.course import Course, Epochs, Wave, at, place, place_courses


class Term(Section):
    """One loss term: a prediction, its target, the loss between them, and how much it counts when."""

    prediction: str = Field(description="head, or another output of the backbone in training")
    target: str | None = Field(None, description="whose target; default: the prediction's own")
    loss: Annotated[Any, parts.part("losses", "clip")] = Field(
        "clip", validate_default=True, description="between the prediction and its target"
    )
    weight: Annotated[float, Field(gt=0)] | Course | Wave = Field(
        1.0,
        description="number, or {from, to, epochs: [a, b], course: linear|cosine}, by default over the "
        "epochs in which the term is active, or {base, peak, epochs: [a, b], course: sine}, up and down",
    )
    epochs: Epochs | None = Field(
        None,
        description="active from the first up to, not including, the second: epochs, or shares of the stage "
        "(1/3), which a training of another length keeps; default: always",
    )
    stage: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="stage of train.stages, from 0, in which the term is active, and whose epochs and shares "
        "its own are; default: the whole training",
    )

    @property
    def of(self) -> str:
        """Whose target the prediction is compared with."""
        return self.target or self.prediction

    def in_stage(self, start: int, length: int) -> Self:
        """Count its epochs, and those of its courses, in epochs of the training.

        Args:
            start: First epoch of its stage.
            length: Epochs of its stage.
        """
        is_everywhere = self.epochs is None and self.stage is None
        active = place(self.epochs or (Fraction(0), Fraction(1)), start, length)
        placed = place_courses(self, active, start, length)
        return placed if is_everywhere else placed.model_copy(update={"epochs": active, "stage": None})

    def weight_at(self, moment: float) -> float:
        """Return the weight at a moment, in epochs from 0; 0 where the term is not active."""
        if self.epochs is not None and not self.epochs[0] <= moment < self.epochs[1]:
            return 0.0
        return at(self.weight, moment)


def check(terms: Sequence[Term], epochs: int) -> None:
    """Refuse terms, placed in the training, that cannot be trained together, or have no effect.

    Raises:
        RecipeError: naming the term or the epoch.
    """
    # between two borders the same terms are active; at a border itself a wave may be 0
    spans = [span for term in terms for span in (term.epochs, getattr(term.weight, "epochs", None)) if span]
    inner = {float(each) for span in spans for each in span if each < epochs}
    borders = sorted({*map(float, range(epochs + 1)), *inner})
    moments = [(one + other) / 2 for one, other in pairwise(borders)]
    for number, term in enumerate(terms):
        if not any(map(term.weight_at, moments)):
            raise RecipeError(
                f"terms[{number}] has no effect: its weight is 0 in all {epochs} epochs",
                f"terms[{number}].epochs within [0, {epochs}], shares of the stage (1/3), or leave it out",
            )
    for moment in moments:
        if not any(term.weight_at(moment) for term in terms):
            raise RecipeError(f"no term is active in epoch {int(moment)}", "a term whose epochs include it")
        mixing_of(terms, moment)


def mixing_of(terms: Sequence[Term], moment: float) -> tuple[float, float]:
    """Return how signals are mixed at a moment: alpha (0: not at all), and the share that is mixed.

    Raises:
        RecipeError: if two active terms want different ones.
    """
    active = [term.loss for term in terms if term.weight_at(moment)]
    losses = [loss for loss in active if getattr(loss, "mix_alpha", 0.0)]
    wanted = sorted({(loss.mix_alpha, loss.mix_share) for loss in losses})
    if len(wanted) > 1:
        key, place = ("mix_alpha", 0) if wanted[0][0] != wanted[1][0] else ("mix_share", 1)
        one, other = (each[place] for each in wanted[:2])
        raise RecipeError(
            f"in epoch {int(moment)} terms mix signals with {key} {one:g} and {other:g}",
            f"one loss.{key}, or other epochs",
        )
    return wanted[0] if wanted else (0.0, 1.0)
