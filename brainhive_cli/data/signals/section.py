"""The section `signal` of a recipe."""

import re
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from brainhive_cli.core.recipe import Names, Section, refuse_idle
from brainhive_cli.data.signals.region_split import Control, parsed, split_masks
from brainhive_cli.data.signals.selection import Selection
from brainhive_cli.data.stores.recordings import REGION_NAME, Recording


class Signal(Section):
    """Which part of the recordings a brain model sees, and how it is normalised and averaged."""

    name: str = Field("default", description="preparation: the folder of stores below signals/<dataset>")
    channels: Names | None = Field(
        None,
        description="sensors by name or region (frontal, central, temporal, parietal, occipital), or voxels "
        "by region; default: the data set's for decoding",
    )
    region_split: dict[str, str] = Field(
        {},
        description="what streams of a model read: name: set of the voxels' regions, with & | - and "
        "parentheses, as {spatial: V1 | V2, semantic: all - spatial}; later sets may use earlier names",
    )
    region_control: Control = Field(
        "none",
        description="sets of region_split are exchanged (swapped), drawn with the same sizes from all their "
        "voxels (random), or hold all of them (all)",
    )
    region_seed: int = Field(0, ge=0, lt=2**63, description="of region_control: random")
    window_ms: tuple[float, float] | None = Field(None, description="start and stop after stimulus onset, ms")
    scale: float = Field(
        1.0,
        gt=0,
        description="signals are multiplied by this (1 over their usual spread)",
    )
    normalise: Literal["none", "channel", "whiten"] = Field(
        "none",
        description="by the training signals of each subject: channel (mean 0, variance 1), whiten (also "
        "no correlation between channels)",
    )
    normalise_by: Literal["subject", "training_subjects"] = Field(
        "subject",
        description="whose statistics normalise a subject who was not trained on: the subject's own training "
        "split, or the mean of those of the subjects trained on",
    )
    repetitions: Literal["average", "single", "random"] = Field(
        "average",
        description="a training sample is the average of a stimulus's trials, each trial, or the average of "
        "some at random; validation and test take the average of all",
    )
    random_k: int = Field(
        2, gt=0, le=10_000, description="trials that a random average takes, anew each time"
    )

    @field_validator("region_split")
    @classmethod
    def _holds_sets(cls, value: dict[str, str]) -> dict[str, str]:
        for name, expression in value.items():
            if not re.fullmatch(REGION_NAME, name):
                raise ValueError(f"{name!r} is no name of a region")
            parsed(expression)
        return value

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        if self.repetitions != "random":
            refuse_idle(self, ("random_k",), f"with repetitions {self.repetitions}", "repetitions: random")
        if self.region_split:
            refuse_idle(self, ("channels",), "with region_split", "leave one of them out")
        if len(self.region_split) < 2:
            refuse_idle(self, ("region_control",), "without two sets of region_split", "leave it out")
        if self.region_control != "random":
            refuse_idle(self, ("region_seed",), f"with region_control {self.region_control}", "leave it out")
        if self.normalise == "none":
            refuse_idle(self, ("normalise_by",), "with normalise none", "normalise: channel")
        return self

    def select(self, recording: Recording, default: Sequence[str] | None, where: str) -> Selection:
        """Select what a brain model sees of a recording, not normalised.

        Args:
            recording: The recording.
            default: Channels or regions where the recipe names none; None is all.
            where: What the recording is, for errors.

        Raises:
            BrainhiveError: naming channels, regions or a window that the recording does not have.
        """
        split = self.region_split, recording.space, self.region_control, self.region_seed, where
        channels = self.channels or default
        return Selection.of(recording, channels, self.window_ms, self.scale, where, split_masks(*split))
