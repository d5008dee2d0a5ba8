"""Recipe of calibrate."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from brainhive_cli.core.base import RecipeError, guess
from brainhive_cli.core.recipes import (
    Copies,
    NameList,
    OneRunRecipe,
    Section,
    flag_field,
    parts,
    refuse_idle,
    require_names,
    split_commas,
)
from brainhive_cli.data.files import Subjects
from brainhive_cli.data.signals import ChannelChoice
from brainhive_cli.evaluation.calibration.amounts import UNITS, Order, Unit
from brainhive_cli.training.alignment.trained import ARMS, SCRATCH, TRANSFER, ZERO_SHOT

SIGNAL_SHELF = "normalisations"
"""Shelf of the alignments of signals."""
PICTURES = (10, 20, 50, 100, 200)
"""Amounts in pictures, if the recipe names no amounts."""


def resolve_alignment(value: Any) -> Any:
    """Resolve an alignment of signals or of tokens by its name.

    Raises:
        RecipeError: if neither shelf has it.
    """
    if isinstance(value, parts.Config):
        return value
    kind = value.get("kind", "") if isinstance(value, Mapping) else value
    name = parts.kind_from_file_name(str(kind))
    # names are unique over both shelves
    shelf_of = {}
    # Shelf of the alignments of tokens.
    token_shelf = "alignments"
    for shelf in (SIGNAL_SHELF, token_shelf):
        shelf_of.update(dict.fromkeys(parts.list_kinds(shelf), shelf))
    if name not in shelf_of and "." not in name:
        raise RecipeError(
            f"no alignment {name!r}",
            f"{guess(name, shelf_of)}alignments: {', '.join(shelf_of)}",
        )
    return parts.resolve(shelf_of.get(name, token_shelf), value)


def resolve_alignments(value: Any) -> list[Any]:
    """Resolve a list of alignments, or a text with commas."""
    names = split_commas(value) or []
    return list(map(resolve_alignment, names))


AmountList = Annotated[
    list[Annotated[int, Field(ge=1, le=10**7)]], BeforeValidator(split_commas)
]
"""Amounts in pictures or trials."""


class Transfer(Section):
    """Settings of transfer: fine-tuning with a pull to the model of other people."""

    pulls: Annotated[
        list[Annotated[float, Field(ge=0, le=1)]],
        BeforeValidator(split_commas),
    ] = Field(
        [],
        description="values of train.start_pull. Several are compared on the people of "
        "the model, each left out in turn, which trains many more models. Default: the "
        "number of pictures decides",
    )
    draws: int = Field(
        2, gt=0, le=1000, description="draws of the recordings of each of these people"
    )
    align: Annotated[
        Any, parts.part_validator("normalisations", "euclidean", is_optional=True)
    ] = Field(
        {"kind": "euclidean", "shrinkage": 0.1},
        validate_default=True,
        description="alignment of the person's signals before the training, without "
        "labels. null: none. Models with signal.normalise keep theirs, and voxels have "
        "none",
    )


class Recipe(OneRunRecipe):
    """Recipe of calibrate: the model, the new persons, the amounts and the arms."""

    writes_run = True
    summary = (
        "Show how the accuracy for a new person grows with the amount of recording."
    )
    example = "--minutes 1,5,15,60"
    split: ClassVar[str] = "test"

    # the new persons
    dataset: parts.OtherDataset = Field(
        None, description="another data set than the run's, whose people are all new"
    )
    subjects: Subjects = flag_field(
        None, "new people, as in 1,2. Default: all who are new to a model of the run"
    )
    copies: Copies = "refuse"
    channel_mapping: ChannelChoice = Field(
        "none",
        description="channels of the models that recordings of new persons lack: none "
        "refuses them, spline interpolates EEG, common fills them with the mean",
    )

    # amounts of recording of a new person, in one unit
    pictures: AmountList = flag_field(
        [],
        "amounts of recording in pictures, as in 10,50,100. Default: "
        f"{','.join(map(str, PICTURES))}, and everything",
    )
    trials: AmountList = flag_field(
        [], "amounts of recording in single trials, instead of pictures"
    )
    minutes: Annotated[
        list[Annotated[float, Field(gt=0, le=1e6)]],
        BeforeValidator(split_commas),
    ] = flag_field([], "amounts of recording in minutes, instead of pictures")
    order: Order = flag_field(
        "draws",
        "choice of trials: draws (random pictures or moments) or recording "
        "(the first ones, as in a clinic)",
    )
    draws: int = flag_field(
        3,
        "number of random draws of each amount. The recorded order has a single one",
        gt=0,
        le=1000,
    )

    # methods of training on a new person
    arms: Annotated[NameList, require_names("arm", ARMS)] = flag_field(
        [ZERO_SHOT, TRANSFER, SCRATCH],
        "calibration methods (arms), as in zero-shot,transfer. They "
        f"are {', '.join(ARMS)}",
        min_length=1,
    )
    alignments: Annotated[
        list[Any],
        BeforeValidator(resolve_alignments),
    ] = Field(
        [],
        description="alignments that are further arms: of signals (euclidean, "
        "riemannian, whiten, channel), of tokens (coral, moments), or of tokens with "
        "labels (procrustes, ridge)",
    )
    transfer: Transfer = Transfer()

    # randomness
    seed: int = Field(0, ge=0, description="seed of draws and trainings")

    def list_amounts(self, unit: Unit) -> Sequence[float]:
        """Return the amounts in a unit, or an empty list if the recipe names none."""
        if unit == "minutes":
            return self.minutes
        return self.trials if unit == "trials" else self.pictures

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        # a curve has a single horizontal axis
        units = list(filter(self.list_amounts, UNITS))
        if len(units) > 1:
            raise RecipeError(
                f"amounts in {' and in '.join(units)}", "name one of them"
            )

        # refuse keys without an effect
        if self.order == "recording":
            refuse_idle(self, "draws", "in the order of recording")
        if not any(arm.endswith(TRANSFER) for arm in self.arms):
            refuse_idle(self, "transfer", "without the arm transfer")
        return self
