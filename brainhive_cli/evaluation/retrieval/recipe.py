"""Recipe of eval-retrieval."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from brainhive_cli.core.base import RecipeError
from brainhive_cli.core.recipes import (
    Arguments,
    ComparedHead,
    Copies,
    NameList,
    TrainedRunRecipe,
    flag_field,
    parts,
    split_commas,
)
from brainhive_cli.data.files import Subjects
from brainhive_cli.data.signals import ChannelChoice


class Recipe(TrainedRunRecipe):
    """Recipe of eval-retrieval: the runs, the subjects and the measurements."""

    is_tracked = True
    writes_run = True
    summary = (
        "Test how often trained models find the seen picture among the test pictures, "
        "with statistics."
    )
    example = "RUN --against OTHER"

    # which models are tested, and on whose signals
    align_run: Annotated[NameList | None, Arguments(names="@runs/train-align")] = (
        flag_field(
            None,
            "run of train-align (folder, name, recipe or hub:owner/name[@revision]), "
            "model folder, or A,B to average runs; a workflow: each of its trainings. "
            "Default: the newest run on the data set; run= is short for align_run=",
            flag="--run",
            names="@runs/train-align",
        )
    )
    against: NameList | None = flag_field(
        None,
        "runs of train-align to compare with, item by item",
        names="@runs/train-align",
    )
    dataset: parts.OtherDataset = flag_field(
        None, "data set to test on, for zero-shot transfer. Default: the run's"
    )
    subjects: Subjects = flag_field(
        None, "subjects to test, as in 1,2. Default: the run's"
    )
    copies: Copies = "refuse"
    channel_mapping: ChannelChoice = Field(
        "none",
        description="channels of the models that recordings lack: none refuses them, "
        "spline interpolates EEG between sensors, common fills them with the mean",
    )

    # candidates, and the vectors that they are compared by
    gallery: str = flag_field(
        "test",
        "splits whose pictures are the candidates, as in train+test. The signals "
        "of the last split are tested",
    )
    only_shown: bool = Field(
        False,
        description="search only the test pictures that a tested subject was shown, "
        "such as 982 of NSD's 1000",
    )
    head: ComparedHead = None

    # measurements next to the result: controls, corrections, curves and ceilings
    control: Literal["none", "shuffled", "permuted"] = Field(
        "none",
        description=(
            "control at chance: shuffled permutes each subject's signals, permuted "
            "permutes the labels of the pictures"
        ),
    )
    corrections: Annotated[
        list[Annotated[Any, parts.part_validator("corrections", "csls")]],
        BeforeValidator(split_commas),
    ] = Field(
        [],
        description="corrections of the similarities by all test signals, each "
        "applied after the previous one: whitening, csls, sinkhorn or assignment. "
        "Their rows are controls",
    )
    subsets: int | None = Field(
        None,
        gt=1,
        le=1_000_000,
        description="size of small galleries for top-1 (NSD: 300), averaged over all "
        "possible ones. At most the number of pictures that a subject was shown",
    )
    repetitions: (
        Annotated[list[PositiveInt], BeforeValidator(split_commas)]
        | Literal["all"]
        | None
    ) = Field(
        None,
        description=(
            "numbers of averaged repetitions for a curve, such as [1, 2, 4]. all: 1, "
            "2, 4, … and all repetitions"
        ),
    )
    region_shares: bool = Field(
        False,
        description="measure how much each head's prediction changes without each "
        "region of voxels",
    )
    ceiling_splits: int = Field(
        10,
        ge=0,
        le=10_000,
        description=(
            "random splits of the repetitions into halves, for the ceiling. 0 leaves "
            "it out"
        ),
    )

    # comparisons with simpler models, and randomness
    baseline: Literal["auto", "ridge", "none"] = Field(
        "auto",
        description="fit a closed-form ridge to the same signals, and if the result is "
        "at chance, try other orders of the pictures. auto: unless it takes longer "
        "than the training, or with a control. ridge: always",
    )
    seed: int = Field(0, ge=0, description="seed of every random choice")

    # what is shown, which changes no number
    sheet_rows: int = Field(
        10, ge=0, description="signals on the sheet of retrieved pictures. 0: no sheet"
    )

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        # a control destroys the pairs that a ridge would learn
        if self.control != "none" and self.baseline == "ridge":
            raise RecipeError(
                "baseline=ridge has no effect with a control", "leave one of them out"
            )
        if len(set(self.splits)) < len(self.splits):
            raise RecipeError(
                f"gallery names a split twice: {self.gallery}", "name each split once"
            )
        if "whitening" in [correction.kind for correction in self.corrections[1:]]:
            raise ValueError(
                "whitening must be the first correction: it computes new similarities"
            )
        return self

    @property
    def splits(self) -> list[str]:
        """Splits whose pictures are the candidates."""
        return self.gallery.split("+")

    @property
    def split(self) -> str:
        """Split whose signals are tested."""
        return self.splits[-1]
