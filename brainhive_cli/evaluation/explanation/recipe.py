"""Recipe of explain."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from brainhive_cli.core import key_types, parts, sections
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.recipe import TrainedRunRecipe
from brainhive_cli.core.sections import Section
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
REGION_ANALYSES = {"regions", "trained", "encoding"}
"""Analyses that use single regions of voxels."""
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
    step_ms: float = Field(25, gt=0, description="from window to window")


class Recipe(TrainedRunRecipe):
    """Recipe of explain: the run, the subjects, the analyses."""

    # the run, and the subjects
    align_run: key_types.OneRun = Field(
        None,
        description="an align run, by folder or name, or SWEEP:VARIANT; or the "
        "train-align recipe that made it; or a model folder; or "
        "hub:owner/name[@revision]; default: the newest run (key: run)",
    )
    dataset: parts.OtherDataset = Field(
        None, description="another data set than the run's, with other subjects"
    )
    subjects: key_types.Numbers | None = Field(
        None, description="subjects explained; default: the run's"
    )
    copies: key_types.Copies = "refuse"

    # whose signals, and the vectors that they are compared by
    split: str = Field(
        "test",
        description="whose signals are explained; the model must not have seen them",
    )
    head: str | None = Field(
        None,
        description=(
            "the head that is compared, flattened; default: the model's own, token, or "
            "the only"
        ),
    )

    # analyses, and where along the signal they look
    analyses: Annotated[
        key_types.NameList,
        sections.require_names("analysis", (*ANALYSES, *TRIAL_ANALYSES)),
    ] = Field(
        [*ANALYSES],
        min_length=1,
        description=(
            f"which of {', '.join(ANALYSES)}; of held-out trials "
            f"{' and '.join(TRIAL_ANALYSES)}"
        ),
    )
    window: Window = Window()
    bands: dict[str, tuple[float, float]] = Field(
        BANDS, description="frequency bands in Hz, by name"
    )

    # embeddings that signals are compared with, and predicted from
    levels: Encoders = Field(
        [],
        description=(
            "further encoders that signals are compared with, next to the run's"
        ),
    )

    # the control, and randomness
    draws: int = Field(
        1000, ge=20, le=100_000, description="permutations of the labels: the control"
    )
    seed: int = Field(0, ge=0, description="seed of every random choice")

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        # a key of an analysis that was not chosen would change nothing
        wanted = {*self.analyses}
        # analyses that read each key
        needs = {
            "window": WINDOW_ANALYSES | {*TRIAL_ANALYSES},
            "bands": {"bands"},
            "levels": {*SIGNAL_ANALYSES},
        }
        for key, users in needs.items():
            if not users & wanted:
                sections.refuse_idle(
                    self,
                    (key,),
                    f"without {' or '.join(sorted(users))}",
                    "leave it out",
                )

        # edges in Hz
        for name, (low, high) in self.bands.items():
            if not 0 <= low < high:
                raise RecipeError(
                    f"bands.{name} is {low:g} to {high:g} Hz", "two rising frequencies"
                )
        return self
