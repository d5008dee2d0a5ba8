"""Values of a recipe that change over the epochs of a training."""

import math
from typing import Literal, Self

from pydantic import ConfigDict, Field, PositiveFloat, model_validator

from brainhive_cli.core.recipe import Section


class Course(Section):
    """A value that changes from one to another between two epochs; outside of them it is constant."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    start: float = Field(alias="from", ge=0, description="value before the first epoch")
    stop: float = Field(alias="to", ge=0, description="value from the second epoch on")
    epochs: tuple[int, int] = Field(description="first epoch with the first value, first with the second")
    course: Literal["linear", "cosine"] = Field("linear", description="how it goes from one to the other")

    @model_validator(mode="after")
    def _takes_time(self) -> Self:
        if not 0 <= self.epochs[0] < self.epochs[1]:
            raise ValueError("epochs are two, the first before the second")
        return self

    def at(self, epoch: float) -> float:
        """Return the value in an epoch, counted from 0; it is one value from the first step to the last."""
        first, last = self.epochs
        share = min(max((math.floor(epoch) - first) / (last - first), 0.0), 1.0)
        if self.course == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start + share * (self.stop - self.start)


class Wave(Section):
    """A value that rises to a peak and falls again between two epochs, step by step; outside it is constant.

    Source: the progressive weights of NEURONS' tasks (arXiv 2503.11167).
    """

    base: float = Field(ge=0, description="value outside of the wave")
    peak: PositiveFloat = Field(description="largest value")
    epochs: tuple[int, int] = Field(description="first epoch of the wave, first after it")
    course: Literal["sine"] = Field("sine", description="half a period of a sine")

    @model_validator(mode="after")
    def _takes_time(self) -> Self:
        if not 0 <= self.epochs[0] < self.epochs[1]:
            raise ValueError("epochs are two, the first before the second")
        return self

    def at(self, epoch: float) -> float:
        """Return the value at a moment: epochs that are done, with the part of this one."""
        first, last = self.epochs
        if not first <= epoch < last:
            return self.base
        return self.base + (self.peak - self.base) * math.sin(math.pi * (epoch - first) / (last - first))


def at(value: float | Course | Wave, epoch: float) -> float:
    """Return a value in an epoch, counted from 0; a wave's at a moment of it."""
    return value if isinstance(value, int | float) else value.at(epoch)
