"""The recipe of calibrate: which model of other people, which new persons, how much of
them, which arms.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from brainhive_cli.core import key_types, parts, sections
from brainhive_cli.core.errors import RecipeError, guess
from brainhive_cli.core.recipe import TrainedRunRecipe
from brainhive_cli.core.sections import Section
from brainhive_cli.data.files.subjects import Subjects
from brainhive_cli.data.signals.channel_mapping import ChannelChoice
from brainhive_cli.evaluation.calibration.amounts import UNITS, Order
from brainhive_cli.training.alignment.trained.few_shot import (
    ARMS,
    SCRATCH,
    TRANSFER,
    ZERO_SHOT,
)

SHELVES = ("normalisations", "alignments")
"""Shelves of the alignments of signals and of tokens."""
PICTURES = (10, 20, 50, 100, 200)
"""Usual amounts, where a recipe names none."""


def resolve_alignment(value: Any) -> Any:
    """Resolve an alignment by its name, of signals or of tokens.

    Raises:
        RecipeError: if neither shelf has it.
    """
    # names are unique over both shelves, so a user need not say which one
    if isinstance(value, parts.Config):
        return value
    name = parts.kind_from_file_name(
        str(value.get("kind", "") if isinstance(value, Mapping) else value)
    )
    known = {kind: shelf for shelf in SHELVES for kind in parts.list_kinds(shelf)}
    if name not in known and "." not in name:
        raise RecipeError(
            f"no alignment {name!r}",
            f"{guess(name, known)}alignments: {', '.join(known)}",
        )
    return parts.resolve(known.get(name, SHELVES[1]), value)


AmountList = Annotated[
    list[Annotated[int, Field(ge=1, le=10**7)]], BeforeValidator(key_types.split_commas)
]
"""Amounts in pictures or trials."""


class Transfer(Section):
    """Transfer: fine-tuning with a pull back to the model of other people."""

    pulls: Annotated[
        list[Annotated[float, Field(ge=0, le=1)]],
        BeforeValidator(key_types.split_commas),
    ] = Field(
        [],
        description="values of train.start_pull among which the people whom the model "
        "learned from choose, each left out in turn, next to zero-shot, which trains "
        "many more models; one value is taken as it is; default: by the number of "
        "pictures alone",
    )
    draws: int = Field(
        2, gt=0, le=1000, description="draws of calibration of each of these people"
    )
    align: Annotated[
        Any, parts.part_validator("normalisations", "euclidean", is_optional=True)
    ] = Field(
        {"kind": "euclidean", "shrinkage": 0.1},
        validate_default=True,
        description="alignment of signals before the training, by the person's "
        "recordings without labels; null: none. A model with "
        "signal.normalise has its own, and one of voxels none",
    )


class Recipe(TrainedRunRecipe):
    """Recipe of calibrate."""

    # the model of other people, and the new persons
    align_run: key_types.OneRun = Field(
        None,
        description="an align run, by folder or name, or SWEEP:VARIANT; or the "
        "train-align recipe that made it; or hub:owner/name[@revision]; "
        "default: the newest run (key: run)",
    )
    dataset: parts.OtherDataset = Field(
        None, description="another data set than the run's, whose people are all new"
    )
    subjects: Subjects = Field(
        None,
        description=(
            "new persons; default: all whom a model of the run has not learned from"
        ),
    )
    copies: key_types.Copies = "refuse"
    channel_mapping: ChannelChoice = Field(
        "none",
        description="channels of the models that the new persons' recordings lack, as "
        "in eval-retrieval: none refuses them, spline interpolates EEG, "
        "common fills them with the mean",
    )

    # how much of a person is learned from, in one unit
    pictures: AmountList = Field(
        [], description=f"amounts in pictures; default: {PICTURES}, and all there are"
    )
    trials: AmountList = Field(
        [], description="amounts in single trials, instead of pictures"
    )
    minutes: Annotated[
        list[Annotated[float, Field(gt=0, le=1e6)]],
        BeforeValidator(key_types.split_commas),
    ] = Field([], description="amounts in minutes of recording, instead of pictures")
    order: Order = Field(
        "draws",
        description=(
            "draws: pictures or moments at random; recording: the first ones, as a "
            "clinic has them"
        ),
    )
    draws: int = Field(
        3, gt=0, le=1000, description="draws of each amount; recorded order has one"
    )

    # ways of learning from a person
    arms: Annotated[key_types.NameList, sections.require_names("arm", ARMS)] = Field(
        [ZERO_SHOT, TRANSFER, SCRATCH],
        min_length=1,
        description=f"arms that are measured: {', '.join(ARMS)}",
    )
    alignments: Annotated[
        list[Any],
        BeforeValidator(
            lambda value: [
                resolve_alignment(each) for each in key_types.split_commas(value) or []
            ]
        ),
    ] = Field(
        [],
        description="further arms: alignments of signals (euclidean, riemannian, "
        "whiten, channel) and of tokens (coral, moments; by pairs "
        "procrustes, ridge)",
    )
    transfer: Transfer = Transfer()

    # randomness
    seed: int = Field(0, ge=0, description="seed of draws and trainings")

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        # curves have one axis
        units = [unit for unit in UNITS if getattr(self, unit)]
        if len(units) > 1:
            raise RecipeError(
                f"amounts in {' and in '.join(units)}", "name one of them"
            )

        # keys without an effect are refused, so that no one trusts them
        if self.order == "recording":
            sections.refuse_idle(self, "draws", "in the order of recording")
        if not any(arm.endswith(TRANSFER) for arm in self.arms):
            sections.refuse_idle(self, "transfer", "without the arm transfer")
        return self
