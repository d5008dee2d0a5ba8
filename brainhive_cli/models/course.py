"""Values of a recipe that change over the epochs of a training, counted in epochs or in
shares of a stage.
"""

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

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.sections import Section

M = TypeVar("M", bound=BaseModel)
SHARE_PATTERN = re.compile(r" *(\d{1,6}) */ *(\d{1,6}) *")
"""A share of a stage, as a recipe has it: 1/3, or 49/150."""


def parse_share(value: Any) -> Any:
    """Read `1/3` as a share of a stage; everything else is left as it is."""
    match = SHARE_PATTERN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    # refuses 0 as denominator, too
    if not 0 < int(match[2]) >= int(match[1]):
        raise ValueError("a share of a stage is from 0/1 to 1/1")
    return Fraction(int(match[1]), int(match[2]))


def format_share(value: Any) -> Any:
    """Write a share so that it is read as one, also where it is whole: 1/1."""
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    return value


def _read_epoch(value: Any) -> Any:
    value = parse_share(value)
    # 3.0 is epoch 3
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # type, not isinstance: True is an int
    if not isinstance(value, Fraction) and (type(value) is not int or value < 0):
        raise ValueError(
            "an epoch is a whole number from 0, or a share of the stage such as 1/3"
        )
    return value


Epoch = Annotated[
    int | float | Fraction,
    PlainValidator(_read_epoch),
    PlainSerializer(format_share),
    Field(examples=["[0, 1/3]"]),
]
"""An epoch, counted from 0, or a share of a stage; a float only once it counts in a
training.
"""


def _refuse_backwards(epochs: tuple[Epoch, Epoch]) -> tuple[Epoch, Epoch]:
    """Refuse two epochs, or two shares, that are not in order; of one of each the
    stage's length decides.
    """
    # 0 is the same as an epoch and as a share, so it has no kind
    kinds = {isinstance(epoch, Fraction) for epoch in epochs if epoch}
    if epochs[0] >= epochs[1] and len(kinds) < 2:
        raise ValueError("epochs are two, the first before the second")
    return epochs


EpochRange = Annotated[tuple[Epoch, Epoch], AfterValidator(_refuse_backwards)]
"""The first epoch of something, and the first after it."""


class Course(Section):
    """A value that changes from one to another between two epochs; outside of them it
    is constant.
    """

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    start: float = Field(alias="from", ge=0, description="value before the first epoch")
    stop: float = Field(alias="to", ge=0, description="value from the second epoch on")
    epochs: EpochRange | None = Field(
        None,
        description="first epoch with the first value, first with the second, or "
        "shares of the stage (1/3); default: the first and the last in "
        "which the term is active",
    )
    course: Literal["linear", "cosine"] = Field(
        "linear", description="how it goes from one to the other"
    )

    def value_at(self, epoch: float) -> float:
        """Return the value in an epoch, counted from 0; it is one value from the first
        step to the last.
        """
        first, last = get_epochs(self)
        if first >= last:  # a term of a single epoch
            return self.start if epoch < first else self.stop

        # progress in 0..1; floor, so that all steps of an epoch have one value
        share = min(max((math.floor(epoch) - first) / (last - first), 0.0), 1.0)
        # half a cosine: slow at both ends
        if self.course == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start + share * (self.stop - self.start)


class Wave(Section):
    """A value that rises to a peak and falls again between two epochs, step by step;
    outside it is constant.

    Source: the progressive weights of NEURONS' tasks (arXiv 2503.11167).
    """

    base: float = Field(ge=0, description="value outside of the wave")
    peak: PositiveFloat = Field(description="largest value")
    epochs: EpochRange = Field(
        description=(
            "first epoch of the wave, first after it; or shares of the stage (1/3)"
        )
    )
    course: Literal["sine"] = Field("sine", description="half a period of a sine")

    def value_at(self, epoch: float) -> float:
        """Return the value at a moment: epochs that are done, with the part of this
        one.
        """
        first, last = get_epochs(self)
        if not first <= epoch < last:
            return self.base
        # half a period of a sine, which is 0 at both ends of the wave
        return self.base + (self.peak - self.base) * math.sin(
            math.pi * (epoch - first) / (last - first)
        )


def get_epochs(course: Course | Wave) -> tuple[float, float]:
    """Return both epochs of a course or wave; BrainhiveError for shares, where no stage
    is known.
    """
    epochs = course.epochs
    if epochs is None or any(isinstance(epoch, Fraction) for epoch in epochs):
        raise BrainhiveError(
            "a course has shares of a stage, and no stage is known",
            "epochs: [first, last]",
        )
    return float(epochs[0]), float(epochs[1])


def value_at(value: float | Course | Wave, epoch: float) -> float:
    """Return a value in an epoch, counted from 0; a wave's at a moment of it."""
    return value if isinstance(value, int | float) else value.value_at(epoch)


def resolve_epochs(epochs: EpochRange, start: int, length: int) -> tuple[float, float]:
    """Count epochs and shares of a stage in epochs of the training; a share may end
    within an epoch.

    Args:
        epochs: As a recipe has them.
        start: First epoch of the stage.
        length: Epochs of the stage.
    """
    first, last = (
        float(start + epoch * (length if isinstance(epoch, Fraction) else 1))
        for epoch in epochs
    )
    return first, last


def resolve_courses(
    model: M, active: tuple[float, float], start: int, length: int
) -> M:
    """Count the epochs of every course and wave in a term; a course without is where
    the term is active.

    Args:
        model: What may hold them, at any depth.
        active: First moment at which the term is active, and the first after it.
        start: First epoch of the stage.
        length: Epochs of the stage.
    """
    # a course or wave with epochs: count them in epochs of the training
    epochs = model.epochs if isinstance(model, Course | Wave) else None
    if epochs is not None:
        return model.model_copy(
            update={"epochs": resolve_epochs(epochs, start, length)}
        )

    # a course without epochs ends in the last epoch of its term
    if isinstance(model, Course):
        return model.model_copy(
            update={"epochs": (math.floor(active[0]), math.ceil(active[1]) - 1)}
        )

    # sections may hold courses at any depth
    inner = {name: value for name, value in model if isinstance(value, BaseModel)}
    counted = {
        name: resolve_courses(value, active, start, length)
        for name, value in inner.items()
    }
    return model.model_copy(update=counted) if counted else model
