"""Values of a recipe that change over the epochs of a training."""

import math
from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from brainhive_cli.core.recipe import Section


class Course(Section):
    """A value that changes from one to another between two epochs; outside of them it is constant."""

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


def at(value: float | Course, epoch: int) -> float:
    """Return a value in an epoch, counted from 0."""
    return value.at(epoch) if isinstance(value, Course) else value
