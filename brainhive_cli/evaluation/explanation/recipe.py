"""Recipe of explain."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from brainhive_cli.core.base import RecipeError
from brainhive_cli.core.recipes import (
    ComparedHead,
    Copies,
    NameList,
    Numbers,
    OneRunRecipe,
    Section,
    flag_field,
    parts,
    refuse_idle,
    require_names,
)
from brainhive_cli.models.encoders import Encoders

MODEL_ANALYSES = {
    "windows": "retrieval by one window of the signal at a time",
    "occlusion": "margin that is lost without a window",
    "sensors": "margin that is lost without a sensor, in sensor space",
    "bands": "margin that is lost without a frequency band",
    "regions": "margin that is lost without a region of voxels",
    "levels": "margin that is lost without an encoder among the targets",
    "trained": (
        "retrieval by ridges, each trained anew on one window, or on one region of "
        "voxels"
    ),
}
"""Analyses of a trained model and its targets."""
SIGNAL_ANALYSES = {
    "encoding": (
        "signals predicted from embeddings, by time and by sensor or region, and "
        "without each level"
    ),
    "similarity": (
        "distances of signals correlated with those of embeddings, by time or by region"
    ),
}
"""Analyses of signals and embeddings, without a model."""
TRIAL_ANALYSES = {
    "decoding": "categories decoded from held-out trials, window by window",
    "generalisation": "classifiers of one window tested on every other",
}
"""Analyses of runs that hold out trials of seen stimuli. They have no others."""
ANALYSES = tuple(MODEL_ANALYSES) + tuple(SIGNAL_ANALYSES)
WINDOW_ANALYSES = {"windows", "occlusion", "trained"}
"""Analyses of a model that use windows of the signals of sensors."""
BANDS = {
    "delta": (1.0, 4.0),
    "theta": (4.0, 8.0),
    "alpha": (8.0, 13.0),
    "beta": (13.0, 30.0),
    "gamma": (30.0, 80.0),
}


class Window(Section):
    """Windows that slide over the signal."""

    width_ms: float = Field(100, gt=0, description="width of a window")
    step_ms: float = Field(25, gt=0, description="time from window to window")


class Recipe(OneRunRecipe):
    """Recipe of explain."""

    writes_run = True
    summary = (
        "Show when, where, in which frequency band and at which visual level brain "
        "signals carry information about the picture."
    )
    example = "--analyses windows,sensors"

    # data set and subjects
    dataset: parts.OtherDataset = Field(
        None, description="another data set than the run's, with other subjects"
    )
    subjects: Numbers | None = flag_field(
        None, "subjects to use, as in 1,2. Default: the run's"
    )
    copies: Copies = "refuse"

    # signals, and the output that is compared with pictures
    split: str = Field(
        "test",
        description="split of the signals, which the model must not be trained on",
    )
    head: ComparedHead = None

    # analyses, and their windows and bands
    analyses: Annotated[
        NameList,
        require_names("analysis", ANALYSES + tuple(TRIAL_ANALYSES)),
    ] = flag_field(
        list(ANALYSES),
        "analyses to run, as in windows,bands. Default: all. For held-out trials: "
        f"{', '.join(TRIAL_ANALYSES)}",
        min_length=1,
    )
    window: Window = Window()
    bands: dict[str, tuple[float, float]] = Field(
        BANDS, description="lowest and highest frequency of each band in Hz, by name"
    )

    # embeddings
    levels: Encoders = flag_field(
        [], "further encoders to compare the signals with", names="@encoders"
    )

    # control, and randomness
    draws: int = Field(
        1000,
        ge=20,
        le=100_000,
        description="number of permutations of the labels, which are the control",
    )
    seed: int = Field(0, ge=0, description="seed of every random choice")

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        """Raise an error for keys without an effect, and for wrong bands."""
        analyses_of_key = {
            "window": WINDOW_ANALYSES.union(TRIAL_ANALYSES),
            "bands": {"bands"},
            "levels": set(SIGNAL_ANALYSES),
        }
        for key, analyses in analyses_of_key.items():
            if analyses.isdisjoint(self.analyses):
                reason = f"without {' or '.join(sorted(analyses))}"
                refuse_idle(self, key, reason)

        for name, (low_hz, high_hz) in self.bands.items():
            if not 0 <= low_hz < high_hz:
                raise RecipeError(
                    f"bands.{name} is {low_hz:g} to {high_hz:g} Hz",
                    "give two rising frequencies",
                )
        return self
