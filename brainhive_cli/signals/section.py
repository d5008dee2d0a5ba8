"""The section `signal` of a recipe."""

from typing import Literal, Self

from pydantic import Field, model_validator

from brainhive_cli.core.recipe import Names, Section, refuse_idle


class Signal(Section):
    """Which part of the recordings a brain model sees, and how it is normalised and averaged."""

    name: str = Field("default", description="preparation: the folder of stores below signals/<dataset>")
    channels: Names | None = Field(
        None,
        description="sensors by name or region (frontal, central, temporal, parietal, occipital), or voxels "
        "by region; default: the data set's for decoding",
    )
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

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        if self.repetitions != "random":
            refuse_idle(self, ("random_k",), f"with repetitions {self.repetitions}", "repetitions: random")
        if self.normalise == "none":
            refuse_idle(self, ("normalise_by",), "with normalise none", "normalise: channel")
        return self
