"""Recipe of design."""

import itertools
import math
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from brainhive_cli.core.base import RecipeError
from brainhive_cli.core.recipes import (
    FileRecipe,
    OneRun,
    Section,
    flag_field,
    refuse_idle,
    split_commas,
)
from brainhive_cli.evaluation.planning.designs import MARGIN_S, Design, StudyClaim

MAX_CANDIDATES = 200
"""Largest number of designs. The simulation of a design takes about two seconds."""
DEFAULT_DEVICE = "eeg"
"""Device of a plan without assumptions."""
ONSET_INTERVAL_S = {"3t": 4.0, "7t": 4.0}
"""Time between onsets by device, if the recipe names none. NSD showed a picture every
4 s (Allen et al. 2022).
"""
DEFAULT_ONSET_INTERVAL_S = 1.0
"""Time between onsets with other devices."""
TRAIN_PICTURES = (200, 700)
"""Numbers of training pictures, if the recipe names none and there is no folder."""
TRAIN_PERCENT = (30, 60)
"""Numbers of training pictures in percent of the folder, if the recipe names none."""
TEST_PICTURES = 50
"""Largest number of test pictures, if the recipe names none."""
MAX_TEST_PERCENT = 20
"""Largest number of test pictures in percent of the folder, if the recipe names none.
"""
MIN_TEST_PICTURES = 2
"""Smallest number of test pictures."""

CountList = Annotated[
    list[Annotated[int, Field(ge=1, le=10**6)]],
    BeforeValidator(split_commas),
]
"""Candidates of a whole number, such as `5,10`."""
Durations = Annotated[
    list[Annotated[float, Field(gt=0, le=1e5)]],
    BeforeValidator(split_commas),
]
"""Candidates of a duration, such as `0.5,1`."""
UnitShare = Annotated[float, Field(ge=0, le=1)]


class Expected(Section):
    """Retrieval that the user expects from a known amount of recording."""

    top1: UnitShare = Field(description="mean top-1 over people, from 0 to 1")
    low: UnitShare = Field(description="top-1 of a weak person, about the 5 % quantile")
    high: UnitShare = Field(
        description="top-1 of a strong person, about the 95 % quantile"
    )
    train_pictures: int = Field(ge=1, description="training pictures of this result")
    train_repetitions: int = Field(ge=1, description="repetitions of each of them")
    test_pictures: int = Field(ge=2, description="test pictures, which are candidates")
    test_repetitions: int = Field(ge=1, description="repetitions of each of them")
    people: int = Field(
        1, ge=1, description="people of this result. The fewer, the wider the range"
    )

    @model_validator(mode="after")
    def _require_order(self) -> Self:
        if not self.low <= self.top1 <= self.high:
            raise RecipeError(
                f"expected.top1 {self.top1:g} is not between expected.low "
                f"{self.low:g} and expected.high {self.high:g}",
                "give the mean, a weak and a strong person",
            )
        return self


class StudyOrder(Section):
    """Order and timing of the written study."""

    runs: int = Field(6, ge=1, le=100, description="runs of a session")
    stimulus_ms: float = Field(
        500, gt=0, le=60_000, description="time that a picture is shown"
    )
    catch_share: float = Field(
        0.05, ge=0, lt=0.5, description="share of trials that ask for a key press"
    )
    break_s: float = Field(60, ge=0, le=3600, description="break between runs")
    trigger_bits: Literal[8, 16] = Field(8, description="bits of the trigger port")

    @property
    def pause_minutes(self) -> float:
        """Minutes of a session without trials: breaks, and the margins of runs."""
        return ((self.runs - 1) * self.break_s + 2 * self.runs * MARGIN_S) / 60


class Recipe(FileRecipe):
    """Recipe of design."""

    writes_run = True
    skips_finished = True
    summary = (
        "Plan a study: how much recording is enough, and in which order to show your "
        "pictures."
    )
    example = "--device 7t --people 4,8 --question top1 --size 0.1"

    # question
    question: StudyClaim = flag_field(
        "above-chance",
        "claim to support: above-chance, top1 (at least size), interval "
        "(of top-1, at most size wide) or difference (of two models, size in top-1)",
    )
    size: float | None = flag_field(
        None,
        "size for the question, from 0 to 1: top-1, width of its interval, "
        "or difference of two models",
        gt=0,
        lt=1,
    )
    new_people: bool = flag_field(False, "plan a claim about people in general")

    # assumptions
    pilot: OneRun = flag_field(
        None,
        "recording to plan from: a run of eval-retrieval or train-align, "
        "or a signal store",
        names="@runs/eval-retrieval",
    )
    device: Literal["eeg", "meg", "3t", "7t", "consumer"] | None = flag_field(
        None,
        "device with published results: eeg, meg, 3t, 7t or consumer. "
        f"Default: {DEFAULT_DEVICE}",
    )
    expected: Expected | None = Field(
        None, description="result to plan from, in place of pilot or device"
    )
    pictures: str = flag_field(
        "",
        "folder of your pictures, for which the order is written. It has a "
        "subfolder for each concept",
    )
    encoder: str | None = Field(
        None,
        description="encoder that says how alike pictures are. Default: the pilot's, "
        "and lite0 for the folder",
    )
    price_per_hour: float | None = flag_field(
        None, "price of an hour of recording", gt=0
    )

    # candidates
    people: CountList = flag_field([5, 10], "numbers of people", min_length=1)
    sessions: CountList = flag_field(
        [], "sessions of each person. Default: as many as needed"
    )
    session_minutes: Durations = flag_field(
        [60.0], "minutes of a session, with the breaks between runs", min_length=1
    )
    onset_interval_s: Durations = flag_field(
        [],
        "seconds from the onset of a picture to the next. Default: the "
        f"pilot's, {ONSET_INTERVAL_S['7t']:g} with fMRI, else "
        f"{DEFAULT_ONSET_INTERVAL_S:g}",
    )
    train_pictures: CountList = flag_field(
        [],
        "numbers of training pictures. Default: "
        f"{','.join(map(str, TRAIN_PICTURES))}, or "
        f"{' and '.join(map(str, TRAIN_PERCENT))} % of the folder",
    )
    train_repetitions: CountList = flag_field(
        [1, 4], "repetitions of each training picture", min_length=1
    )
    test_pictures: CountList = flag_field(
        [],
        f"numbers of test pictures. Default: {TEST_PICTURES}, and at most "
        f"{MAX_TEST_PERCENT} % of the folder",
    )
    test_repetitions: CountList = flag_field(
        [4], "repetitions of each test picture", min_length=1
    )
    window_ms: tuple[float, float] | None = Field(
        None,
        description="window after the onset that will be decoded, to warn if it "
        "contains the next picture. Default: the pilot's",
    )

    # written study
    order: StudyOrder = StudyOrder()
    write: int | None = flag_field(
        None,
        "number of the design whose order is written. Default: the recommended design",
        ge=1,
    )
    seed: int = Field(0, ge=0, description="seed of the simulations and the order")

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        if self.question == "above-chance":
            refuse_idle(self, "size", "with question=above-chance")
        elif self.size is None:
            raise RecipeError(
                f"question={self.question} needs a size",
                "add a size from 0 to 1, as in --size 0.2",
            )
        if min(self.test_pictures, default=MIN_TEST_PICTURES) < MIN_TEST_PICTURES:
            raise RecipeError(
                "a single test picture has no other candidates",
                f"plan at least {MIN_TEST_PICTURES} test pictures",
            )
        sources = [key for key in ("pilot", "device", "expected") if getattr(self, key)]
        if len(sources) > 1:
            raise RecipeError(
                f"{' and '.join(sources)} are both set", "plan from one of them"
            )
        if not self.pictures:
            refuse_idle(self, "write", "without pictures")
            unused_keys = ("stimulus_ms", "trigger_bits")
            refuse_idle(self.order, unused_keys, "without pictures")
            if not self.pilot:
                refuse_idle(self, "encoder", "without pictures or a pilot")
        pause_minutes = self.order.pause_minutes
        if min(self.session_minutes) <= pause_minutes:
            raise RecipeError(
                f"session_minutes={min(self.session_minutes):g} leaves no time for "
                f"pictures: breaks and margins of {self.order.runs} runs take "
                f"{pause_minutes:g} min",
                "raise session_minutes, or lower order.runs or order.break_s",
            )
        return self

    @property
    def device_name(self) -> str:
        """Device to plan from, or "" with a pilot or an expected result."""
        is_other = self.pilot or self.expected
        return "" if is_other else self.device or DEFAULT_DEVICE

    def list_designs(
        self, n_pictures: int | None = None, pilot_interval_s: float = 0
    ) -> list[Design]:
        """List the candidates, ascending in hours.

        Args:
            n_pictures: Number of pictures that can be shown, or None if unlimited.
            pilot_interval_s: Time between onsets of the pilot, or 0 if unknown.

        Raises:
            RecipeError: if there are too many candidates, or too few pictures.
        """
        interval_s = pilot_interval_s or ONSET_INTERVAL_S.get(
            self.device_name, DEFAULT_ONSET_INTERVAL_S
        )
        train_pictures = list(TRAIN_PICTURES)
        test_pictures = TEST_PICTURES
        if n_pictures is not None:
            train_pictures = [n_pictures * share // 100 for share in TRAIN_PERCENT]
            largest_test = min(TEST_PICTURES, n_pictures * MAX_TEST_PERCENT // 100)
            test_pictures = max(MIN_TEST_PICTURES, largest_test)

        # a list of candidates for each field of a design
        lists: dict[str, list[Any]] = {
            "people": self.people,
            "sessions": self.sessions or [1],
            "session_minutes": self.session_minutes,
            "onset_interval_s": self.onset_interval_s or [interval_s],
            "train_pictures": self.train_pictures or train_pictures,
            "train_repetitions": self.train_repetitions,
            "test_pictures": self.test_pictures or [test_pictures],
            "test_repetitions": self.test_repetitions,
            "pause_minutes": [self.order.pause_minutes],
            "catch_share": [self.order.catch_share],
        }
        if n_pictures is not None:
            n_needed = max(lists["train_pictures"]) + max(lists["test_pictures"])
            if n_needed > n_pictures or not all(lists["train_pictures"]):
                raise RecipeError(
                    f"{self.pictures} has {n_pictures} pictures, but the designs need "
                    f"{max(n_needed, 2 * MIN_TEST_PICTURES)}",
                    "add pictures, or lower train_pictures or test_pictures",
                )
        n_candidates = math.prod(map(len, lists.values()))
        if n_candidates > MAX_CANDIDATES:
            raise RecipeError(
                f"the lists have {n_candidates} combinations, more than "
                f"{MAX_CANDIDATES}",
                "shorten the lists of candidates",
            )

        designs = []
        for values in itertools.product(*lists.values()):
            design = Design(**dict(zip(lists, values, strict=True)))
            if not self.sessions:
                design = replace(design, sessions=design.least_sessions)
            designs.append(design)
        return sorted(designs, key=lambda design: (design.hours, design.trials))
