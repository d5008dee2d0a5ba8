"""The recipe of eval-retrieval: which runs are evaluated, and what is measured on
them.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from brainhive_cli.core import key_types, parts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.recipe import TrainedRunRecipe
from brainhive_cli.data.files.subjects import Subjects
from brainhive_cli.data.signals.channel_mapping import ChannelChoice


class Recipe(TrainedRunRecipe):
    """Recipe of eval-retrieval: the runs, the subjects, the measurements."""

    is_tracked = True

    # which models are tested, and on whose signals
    align_run: key_types.NameList | None = Field(
        None,
        description="an align run, by folder or name, or SWEEP:VARIANT; several are "
        "averaged; or the train-align recipe that made it; or a model "
        "folder; or hub:owner/name[@revision]; default: the newest run "
        "(key: run)",
    )
    dataset: parts.OtherDataset = Field(
        None, description="another data set than the run's: zero-shot transfer"
    )
    subjects: Subjects = Field(
        None, description="subjects tested on; default: the run's"
    )
    copies: key_types.Copies = "refuse"
    channel_mapping: ChannelChoice = Field(
        "none",
        description="channels of the models that recordings lack: none refuses them, "
        "spline interpolates EEG between the sensors, common fills them "
        "with the mean",
    )

    # candidates, and the vectors that they are compared by
    gallery: str = Field(
        "test",
        description=(
            "splits whose pictures are searched, as in train+test; signals are the "
            "last's"
        ),
    )
    only_shown: bool = Field(
        False,
        description="search among those pictures of the signals' split that a tested "
        "subject was shown: 982 of NSD's 1000 where signals were prepared "
        "so",
    )
    head: str | None = Field(
        None,
        description=(
            "the head that is compared, flattened; default: the model's own, token, or "
            "the only one"
        ),
    )

    # measurements next to the result: controls, corrections, curves and ceilings
    control: Literal["none", "shuffled", "permuted"] = Field(
        "none",
        description=(
            "at chance: shuffled permutes each subject's signals, permuted the "
            "pictures' labels"
        ),
    )
    corrections: Annotated[
        list[Annotated[Any, parts.part_validator("corrections", "csls")]],
        BeforeValidator(key_types.split_commas),
    ] = Field(
        [],
        description="corrections of similarities by all test signals together, one on "
        "top of the other: rows next to the result, as controls; "
        "whitening, csls, sinkhorn, assignment",
    )
    subsets: int | None = Field(
        None,
        gt=1,
        le=1_000_000,
        description="pictures of small galleries, of which all that could be drawn "
        "count (NSD: 300); where a subject was shown fewer, all pictures "
        "are one",
    )
    repetitions: (
        Annotated[list[PositiveInt], BeforeValidator(key_types.split_commas)]
        | Literal["all"]
        | None
    ) = Field(
        None,
        description=(
            "curve over how many are averaged, as [1, 2, 4]; all: 1, 2, 4, … and all"
        ),
    )
    region_shares: bool = Field(
        False,
        description="what each region of voxels carries of each head's predictions",
    )
    ceiling_splits: int = Field(
        10,
        ge=0,
        le=10_000,
        description=(
            "random halvings of repetitions for the ceiling of the signals; 0 leaves "
            "it out"
        ),
    )

    # comparisons with simpler models, and randomness
    baseline: Literal["auto", "ridge", "none"] = Field(
        "auto",
        description="a closed-form ridge on the same signals; where the result is at "
        "chance, other orders of the pictures are tried, too; auto: unless it would "
        "take longer than the training, or there is a control; ridge: always",
    )
    seed: int = Field(0, ge=0, description="seed of every random choice")

    # comparisons with other runs, which are measured in the same way
    compare: str | None = Field(
        None,
        description="the variant of a sweep that the others are compared with, by its "
        "label; default: the one of best validation, or the first where "
        "there is none",
    )
    against: key_types.NameList | None = Field(
        None, description="align runs to compare with, item by item"
    )

    # what is shown, which changes no number
    sheet_rows: int = Field(
        10, ge=0, description="queries on the top-k sheet; 0: no sheet"
    )

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        # a ridge tests whether signals carry pictures, which a control has destroyed
        if self.control != "none" and self.baseline == "ridge":
            raise RecipeError(
                "baseline=ridge has no effect with a control", "leave one of them out"
            )
        if len({*self.splits}) < len(self.splits):
            raise RecipeError(
                f"gallery names a split twice: {self.gallery}", "name each split once"
            )
        if "whitening" in [correction.kind for correction in self.corrections[1:]]:
            raise ValueError(
                "whitening computes similarities anew, so it comes first in corrections"
            )
        return self

    @property
    def splits(self) -> list[str]:
        """The splits whose pictures are candidates."""
        return self.gallery.split("+")

    @property
    def split(self) -> str:
        """The split whose signals are used."""
        return self.splits[-1]
