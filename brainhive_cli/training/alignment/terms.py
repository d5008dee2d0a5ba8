"""Terms of the objective: losses that compare a head with a target, by epoch."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import chain, pairwise
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    model_validator,
)

from brainhive_cli.core import parts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.sections import Section, added_field
from brainhive_cli.models.course import (
    Course,
    EpochRange,
    Wave,
    at,
    count_courses,
    count_epochs,
)


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
    loss: Any = parts.part_field(
        "losses", "clip", "between the prediction and its target"
    )
    loss_of: Annotated[int, Field(ge=0)] | None = added_field(
        None,
        description="index, from 0, of an earlier term whose loss this one takes, with "
        "the scale it learns",
    )
    weight: Annotated[float, Field(gt=0)] | Course | Wave = Field(
        1.0,
        description="number, or {from, to, epochs: [a, b], course: linear|cosine}, by "
        "default over the epochs in which the term is active, or {base, "
        "peak, epochs: [a, b], course: sine}, up and down",
    )
    epochs: EpochRange | None = Field(
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


def check_active(terms: Sequence[Term], epochs: int) -> None:
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
                f"terms[{number}] has no effect: its weight is 0 in all {epochs} "
                "epochs",
                f"terms[{number}].epochs within [0, {epochs}], shares of the stage "
                "(1/3), or leave it out",
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
    losses = [
        term.loss if term.loss_of is None else terms[term.loss_of].loss
        for term in terms
        if term.weight_at(moment)
    ]
    # losses that compare pairs in a batch have these keys
    mixed = [loss for loss in losses if getattr(loss, "mix_alpha", 0)]
    wanted = sorted({(loss.mix_alpha, loss.mix_share) for loss in mixed})

    # a batch is mixed once for all terms
    if len(wanted) > 1:
        raise RecipeError(
            f"in epoch {int(moment)} terms mix signals with (mix_alpha, mix_share) "
            f"{wanted[0]} and {wanted[1]}",
            "one loss.mix_alpha and loss.mix_share, or other epochs",
        )
    return wanted[0] if wanted else (0.0, 1.0)
