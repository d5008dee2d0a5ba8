"""Values of a recipe that change over the epochs of a training."""

import math
import re
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    PositiveFloat,
)

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.core.recipes import Section

M = TypeVar("M", bound=BaseModel)


def parse_share(value: Any) -> Any:
    """Parse a share of a stage, such as `1/3`. Other values are returned unchanged.

    Raises:
        ValueError: if the share is above 1, or its denominator is 0.
    """
    # Share of a stage in a recipe, such as `1/3`.
    match = (
        re.fullmatch(r" *(\d{1,6}) */ *(\d{1,6}) *", value)
        if isinstance(value, str)
        else None
    )
    if match is None:
        return value
    if not 0 < int(match[2]) >= int(match[1]):
        raise ValueError("a share of a stage is from 0/1 to 1/1")
    return Fraction(int(match[1]), int(match[2]))


def format_share(value: Any) -> Any:
    """Format a share as `1/1`. Other values are returned unchanged."""
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    return value


def _parse_epoch(value: Any) -> Any:
    """Parse an epoch such as 3, 3.0 or `1/3`."""
    epoch = parse_share(value)
    if isinstance(epoch, Fraction):
        return epoch
    if isinstance(epoch, float) and epoch.is_integer():
        epoch = int(epoch)
    # `isinstance(True, int)` is true
    if type(epoch) is not int or epoch < 0:
        raise ValueError(
            "an epoch is a whole number from 0, or a share of the stage such as 1/3"
        )
    return epoch


Epoch = Annotated[
    int | float | Fraction,
    PlainValidator(_parse_epoch),
    PlainSerializer(format_share),
    Field(examples=["[0, 1/3]"]),
]
"""An epoch, counted from 0, or a share of a stage. `resolve_epochs` makes it a float.
"""


def _check_order(epochs: tuple[Epoch, Epoch]) -> tuple[Epoch, Epoch]:
    """Raise an error if two epochs or two shares are not in ascending order.

    An epoch and a share cannot be compared before the length of the stage is known.
    """
    # 0 is both an epoch and a share
    is_share = {isinstance(epoch, Fraction) for epoch in epochs if epoch}
    is_mixed = len(is_share) == 2
    if epochs[0] >= epochs[1] and not is_mixed:
        raise ValueError("epochs are two, the first before the second")
    return epochs


EpochRange = Annotated[tuple[Epoch, Epoch], AfterValidator(_check_order)]
"""First epoch of a range, and the first epoch after it."""


class Course(Section):
    """Value that changes between two epochs, and is constant before and after."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    start: float = Field(alias="from", ge=0, description="value before the first epoch")
    stop: float = Field(alias="to", ge=0, description="value from the second epoch on")
    epochs: EpochRange | None = Field(
        None,
        description="first epoch with the value `from` and first epoch with the value "
        "`to`, or shares of the stage (1/3); by default the first and the last epoch "
        "in which the term is active",
    )
    course: Literal["linear", "cosine"] = Field(
        "linear", description="curve between the values; cosine is slow at both ends"
    )

    def value_at(self, epoch: float) -> float:
        """Return the value in an epoch, counted from 0.

        All steps of an epoch have the same value.
        """
        first, last = get_epochs(self)
        if first >= last:  # a term of a single epoch
            return self.start if epoch < first else self.stop

        progress = min(max((math.floor(epoch) - first) / (last - first), 0.0), 1.0)
        if self.course == "cosine":
            progress = (1 - math.cos(math.pi * progress)) / 2
        return self.start + progress * (self.stop - self.start)


class Wave(Section):
    """Value that rises to a peak and falls again between two epochs, step by step.

    Source: the progressive weights of NEURONS' tasks (arXiv 2503.11167).
    """

    base: float = Field(ge=0, description="value before and after the wave")
    peak: PositiveFloat = Field(description="largest value")
    epochs: EpochRange = Field(
        description=(
            "first epoch of the wave and first epoch after it, or shares of the stage "
            "(1/3)"
        )
    )
    course: Literal["sine"] = Field(
        "sine", description="curve of the wave: half a period of a sine"
    )

    def value_at(self, epoch: float) -> float:
        """Return the value at a moment, in epochs since the start of the training."""
        first, last = get_epochs(self)
        if not first <= epoch < last:
            return self.base
        height = math.sin(math.pi * (epoch - first) / (last - first))
        return self.base + (self.peak - self.base) * height


def get_epochs(course: Course | Wave) -> tuple[float, float]:
    """Return the two epochs of a course or wave.

    Raises:
        BrainhiveError: if they are missing, or shares of a stage.
    """
    epochs = course.epochs
    if epochs is None or any(isinstance(epoch, Fraction) for epoch in epochs):
        raise BrainhiveError(
            "a course has shares of a stage, and no stage is known",
            "epochs: [first, last]",
        )
    return float(epochs[0]), float(epochs[1])


def value_at(value: float | Course | Wave, epoch: float) -> float:
    """Return a constant, or the value of a course or wave in an epoch."""
    return value if isinstance(value, int | float) else value.value_at(epoch)


def resolve_epochs(epochs: EpochRange, start: int, length: int) -> tuple[float, float]:
    """Convert epochs or shares of a stage to epochs of the training.

    Args:
        epochs: First epoch of a range, and first epoch after it.
        start: First epoch of the stage.
        length: Number of epochs of the stage.

    Returns:
        Epochs of the training. A share may end within an epoch.
    """
    first, last = epochs
    if isinstance(first, Fraction):
        first = first * length
    if isinstance(last, Fraction):
        last = last * length
    return float(start + first), float(start + last)


def resolve_courses(
    model: M, active: tuple[float, float], start: int, length: int
) -> M:
    """Convert the epochs of courses and waves to epochs of the training.

    Args:
        model: Section of the recipe with courses and waves at any depth.
        active: First epoch in which the term is active, and first epoch after it. A
            course without epochs spans these.
        start: First epoch of the stage.
        length: Number of epochs of the stage.
    """
    epochs = model.epochs if isinstance(model, Course | Wave) else None
    if epochs is not None:
        training_epochs = resolve_epochs(epochs, start, length)
        return model.model_copy(update={"epochs": training_epochs})

    # a course without epochs ends in the last epoch of its term
    if isinstance(model, Course):
        term_epochs = (math.floor(active[0]), math.ceil(active[1]) - 1)
        return model.model_copy(update={"epochs": term_epochs})

    # sections may contain courses
    sections = {}
    for name, value in model:
        if isinstance(value, BaseModel):
            sections[name] = resolve_courses(value, active, start, length)
    return model.model_copy(update=sections) if sections else model
