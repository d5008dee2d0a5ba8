"""Facts of calibrate."""

from typing import Literal

from brainhive_cli.core.results import Facts, FrozenModel


class Amount(FrozenModel):
    """Amount of recording that calibrates a model to a new person.

    Attributes:
        name: Name of the amount.
        pictures: Mean number of pictures over persons.
        trials: Mean number of trials over persons.
        minutes: Mean minutes of recording over persons, or None if unknown.
    """

    name: str
    pictures: float
    trials: float
    minutes: float | None = None


class Strength(FrozenModel):
    """Strength with which transfer pulls a new model towards the model of other people.

    Attributes:
        pulls: Strength by amount, or None for zero-shot, without training.
        chosen_by: `people`: by the accuracy in other people. `recipe`: by the recipe.
            `closed form`: the model has none. Otherwise: by the number of pictures.
        people: Number of people whose accuracy was used.
        mrr: Mean reciprocal rank by amount and strength, with `people`.
    """

    pulls: dict[str, float | None]
    chosen_by: Literal[
        "people",
        "recipe",
        "closed form",
        "one person",
        "another model",
        "number of pictures",
    ]
    people: int = 0
    mrr: dict[str, dict[str, float]] = {}


class CalibrationFacts(Facts):
    """Facts of calibrate.

    Attributes:
        arm: Way to calibrate that the finding is about, or "" with only controls.
        arms: Data from a new person, MOABB's name for it, and method, by arm.
        unit: Unit of the amounts.
        amounts: Amounts of recording, ascending. The last is everything.
        people: Top-1 of the arm `arm` with each amount, by person.
        is_above_chance: True if this top-1 with everything is above chance.
        lead: Smallest amount that surely gives 90 % of the top-1 with everything, or
            else the largest amount below everything. Empty for everything.
        suffices: Indices of two amounts, or None if not measured. All amounts that
            surely give less than 90 % of everything lie below the first. All amounts
            from the second on surely give 90 % or more.
        better: Indices of two amounts, or None if not compared with enough people. All
            amounts at which transfer surely beats training from scratch lie below the
            first. At all amounts from the second on, it surely does not.
        strength: Strength of transfer, by model and person.
        trained_on: Smallest and largest number of people in the training of a model.
        seen_share: Share of the new persons' pictures that these people saw too.
        epochs: Epochs of each training, or None in closed form.
        pictures_left_out: Number of pictures left out, by person.
    """

    command: str = "calibrate"
    arm: str = ""
    arms: dict[str, tuple[str, str, str]] = {}
    unit: Literal["pictures", "trials", "minutes"] = "pictures"
    amounts: list[Amount] = []
    people: dict[str, list[float]] = {}
    is_above_chance: bool = False
    lead: str = ""
    suffices: tuple[int, int] | None = None
    better: tuple[int, int] | None = None
    strength: dict[str, Strength] = {}
    trained_on: tuple[int, int] = (0, 0)
    seen_share: float = 0.0
    epochs: int | None = None
    pictures_left_out: dict[str, int] = {}
